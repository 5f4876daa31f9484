"""The two convolutional networks of Elkabetz and Cohen (2021)."""

import itertools
from collections.abc import Callable, Sequence

import equinox as eqx
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._checks import check_positive_integers
from ._activations import Activation
from ._activations import activation as find_activation
from ._initialisations import UniformFanIn, Xavier
from ._layers import Convolution, Dense, as_sample, max_pool

_KERNEL = 5


class Convolutional(eqx.Module):
    """Convolutions, each followed by the activation (and pooling), then dense layers.

    Takes one image, flat or `(side, side)` or `(1, side, side)`. Its only leaves are weights and
    biases.
    """

    convolutions: tuple[Convolution, ...]
    layers: tuple[Dense, ...]
    activation: Activation = eqx.field(static=True)
    pool: int = eqx.field(static=True)
    shape: tuple[int, int, int] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "outputs"]:
        x = as_sample(x, self.shape)
        for convolution in self.convolutions:
            x = max_pool(self.activation(convolution(x)), self.pool)
        x = x.reshape(-1)
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


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
    return _convolutional(side, outputs, channels, widths, activation, 2, 1, False, key)


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
    return _convolutional(side, outputs, channels, widths, activation, 1, 2, True, key)


class _XavierWithBias(Xavier):
    """Xavier's weights with the biases that PyTorch's layers start from."""

    def bias(self, key, size, fan_in):
        return UniformFanIn().bias(key, size, fan_in)


def _convolutional(side, outputs, channels, widths, activation, stride, pool, bias, key):
    for field, sizes in (
        ("side", (side,)),
        ("outputs", (outputs,)),
        ("channels", tuple(channels)),
        ("widths", tuple(widths)),
    ):
        check_positive_integers(sizes, field)

    def sides(side):
        return itertools.accumulate(
            range(len(channels)),
            lambda now, i: ((now + 2 * _padding(i) - _KERNEL) // stride + 1) // pool,
            initial=side,
        )

    *_, last = sides(side)
    if last < 1:
        smallest = next(s for s in itertools.count(side) if min(sides(s)) >= 1)
        raise ValueError(
            f"side: images of {side} x {side} are too small for this network, which needs at least"
            f" {smallest} x {smallest}."
        )
    keys = iter(jr.split(key, len(channels) + len(widths) + 1))
    convolutions = tuple(
        Convolution(
            before,
            after,
            _KERNEL,
            stride=stride,
            padding=_padding(i),
            bias=bias,
            init=UniformFanIn(),
            key=next(keys),
        )
        for i, (before, after) in enumerate(itertools.pairwise((1, *channels)))
    )
    sizes = ((1, *channels)[-1] * last**2, *widths, outputs)
    layers = tuple(
        Dense(a, b, bias, _XavierWithBias(), next(keys)) for a, b in itertools.pairwise(sizes)
    )
    return Convolutional(convolutions, layers, find_activation(activation), pool, (1, side, side))


def _padding(convolution: int) -> int:
    """Only the first convolution is padded: 28 x 28 images then count as 32 x 32."""
    return 2 if convolution == 0 else 0
