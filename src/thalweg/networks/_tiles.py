"""Convolutions as products of dense matrices, which processors compute far faster.

The image is cut into tiles of neighbouring places of the result. All entries of the image that a
tile needs make up a row of one matrix; the other matrix holds the kernel, once for every place of
the tile, shifted to where that place looks. A larger tile needs fewer rows, since neighbouring
places look at the same entries, but multiplies more zeros around the shifted kernels.

Everything is made of padding, reshaping, slicing and one product of matrices. Derivatives of any
order and batches therefore follow from JAX's own rules, and are products of matrices again.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# What it takes to move one entry of a row into its place, in multiplications and additions of the
# product of matrices; it fits the times of networks with few channels.
_MOVING = 30
_LARGEST_TILE = 8


def convolution_by_tiles(
    x: Float[Array, "inputs *image"],
    weight: Float[Array, "outputs inputs *kernel"],
    stride: int,
    padding: int,
) -> Float[Array, "outputs *_"]:
    """What `jax.lax.conv_general_dilated` gives for one sample, with equal strides and paddings."""
    outputs, _, *kernel = weight.shape
    sides = [(n + 2 * padding - k) // stride + 1 for n, k in zip(x.shape[1:], kernel, strict=True)]
    tiling = _best_tiling(sides, kernel, stride, outputs)
    products = _rows(x, tiling, padding) @ _shifted_kernels(weight, tiling, stride)
    axes = range(len(sides))
    places = products.reshape(*tiling.tiles, *[tiling.size] * len(sides), outputs)
    # Channels first; then every direction's tiles, beside the places within a tile.
    order = [2 * len(sides), *itertools.chain(*((axis, len(sides) + axis) for axis in axes))]
    whole = places.transpose(order).reshape(outputs, *[n * tiling.size for n in tiling.tiles])
    return whole[(slice(None), *map(slice, sides))]


class _Tiling(NamedTuple):
    """Tiles of `size` places in each direction, and the image in blocks of `step` entries.

    `tiles` counts the tiles, and `seen` the blocks that one tile looks at, in each direction.
    """

    size: int
    step: int
    tiles: tuple[int, ...]
    seen: tuple[int, ...]


def _best_tiling(sides: Sequence[int], kernel: Sequence[int], stride: int, outputs: int) -> _Tiling:
    """The cheapest tiling, by the entries that are moved and the numbers that are multiplied."""

    def tiling(size):
        step = size * stride
        tiles = tuple(-(-side // size) for side in sides)
        return _Tiling(size, step, tiles, tuple(-(-(step - stride + k) // step) for k in kernel))

    def cost(candidate):
        rows = math.prod(candidate.tiles)
        entries = math.prod(n * candidate.step for n in candidate.seen)
        return rows * entries * (_MOVING + outputs * candidate.size ** len(sides))

    return min(map(tiling, range(1, _LARGEST_TILE + 1)), key=cost)


def _rows(x: Array, tiling: _Tiling, padding: int) -> Float[Array, "*tiles entries"]:
    """For every tile, the blocks of the image that it looks at, in one row."""
    channels, *image = x.shape
    blocks = [n + seen - 1 for n, seen in zip(tiling.tiles, tiling.seen, strict=True)]
    around = [
        (padding, n * tiling.step - side - padding, 0)
        for n, side in zip(blocks, image, strict=True)
    ]
    # Entries behind the last tile are cut off by negative padding.
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *around])
    x = x.reshape(channels, *itertools.chain(*((n, tiling.step) for n in blocks)))
    x = x.transpose(*range(1, x.ndim, 2), *range(2, x.ndim, 2), 0).reshape(*blocks, -1)
    return jnp.concatenate(
        [
            x[tuple(slice(b, b + n) for b, n in zip(begin, tiling.tiles, strict=True))]
            for begin in itertools.product(*map(range, tiling.seen))
        ],
        axis=-1,
    )


def _shifted_kernels(
    weight: Array, tiling: _Tiling, stride: int
) -> Float[Array, "entries places_outputs"]:
    """For every place of a tile the kernel, within zeros for all entries that the tile looks at."""
    outputs, inputs, *kernel = weight.shape

    def shifted(place):
        around = [
            (n * stride, seen * tiling.step - k - n * stride, 0)
            for n, k, seen in zip(place, kernel, tiling.seen, strict=True)
        ]
        return jax.lax.pad(weight, jnp.zeros((), weight.dtype), [(0, 0, 0)] * 2 + around)

    shifts = itertools.product(range(tiling.size), repeat=len(kernel))
    kernels = jnp.stack([shifted(place) for place in shifts])
    split = itertools.chain(*((seen, tiling.step) for seen in tiling.seen))
    kernels = kernels.reshape(*kernels.shape[:2], inputs, *split)
    blocks, entries = range(3, kernels.ndim, 2), range(4, kernels.ndim, 2)
    return kernels.transpose(*blocks, *entries, 2, 0, 1).reshape(-1, kernels.shape[0] * outputs)
