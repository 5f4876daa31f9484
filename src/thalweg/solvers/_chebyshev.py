"""The stages of the second-order Runge-Kutta-Chebyshev method.

Its stability polynomial is a shifted Chebyshev polynomial, so that `s` stages are stable on
`[-0.65 s^2, 0]`, and the three-term recurrence of those polynomials gives the stages themselves.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._trees import tree_dtype

_DAMPING = 2 / 13


def stages_for(reach: Float[Array, ""]) -> Int[Array, ""]:
    """Fewest stages whose stability interval `2/3 (s^2 - 1)(1 - 2/15 damping)` covers `reach`."""
    per_square = 2 / 3 * (1 - 2 / 15 * _DAMPING)
    # Far beyond any useful number of stages the integer would overflow.
    wanted = jnp.ceil(jnp.sqrt(1 + jnp.minimum(reach, 1e8) / per_square))
    return jnp.maximum(2, jnp.nan_to_num(wanted, nan=1e4).astype(int))


class Recurrence(NamedTuple):
    """The coefficients of the stages, which follow from those of the two stages before.

    Works on arrays and on plain floats alike. `values` are the Chebyshev polynomials of degree
    j - 1 at `w0` and their first two derivatives, then those of degree j - 2; `b` belongs to
    degrees j - 1 and j - 2, `c` are the places of those stages within the step.
    """

    w0: Any
    w1: Any
    values: tuple[Any, ...]
    b: tuple[Any, Any]
    c: tuple[Any, Any]

    @staticmethod
    def start(stages: Any, numerics: Any = jnp) -> "Recurrence":
        """Before the second stage; the first is `y0 + c[0] k0`. `stages` is a real number."""
        w0 = 1 + _DAMPING / stages**2
        theta = numerics.arccosh(w0)
        sine = numerics.sinh(theta)
        first = stages * numerics.sinh(stages * theta) / sine
        second = (stages**2 * numerics.cosh(stages * theta) - w0 * first) / sine**2
        w1 = first / second
        b2 = 4 / (4 * w0) ** 2
        one, zero = w0 / w0, w0 * 0
        return Recurrence(w0, w1, (w0, one, zero, one, zero, zero), (b2, b2), (b2 * w1, zero))

    def next(self) -> tuple[tuple[Any, Any, Any, Any], "Recurrence"]:
        """Coefficients `mu, nu` of the last two stages and `mu_k, gamma_k` of slopes; and on."""
        t_1, dt_1, ddt_1, t_2, dt_2, ddt_2 = self.values
        t = 2 * self.w0 * t_1 - t_2
        dt = 2 * t_1 + 2 * self.w0 * dt_1 - dt_2
        ddt = 4 * dt_1 + 2 * self.w0 * ddt_1 - ddt_2
        b = ddt / dt**2
        b_last, b_before = self.b
        mu, nu = 2 * self.w0 * b / b_last, -b / b_before
        mu_k = 2 * self.w1 * b / b_last
        gamma_k = -(1 - b_last * t_1) * mu_k
        c = mu * self.c[0] + nu * self.c[1] + mu_k + gamma_k
        following = Recurrence(
            self.w0, self.w1, (t, dt, ddt, t_1, dt_1, ddt_1), (b, b_last), (c, self.c[0])
        )
        return (mu, nu, mu_k, gamma_k), following


def combined(coefficients: tuple, y0: Array, last: Array, before: Array, k: Array, k0: Array):
    """One stage. Differences from `y0` keep the round-off of many stages from adding up."""
    mu, nu, mu_k, gamma_k = (jnp.asarray(x).astype(y0.dtype) for x in coefficients)
    return y0 + mu * (last - y0) + nu * (before - y0) + mu_k * k + gamma_k * k0


def chebyshev_step(
    increment: Callable[[Float[Array, ""], PyTree[Array]], PyTree[Array]],
    y0: PyTree[Array],
    k0: PyTree[Array],
    stages: Int[Array, ""],
    real: Any = None,
) -> PyTree[Array]:
    """One step of order two.

    `increment(x, y)` is the length of the step times the field, at the fraction `x` of the step;
    `k0` is `increment(0, y0)`, known already. Makes `stages - 1` evaluations more. `real` is the
    dtype of the coefficients.
    """
    real = tree_dtype(y0) if real is None else real
    recurrence = Recurrence.start(stages.astype(real))
    first = recurrence.c[0]
    y_first = jax.tree.map(lambda y, k: y + first.astype(y.dtype) * k, y0, k0)

    def stage(_, carry):
        y_last, y_before, recurrence = carry
        k_last = increment(recurrence.c[0], y_last)
        coefficients, following = recurrence.next()
        y_new = jax.tree.map(partial(combined, coefficients), y0, y_last, y_before, k_last, k0)
        return y_new, y_last, following

    return jax.lax.fori_loop(2, stages + 1, stage, (y_first, y0, recurrence))[0]
