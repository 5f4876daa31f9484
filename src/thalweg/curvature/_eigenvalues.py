"""Eigenvalues with the intervals that hold them."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._numbers import with_error
from ..results import AbstractResult, axes_of, draw_line

_SOURCE = "Parlett, The Symmetric Eigenvalue Problem (1998), theorem 4.5.1."
# Kuczynski and Wozniakowski's constant.
_FAILURE = 1.648


class Eigenvalues(AbstractResult):
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

    def lines(self) -> list[str]:
        """Every value with its residual, the products spent, and what limits the residuals."""
        if self.value.ndim > 1:
            shape = f"{self.value.shape[0]} times, {self.value.shape[-1]} eigenvalues at each"
            return [shape, *self[-1].lines()]
        told = []
        for kind, part in (("largest", self.largest), ("smallest", self.smallest)):
            pairs = zip(part.value.tolist(), part.residual.tolist(), strict=True)
            told += [f"{kind}: {with_error(value, residual)}" for value, residual in pairs]
        spent = f"{int(self.products)} Hessian-vector products, {self.parameters} parameters"
        return [f"eigenvalues of the Hessian, {spent}", *told, self.limit]

    def __getitem__(self, time: int) -> "Eigenvalues":
        """The eigenvalues at one saved time, of those that were observed along a trajectory."""
        if self.value.ndim == 1:
            raise TypeError("eigenvalues: of one point, not of the saved times of a trajectory.")
        place = range(self.value.shape[0])[time]
        return jax.tree.map(lambda x: x[place], self)

    def to_xarray(self) -> xr.Dataset:
        """Values, residuals and whether they converged; `largest` says at which end each is."""
        times = ["save"] if self.value.ndim > 1 else []
        dimensions = [*times, "eigenvalue"]
        names = ("value", "residual", "converged")
        variables = {name: (dimensions, np.asarray(getattr(self, name))) for name in names}
        variables["products"] = (times, np.asarray(self.products))
        largest = np.arange(sum(self.counts)) < self.counts[0]
        attributes = {"result": "eigenvalues", "references": [_SOURCE]}
        return xr.Dataset(variables, {"largest": (["eigenvalue"], largest)}, attributes)

    def plot(self, ax: Any = None) -> Any:
        """The values with their intervals: side by side, or by saved time."""
        if self.value.ndim > 1:
            ax = axes_of(ax, "saved time", "eigenvalue")
            for i in range(self.value.shape[-1]):
                draw_line(ax, np.arange(len(self.value)), self.value[:, i], self.residual[:, i])
            return ax
        ax = axes_of(ax, "number", "eigenvalue")
        numbers = np.arange(1, len(self.value) + 1)
        ax.errorbar(numbers, np.asarray(self.value), np.asarray(self.residual), fmt="o", capsize=3)
        ax.set_xticks(numbers)
        return ax

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
