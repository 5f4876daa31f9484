"""Samples worked on in micro-batches: how they are split and brought together again."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


class Parts(NamedTuple):
    """What belongs to all whole micro-batches, stacked, and to the samples that are left over.

    Each is `None` where there are none; without micro-batches all samples are left over.
    """

    wholes: Any
    rest: Any


def parts(arrays: tuple[Array, ...], size: int | None, memory: Parts | None = None) -> Parts:
    """The arguments for every micro-batch of a size: its share of the arrays, and of a memory."""
    stacked, left = ((), ()) if memory is None else ((memory[0],), (memory[1],))
    samples = arrays[0].shape[0]
    if size is None or size >= samples:
        return Parts(None, (*arrays, *left))
    whole, rest = divmod(samples, size)
    head = whole * size
    split = tuple(a[:head].reshape((whole, size, *a.shape[1:])) for a in arrays)
    over = tuple(a[head:] for a in arrays)
    return Parts((*split, *stacked), (*over, *left) if rest else None)


def summed_and_each(
    batch: Callable[..., tuple[PyTree, PyTree]], arguments: Parts
) -> tuple[PyTree, Parts]:
    """The sum of the first that a function returns for the micro-batches, and each second."""
    wholes, rest = arguments
    if wholes is None:
        total, own = batch(*rest)
        return total, Parts(None, own)
    shapes, _ = jax.eval_shape(batch, *jax.tree.map(lambda a: a[0], wholes))
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(total, part):
        more, own = batch(*part)
        return jax.tree.map(jnp.add, total, more), own

    total, stacked = jax.lax.scan(add, zero, wholes)
    if rest is None:
        return total, Parts(stacked, None)
    more, own = batch(*rest)
    return jax.tree.map(jnp.add, total, more), Parts(stacked, own)


def in_a_row(results: Parts) -> PyTree:
    """What was returned sample by sample, without the axis of micro-batches."""
    wholes, rest = results
    if wholes is None:
        return rest
    rows = jax.tree.map(lambda a: a.reshape((a.shape[0] * a.shape[1], *a.shape[2:])), wholes)
    if rest is None:
        return rows
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), rows, rest)
