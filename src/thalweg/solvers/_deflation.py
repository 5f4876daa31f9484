"""Eigenvectors of the Hessian, gathered from the linear solves of a flow and used by the next ones.

Conjugate gradients spend their first steps on the few large eigenvalues that a network's Hessian
has, at every time step anew, though those directions turn slowly. The directions of a solve and
their products with the Hessian are at hand when it ends: Rayleigh-Ritz on them and on what was
kept gives approximate eigenvectors for nothing but inner products.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, PyTree

from .._trees import tree_all_finite

# How many eigenvectors are kept: so many, or so many numbers in all, but not too few. Small systems
# take few steps without.
_VECTORS, _FEWEST, _ROOM, _SMALLEST = 40, 8, 1_200_000, 400
# They only precondition: single precision is enough, and half the memory and time.
_DTYPE = jnp.float32
# Combinations shorter than the root of this part of the longest one are dependent on others.
_DEPENDENT = 1e-3


def deflation_vectors(size: int) -> int:
    """How many eigenvectors of the Hessian are kept, for so many parameters."""
    affordable = min(_VECTORS, _ROOM // size)
    return affordable if size >= _SMALLEST and affordable >= _FEWEST else 0


def deflation_memory(size: int) -> int:
    """Bytes that they take."""
    return deflation_vectors(size) * size * jnp.dtype(_DTYPE).itemsize


class Rows(eqx.Module):
    """Directions of length one, and their products with an operator; rows that are free are 0."""

    vectors: Float32[Array, "rows size"]
    images: Float32[Array, "rows size"]

    @classmethod
    def free(cls, rows: int, size: int) -> "Rows":
        """Room for so many rows."""
        none = jnp.zeros((rows, size), _DTYPE)
        return cls(none, none)

    def put(self, index: Int[Array, ""], direction: PyTree[Array], image: PyTree[Array]) -> "Rows":
        """With one row filled in; behind the last one, nothing is written."""

        def written(rows, vector):
            return rows.at[index].set(_flat(vector), mode="drop")

        return Rows(written(self.vectors, direction), written(self.images, image))


class Deflation(eqx.Module):
    """Approximate eigenvectors of a positive operator: orthonormal rows, and eigenvalues.

    `values` are in units of a curvature, `unit`, since single precision has not the range of the
    double one. Where there are fewer rows than there is room for, the rest is 0.
    """

    vectors: Float32[Array, "rows size"]
    values: Float32[Array, "rows"]
    unit: Float[Array, ""]

    @classmethod
    def affordable(cls, size: int, unit: Float[Array, ""]) -> "Deflation | None":
        """Room for as many vectors of that size as are worth their price; `None` if too few are."""
        rows = deflation_vectors(size)
        return cls.empty(rows, size, unit) if rows else None

    @classmethod
    def empty(cls, rows: int, size: int, unit: Float[Array, ""]) -> "Deflation":
        """Room for so many vectors of that size."""
        usable = (unit > 0) & jnp.isfinite(unit)
        none = jnp.zeros((rows, size), _DTYPE)
        return cls(none, jnp.zeros(rows, _DTYPE), jnp.where(usable, unit, 1))

    @property
    def largest(self) -> Float[Array, ""]:
        """The largest eigenvalue, 0 if none is known."""
        return jnp.max(self.values) * self.unit

    def applied(self, r: PyTree[Array], shift: Float[Array, ""]) -> PyTree[Array]:
        """An approximate inverse of the operator plus `shift`, up to a factor, times `r`.

        Eigenvalues of what is known become the smallest of them; the rest stays as it is.
        """
        known, shift = self.values > 0, (shift / self.unit).astype(_DTYPE)
        least = jnp.min(jnp.where(known, self.values, jnp.inf))
        pull = jnp.where(known, (shift + least) / (shift + self.values) - 1, 0)
        flat = _flat(r)
        size = jnp.max(jnp.abs(flat))
        scale = jnp.where(size > 0, size, 1)
        change = ((pull * (self.vectors @ (flat / scale))) @ self.vectors) * scale
        leaves, tree = jax.tree.flatten(r)
        parts, begin = [], 0
        for leaf in leaves:
            part = change[begin : begin + leaf.size].reshape(leaf.shape)
            parts.append(leaf + part.astype(leaf.dtype))
            begin += leaf.size
        return jax.tree.unflatten(tree, parts)

    def renewed(self, more: Rows) -> "Deflation":
        """The largest eigenvalues and their vectors, of what is known and more directions.

        Unchanged where single precision does not hold them.
        """
        count = len(self.values)
        gram = _symmetric(
            jnp.diag((self.values > 0).astype(_DTYPE)),
            self.vectors @ more.vectors.T,
            more.vectors @ more.vectors.T,
        )
        energy = _symmetric(
            jnp.diag(self.values), self.vectors @ more.images.T, more.vectors @ more.images.T
        )
        sizes, vectors = jnp.linalg.eigh(gram)
        used = sizes > _DEPENDENT * sizes[-1]
        frame = vectors * jnp.where(used, 1 / jnp.sqrt(jnp.where(used, sizes, 1)), 0)
        values, turn = jnp.linalg.eigh(frame.T @ energy @ frame)
        length = jnp.sum(turn**2 * used[:, None], axis=0)
        weights = frame @ turn
        good = (length > 0.5) & (values > 0)
        kept, index = jax.lax.top_k(jnp.where(good, values, 0), count)
        weights = jnp.where(kept > 0, weights[:, index], 0)
        rows = weights[:count].T @ self.vectors + weights[count:].T @ more.vectors
        new = Deflation(rows, kept, self.unit)
        held = tree_all_finite((new, energy**2))
        return jax.tree.map(lambda a, b: jnp.where(held, a, b), new, self)


def _flat(vector):
    return jnp.concatenate([jnp.ravel(leaf).astype(_DTYPE) for leaf in jax.tree.leaves(vector)])


def _symmetric(first, across, last):
    whole = jnp.block([[first, across], [across.T, last]])
    return (whole + whole.T) / 2
