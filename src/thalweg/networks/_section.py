"""What the table `[network]` of a study may declare."""

import abc
import math
from typing import Literal

import equinox as eqx
from jaxtyping import PRNGKeyArray

from .._section import Section
from ._activations import ACTIVATIONS

ActivationName = Literal["linear", "relu", "leaky_relu", "tanh", "softplus", "erf", "gelu"]
InitialisationName = Literal[
    "xavier", "lecun", "he", "near_zero", "tangent_kernel", "uniform_fan_in"
]


class NetworkSection(Section):
    """A network that a study can declare."""

    @property
    @abc.abstractmethod
    def kinks(self) -> bool:
        """Whether the network has kinks."""

    @property
    def at_once(self) -> int | None:
        """How many samples a processor should work on at once; `None` for all."""
        return None

    @abc.abstractmethod
    def draw(self, sample: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> eqx.Module:
        """The network at its start, for samples of a shape.

        **Raises:** what the package's function of that name raises.
        """


def has_kinks(activation: ActivationName) -> bool:
    """Whether an activation has a kink."""
    return not ACTIVATIONS[activation].smooth


class DenseSection(NetworkSection):
    """A network of dense layers: activation, biases, initialisation."""

    activation: ActivationName = "tanh"
    bias: bool = True
    init: InitialisationName = "lecun"

    @property
    def kinks(self) -> bool:
        return has_kinks(self.activation)


def side_of(sample: tuple[int, ...], kind: str) -> int:
    """Height and width of square images with that many numbers.

    **Raises:** ValueError for samples that are no square images.
    """
    features = math.prod(sample)
    side = math.isqrt(features)
    if side**2 != features:
        raise ValueError(f"kind: {kind} needs square images, but samples have {features} numbers.")
    return side
