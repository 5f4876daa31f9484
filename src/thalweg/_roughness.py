"""Kinks of a function that cannot be read: felt along short paths."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PyTree

from ._precision import jit
from ._trees import tree_dtype, tree_norm

# A path's length, in parts of the parameters' norm, and its number of intervals.
_REACH, _INTERVALS = 0.3, 32
# What the gradients along two paths cost.
ROUGHNESS_COST = 2 * (_INTERVALS + 1)
# Between 1/4 (second differences of a smooth function) and 1 (of a jump), nearer to the latter.
_ROUGH = 0.6


@jit
def is_rough(gradient, params: PyTree[Array]) -> Array:
    """Whether a gradient, a function of parameters, jumps along one of two short paths from here.

    One path goes along minus the gradient, one in a random direction. With half the distance
    between points, the largest second difference of a smooth function becomes four times smaller;
    that of a function with jumps stays, and that of one with many small jumps falls by less than
    two.
    """
    slope = gradient(params)
    leaves, structure = jax.tree.flatten(params)
    keys = jax.tree.unflatten(structure, list(jr.split(jr.key(0), len(leaves))))
    random = jax.tree.map(lambda k, p: jr.normal(k, p.shape, p.dtype), keys, params)
    directions = jax.tree.map(lambda g, r: jnp.stack([-g, r]), slope, random)
    return jnp.any(jax.lax.map(lambda d: _jumps(gradient, params, d), directions))


def _jumps(gradient, params, direction):
    size = tree_norm(direction)
    reach = _REACH * jnp.maximum(tree_norm(params), 1) / jnp.where(size > 0, size, 1)
    places = reach * jnp.linspace(0, 1, _INTERVALS + 1, dtype=tree_dtype(params))
    along = jax.lax.map(
        lambda s: gradient(jax.tree.map(lambda p, d: p + s.astype(p.dtype) * d, params, direction)),
        places,
    )
    fine = _bend(along)
    coarse = _bend(jax.tree.map(lambda g: g[::2], along))
    largest = jnp.max(jax.vmap(tree_norm)(along))
    rounding = 100 * jnp.finfo(tree_dtype(params)).eps * largest
    return (fine > _ROUGH * coarse) & (fine > rounding)


def _bend(along):
    """The largest second difference."""
    second = jax.tree.map(lambda g: g[2:] - 2 * g[1:-1] + g[:-2], along)
    return jnp.max(jax.vmap(tree_norm)(second))
