"""Residual networks of dense layers."""

import math
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import check_positive_integer
from .._memory import check_parameters
from .._section import Count
from ._activations import Activation
from ._activations import activation as find_activation
from ._initialisations import Initialisation, initialisation
from ._layers import Dense, as_sample
from ._section import DenseSection


class Residual(eqx.Module):
    """`W_out h_L + b_out` with `h_0 = W_in x + b_in` and `h_{l+1} = h_l + s(W_l h_l + b_l) / L`.

    On one sample of any shape, flattened. Its only leaves are weights and biases. As the number of
    blocks L grows, the blocks become the Euler steps of a differential equation.
    """

    enter: Dense
    blocks: tuple[Dense, ...]
    leave: Dense
    activation: Activation = eqx.field(static=True)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "outputs"]:
        h = self.enter(as_sample(x, self.enter.weight.shape[1:]))
        for block in self.blocks:
            h = h + self.activation(block(h)) / len(self.blocks)
        return self.leave(h)


def residual(
    features: int,
    width: int,
    blocks: int,
    outputs: int,
    *,
    activation: str | Activation | Callable[[Array], Array] = "tanh",
    bias: bool = True,
    init: str | Initialisation = "lecun",
    key: PRNGKeyArray,
) -> Residual:
    """A residual network of dense layers, each added to what enters it.

        network = tw.networks.residual(64, 16, 4, 10, key=jax.random.key(0))

    **Arguments:**

    - `features`, `width`, `blocks`, `outputs`: the number of inputs, of units in every block, of
        blocks, and of outputs.
    - `activation`, `bias`, `init`: as in `fully_connected`.
    - `key`: the PRNG key for the weights.

    **Raises:** ValueError for sizes that are not positive integers, more parameters than fit into
    the machine's memory, or an unknown name.

    ??? cite "Reference"

        He, Zhang, Ren and Sun, "Deep residual learning for image recognition", IEEE Conference on
        Computer Vision and Pattern Recognition (2016).
    """
    for field, number in (
        ("features", features),
        ("width", width),
        ("blocks", blocks),
        ("outputs", outputs),
    ):
        check_positive_integer(number, field)
    law = initialisation(init)
    numbers = width * (features + blocks * width + outputs) + bias * (
        width * (blocks + 1) + outputs
    )
    check_parameters(numbers, "width", jnp.result_type(float).itemsize)
    first, last, *keys = jr.split(key, blocks + 2)
    return Residual(
        Dense(features, width, bias, law, first),
        tuple(Dense(width, width, bias, law, k) for k in keys),
        Dense(width, outputs, bias, law, last),
        find_activation(activation),
    )


class ResidualSection(DenseSection):
    """`kind = "residual"`: width, number of blocks, activation, biases, initialisation."""

    kind: Literal["residual"] = "residual"
    width: Count = 32
    blocks: Count = 4

    def draw(self, sample: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> Residual:
        return residual(
            math.prod(sample),
            self.width,
            self.blocks,
            outputs,
            activation=self.activation,
            bias=self.bias,
            init=self.init,
            key=key,
        )
