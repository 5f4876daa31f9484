"""Eigenvalues with the intervals that hold them."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

# Kuczynski and Wozniakowski's constant.
_FAILURE = 1.648


class Eigenvalues(eqx.Module):
    """Extreme eigenvalues of a Hessian: the largest in decreasing order, then the smallest in
    increasing order.

    - `value`: shape `(values,)`. Everything below has a leading axis of saved times more if it was
        observed along a trajectory.
    - `residual`: `|H v - value v|` for the unit vector beside it, rounding of the products
        included. Since H is symmetric, `[value - residual, value + residual]` holds an eigenvalue
        (Parlett, The Symmetric Eigenvalue Problem, theorem 4.5.1).
    - `vectors`: unit vectors with the structure of the parameters, each leaf with a leading axis
        of values.
    - `converged`: whether each residual is within the tolerance that was asked for; `limit` says
        in a sentence what kept those that are not from being smaller.
    - `products`: Hessian-vector products spent. Each costs 2 gradients.
    - `rounding`: the part of each residual that stands for the rounding of the products;
        `underflow`: the part of that which stands for numbers too small for their dtype.

    Eigenvalues may have any scale that their dtype has. One beyond its largest number is told as
    that number, with a residual that reaches beyond. Where products vanish, the interval is 0 plus
    or minus `underflow`. What underflows within a network at the parameters themselves, and is
    multiplied by large numbers afterwards, is not seen.

    The theorem promises *an* eigenvalue in the interval. That it is the extreme one, no number of
    products can prove (short of as many as there are parameters); what is known about values
    further out is in `unseen`.
    """

    value: Float[Array, "values"]
    residual: Float[Array, "values"]
    vectors: PyTree[Float[Array, "values ..."]]
    converged: Bool[Array, "values"]
    products: Int[Array, ""]
    spread: Float[Array, ""]
    rounding: Float[Array, ""]
    underflow: Float[Array, ""]
    krylov: Int[Array, ""]
    random_share: Float[Array, ""]
    parameters: int = eqx.field(static=True)
    counts: tuple[int, int] = eqx.field(static=True)

    @property
    def lower(self) -> Float[Array, "values"]:
        """Lower ends of the intervals."""
        return self.value - self.residual

    @property
    def upper(self) -> Float[Array, "values"]:
        """Upper ends of the intervals."""
        return self.value + self.residual

    @property
    def largest(self) -> "Eigenvalues":
        """The largest ones alone, in decreasing order."""
        return self._part(slice(0, self.counts[0]), (self.counts[0], 0))

    @property
    def smallest(self) -> "Eigenvalues":
        """The smallest ones alone, in increasing order."""
        return self._part(slice(self.counts[0], None), (0, self.counts[1]))

    @property
    def limit(self) -> str:
        """What keeps the residuals from being smaller, in a sentence."""
        dtype, zero = self.value.dtype.name, float(jnp.max(self.underflow))
        if bool(jnp.any(~jnp.isfinite(self.residual))):
            return (
                f"A residual is larger than the largest number of {dtype}, so that nothing is known"
                " of that eigenvalue. Scale the objective down, or use float64."
            )
        if float(self.spread) == 0 and bool(jnp.all(self.value == 0)):
            return (
                "Every Hessian-vector product was zero. Numbers that are too small for their dtype"
                f" count as zero, so an eigenvalue may still be as large as {zero:.3g}."
            )
        if bool(jnp.all(self.converged)):
            return "Every residual is within the tolerance."
        if zero > 0.5 * float(self.rounding):
            return (
                "Numbers that are too small for their dtype count as zero, which residuals have to"
                f" allow {zero:.3g} for. Scale the objective up, or use float64."
            )
        longest = float(jnp.max(jnp.where(self.converged, 0, self.residual)))
        if longest <= 2.5 * float(self.rounding):
            return (
                "The rounding of Hessian-vector products, about"
                f" {float(self.rounding):.3g}, keeps the residuals from being smaller."
            )
        return f"The {int(self.products)} products that were allowed did not suffice."

    def unseen(self, failure: float = 0.01) -> Float[Array, ""]:
        """How far an eigenvalue can lie outside all values found, except with probability
        `failure` over the random start vector.

        Zero after as many products as parameters; infinite where nothing can be said, which is so
        for more than one eigenvalue at an end, and after too few products.

        From Kuczynski and Wozniakowski, Estimating the largest eigenvalue by the power and Lanczos
        algorithms with a random start, SIAM J. Matrix Anal. Appl. 13 (1992), theorem 4.2: in n
        dimensions, the Krylov space of dimension k misses either end of the spectrum by more than
        a fraction e of its true width with a probability of at most
        `1.648 sqrt(n) exp(-(2k - 1) sqrt(e))`. Both ends share `failure`. A warm start is random
        only in part, and the probability that it is blind to a direction grows by the inverse of
        that share, if its random vector had no part in finding what it starts from: use a new key.

        **Raises:** ValueError for a `failure` outside (0, 1).
        """
        if not 0 < failure < 1:
            raise ValueError(f"failure: a probability in (0, 1) is needed, got {failure}.")
        blindness = 2 * _FAILURE * math.sqrt(self.parameters) / self.random_share
        logarithm = jnp.log(blindness / failure)
        fraction = (logarithm / (2 * self.krylov - 1)) ** 2
        # `spread` is the width as found, at least 1 - 2 e of the true width.
        certain = self.krylov >= self.parameters
        known = fraction < 0.5
        margin = fraction / jnp.where(known, 1 - 2 * fraction, 1) * self.spread
        return jnp.where(certain, 0, jnp.where(known, margin, jnp.inf))

    def _part(self, rows: slice, counts: tuple[int, int]) -> "Eigenvalues":
        # Those of a trajectory have a leading axis of saved times.
        places = (*(slice(None),) * (self.value.ndim - 1), rows)
        return Eigenvalues(
            value=self.value[places],
            residual=self.residual[places],
            vectors=jax.tree.map(lambda v: v[places], self.vectors),
            converged=self.converged[places],
            products=self.products,
            spread=self.spread,
            rounding=self.rounding,
            underflow=self.underflow,
            krylov=self.krylov,
            random_share=self.random_share,
            parameters=self.parameters,
            counts=counts,
        )
