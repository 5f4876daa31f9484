"""Backward differentiation formulas in logarithmic time, for stiff gradient flows.

An explicit method pays for stability: the root of what the sharpness times the time is, if it is a
stabilised one. An implicit method pays for linear systems instead. Those of a gradient flow are
symmetric, the extrapolated solution leaves a small and smooth residual, and a few conjugate
gradients are enough. A gradient flow slows down like its own time: what happens between t and 2 t
takes about as many steps as between 2 t and 4 t. In the logarithm of time the solution is smooth,
and steps of equal length suit it.
"""

from collections.abc import Callable
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._trees import tree_axpy, tree_dot, tree_dtype, tree_norm, tree_scale, tree_size, tree_sub
from ._counted import GROWING_ERROR, PacedSolver
from ._past_points import BDFInterpolation, combined, slope_weights, value_weights
from ._radius import SpectralRadius
from ._shifted_solve import shifted_solve

_HIGHEST = 5
_POINTS = _HIGHEST + 1
# What is aimed at, as a part of the tolerance, with the order one higher, the same, one lower.
_SAFETIES = (0.85, 0.9, 0.88)
_LARGEST_FACTOR, _SMALLEST_FACTOR, _AFTER_FAILURE = 2.0, 0.3, 0.85
# Steps stay as they are unless they become longer, or shorter, by these factors.
_WORTHWHILE, _NEEDED = 1.15, 0.95
# After so many rejections in a row the order falls to one.
_PATIENCE = 3
# The error of a linear solve, as a part of the tolerance.
_SOLVE = 0.35
# The same where the speed grows, as a part of the way that is made in a step.
_GROWING = 1e-3
# A correction longer than so many times what is accepted is not computed to its end.
_HOPELESS = 20.0
# The equations of a step are nonlinear. What one linearisation leaves may be this part of the
# tolerance; it is looked at again after 1, 2, 4, ... steps as long as it is that much smaller.
_NONLINEAR, _CLEARLY = 0.3, 0.1
_LINEARISATIONS, _LONGEST_TRUST = 4, 16
# A step's tolerance is at least so many roundings of the parameters.
_ROUNDINGS = 4
# What rounding makes of the field, in the parameters' resolution times the steepness.
_NOISE = 16
# Steps for which products are exact after the matrix was found not to be positive.
_DISTRUST = 20


class BDFState(eqx.Module):
    """What one step hands to the next.

    `past`: the last points, the latest first; `ago`: how long ago they were, in logarithmic time;
    `count`: how many of them there are. `rate`: time per logarithmic time. `since`: steps since the
    order or the step changed. `radius`: the largest curvature that was met lately. `scale`: the
    norm of the parameters at the start, or the way to where their slope vanishes if that is longer.
    `trust`: steps until the linearisation is looked at again, and `trusted` how many there were
    last time. `distrust`: steps for which products stay exact. `error`: of the last step, over the
    tolerance. `factor`: what the step is to be multiplied with. `field`: the vector field at the
    last point; `growth`: the logarithm of the factor by which the last step made it grow.
    """

    past: PyTree[Float[Array, "points ..."]]
    ago: Float[Array, "points"]
    count: Int[Array, ""]
    artificial: Bool[Array, ""]
    order: Int[Array, ""]
    used: Int[Array, ""]
    since: Int[Array, ""]
    failures: Int[Array, ""]
    rate: Float[Array, ""]
    radius: Float[Array, ""]
    scale: Float[Array, ""]
    trust: Int[Array, ""]
    trusted: Int[Array, ""]
    distrust: Int[Array, ""]
    error: Float[Array, ""]
    factor: Float[Array, ""]
    field: PyTree[Array]
    growth: Float[Array, ""]
    evaluations: Int[Array, ""]


class BDF(PacedSolver):
    """Backward differentiation of order one to five in logarithmic time, for gradient flows.

    **Arguments:**

    - `rtol`, `atol`: a step's error, as a Euclidean norm over all n parameters, may be
        `atol sqrt(n) + rtol |y|`. `tw.integrate` sets them.
    - `largest`: a step's error is at most this part of the parameters' norm: with a cruder step
        the solution may jump from one valley into another. `tw.integrate` sets it.

    The Jacobian must be symmetric. Each step makes one linear solve by conjugate gradients, whose
    products are difference quotients of the field.

    ??? cite "Reference"

        Variable-step formulas and the choice of order: Brayton, Gustavson and Hachtel, "A new
        efficient algorithm for solving differential-algebraic systems using implicit backward
        differentiation formulas", Proceedings of the IEEE 60 (1972) 98-108; Hindmarsh et al.,
        "SUNDIALS", ACM Transactions on Mathematical Software 31 (2005) 363-396. The estimate of
        the error of conjugate gradients: Strakoš and Tichý, "On error estimation in the conjugate
        gradient method and why it works in finite precision computations", Electronic Transactions
        on Numerical Analysis 13 (2002) 56-80.
    """

    rtol: float | Float[Array, ""] = 1e-6
    atol: float | Float[Array, ""] = 1e-8
    largest: float | Float[Array, ""] = 2e-3

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable[..., BDFInterpolation]] = BDFInterpolation

    def order(self, terms):
        return _HIGHEST

    def error_order(self, terms):
        return 3

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)

    def init(self, terms, t0, t1, y0, args) -> BDFState:
        f = terms.vf(t0, y0, args)
        speed = tree_norm(f)
        moving = speed > 0
        unit = tree_scale(1 / jnp.where(moving, speed, 1), f)
        random = SpectralRadius.unknown(y0)
        direction = jax.tree.map(lambda a, b: jnp.where(moving, a, b), unit, random.direction)
        known = eqx.tree_at(lambda r: r.direction, random, direction)
        known, spent = known.estimated(
            lambda y: terms.vf(t0, y, args), y0, f, accuracy=0.2, max_iterations=6
        )
        dtype = jnp.result_type(t0, t1)
        radius = known.value.astype(dtype)
        # A linear field at zero has no scale of its own.
        rate = 2 / jnp.where(radius > 0, radius, 1)
        scale = jnp.where(radius > 0, speed / jnp.where(radius > 0, radius, 1), 0)
        scale = jnp.maximum(scale, tree_norm(y0)).astype(dtype)
        tolerance = self.tolerance(scale, y0)
        bend = jnp.where(radius * speed > 0, radius * speed, 1)
        first = jnp.sqrt(2 * tolerance / bend).astype(dtype)
        first = jnp.minimum(jnp.where(radius * speed > 0, first, rate), 0.1 * rate)
        before = tree_axpy(-first, f, y0)
        zero = jnp.asarray(0.0, dtype)
        past = jax.tree.map(
            lambda a, b: jnp.concatenate([a[None], jnp.broadcast_to(b, (_POINTS - 1, *b.shape))]),
            y0,
            before,
        )
        ago = jnp.log1p(first / rate) * jnp.arange(_POINTS, dtype=dtype)
        one, none = jnp.asarray(1), jnp.asarray(0)
        return BDFState(
            past=past,
            ago=ago,
            count=jnp.asarray(2),
            artificial=jnp.asarray(True),
            order=one,
            used=one,
            since=none,
            failures=none,
            rate=rate,
            radius=radius,
            scale=scale,
            trust=none,
            trusted=one,
            distrust=none,
            error=zero,
            factor=zero + 1,
            field=f,
            growth=zero,
            evaluations=1 + spent,
        )

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        del made_jump
        old = solver_state
        h, eps = t1 - t0, jnp.finfo(tree_dtype(y0)).eps
        rate = old.rate + h
        stride = jnp.log1p(h / old.rate)
        places = -(stride + old.ago)
        index = jnp.arange(_POINTS)
        order = jnp.minimum(old.order, old.count - 1)

        def guessed(degree):
            return combined(old.past, value_weights(places, index <= degree))

        guess = guessed(order)
        slopes = slope_weights(places, index < order)
        leading = -jnp.sum(slopes)
        shift = leading / rate
        slope = tree_axpy(leading, tree_sub(guess, y0), combined(old.past, slopes, around=y0))
        tolerance = self.tolerance(old.scale, y0)
        share = stride / -places  # of a correction, what counts as the error at each degree
        hopeless = _HOPELESS * tolerance / share[order]
        size = jnp.maximum(tree_norm(guess), jnp.maximum(tree_norm(y0), tolerance))
        check = old.trust <= 0

        def field(y):
            return terms.vf(t1, y, args)

        def left_over(u):
            """The field at a corrected guess, and what it leaves of the step's equation."""
            f = field(jax.tree.map(jnp.add, guess, u))
            pull = tree_axpy(leading, u, slope)
            return f, tree_axpy(-1 / rate, pull, f)

        def unfinished(carry):
            *_, wrong, definite, _, count, _ = carry
            again = check & (wrong > _NONLINEAR) & (count < _LINEARISATIONS)
            return (count == 0) | (again & definite)

        def linearised(carry):
            u, f, r, _, definite, radius, count, spent = carry
            solved = shifted_solve(
                field,
                jax.tree.map(jnp.add, guess, u),
                f,
                shift,
                r,
                enough=enough,
                hopeless=hopeless,
                radius=jnp.maximum(old.radius, radius),
                size=size,
                exact=old.distrust > 0,
            )
            u = jax.tree.map(jnp.add, u, solved.x)

            def looked():
                f, r = left_over(u)
                return f, r, tree_norm(tree_sub(r, solved.residual)) / (shift * tolerance)

            # To first order, the field at the end is that of the equation and what is left of it.
            f, r, wrong = jax.lax.cond(
                check, looked, lambda: (f, solved.residual, jnp.zeros_like(shift))
            )
            return (
                u,
                f,
                r,
                wrong,
                solved.definite & definite,
                jnp.maximum(radius, solved.radius),
                count + 1,
                spent + solved.evaluations + jnp.where(check, 1, 0),
            )

        still = jax.tree.map(jnp.zeros_like, y0)
        f, r = left_over(still)
        # What grows is followed below the tolerance as well: it may decide where the flow leads.
        enough = _SOLVE * tolerance
        speed = tree_norm(f)
        relative = jnp.maximum(_GROWING * speed / shift, _ROUNDINGS * eps * size)
        grows = _log_growth(y0, old.field, guess, f, old.radius + shift) > 0
        enough = jnp.where(grows, jnp.minimum(enough, relative), enough)
        zero = jnp.zeros_like(shift)
        begin = (still, f, r, zero, jnp.asarray(True), zero, jnp.asarray(0), jnp.asarray(1))
        u, _, r, wrong, definite, radius, _, spent = jax.lax.while_loop(
            unfinished, linearised, begin
        )
        y1 = jax.tree.map(jnp.add, guess, u)
        solved = definite & ~(wrong > _NONLINEAR) & jnp.isfinite(speed)

        def error(degree):
            return share[degree] * tree_norm(tree_sub(y1, guessed(degree))) / tolerance

        lower = jnp.where(order > 1, error(order - 1), jnp.inf)
        same = share[order] * tree_norm(u) / tolerance
        may_rise = (order < _HIGHEST) & (old.count >= order + 2) & ~old.artificial
        higher = jnp.where(may_rise, error(jnp.minimum(order + 1, _HIGHEST)), jnp.inf)
        # Where the field stops being finite, nothing is learned about the matrix.
        indefinite = ~definite & jnp.isfinite(same)
        same = jnp.where(solved & jnp.isfinite(same), same, jnp.inf)
        factor, next_order, since = self._next(order, (higher, same, lower), old.since + 1)
        distrust = jnp.where(indefinite, _DISTRUST, jnp.maximum(old.distrust - 1, 0))
        clearly = wrong <= _CLEARLY * _NONLINEAR
        trusted = jnp.where(clearly, jnp.minimum(2 * old.trusted, _LONGEST_TRUST), 1)
        count = jnp.where(old.artificial, 2, jnp.minimum(old.count + 1, _POINTS))
        end_field = tree_axpy(1 / rate, tree_axpy(leading, u, slope), r)
        growth = _log_growth(y0, old.field, y1, end_field, jnp.maximum(old.radius, radius) + shift)
        state = BDFState(
            past=jax.tree.map(lambda p, y: jnp.concatenate([y[None], p[:-1]]), old.past, y1),
            ago=jnp.concatenate([jnp.zeros_like(stride)[None], (old.ago + stride)[:-1]]),
            count=count,
            artificial=jnp.asarray(False),
            order=next_order,
            used=order,
            since=since,
            failures=jnp.asarray(0),
            rate=rate,
            radius=jnp.where(radius > 0, jnp.maximum(radius, 0.9 * old.radius), old.radius),
            scale=old.scale,
            trust=jnp.where(check, trusted, old.trust - 1),
            trusted=jnp.where(check, trusted, old.trusted),
            distrust=distrust,
            error=same,
            factor=factor,
            field=end_field,
            growth=growth,
            evaluations=old.evaluations + spent,
        )
        scaled = share[order]
        y_error = jax.tree.map(lambda e: jnp.where(solved, scaled * e, jnp.inf), u)
        dense_info = {"past": state.past, "ago": state.ago, "order": order, "rate": rate}
        return y1, y_error, dense_info, state, diffrax.RESULTS.successful

    def _next(self, order, errors, since):
        """The factor for the next step, its order, and the count of steps with both."""
        degrees = jnp.stack([order + 1, order, order - 1])
        safeties = jnp.asarray(_SAFETIES, errors[0].dtype)
        wanted = safeties * jnp.maximum(jnp.stack(errors), 1e-12) ** (-1 / (degrees + 1))
        # Where tolerances do not decide, the highest order follows best what they do not see.
        wanted = jnp.minimum(wanted, _LARGEST_FACTOR).astype(errors[0].dtype)
        due = since > order
        best = jnp.where(due, jnp.argmax(wanted), 1)
        factor = wanted[best]
        change = (factor >= _WORTHWHILE) & due | (factor <= _NEEDED) & (due | (factor < 0.9))
        moved = change | (best != 1)
        factor = jnp.where(change, jnp.maximum(factor, _SMALLEST_FACTOR), 1)
        return factor, degrees[best], jnp.where(moved, 0, since)

    def first_step(self, state):
        # The artificial point before the start stands a first step away.
        return state.rate * jnp.expm1(state.ago[1])

    def paced(self, state, h, eagerness):
        order = state.used
        most = (GROWING_ERROR * (order + 1)) ** (1 / (order + 1))
        growth = state.growth / (eagerness * most)
        keep = (state.error <= 1) & (growth <= 1)
        shorter = _AFTER_FAILURE * jnp.maximum(state.error, 1e-12) ** (-1 / (order + 1))
        shorter = jnp.clip(shorter, _SMALLEST_FACTOR, 1)
        slower = 0.9 / jnp.maximum(growth, 0.45)
        factor = jnp.where(keep, state.factor, jnp.minimum(shorter, jnp.maximum(slower, 0.1)))
        return keep, h * jnp.minimum(factor, slower).astype(h.dtype)

    def evaluations(self, state):
        return state.evaluations

    def spectral_radius(self, state):
        return state.radius

    def after_rejection(self, before, after):
        failures = before.failures + 1
        learned = (
            jnp.where(failures >= _PATIENCE, 1, before.order),
            jnp.asarray(0),
            failures,
            after.evaluations,
            jnp.maximum(before.radius, jnp.where(jnp.isfinite(after.radius), after.radius, 0)),
            jnp.asarray(0),
            jnp.asarray(1),
            after.distrust,
        )
        return eqx.tree_at(
            lambda s: (
                s.order,
                s.since,
                s.failures,
                s.evaluations,
                s.radius,
                s.trust,
                s.trusted,
                s.distrust,
            ),
            before,
            learned,
        )

    def tolerance(
        self, scale: Float[Array, ""], y: PyTree[Float[Array, "..."]]
    ) -> Float[Array, ""]:
        """What a step to `y` may err by, in a flow that started on a scale of its own."""
        dtype, size = tree_dtype(y), tree_norm(y)
        rtol = jnp.maximum(self.rtol, _ROUNDINGS * jnp.finfo(dtype).eps)
        both = self.atol * jnp.sqrt(tree_size(y)) + rtol * size
        most = jnp.where(scale > 0, self.largest * jnp.maximum(scale, size), both)
        return jnp.asarray(jnp.minimum(both, most), dtype)


def _log_growth(y0, f0, y1, f1, steepness):
    """The logarithm of the factor by which the field grows between two points, at least 0.

    Without negative curvature between them `(f1 - f0) . (y1 - y0)` is not positive, and what grows
    is the error of the solution; `steepness` times the parameters' rounding is the field's.
    """
    way = tree_sub(y1, y0)
    rounding = _NOISE * jnp.finfo(tree_dtype(y0)).eps * steepness * tree_norm(y1)
    unstable = tree_dot(tree_sub(f1, f0), way) > rounding * tree_norm(way)
    before, after = tree_norm(f0), tree_norm(f1)
    ratio = jnp.where(unstable & (before > 0), after / jnp.where(before > 0, before, 1), 1)
    return jnp.log(jnp.clip(ratio, 1, jnp.finfo(ratio.dtype).max)).astype(steepness.dtype)
