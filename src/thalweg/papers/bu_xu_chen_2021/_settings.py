"""The two settings: the published experiments', and the one that the theorems are about."""

import abc
import math
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ... import kernels
from ..._checks import check_positive_integer
from ...losses import squared_error
from ...networks import FullyConnected, Initialisation, apply, two_layer
from ...networks._activations import activation
from ...networks._layers import Dense
from ...objectives import Objective
from ...optimizers import ClassicalOptimizer
from ._methods import Method
from ._published import (
    EPOCHS,
    HEAVY_BALL_WIDTHS,
    NESTEROV_WIDTHS,
    SAMPLES,
    STEP_SIZE,
    WIDTH,
    WIDTHS_EPOCHS,
    WIDTHS_STEP_SIZE,
)

# As in the published code.
DTYPE = jnp.float32


@dataclass(frozen=True)
class Protocol:
    """How many images, how wide the network, how long: by epoch, and at many widths."""

    samples: int = SAMPLES
    width: int = WIDTH
    epochs: int = EPOCHS
    heavy_ball_widths: tuple[int, ...] = HEAVY_BALL_WIDTHS
    nesterov_widths: tuple[int, ...] = NESTEROV_WIDTHS
    widths_epochs: int = WIDTHS_EPOCHS

    def __post_init__(self):
        check_positive_integer(self.epochs, "epochs")
        check_positive_integer(self.widths_epochs, "widths_epochs")


class Setting(abc.ABC):
    """A network, what it is trained on, and with which step sizes.

    `has_limit`: whether its tangent kernel has a limit as the width grows.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    has_limit: ClassVar[bool]
    protocol: Protocol

    @abc.abstractmethod
    def objective(
        self, images: Float[Array, "samples height width"], labels: Float[Array, "samples"]
    ) -> Objective:
        """The landscape, from images in [0, 1] and labels as numbers."""

    @abc.abstractmethod
    def network(self, features: int, width: int, key: PRNGKeyArray) -> PyTree[Array]:
        """The network at its start."""

    @abc.abstractmethod
    def step_sizes(self, objective: Objective) -> tuple[float, float]:
        """By epoch, and at many widths."""

    @abc.abstractmethod
    def optimizer(self, method: Method, step_size: float) -> ClassicalOptimizer:
        """The method as this setting takes it."""


@dataclass(frozen=True)
class Published(Setting):
    """Pixels as they are, both layers trained, no factor of the width."""

    protocol: Protocol = field(default_factory=Protocol)
    name: ClassVar[str] = "published"
    title: ClassVar[str] = "The published setting"
    has_limit: ClassVar[bool] = False

    def objective(self, images, labels):
        return Objective(apply, squared_error, images.astype(DTYPE), labels.astype(DTYPE)[:, None])

    def network(self, features, width, key):
        return _single(unscaled(features, width, key))

    def step_sizes(self, objective):
        # Of a loss that is twice ours, which has 1/2 in front of the square.
        return 2 * STEP_SIZE, 2 * WIDTHS_STEP_SIZE

    def optimizer(self, method, step_size):
        return method.as_published(step_size)


@dataclass(frozen=True)
class Theory(Setting):
    """Images of length 1, a fixed layer of signs, and 1/sqrt(width).

    The step size is the inverse of the largest curvature of the infinitely wide network.
    """

    protocol: Protocol = field(
        default_factory=lambda: Protocol(
            epochs=1000,
            heavy_ball_widths=(500, 1000, 2000, 4000, 8000),
            nesterov_widths=(500, 1000, 2000, 4000, 8000),
        )
    )
    name: ClassVar[str] = "theory"
    title: ClassVar[str] = "The theory's setting"
    has_limit: ClassVar[bool] = True

    def objective(self, images, labels):
        rows = images.reshape(len(images), -1)
        inputs = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
        return Objective(apply, squared_error, inputs.astype(DTYPE), labels.astype(DTYPE))

    def network(self, features, width, key):
        return _single(two_layer(features, width, key=key))

    def step_sizes(self, objective):
        steepest = float(infinitely_wide(objective).curvatures.max())
        return 1 / steepest, 1 / steepest

    def optimizer(self, method, step_size):
        return method.optimizer(step_size)


def _single(network: PyTree[Array]) -> PyTree[Array]:
    return jax.tree.map(lambda w: w.astype(DTYPE), network)


def infinitely_wide(objective: Objective) -> kernels.Modes:
    """The kernel of the theory's network as its width goes to infinity."""
    inputs = objective.inputs.astype(float)
    return kernels.modes(kernels.two_layer(inputs.shape[1])(inputs).tangent)


class _Inner(Initialisation):
    """N(0, 1/width^2), and biases uniform within the inverse root of the number of inputs."""

    name: ClassVar[str] = "unscaled, inner"

    def weight(self, key, shape, fan_in, fan_out):
        return jr.normal(key, shape) / fan_out

    def bias(self, key, size, fan_in):
        return jr.uniform(key, (size,), minval=-1, maxval=1) / math.sqrt(fan_in)


class _Outer(Initialisation):
    """Uniform within 1."""

    name: ClassVar[str] = "unscaled, outer"

    def weight(self, key, shape, fan_in, fan_out):
        return jr.uniform(key, shape, minval=-1, maxval=1)


def unscaled(features: int, width: int, key: PRNGKeyArray) -> FullyConnected:
    """The published network: no factor of the width, and no bias in the second layer."""
    inner, outer = jr.split(key)
    layers = (
        Dense(features, width, True, _Inner(), inner),
        Dense(width, 1, False, _Outer(), outer),
    )
    return FullyConnected(layers, activation("relu"))


SETTINGS = {setting.name: setting for setting in (Published(), Theory())}
