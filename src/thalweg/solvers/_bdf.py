"""Backward differentiation formulas in logarithmic time, for stiff gradient flows.

An explicit method pays for stability: the root of what the sharpness times the time is, if it is a
stabilised one. An implicit method pays for linear systems instead. Those of a gradient flow are
symmetric, the extrapolated solution leaves a small and smooth residual, and a few conjugate
gradients are enough. A gradient flow slows down like its own time: what happens between t and 2 t
takes about as many steps as between 2 t and 4 t. In the logarithm of time the solution is smooth,
and steps of equal length suit it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._trees import tree_axpy, tree_dtype, tree_norm, tree_scale, tree_size, tree_sub
from ._bdf_state import BDFState, Hidden
from ._between import log_growth
from ._counted import GROWING_ERROR, PacedSolver
from ._deflation import Deflation
from ._equations import Equation, FirstOrder
from ._past_points import BDFInterpolation, combined, slope_weights, value_weights
from ._radius import SpectralRadius
from ._stage import NONLINEAR, solve_stage

_HIGHEST = 5
_POINTS = _HIGHEST + 1
# What is aimed at, as a part of the tolerance, with the order one higher, the same, one lower.
_SAFETIES = (0.85, 0.9, 0.88)
_LARGEST_FACTOR, _SMALLEST_FACTOR, _AFTER_FAILURE = 2.0, 0.3, 0.85
# Steps stay as they are unless they become longer, or shorter, by these factors.
_WORTHWHILE, _NEEDED = 1.15, 0.95
# After so many rejections in a row the order falls to one.
_PATIENCE = 3
# The error of a linear solve, as a part of the tolerance and, at rest, of the move in a step: what
# it leaves there would be amplified by the extrapolation of the next steps.
_SOLVE, _MOVING = 0.25, 0.1
# The same where the speed grows, as a part of the way that is made in a step.
_GROWING = 1e-3
# A correction longer than so many times what is accepted is not computed to its end.
_HOPELESS = 20.0
# What a linearisation leaves is looked at again after 1, 2, 4, ... steps as long as it is so much
# smaller than what it may be.
_CLEARLY, _LONGEST_TRUST = 0.1, 16
# A step's tolerance is at least so many roundings of the parameters.
_ROUNDINGS = 4
# Steps for which products are exact after the matrix was found not to be positive.
_DISTRUST = 20


class BDF(PacedSolver):
    """Backward differentiation of order one to five in logarithmic time, for gradient flows.

    **Arguments:**

    - `rtol`, `atol`: a step's error, as a Euclidean norm over all n parameters, may be
        `atol sqrt(n) + rtol min(|y|, way)`, where `way` is the length of the path so far.
        `tw.integrate` sets them.
    - `largest`: a step's error is at most this part of the parameters' norm: with a cruder step
        the solution may jump from one valley into another. `tw.integrate` sets it.
    - `equation`: what is to be solved, `FirstOrder()` or `SecondOrder(friction)`. `tw.integrate`
        takes that of the flow.

    The Jacobian of the force must be symmetric. Each step makes one linear solve by conjugate
    gradients, whose products are difference quotients of the force. Up to 150,000 parameters the
    solves are preconditioned with approximate eigenvectors, which they gather on the way: at most
    40, in float32. With momentum, the velocity is eliminated from a step, and its equation has the
    matrix `rate (rate + friction) + Hessian`, which is symmetric as well.

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
    equation: Equation = FirstOrder()

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable[..., BDFInterpolation]] = BDFInterpolation

    def order(self, terms):
        return _HIGHEST

    def error_order(self, terms):
        return 3

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)

    def init(self, terms, t0, t1, y0, args) -> BDFState:
        x0, force = self.equation.position(y0), self.equation.force(terms, t0, args)
        f = force(x0)
        speed = tree_norm(f)
        moving = speed > 0
        unit = tree_scale(1 / jnp.where(moving, speed, 1), f)
        random = SpectralRadius.unknown(x0)
        direction = jax.tree.map(lambda a, b: jnp.where(moving, a, b), unit, random.direction)
        known = eqx.tree_at(lambda r: r.direction, random, direction)
        known, spent = known.estimated(force, x0, f, accuracy=0.2, max_iterations=6)
        dtype = jnp.result_type(t0, t1)
        radius = known.value.astype(dtype)
        fastest = self.equation.fastest(radius)
        # A linear field at zero has no scale of its own.
        rate = 2 / jnp.where(fastest > 0, fastest, 1)
        way = jnp.where(radius > 0, speed / jnp.where(radius > 0, radius, 1), 0).astype(dtype)
        scale = jnp.maximum(way, tree_norm(x0)).astype(dtype)
        tolerance = self.tolerance(scale, x0, way)
        bend = self.equation.bend(speed, radius)
        first = jnp.sqrt(2 * tolerance / jnp.where(bend > 0, bend, 1)).astype(dtype)
        first = jnp.minimum(jnp.where(bend > 0, first, rate), 0.1 * rate)
        before = tree_axpy(-first, self.equation.derivative(y0, f), y0)
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
            way=way,
            trust=none,
            trusted=one,
            distrust=none,
            error=zero,
            factor=zero + 1,
            field=f,
            vague=zero,
            growth=zero,
            hidden=Hidden.nothing(zero),
            deflation=Deflation.affordable(tree_size(x0), radius),
            evaluations=1 + spent,
        )

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        del made_jump
        old, equation = solver_state, self.equation
        x0 = equation.position(y0)
        h, eps = jnp.asarray(t1 - t0), jnp.finfo(tree_dtype(y0)).eps
        rate = old.rate + h
        stride = jnp.log1p(h / old.rate)
        places = -(stride + old.ago)
        index = jnp.arange(_POINTS)
        longest = equation.longest(h, old.radius.astype(h.dtype))
        stable = h <= longest
        order = jnp.minimum(old.order, old.count - 1)
        order = jnp.max(jnp.where(stable & (index <= order), index, 1))

        def guessed(degree):
            return combined(old.past, value_weights(places, index <= degree))

        guess = guessed(order)
        slopes = slope_weights(places, index < order)
        leading = -jnp.sum(slopes)
        pace = leading / rate
        shift = equation.shift(pace)
        slope = tree_axpy(leading, tree_sub(guess, y0), combined(old.past, slopes, around=y0))
        slope = tree_scale(1 / rate, slope)
        pull, place = equation.pull(guess, slope, pace), equation.position(guess)
        tolerance = self.tolerance(old.scale, x0, old.way)
        share = stride / -places  # of a correction, what counts as the error at each degree
        check = old.trust <= 0

        field = equation.force(terms, t1, args)

        def left_over(u):
            """The force at a corrected guess, and what it leaves of the step's equation."""
            f = field(jax.tree.map(jnp.add, place, u))
            return f, tree_sub(f, tree_axpy(shift, u, pull))

        f, r = left_over(jax.tree.map(jnp.zeros_like, x0))
        # What grows is followed below the tolerance as well: it may decide where the flow leads.
        speed = tree_norm(f)
        size = jnp.maximum(jnp.maximum(tree_norm(place), tree_norm(x0)), speed / shift)
        size = jnp.maximum(jnp.nan_to_num(size), jnp.finfo(size.dtype).tiny)
        rounding = _ROUNDINGS * eps * size
        part = _MOVING * equation.damping(old.radius)
        moves = jnp.maximum(part * tree_norm(tree_sub(place, x0)), rounding)
        enough = jnp.minimum(_SOLVE * tolerance, moves)
        relative = jnp.maximum(_GROWING * speed / shift, rounding)
        grows = log_growth(x0, old.field, place, f, old.radius + shift, old.vague) > 0
        grows |= jnp.isinf(old.vague)
        enough = jnp.where(grows, jnp.minimum(enough, relative), enough)
        stage = solve_stage(
            field,
            left_over,
            place,
            (f, r),
            shift,
            old.deflation,
            tolerance=tolerance,
            enough=enough,
            hopeless=_HOPELESS * tolerance / share[order],
            radius=old.radius,
            size=size,
            exact=old.distrust > 0,
            check=check,
        )
        wrong, radius = stage.wrong, stage.radius
        u = equation.completed(stage.u, guess, slope, pace)
        y1 = jax.tree.map(jnp.add, guess, u)
        x1 = equation.position(y1)
        solved = stage.definite & ~(wrong > NONLINEAR) & jnp.isfinite(speed)

        def error(degree):
            return share[degree] * equation.norm(tree_sub(y1, guessed(degree)), pace) / tolerance

        # Where stability keeps steps short, the highest order for which it does not.
        free = jnp.isinf(longest) & (index < order)
        below = jnp.max(jnp.where(free, index, 0))
        below = jnp.where(jnp.isinf(longest[order]), order - 1, below)
        lower = jnp.where(order > 1, error(below), jnp.inf)
        same = share[order] * equation.norm(u, pace) / tolerance
        may_rise = (order < _HIGHEST) & (old.count >= order + 2) & ~old.artificial
        may_rise &= stable[jnp.minimum(order + 1, _HIGHEST)]
        higher = jnp.where(may_rise, error(jnp.minimum(order + 1, _HIGHEST)), jnp.inf)
        # Where the field stops being finite, nothing is learned about the matrix.
        indefinite = ~stage.definite & jnp.isfinite(same)
        same = jnp.where(solved & jnp.isfinite(same), same, jnp.inf)
        factor, next_order, since = self._next(
            (order + 1, order, below), (higher, same, lower), longest / h, old.since + 1
        )
        distrust = jnp.where(indefinite, _DISTRUST, jnp.maximum(old.distrust - 1, 0))
        clearly = wrong <= _CLEARLY * NONLINEAR
        trusted = jnp.where(clearly, jnp.minimum(2 * old.trusted, _LONGEST_TRUST), 1)
        count = jnp.where(old.artificial, 2, jnp.minimum(old.count + 1, _POINTS))
        end_field = jax.tree.map(jnp.add, tree_axpy(shift, stage.u, pull), stage.residual)
        steepness = jnp.maximum(old.radius, radius) + shift
        growth = log_growth(x0, old.field, x1, end_field, steepness, old.vague + stage.vague)
        lasting = jnp.where(radius > 0, 0.9, 1).astype(radius.dtype)
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
            radius=jnp.maximum(jnp.maximum(radius, stage.seen), lasting * old.radius),
            scale=old.scale,
            way=old.way + tree_norm(tree_sub(x1, x0)).astype(old.way.dtype),
            trust=jnp.where(check, trusted, old.trust - 1),
            trusted=jnp.where(check, trusted, old.trusted),
            distrust=distrust,
            error=same,
            factor=factor,
            field=end_field,
            vague=stage.vague,
            growth=growth,
            hidden=old.hidden.after(growth, h, tolerance, tree_norm(end_field)),
            deflation=stage.deflation,
            evaluations=old.evaluations + 1 + stage.spent,
        )
        scaled = share[order]
        y_error = jax.tree.map(lambda e: jnp.where(solved, scaled * e, jnp.inf), u)
        dense_info = {"past": state.past, "ago": state.ago, "order": order, "rate": rate}
        return y1, y_error, dense_info, state, diffrax.RESULTS.successful

    def _next(self, degrees, errors, most, since):
        """The factor for the next step, its order, and the count of steps with both.

        `most` are the largest factors for which the orders are stable.
        """
        order, degrees = degrees[1], jnp.stack(degrees)
        safeties = jnp.asarray(_SAFETIES, errors[0].dtype)
        wanted = safeties * jnp.maximum(jnp.stack(errors), 1e-12) ** (-1 / (degrees + 1))
        # Where tolerances do not decide, the highest order follows best what they do not see.
        most = jnp.minimum(most[jnp.minimum(degrees, _HIGHEST)], _LARGEST_FACTOR)
        wanted = jnp.minimum(wanted, most).astype(errors[0].dtype)
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
        growth = state.growth / (eagerness * _most_growth(order))
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
        radius = jnp.where(jnp.isfinite(after.radius), after.radius, 0)
        return replace(
            before,
            order=jnp.where(failures >= _PATIENCE, 1, before.order),
            since=jnp.asarray(0),
            failures=failures,
            evaluations=after.evaluations,
            radius=jnp.maximum(before.radius, radius),
            trust=jnp.asarray(0),
            trusted=jnp.asarray(1),
            distrust=after.distrust,
            # A growth that a step is rejected for may be that of a field taken from an equation.
            vague=jnp.where(after.error <= 1, jnp.inf, before.vague),
            deflation=after.deflation,
        )

    def tolerance(
        self, scale: Float[Array, ""], x: PyTree[Float[Array, "..."]], way: Float[Array, ""]
    ) -> Float[Array, ""]:
        """What a step to the position `x` may err by, after a way of that length.

        `scale` is that on which the flow started.
        """
        dtype, size = tree_dtype(x), tree_norm(x)
        rounding = _ROUNDINGS * jnp.finfo(dtype).eps * size
        relative = jnp.maximum(self.rtol * jnp.minimum(size, way), rounding)
        both = self.atol * jnp.sqrt(tree_size(x)) + relative
        most = jnp.where(scale > 0, self.largest * jnp.maximum(scale, size), both)
        return jnp.asarray(jnp.minimum(both, most), dtype)


def _most_growth(order):
    """The logarithm of the factor by which the speed may grow within a step."""
    return (GROWING_ERROR * (order + 1)) ** (1 / (order + 1))
