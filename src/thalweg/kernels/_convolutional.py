"""Kernels of infinitely wide convolutional networks."""

import itertools
import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._checks import check_positive_integer, check_positive_integers
from .._precision import jit
from ..networks import Activation
from ..networks._activations import activation as find_activation
from ._expectations import Pair
from ._fully_connected import InfiniteFullyConnected
from ._infinite_network import (
    Affine,
    InfiniteNetwork,
    State,
    Widest,
    activated,
    checked_samples,
    expectations_of,
    layers_of,
)


class Window(eqx.Module):
    """Where a convolution looks: a window of this size, its stride, zeros around the image."""

    size: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    padding: int = eqx.field(static=True)

    def side(self, side: int) -> int:
        """The side of the image that comes out."""
        return (side + 2 * self.padding - self.size) // self.stride + 1

    def mean(self, c: Array, leading: int, dimensions: int) -> Array:
        """The mean of covariances within windows, both places of a pair being shifted alike.

        After `leading` axes come those of the image: once for pairs of the same place in both
        samples, twice for all pairs of places.
        """
        images = (c.ndim - leading) // dimensions
        sides = [self.side(side) for side in c.shape[leading:]]
        around = [(0, 0)] * leading + [(self.padding, self.padding)] * (images * dimensions)
        c = jnp.pad(c, around)
        total = jnp.zeros((*c.shape[:leading], *sides), c.dtype)
        for shift in itertools.product(range(self.size), repeat=dimensions):
            places = [
                slice(start, start + self.stride * (side - 1) + 1, self.stride)
                for start, side in zip(shift * images, sides, strict=True)
            ]
            total = total + c[(..., *places)]
        return total / self.size**dimensions


class InfiniteConvolutional(InfiniteNetwork):
    """See `thalweg.kernels.convolutional`."""

    shape: tuple[int, ...] = eqx.field(static=True)
    layers: tuple[Affine, ...]
    window: Window
    average: bool = eqx.field(static=True)
    dense: InfiniteFullyConnected
    activation: Activation = eqx.field(static=True)

    def checked(self, inputs, field):
        samples = checked_samples(inputs, field)
        if math.prod(samples.shape[1:]) != math.prod(self.shape):
            raise ValueError(
                f"{field}: one sample has shape {samples.shape[1:]}, but the network takes"
                f" {self.shape}."
            )
        return samples.reshape(samples.shape[0], *self.shape)

    @property
    def entry_size(self):
        places = math.prod(self.shape[1:])
        return places**2 if self.average else places

    @property
    def activations(self):
        return len(self.layers) + self.dense.activations

    def widest(self, inputs):
        # What one place covaries with others does not enter its own variance.
        variance = jnp.mean(inputs**2, axis=1)
        variances, expectations = [], []
        for layer in self.layers:
            variance = layer.covariance(self.window.mean(variance, 1, self.dimensions))
            found = expectations_of(self.activation, variance)
            variances.append(variance)
            expectations.append(found)
            variance = found.square(variance)
        made = tuple(expectations)
        if self.average:
            # But the mean over places does depend on that.
            mean = _means_of_images(self, inputs, tuple(variances), made)
        else:
            mean = jnp.mean(variance, axis=tuple(range(1, variance.ndim)))
        tail = self.dense.rising(mean)
        return Widest((*variances, *tail.variances), (*made, *tail.expectations))

    def between(self, x, y, p, q, expectations, same):
        count = len(self.layers)
        state = self.images(x, y, p[:count], q[:count], expectations[:count], same)
        return self.dense.propagated(state, p[count:], q[count:], expectations[count:], same)

    def images(self, x, y, p, q, expectations, same) -> State:
        """Up to the head: the mean over places, or over all pairs of them."""
        places = "ijk"[: self.dimensions]
        others = "lmn"[: self.dimensions] if self.average else places
        out = places + (others if self.average else "")
        c = jnp.einsum(f"ac{places},bc{others}->ab{out}", x, y, precision=jax.lax.Precision.HIGHEST)
        state = State(c / self.shape[0], jnp.zeros_like(c))
        for layer, v, w, expected in zip(self.layers, p, q, expectations, strict=True):
            state = layer(State(*(self.window.mean(a, 2, self.dimensions) for a in state)))
            state = activated(state, self._pair(state.covariance, v, w, same), expected)
        kept = tuple(range(2, state.covariance.ndim))
        return State(*(jnp.mean(a, axis=kept) for a in state))

    @property
    def dimensions(self) -> int:
        """The number of spatial dimensions: 1 for signals, 2 for images."""
        return len(self.shape) - 1

    def _pair(self, c, v, w, same):
        """Covariances with their variances, samples and places in their axes."""
        image = v.shape[1:]
        single = (1,) * len(image)
        v, w = v[:, None], w[None]
        diagonal = jnp.eye(len(v), dtype=bool).reshape(len(v), len(v), *single) if same else None
        if self.average:
            v, w = v.reshape(*v.shape, *single), w.reshape(*w.shape[:2], *single, *image)
            if diagonal is not None:
                one = jnp.eye(math.prod(image), dtype=bool).reshape(*image, *image)
                diagonal = diagonal.reshape(*diagonal.shape, *single) & one
        return Pair(c, v, w, diagonal)


@jit
def _means_of_images(network, inputs, variances, expectations):
    """The mean over images of every sample with itself, one after the other."""

    def one(sample):
        x, *v = (a[None] for a in sample)
        return network.images(x, x, v, v, expectations, True).covariance[0, 0]

    return jax.lax.map(one, (inputs, *variances))


def convolutional(
    shape: Sequence[int],
    *,
    convolutions: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    head: str = "flatten",
    depth: int = 1,
    activation: str | Activation | Callable[[Array], Array] = "relu",
    weight_std: float | Sequence[float] = 1.0,
    bias_std: float | Sequence[float] = 0.0,
    trained: str = "all",
) -> InfiniteConvolutional:
    """A convolutional network with infinitely many channels.

    The limit, as channels and hidden widths grow, of `tw.networks.convolutional` with
    `init=tw.networks.TangentKernel(weight_std, bias_std)` and the same head.

    **Arguments:**

    - `shape`: that of one sample, `(channels, length)` or `(channels, height, width)`.
    - `convolutions`: how many, each followed by the activation.
    - `kernel`, `stride`, `padding`: of each, alike in all directions; zeros are padded.
    - `head`: "flatten" makes a row of all places; "average" takes the mean over them, which takes
        memory and work in proportion to the square of their number.
    - `depth`: the number of dense layers after the head.
    - `activation`, `weight_std`, `bias_std`, `trained`: as in `thalweg.kernels.fully_connected`,
        convolutions first.

    **Raises:** ValueError for a sample too small or sizes that are not positive integers.

    ??? cite "References"

        Arora, Du, Hu, Li, Salakhutdinov and Wang, "On exact computation with an infinitely wide
        neural net", Advances in Neural Information Processing Systems 32 (2019); Novak et al.,
        "Bayesian deep convolutional networks with many channels are Gaussian processes",
        International Conference on Learning Representations (2019).
    """
    check_positive_integers(tuple(shape), "shape")
    if not 2 <= len(shape) <= 4:
        raise ValueError(f"shape: expected channels and sides of one sample, got {tuple(shape)}.")
    for field, number in (
        ("convolutions", convolutions),
        ("kernel", kernel),
        ("stride", stride),
        ("depth", depth),
    ):
        check_positive_integer(number, field)
    if padding != 0:
        check_positive_integer(padding, "padding")
    if head not in ("flatten", "average"):
        raise ValueError(f"head: expected flatten or average, got {head!r}.")
    window = Window(kernel, stride, padding)
    sides = list(shape[1:])
    for _ in range(convolutions):
        sides = [window.side(side) for side in sides]
        if min(sides) < 1:
            raise ValueError(f"shape: images of {tuple(shape[1:])} are too small for this network.")
    layers = layers_of(convolutions + depth, weight_std, bias_std, trained)
    found = find_activation(activation)
    return InfiniteConvolutional(
        tuple(shape),
        layers[:convolutions],
        window,
        head == "average",
        InfiniteFullyConnected(layers[convolutions:], found),
        found,
    )
