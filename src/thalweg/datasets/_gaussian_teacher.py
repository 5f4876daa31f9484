"""Gaussian inputs, labelled by a teacher network."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from .._checks import check_positive, check_positive_integer
from .._memory import check_memory, check_parameters
from .._section import Count
from ..networks import Activation, ActivationName, FullyConnected, fully_connected
from ._dataset import Dataset
from ._section import DataSection, DataShape


def gaussian_teacher(
    samples: int,
    features: int,
    *,
    teacher: eqx.Module | Callable[[Float[Array, "features"]], Array] | None = None,
    hidden: int = 4,
    outputs: int = 1,
    activation: str | Activation | Callable[[Array], Array] = "relu",
    noise: float = 0.0,
    key: PRNGKeyArray,
) -> Dataset:
    """Inputs x ~ N(0, I), targets `teacher(x) + noise * N(0, I)`.

    **Arguments:**

    - `teacher`: any function of one sample; by default a network with one hidden layer of `hidden`
        units with this `activation`, `outputs` outputs and no biases, drawn from `key` with
        N(0, 1/fan_in) weights. The three are used for the default only.
    - `noise`: standard deviation of Gaussian noise on the targets.

    **Raises:** ValueError for sizes that are not positive integers, for more than the machine's
    memory holds, or a negative noise.
    """
    for field, number in (
        ("samples", samples),
        ("features", features),
        ("hidden", hidden),
        ("outputs", outputs),
    ):
        check_positive_integer(number, field)
    check_positive(noise, "noise", zero=True)
    room = jnp.result_type(float).itemsize
    rows, numbers = int(samples), int(features) + int(outputs)
    check_memory(
        rows * numbers * room, "samples", f"{rows:,} samples of {numbers:,} inputs and outputs"
    )
    if teacher is None:
        check_parameters(int(hidden) * numbers, "hidden", room)
    teacher_key, input_key, noise_key = jr.split(key, 3)
    if teacher is None:
        teacher = _default_teacher(features, hidden, outputs, activation, teacher_key)
    inputs = jr.normal(input_key, (samples, features))
    targets = jax.vmap(teacher)(inputs)  # pyright: ignore[reportArgumentType]
    targets = jnp.reshape(targets, (samples, -1))
    targets = targets + noise * jr.normal(noise_key, targets.shape)
    return Dataset(inputs, targets, "gaussian teacher")


def _default_teacher(
    features: int, hidden: int, outputs: int, activation, key: PRNGKeyArray
) -> FullyConnected:
    return fully_connected([features, hidden, outputs], activation=activation, bias=False, key=key)


class GaussianSection(DataSection):
    """`kind = "gaussian"`: Gaussian inputs labelled by a teacher with one hidden layer."""

    kind: Literal["gaussian"] = "gaussian"
    samples: Count
    features: Count
    hidden: Count = 4
    outputs: Count = 1
    activation: ActivationName = "relu"
    noise: Annotated[float, Field(ge=0)] = 0.0

    def shape(self, folder: Path) -> DataShape:
        return DataShape(self.samples, (self.features,), self.outputs, None)

    def load(self, folder: Path, key: PRNGKeyArray) -> Dataset:
        return gaussian_teacher(
            self.samples,
            self.features,
            hidden=self.hidden,
            outputs=self.outputs,
            activation=self.activation,
            noise=self.noise,
            key=key,
        )
