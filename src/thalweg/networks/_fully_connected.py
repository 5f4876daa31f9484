"""Fully connected networks of any depth."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from .._checks import check_positive_integers
from .._memory import check_parameters
from .._section import Widths
from ._activations import Activation
from ._activations import activation as find_activation
from ._initialisations import Initialisation, initialisation
from ._layers import Dense, as_sample
from ._section import DenseSection


class FullyConnected(eqx.Module):
    """`W_n s(W_{n-1} s(... s(W_1 x + b_1)) ...) + b_n`, on one sample of any shape, flattened.

    Its only leaves are weights and biases: the network is its own PyTree of parameters.
    """

    layers: tuple[Dense, ...]
    activation: Activation = eqx.field(static=True)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "outputs"]:
        x = as_sample(x, self.layers[0].weight.shape[1:])
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


def fully_connected(
    widths: Sequence[int],
    *,
    activation: str | Activation | Callable[[Array], Array] = "tanh",
    bias: bool = True,
    init: str | Initialisation = "lecun",
    key: PRNGKeyArray,
) -> FullyConnected:
    """A fully connected network.

    **Arguments:**

    - `widths`: the number of inputs, the hidden widths, the number of outputs; at least two.
    - `activation`: "linear", "relu", "leaky_relu", "tanh", "softplus", "erf", "gelu", an
        `Activation`, or any elementwise function. Not applied to the outputs.
    - `bias`: whether layers have biases.
    - `init`: "xavier", "lecun", "he", "near_zero", "tangent_kernel", "uniform_fan_in", or an
        `Initialisation`.
    - `key`: the PRNG key for the weights.

    **Raises:** ValueError for widths that are not positive integers, more parameters than fit into
    the machine's memory, or an unknown name; TypeError for a `bias` that is neither True nor False.
    """
    if len(widths) < 2:
        raise ValueError(
            f"widths: expected at least the numbers of inputs and of outputs, got {list(widths)}."
        )
    check_positive_integers(widths, "widths")
    if not isinstance(bias, bool):
        raise TypeError(f"bias: expected True or False, got {bias!r}.")
    law = initialisation(init)
    check_parameters(
        sum((a + bias) * b for a, b in itertools.pairwise(map(int, widths))),
        "widths",
        jnp.result_type(float).itemsize,
    )
    keys = jr.split(key, len(widths) - 1)
    layers = tuple(
        Dense(a, b, bias, law, k)
        for (a, b), k in zip(itertools.pairwise(widths), keys, strict=True)
    )
    return FullyConnected(layers, find_activation(activation))


class FullyConnectedSection(DenseSection):
    """`kind = "fully_connected"`: hidden widths, activation, biases, initialisation."""

    kind: Literal["fully_connected"] = "fully_connected"
    widths: Widths = Field(default=[32])

    def draw(self, sample: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> FullyConnected:
        return fully_connected(
            [math.prod(sample), *self.widths, outputs],
            activation=self.activation,
            bias=self.bias,
            init=self.init,
            key=key,
        )
