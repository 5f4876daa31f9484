"""The second-order Runge-Kutta-Chebyshev method, RKC2.

An explicit Runge-Kutta method with as many stages as a step asks for. Its stability polynomial is a
shifted Chebyshev polynomial, so `s` stages are stable on `[-0.65 s^2, 0]`: the reach along the
negative real axis grows with the *square* of the cost. That suits fields whose Jacobian has a real
or nearly real spectrum, gradient flow above all, where the eigenvalues are those of the Hessian.
"""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from diffrax import RESULTS, AbstractTerm, ThirdOrderHermitePolynomialInterpolation
from jaxtyping import Array, Float, Int, PyTree

from .._trees import tree_dtype
from ._radius import SpectralRadius
from ._stabilised import StabilisedSolver

_DAMPING = 2 / 13


class RKC2State(eqx.Module):
    """What one step hands to the next.

    `field`: the vector field at the current point; `radius`: what is known of the spectral radius;
    `evaluations`: evaluations of the vector field so far, radius estimates included; `stages`: the
    number of stages of the last step.
    """

    field: PyTree[Array]
    radius: SpectralRadius
    evaluations: Int[Array, ""]
    stages: Int[Array, ""]


class RKC2(StabilisedSolver[RKC2State]):
    """Runge-Kutta-Chebyshev method of order two with its own spectral radius estimate.

    An ordinary diffrax solver: pass it to `diffrax.diffeqsolve` with an adaptive step size
    controller and any `ODETerm` whose Jacobian has eigenvalues near the negative real axis.

    **Arguments:**

    - `safety`: the estimated spectral radius is multiplied by this before the number of stages is
        chosen (a power iteration approaches the radius from below).
    - `max_stages`: a step that would need more stages is declared failed, so that the controller
        tries a shorter one.

    ??? cite "Reference"

        Sommeijer, Shampine and Verwer, "RKC: an explicit solver for parabolic PDEs", Journal of
        Computational and Applied Mathematics 88 (1998) 315-326; the method itself is due to van der
        Houwen and Sommeijer (1980).
    """

    safety: float = 1.2
    max_stages: int = 500

    term_structure: ClassVar = AbstractTerm
    interpolation_cls: ClassVar[Callable[..., ThirdOrderHermitePolynomialInterpolation]] = (
        ThirdOrderHermitePolynomialInterpolation
    )

    def order(self, terms):
        return 2

    def error_order(self, terms):
        # The estimate is of the local error itself, h^3, not of an embedded first-order method's.
        return 3

    def init(self, terms, t0, t1, y0, args) -> RKC2State:
        del t1
        return RKC2State(
            field=terms.vf(t0, y0, args),
            radius=SpectralRadius.unknown(y0),
            evaluations=jnp.asarray(1),
            stages=jnp.asarray(0),
        )

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)

    def evaluations(self, state):
        return state.evaluations

    def spectral_radius(self, state):
        return state.radius.value

    def after_rejection(self, before, after):
        # A rejection may mean that the radius was underestimated: unless it was fresh, it is due.
        radius = after.radius
        age = jnp.where(radius.age <= 1, radius.age, radius.patience)
        radius = eqx.tree_at(lambda r: r.age, radius, age)
        return eqx.tree_at(lambda s: (s.radius, s.evaluations), before, (radius, after.evaluations))

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        control = terms.contr(t0, t1)
        f0 = jax.lax.cond(made_jump, lambda: terms.vf(t0, y0, args), lambda: solver_state.field)
        radius, spent = jax.lax.cond(
            solver_state.radius.due | made_jump,
            lambda: solver_state.radius.estimated(lambda y: terms.vf(t0, y, args), y0, f0),
            lambda: (solver_state.radius, jnp.asarray(0)),
        )
        needed = _stages(jnp.abs(t1 - t0) * self.safety * radius.value)
        stages = jnp.minimum(needed, self.max_stages)
        y1 = _stage_loop(terms, t0, t1, y0, args, f0, control, stages)
        f1 = terms.vf(t1, y1, args)
        k0, k1 = terms.prod(f0, control), terms.prod(f1, control)
        # Leading term of the local error, h^3 y''' / 15, from both ends of the step.
        y_error = jax.tree.map(
            lambda a, b, ka, kb: jnp.where(
                needed > self.max_stages, jnp.inf, 0.8 * (a - b) + 0.4 * (ka + kb)
            ),
            y0,
            y1,
            k0,
            k1,
        )
        state = RKC2State(
            field=f1,
            radius=radius.used(),
            evaluations=solver_state.evaluations + spent + stages + jnp.asarray(made_jump, int),
            stages=stages,
        )
        dense_info = {"y0": y0, "y1": y1, "k0": k0, "k1": k1}
        return y1, y_error, dense_info, state, RESULTS.successful


def _stages(reach: Float[Array, ""]) -> Int[Array, ""]:
    """Fewest stages whose stability interval `2/3 (s^2 - 1)(1 - 2/15 damping)` covers `reach`."""
    per_square = 2 / 3 * (1 - 2 / 15 * _DAMPING)
    # Far beyond any useful number of stages the integer would overflow.
    wanted = jnp.ceil(jnp.sqrt(1 + jnp.minimum(reach, 1e8) / per_square))
    return jnp.maximum(2, jnp.nan_to_num(wanted, nan=1e4).astype(int))


def _stage_loop(terms, t0, t1, y0, args, f0, control, stages):
    """All stages of one step, as the three-term recurrence of the Chebyshev polynomials."""
    real = jnp.promote_types(tree_dtype(y0), jnp.result_type(t0))
    s = stages.astype(real)
    w0 = 1 + _DAMPING / s**2
    theta = jnp.arccosh(w0)
    first = s * jnp.sinh(s * theta) / jnp.sinh(theta)
    second = (s**2 * jnp.cosh(s * theta) - w0 * first) / jnp.sinh(theta) ** 2
    w1 = first / second

    k0 = terms.prod(f0, control)
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
        k_last = terms.vf_prod(t0 + c_last * (t1 - t0), y_last, args, control)

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
