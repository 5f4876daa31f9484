"""Arithmetic on PyTrees seen as points of one Euclidean space."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ._checks import check_precision


def tree_dot(a: PyTree[Array], b: PyTree[Array]) -> Float[Array, ""]:
    """Inner product over all leaves."""
    products = jax.tree.map(lambda x, y: jnp.vdot(x, y, precision=jax.lax.Precision.HIGHEST), a, b)
    return jax.tree.reduce(jnp.add, products)


def tree_norm(a: PyTree[Array]) -> Float[Array, ""]:
    """Euclidean norm over all leaves."""
    return jnp.sqrt(tree_dot(a, a))


def tree_axpy(scale: Any, x: PyTree[Array], y: PyTree[Array]) -> PyTree[Array]:
    """`scale * x + y`, leaf by leaf."""
    return jax.tree.map(lambda a, b: scale * a + b, x, y)


def tree_sub(a: PyTree[Array], b: PyTree[Array]) -> PyTree[Array]:
    """`a - b`, leaf by leaf."""
    return jax.tree.map(jnp.subtract, a, b)


def tree_scale(scale: Any, a: PyTree[Array]) -> PyTree[Array]:
    """`scale * a`, leaf by leaf."""
    return jax.tree.map(lambda x: scale * x, a)


def tree_size(a: PyTree[Array]) -> int:
    """Number of scalars in all leaves: the dimension of the space."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(a))


def tree_dtype(a: PyTree[Array]) -> jnp.dtype:
    """The dtype that arithmetic over all leaves happens in."""
    return jnp.result_type(*jax.tree.leaves(a))


def tree_all_finite(a: PyTree[Array]) -> Array:
    """Whether every number in every leaf is finite."""
    return jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), a))


def tree_stack(trees: list[PyTree[Array]]) -> PyTree[Array]:
    """Stack trees of one structure along a new leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *trees)


def tree_random(key: PRNGKeyArray, like: PyTree[Array]) -> PyTree[Array]:
    """A random point on the unit sphere."""
    leaves, structure = jax.tree.flatten(like)
    keys = jr.split(key, len(leaves))
    random = [
        jr.normal(k, jnp.shape(x), jnp.result_type(x)) for k, x in zip(keys, leaves, strict=True)
    ]
    direction = jax.tree.unflatten(structure, random)
    return tree_scale(1 / tree_norm(direction), direction)


def tree_scattered(like: PyTree[Array]) -> PyTree[Array]:
    """A fixed point on the unit sphere, in a direction that has nothing to do with anything.

    An integer hash of the place (the last stage of MurmurHash3), which compiles faster than random
    numbers that have to be good.
    """
    leaves, structure = jax.tree.flatten(like)
    scattered = []
    for k, x in enumerate(leaves):
        h = (jnp.arange(x.size, dtype=jnp.uint32) + jnp.uint32(1)) * jnp.uint32(2654435761 + 2 * k)
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            h = (h ^ (h >> shift)) * jnp.uint32(factor)
        h = (h ^ (h >> 16)).astype(jnp.result_type(x))
        scattered.append((h / 2.0**32 - 0.5).reshape(x.shape))
    direction = jax.tree.unflatten(structure, scattered)
    return tree_scale(1 / tree_norm(direction), direction)


def check_params(params: PyTree[Array], field: str = "params") -> None:
    """Refuse anything that is not a non-empty PyTree of finite floating-point arrays.

    **Raises:** TypeError for a leaf that is not a real floating-point array; ValueError for a
    PyTree without numbers, or with NaN or infinity, naming the leaf.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves or tree_size(params) == 0:
        raise ValueError(f"{field}: holds no numbers, so there is nothing to optimise.")
    for path, leaf in leaves:
        name = field + jax.tree_util.keystr(path)
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            kind = getattr(leaf, "dtype", type(leaf).__name__)
            raise TypeError(
                f"{name}: expected an array of floating-point numbers, got {kind}. Keep what is not"
                " trained out of the parameters (with Equinox:"
                " `params, static = eqx.partition(model, eqx.is_inexact_array)`)."
            )
        if not isinstance(leaf, Tracer) and not np.isfinite(np.asarray(leaf)).all():
            raise ValueError(f"{name}: contains NaN or infinity.")


def check_digits(params: PyTree[Array]) -> None:
    """Refuse parameters with too few digits to be followed, naming the leaf.

    **Raises:** TypeError.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        check_precision(leaf.dtype, "params" + jax.tree_util.keystr(path))


def tree_strong(tree: PyTree[Array]) -> PyTree[Array]:
    """Numbers with types of their own, where JAX took them from Python's (weak types).

    A state that starts with weak types and comes back with strong ones is a new one to the
    compiler, which makes everything twice.
    """
    return jax.tree.map(lambda a: jax.lax.convert_element_type(a, a.dtype), tree)
