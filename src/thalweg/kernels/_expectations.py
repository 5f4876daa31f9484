"""Expectations of products of activations under a Gaussian.

For `(u, v)` jointly Gaussian with variances p, q and covariance c, and an activation s, the layers
of an infinitely wide network need `E[s(u) s(v)]` and `E[s'(u) s'(v)]`.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Matrix = Float[Array, "..."]


class Pair(eqx.Module):
    """Covariances c of pairs and their two variances p and q, of shapes that broadcast.

    `same`: where both members of a pair are one and the same, so that c, p and q agree.
    """

    c: Matrix
    p: Matrix
    q: Matrix
    same: Bool[Array, "..."] | None = None

    @property
    def cosine(self) -> Matrix:
        """Correlation of the two; 0 where either does not vary."""
        size = jnp.sqrt(self.p) * jnp.sqrt(self.q)
        cosine = jnp.clip(jnp.where(size > 0, self.c / jnp.where(size > 0, size, 1), 0), -1, 1)
        if self.same is not None:
            # Rounding of a cosine near 1 by eps is one of the angle by sqrt(eps).
            cosine = jnp.where(self.same & (size > 0), 1, cosine)
        return cosine


class Expectations(eqx.Module):
    """The two expectations for one activation."""

    @abc.abstractmethod
    def __call__(self, pair: Pair) -> tuple[Matrix, Matrix]:
        """`E[s(u) s(v)]` and `E[s'(u) s'(v)]`."""
