"""The two kinds of layers with weights, pooling, and the shape of what enters."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ._initialisations import Initialisation
from ._tiles import convolution_by_tiles


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
    """A convolution in one or more dimensions (cross-correlation, as everywhere in this field).

    `weight_scale * weight * x + bias_scale * bias`.
    """

    weight: Float[Array, "outputs inputs *kernel"]
    bias: Float[Array, "outputs"] | None
    weight_scale: float = eqx.field(static=True)
    bias_scale: float = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    padding: int = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        dimensions: int = 2,
        stride: int = 1,
        padding: int = 0,
        bias: bool,
        init: Initialisation,
        key: PRNGKeyArray,
    ):
        weight_key, bias_key = jr.split(key)
        fan_in, fan_out = inputs * kernel**dimensions, outputs * kernel**dimensions
        shape = (outputs, inputs, *[kernel] * dimensions)
        self.weight = init.weight(weight_key, shape, fan_in, fan_out)
        self.bias = init.bias(bias_key, outputs, fan_in) if bias else None
        self.weight_scale = init.weight_scale(fan_in)
        self.bias_scale = init.bias_scale()
        self.stride = stride
        self.padding = padding

    @property
    def dimensions(self) -> int:
        """How many dimensions an image has: 1 for a signal, 2 for a picture."""
        return self.weight.ndim - 2

    def __call__(self, x: Float[Array, "inputs *image"]) -> Float[Array, "outputs *_"]:
        y = _convolved(x, self.weight, self.stride, self.padding)
        if self.weight_scale != 1:
            y = self.weight_scale * y
        if self.bias is None:
            return y
        return y + self.bias_scale * jnp.expand_dims(self.bias, range(1, y.ndim))


def _convolved(
    x: Float[Array, "inputs *image"],
    weight: Float[Array, "outputs inputs *kernel"],
    stride: int,
    padding: int,
) -> Float[Array, "outputs *_"]:
    """The convolution, by whichever way is faster where JAX computes by default."""
    if jax.default_backend() == "cpu":
        return convolution_by_tiles(x, weight, stride, padding)
    dimensions = x.ndim - 1
    return jax.lax.conv_general_dilated(
        x[None], weight, [stride] * dimensions, [(padding, padding)] * dimensions
    )[0]


def max_pool(x: Float[Array, "channels *image"], size: int) -> Float[Array, "channels *_"]:
    """The largest value in each square of this size; a remainder at the border is dropped."""
    ends = [side // size * size for side in x.shape[1:]]
    entries = [
        x[(slice(None), *map(slice, begin, ends, [size] * len(ends)))]
        for begin in itertools.product(range(size), repeat=len(ends))
    ]
    # Elementwise maxima of pairs: reductions over short axes are several times slower.
    while len(entries) > 1:
        pairs = itertools.zip_longest(entries[::2], entries[1::2])
        entries = [a if b is None else jnp.maximum(a, b) for a, b in pairs]
    return entries[0]


def mean_of_places(x: Float[Array, "channels *image"]) -> Float[Array, "channels"]:
    """The mean of every channel over the image: global average pooling."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))


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
