"""The stages of the second-order Runge-Kutta-Chebyshev method.

Its stability polynomial is a shifted Chebyshev polynomial, so that `s` stages are stable on
`[-0.65 s^2, 0]`, and the three-term recurrence of those polynomials gives the stages themselves.
"""

from collections.abc import Callable
from typing import Any

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
    s = stages.astype(real)
    w0 = 1 + _DAMPING / s**2
    theta = jnp.arccosh(w0)
    first = s * jnp.sinh(s * theta) / jnp.sinh(theta)
    second = (s**2 * jnp.cosh(s * theta) - w0 * first) / jnp.sinh(theta) ** 2
    w1 = first / second

    b2 = 4 / (4 * w0) ** 2
    mu1 = b2 * w1
    y_first = jax.tree.map(lambda y, k: y + mu1.astype(y.dtype) * k, y0, k0)

    # Values and two derivatives of the Chebyshev polynomials of degree j - 1 and j - 2 at w0.
    one, zero = jnp.ones((), real), jnp.zeros((), real)
    chebyshev = (w0, one, zero, one, zero, zero)

    def stage(j, carry):
        y_last, y_before, c_last, c_before, b_last, b_before, chebyshev = carry
        t_1, dt_1, ddt_1, t_2, dt_2, ddt_2 = chebyshev
        t = 2 * w0 * t_1 - t_2
        dt = 2 * t_1 + 2 * w0 * dt_1 - dt_2
        ddt = 4 * dt_1 + 2 * w0 * ddt_1 - ddt_2
        b = ddt / dt**2
        a_last = 1 - b_last * t_1
        mu, nu = 2 * w0 * b / b_last, -b / b_before
        mu_k = 2 * w1 * b / b_last
        gamma_k = -a_last * mu_k
        k_last = increment(c_last, y_last)

        def combine(y, last, before, k, k_start):
            coefficients = [x.astype(y.dtype) for x in (mu, nu, mu_k, gamma_k)]
            m, n, mk, gk = coefficients
            # Differences from y keep the round-off of many stages from adding up.
            return y + m * (last - y) + n * (before - y) + mk * k + gk * k_start

        y_new = jax.tree.map(combine, y0, y_last, y_before, k_last, k0)
        c = mu * c_last + nu * c_before + mu_k + gamma_k
        return y_new, y_last, c, c_last, b, b_last, (t, dt, ddt, t_1, dt_1, ddt_1)

    start = (y_first, y0, mu1, zero, b2, b2, chebyshev)
    return jax.lax.fori_loop(2, stages + 1, stage, start)[0]
