"""A network as a chain of layers that are linear in their own weights."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..networks import Activation, Convolutional, FullyConnected
from ..networks._layers import Convolution, Dense, as_sample, max_pool, mean_of_places

# Frequencies at which the symbol of a convolution is looked at, per direction and tap.
_FREQUENCIES = 8


class Link(NamedTuple):
    """One layer, and what comes after it: activation and pooling, or nothing after the last."""

    layer: Dense | Convolution
    after: Callable[[Array], Array]


def chain_of(network: Any) -> tuple[list[Link], Activation, tuple[int, ...]]:
    """The layers of a network in order, its activation, and the shape of a sample.

    **Raises:** TypeError for another kind of network.
    """
    if isinstance(network, FullyConnected):
        convolutions, pool, shape = (), 1, network.layers[0].weight.shape[1:]
    elif isinstance(network, Convolutional):
        convolutions, pool, shape = network.convolutions, network.pool, network.shape
    else:
        raise TypeError(
            "network: closed-form bounds know `FullyConnected` and `Convolutional` networks, not"
            f" {type(network).__name__}. For any network, `tw.extreme_eigenvalues` gives intervals."
        )
    activation = network.activation
    links = [Link(c, lambda y: max_pool(activation(y), pool)) for c in convolutions]
    if isinstance(network, Convolutional) and convolutions and network.average:
        # A mean does not stretch.
        links[-1] = Link(convolutions[-1], lambda y: mean_of_places(max_pool(activation(y), pool)))
    links += [Link(layer, activation) for layer in network.layers[:-1]]
    return [*links, Link(network.layers[-1], lambda y: y)], activation, shape


def has_kinks(network: Any) -> bool:
    """Whether activation or pooling of a network have kinks."""
    _, activation, _ = chain_of(network)
    return not activation.smooth or getattr(network, "pool", 1) > 1


def signals(
    network: Any, x: Float[Array, "..."], probes: list[Array] | None = None
) -> tuple[Array, list[Array]]:
    """Outputs, and what goes into each layer. A probe is added to what comes out of each."""
    links, _, shape = chain_of(network)
    x, inputs = as_sample(x, shape), []
    for i, (layer, after) in enumerate(links):
        if isinstance(layer, Dense):
            x = x.reshape(-1)
        inputs.append(x)
        y = layer(x)
        x = after(y if probes is None else y + probes[i])
    return x, inputs


def probes_of(network: Any, x: Float[Array, "..."]) -> list[Array]:
    """Zeros of the shapes that come out of each layer."""
    links, _, _ = chain_of(network)
    _, inputs = jax.eval_shape(lambda: signals(network, x))
    shapes = [jax.eval_shape(link.layer, z) for link, z in zip(links, inputs, strict=True)]
    return [jnp.zeros(s.shape, s.dtype) for s in shapes]


def layer_norm(layer: Dense | Convolution) -> Float[Array, ""]:
    """An upper bound on the operator norm of a layer's linear map; for dense layers the norm."""
    if isinstance(layer, Dense):
        return abs(layer.weight_scale) * jnp.linalg.norm(layer.weight, 2)
    return abs(layer.weight_scale) * _convolution_norm(layer)


def layer_gain(layer: Dense | Convolution) -> float:
    """The most by which the operator norm of a layer exceeds the norm of its weights.

    An entry of the image is seen by at most `ceil(kernel / stride)` places of the kernel in each
    direction.
    """
    if isinstance(layer, Dense):
        return abs(layer.weight_scale)
    seen = math.prod(math.ceil(k / layer.stride) for k in layer.weight.shape[2:])
    return abs(layer.weight_scale) * math.sqrt(seen)


def layer_size(layer: Dense | Convolution) -> Float[Array, ""]:
    """An upper bound on the operator norm of a layer with the absolute values of its weights."""
    return layer_gain(layer) * jnp.linalg.norm(layer.weight)


def bias_size(layer: Dense | Convolution, outputs: int) -> float:
    """The factor between a change of the bias and what comes out of the layer."""
    if layer.bias is None:
        return 0.0
    if isinstance(layer, Dense):
        return abs(layer.bias_scale)
    # Every place of the image gets the same bias.
    return abs(layer.bias_scale) * math.sqrt(outputs / layer.weight.shape[0])


def _convolution_norm(layer: Convolution) -> Float[Array, ""]:
    """The largest singular value of the symbol, over all frequencies.

    Padded with zeros for ever, a convolution with a stride is one with matrices for entries, whose
    norm is the largest of its symbol's; an image of finite size only restricts it. The symbol is a
    trigonometric polynomial. Of degree d (centred), it exceeds what it is at N > 2 d equidistant
    points at most by 1 / cos(pi d / N) in each direction (Ehlich and Zeller 1964).
    """
    stride, weight = layer.stride, layer.weight
    taps = [math.ceil(k / stride) for k in weight.shape[2:]]
    padding = [(0, t * stride - k) for t, k in zip(taps, weight.shape[2:], strict=True)]
    weight = jnp.pad(weight, [(0, 0), (0, 0), *padding])
    outputs, inputs = weight.shape[:2]
    # Entries that a stride apart see one another; those in between are channels of their own.
    split = weight.reshape(outputs, inputs, *itertools.chain(*((t, stride) for t in taps)))
    places = range(2, split.ndim, 2)
    phases = range(3, split.ndim, 2)
    matrices = jnp.transpose(split, (*places, 0, 1, *phases)).reshape(*taps, outputs, -1)
    counts = [_FREQUENCIES * t if t > 1 else 1 for t in taps]
    symbol = jnp.fft.fftn(matrices, s=counts, axes=tuple(range(len(taps))))
    largest = jnp.max(jnp.linalg.norm(symbol, 2, axis=(-2, -1)))
    slack = math.prod(
        math.cos(math.pi * (t - 1) / 2 / n) for t, n in zip(taps, counts, strict=True)
    )
    return largest / slack
