"""Expectations of products of activations under a Gaussian.

For `(u, v)` jointly Gaussian with variances p, q and covariance c, and an activation s, the layers
of an infinitely wide network need `E[s(u) s(v)]` and `E[s'(u) s'(v)]`.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Matrix = Float[Array, "..."]

# What sums of products are rounded by, in units of the resolution.
_SUMMATION = 8


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
        cosine = jnp.where(size > 0, self.c / jnp.where(size > 0, size, 1), 0)
        # Near 1 a cosine that is rounded by eps is an angle that is wrong by sqrt(eps), which would
        # make repeated and parallel samples look different.
        eps = _SUMMATION * jnp.finfo(cosine.dtype).eps
        cosine = jnp.where(jnp.abs(cosine) > 1 - eps, jnp.sign(cosine), cosine)
        if self.same is not None:
            cosine = jnp.where(self.same & (size > 0), 1, cosine)
        return cosine

    @property
    def gap(self) -> Matrix:
        """`p q - c^2`, which is never below zero, without the cancellation."""
        cosine = self.cosine
        return self.p * self.q * (1 - cosine) * (1 + cosine)


class Expectations(eqx.Module):
    """The two expectations for one activation."""

    @abc.abstractmethod
    def __call__(self, pair: Pair) -> tuple[Matrix, Matrix]:
        """`E[s(u) s(v)]` and `E[s'(u) s'(v)]`."""

    def square(self, variance: Matrix) -> Matrix:
        """`E[s(u)^2]`."""
        same = jnp.ones(variance.shape, bool)
        return self(Pair(variance, variance, variance, same))[0]
