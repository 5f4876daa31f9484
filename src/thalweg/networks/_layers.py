"""The two kinds of layers with weights, the pooling between them, and the shape of what enters."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ._initialisations import Initialisation


class Dense(eqx.Module):
    """`weight_scale * weight @ x + bias_scale * bias`."""

    weight: Float[Array, "outputs inputs"]
    bias: Float[Array, "outputs"] | None
    weight_scale: float = eqx.field(static=True)
    bias_scale: float = eqx.field(static=True)

    def __init__(
        self, inputs: int, outputs: int, bias: bool, init: Initialisation, key: PRNGKeyArray
    ):
        weight_key, bias_key = jr.split(key)
        self.weight = init.weight(weight_key, (outputs, inputs), inputs, outputs)
        self.bias = init.bias(bias_key, outputs, inputs) if bias else None
        self.weight_scale = init.weight_scale(inputs)
        self.bias_scale = init.bias_scale()

    def __call__(self, x: Float[Array, "inputs"]) -> Float[Array, "outputs"]:
        y = self.weight @ x
        if self.weight_scale != 1:
            y = self.weight_scale * y
        return y if self.bias is None else y + self.bias_scale * self.bias


class Convolution(eqx.Module):
    """A two-dimensional convolution (cross-correlation, as everywhere in this field)."""

    weight: Float[Array, "outputs inputs kernel kernel"]
    bias: Float[Array, "outputs"] | None
    stride: int = eqx.field(static=True)
    padding: int = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool,
        init: Initialisation,
        key: PRNGKeyArray,
    ):
        weight_key, bias_key = jr.split(key)
        fan_in, fan_out = inputs * kernel**2, outputs * kernel**2
        self.weight = init.weight(weight_key, (outputs, inputs, kernel, kernel), fan_in, fan_out)
        self.bias = init.bias(bias_key, outputs, fan_in) if bias else None
        self.stride = stride
        self.padding = padding

    def __call__(self, x: Float[Array, "inputs height width"]) -> Float[Array, "outputs _ _"]:
        y = jax.lax.conv_general_dilated(
            x[None],
            self.weight,
            window_strides=(self.stride, self.stride),
            padding=[(self.padding, self.padding)] * 2,
        )[0]
        return y if self.bias is None else y + self.bias[:, None, None]


def max_pool(x: Float[Array, "channels height width"], size: int) -> Float[Array, "channels _ _"]:
    """The largest value in each `size` x `size` square; a remainder at the border is dropped."""
    channels, height, width = x.shape
    rows, columns = height // size, width // size
    squares = x[:, : rows * size, : columns * size].reshape(channels, rows, size, columns, size)
    return jnp.max(squares, axis=(2, 4))


def as_sample(x: Float[Array, "..."], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """One sample in the shape that the first layer takes.

    **Raises:** ValueError for a sample with another number of numbers in it. Shapes are known when
    JAX compiles, so that the check costs nothing when the network runs.
    """
    if x.size != math.prod(shape):
        raise ValueError(
            f"inputs: one sample has shape {x.shape}, but the network takes {math.prod(shape)}"
            " numbers (for many samples at once: `networks.apply(network, inputs)`)."
        )
    return x.reshape(shape)
