"""Products with a symmetric operator of any scale.

The product of a Hessian with a unit vector may be as small or as large as the numbers of its dtype
go, and its square, or something computed on the way, then under- or overflows. Products are linear
in the vector, so the vector is multiplied by a power of two that brings them back into range, and
the result is told in units of another one, near the norm of the operator. Both are exact.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._powers import exponent, times_power

# The exponent of an operator of which no product but zero is known.
_NONE = -10_000
# By how many powers of two a product may exceed the unit before the unit changes.
_SLACK = 16


class Resolution(NamedTuple):
    """What the numbers of a product can tell apart.

    `eps` is the rounding unit; `smallest`, what is below counts as zero; `reach`, half the range of
    exponents on either side of 1.
    """

    eps: float
    smallest: float
    reach: int

    @staticmethod
    def of(params: PyTree[Array]) -> "Resolution":
        """The coarsest leaf decides what a product is worth."""
        infos = [jnp.finfo(leaf.dtype) for leaf in jax.tree.leaves(params)]
        return Resolution(
            eps=max(float(info.eps) for info in infos),
            # Single and double precision have no gradual underflow in compiled programs.
            smallest=max(
                float(info.smallest_subnormal if info.dtype == np.float16 else info.tiny)
                for info in infos
            ),
            reach=min(int(info.maxexp) // 2 - 1 for info in infos),
        )

    def flushed(self, parameters: int) -> float:
        """The length of the error of a product with a unit vector if entries of H underflow.

        Each loses less than `smallest`, so that the matrix changes by less than `parameters` times
        that in norm. A few more are for the result itself.
        """
        return self.smallest * (parameters + 4)


class Scaling(NamedTuple):
    """Products are told in units of `2^unit`; vectors are multiplied by `2^lift` before.

    Above the lift `highest` some product was not finite.
    """

    unit: Int[Array, ""]
    lift: Int[Array, ""]
    highest: Int[Array, ""]

    @staticmethod
    def unknown() -> "Scaling":
        """Before the first product."""
        return Scaling(jnp.asarray(_NONE), jnp.asarray(0), jnp.asarray(-_NONE))

    @property
    def known(self) -> Int[Array, ""]:
        """The unit, 0 if every product was zero."""
        return jnp.where(self.unit == _NONE, 0, self.unit)

    def absolute(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """From units to numbers."""
        return times_power(x, self.known)

    def in_units(self, x: float, dtype: jnp.dtype) -> Float[Array, ""]:
        """From numbers to units."""
        return times_power(jnp.asarray(x, dtype), -self.known)


class Products(NamedTuple):
    """Products with a `matvec`, in units that follow its scale."""

    matvec: Callable[[Float[Array, "parameters"]], Float[Array, "parameters"]]
    resolution: Resolution

    def __call__(
        self, vector: Float[Array, "parameters"], scaling: Scaling
    ) -> tuple[Float[Array, "parameters"], Scaling, Int[Array, ""], Int[Array, ""]]:
        """The product with a unit vector, the new scaling, the power of two by which products told
        before have to be multiplied now, and the number of products that it took.

        One as a rule. Another lift is tried where nothing finite comes out, or no more than what
        is left of underflow; what is learned from that is kept in the scaling.
        """
        reach = self.resolution.reach

        def attempt(state):
            s, _, _, tries, _ = state
            image = self.matvec(times_power(vector, s.lift))
            largest = jnp.max(jnp.abs(image))
            finite = jnp.isfinite(largest)
            size = jnp.where(largest > 0, exponent(largest) - s.lift, _NONE)
            lower = ~finite & (s.lift > -reach)
            highest = jnp.where(lower, s.lift - reach, s.highest)
            faint = finite & (jnp.maximum(size, s.unit) < -reach)
            higher = faint & (s.lift + reach <= jnp.minimum(highest, reach))
            lift = s.lift + jnp.where(higher, reach, 0) - jnp.where(lower, reach, 0)
            return Scaling(s.unit, lift, highest), image, size, tries + 1, lower | higher

        state = (scaling, jnp.zeros_like(vector), jnp.asarray(_NONE), jnp.asarray(0), True)
        state = jax.lax.while_loop(lambda state: state[4], attempt, state)
        tried, image, size, tries, _ = state
        first = scaling.unit == _NONE
        unit = jnp.where(first | (size > scaling.unit + _SLACK), size, scaling.unit)
        change = jnp.where(first, 0, scaling.unit - unit)
        found = tried._replace(unit=unit)
        return times_power(image, -(found.lift + found.known)), found, change, tries
