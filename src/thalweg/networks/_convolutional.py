"""Convolutional networks, among them the two of Elkabetz and Cohen (2021)."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from .._checks import check_positive_integers
from .._memory import check_parameters
from .._section import Widths
from ._activations import Activation
from ._activations import activation as find_activation
from ._initialisations import Initialisation, UniformFanIn, Xavier, initialisation
from ._layers import Convolution, Dense, as_sample, max_pool, mean_of_places
from ._section import ActivationName, NetworkSection, has_kinks, side_of

_KERNEL = 5
# Only the first convolution of the published networks is padded: 28 x 28 then counts as 32 x 32.
_FIRST_PADDING = 2


class Convolutional(eqx.Module):
    """Convolutions, each followed by the activation (and pooling), then dense layers.

    Takes one image of `shape` (channels first), or with as many numbers in another one. Its only
    leaves are weights and biases.
    """

    convolutions: tuple[Convolution, ...]
    layers: tuple[Dense, ...]
    activation: Activation = eqx.field(static=True)
    pool: int = eqx.field(static=True)
    average: bool = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "outputs"]:
        x = as_sample(x, self.shape)
        for convolution in self.convolutions:
            x = max_pool(self.activation(convolution(x)), self.pool)
        x = mean_of_places(x) if self.average else x.reshape(-1)
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


def convolutional(
    shape: Sequence[int],
    *,
    channels: Sequence[int],
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    pool: int = 1,
    head: str = "flatten",
    widths: Sequence[int] = (),
    outputs: int,
    activation: str | Activation | Callable[[Array], Array] = "relu",
    bias: bool = False,
    init: str | Initialisation | None = None,
    key: PRNGKeyArray,
) -> Convolutional:
    """A convolutional network on signals or images.

    **Arguments:**

    - `shape`: that of one sample, `(channels, length)` or `(channels, height, width)`.
    - `channels`: the channels after each convolution.
    - `kernel`, `stride`, `padding`: of each convolution, alike in all directions; zeros are padded
        on both sides.
    - `pool`: the size of the squares whose maximum is taken after each convolution, 1 for none.
    - `head`: what the dense layers get: "flatten" makes a row of all channels and places, "average"
        takes the mean of every channel (global average pooling).
    - `widths`: the widths of the hidden dense layers.
    - `outputs`: the number of outputs.
    - `activation`: as in `fully_connected`.
    - `bias`: whether layers have biases. Without, and with ReLU, the network is homogeneous.
    - `init`: as in `fully_connected`; by default convolutions start uniform on +-1/sqrt(fan_in),
        dense layers from Xavier's law.
    - `key`: the PRNG key for the weights.

    **Raises:** ValueError for a sample too small, sizes that are not positive integers, more
    parameters than fit into the machine's memory, or an unknown name.
    """
    check_positive_integers(tuple(shape), "shape")
    if head not in ("flatten", "average"):
        raise ValueError(f"head: expected flatten or average, got {head!r}.")
    if len(shape) < 2:
        raise ValueError(f"shape: expected channels and sides of one sample, got {tuple(shape)}.")
    laws = None if init is None else (initialisation(init),) * 2
    return _convolutional(
        shape,
        paddings=[padding] * len(tuple(channels)),
        sizes=(outputs, channels, kernel, stride, pool, widths),
        activation=activation,
        average=head == "average",
        bias=bias,
        laws=laws or _PUBLISHED_LAWS,
        key=key,
    )


def convolutional_strided(
    *,
    side: int = 28,
    outputs: int = 10,
    channels: Sequence[int] = (6, 16),
    widths: Sequence[int] = (120, 84),
    activation: str | Activation | Callable[[Array], Array] = "relu",
    key: PRNGKeyArray,
) -> Convolutional:
    """The "adapted" network: homogeneous, with strides in place of pooling, and no biases.

    Pad by 2, 5x5 convolutions of stride 2 to 6 and 16 channels, then 120, 84 and the outputs, all
    with ReLU. Convolutions start uniform on +-1/sqrt(fan_in), dense layers from Xavier's law.

    **Arguments:**

    - `side`: height and width of the images, of one channel; at least 9 for two convolutions.
    - `outputs`: the number of outputs.
    - `channels`: the channels of each convolution.
    - `widths`: the widths of the hidden dense layers.
    - `activation`: as in `fully_connected`.
    - `key`: the PRNG key for the weights.

    **Raises:** ValueError for an image too small, sizes that are not positive integers, or an
    unknown activation.
    """
    return _published(side, outputs, channels, widths, activation, 2, 1, False, key)


def convolutional_pooled(
    *,
    side: int = 28,
    outputs: int = 10,
    channels: Sequence[int] = (6, 16),
    widths: Sequence[int] = (120, 84),
    activation: str | Activation | Callable[[Array], Array] = "relu",
    key: PRNGKeyArray,
) -> Convolutional:
    """The "off-the-shelf" network, after LeNet-5: max-pooling and biases.

    Pad by 2, 5x5 convolutions to 6 and 16 channels, each with ReLU and 2x2 max-pooling, then 120,
    84 and the outputs. Convolutions and biases start uniform on +-1/sqrt(fan_in), dense weights
    from Xavier's law.

    **Arguments:** as in `convolutional_strided`; images of at least 12 x 12 for two convolutions.

    **Raises:** ValueError for an image too small, sizes that are not positive integers, or an
    unknown activation.
    """
    return _published(side, outputs, channels, widths, activation, 1, 2, True, key)


class _XavierWithBias(Xavier):
    """Xavier's weights with the biases that PyTorch's layers start from."""

    def bias(self, key, size, fan_in):
        return UniformFanIn().bias(key, size, fan_in)


# Of convolutions, and of dense layers.
_PUBLISHED_LAWS = (UniformFanIn(), _XavierWithBias())


def _published(side, outputs, channels, widths, activation, stride, pool, bias, key):
    check_positive_integers((side,), "side")
    paddings = [_FIRST_PADDING, *[0] * len(tuple(channels))][: len(tuple(channels))]
    return _convolutional(
        (1, side, side),
        paddings=paddings,
        sizes=(outputs, channels, _KERNEL, stride, pool, widths),
        activation=activation,
        average=False,
        bias=bias,
        laws=_PUBLISHED_LAWS,
        key=key,
    )


def _convolutional(shape, *, paddings, sizes, activation, average, bias, laws, key):
    outputs, channels, kernel, stride, pool, widths = sizes
    for field, numbers in (
        ("outputs", (outputs,)),
        ("channels", tuple(channels)),
        ("kernel", (kernel,)),
        ("stride", (stride,)),
        ("pool", (pool,)),
        ("widths", tuple(widths)),
    ):
        check_positive_integers(numbers, field)

    def sides(side):
        return itertools.accumulate(
            paddings,
            lambda now, padding: ((now + 2 * padding - kernel) // stride + 1) // pool,
            initial=side,
        )

    inputs, *image = shape
    passed = [list(sides(side)) for side in image]
    if min(map(min, passed)) < 1:
        smallest = 1
        for padding in reversed(paddings):
            smallest = max((smallest * pool - 1) * stride + kernel - 2 * padding, 1)
        raise ValueError(
            f"{'side' if len(image) == 2 else 'shape'}: images of"
            f" {' x '.join(map(str, image))} are too small for this network, which needs at least"
            f" {' x '.join([str(smallest)] * len(image))}."
        )
    places = 1 if average else math.prod(on_the_way[-1] for on_the_way in passed)
    numbers = ((inputs, *channels)[-1] * places, *widths, outputs)
    room = jnp.result_type(float).itemsize
    for field, pairs, size in (
        ("channels", itertools.pairwise((inputs, *channels)), kernel ** len(image)),
        ("widths", itertools.pairwise(numbers), 1),
    ):
        check_parameters(sum((int(a) * size + bias) * int(b) for a, b in pairs), field, room)
    keys = iter(jr.split(key, len(channels) + len(widths) + 1))
    convolutions = tuple(
        Convolution(
            before,
            after,
            kernel,
            dimensions=len(image),
            stride=stride,
            padding=padding,
            bias=bias,
            init=laws[0],
            key=next(keys),
        )
        for padding, (before, after) in zip(
            paddings, itertools.pairwise((inputs, *channels)), strict=True
        )
    )
    layers = tuple(Dense(a, b, bias, laws[1], next(keys)) for a, b in itertools.pairwise(numbers))
    return Convolutional(
        convolutions, layers, find_activation(activation), pool, average, tuple(shape)
    )


# Images that a processor works on at once: what is between layers then fits into its caches.
_FEW_IMAGES = 50


class _PublishedSection(NetworkSection):
    """The published convolutional networks, for square images."""

    activation: ActivationName = "relu"
    channels: Widths = Field(default=[6, 16])
    widths: Widths = Field(default=[120, 84])

    @property
    def kinks(self) -> bool:
        return has_kinks(self.activation)

    @property
    def at_once(self) -> int | None:
        return _FEW_IMAGES if jax.default_backend() == "cpu" else None

    def _made(self, make: Callable[..., Convolutional], sample, outputs, key) -> Convolutional:
        return make(
            side=side_of(sample, make.__name__),
            outputs=outputs,
            channels=self.channels,
            widths=self.widths,
            activation=self.activation,
            key=key,
        )


class StridedSection(_PublishedSection):
    """`kind = "convolutional_strided"`: square images only."""

    kind: Literal["convolutional_strided"] = "convolutional_strided"

    def draw(self, sample: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> Convolutional:
        return self._made(convolutional_strided, sample, outputs, key)


class PooledSection(_PublishedSection):
    """`kind = "convolutional_pooled"`: square images only."""

    kind: Literal["convolutional_pooled"] = "convolutional_pooled"

    @property
    def kinks(self) -> bool:
        return True

    def draw(self, sample: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> Convolutional:
        return self._made(convolutional_pooled, sample, outputs, key)
