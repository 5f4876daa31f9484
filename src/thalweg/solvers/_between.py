"""What the field of a flow at two points says about the landscape between them."""

import jax.numpy as jnp

from .._trees import tree_dot, tree_dtype, tree_norm, tree_sub

# What rounding makes of the field, in the parameters' resolution times the steepness.
_NOISE = 16


def secant_curvature(f0, f1, way, steepness, size):
    """How fast the field changes along `way`, above what rounding makes of it."""
    length, rounding = tree_norm(way), jnp.finfo(tree_dtype(way)).eps * size
    change = tree_norm(tree_sub(f1, f0)) - _NOISE * steepness * rounding
    known = (change > 0) & (length > _NOISE * rounding)
    return jnp.where(known, change / jnp.where(known, length, 1), 0).astype(steepness.dtype)


def log_growth(y0, f0, y1, f1, steepness, vague):
    """The logarithm of the factor by which the field grows between two points, at least 0.

    Without negative curvature between them `(f1 - f0) . (y1 - y0)` is not positive, and what grows
    is the error of the solution; `steepness` times the parameters' rounding is the field's, and
    `vague` what else its values may be wrong by.
    """
    way = tree_sub(y1, y0)
    rounding = _NOISE * jnp.finfo(tree_dtype(y0)).eps * steepness * tree_norm(y1)
    unstable = tree_dot(tree_sub(f1, f0), way) > (rounding + vague) * tree_norm(way)
    before, after = tree_norm(f0), tree_norm(f1)
    ratio = jnp.where(unstable & (before > 0), after / jnp.where(before > 0, before, 1), 1)
    return jnp.log(jnp.clip(ratio, 1, jnp.finfo(ratio.dtype).max)).astype(steepness.dtype)
