"""The extrapolated midpoint rule with means over the step in place of values at its middle.

The solution of a discontinuous field (a ReLU network's) crosses a discontinuity at some moment
within a step. A method that sees the field at points of its choice sees one side or the other, and
errs by up to the whole jump times the step; a step size control then hunts for discontinuities one
by one, of which a network has many thousands. If the field is averaged over the step, each side
enters with the time spent there. What is left is of second order, as it is between discontinuities.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._trees import tree_axpy, tree_norm, tree_sub

# The share of a step's own change in the running mean of changes.
_FRESH = 0.2
# A change so many times the running mean counts in full. Above sqrt(2), which it is where the field
# alternates.
_SURPRISE = 2.0
# The share of what the field alternates by from step to step that counts as an error.
_SWING = 0.1


def no_average(args: PyTree, displacement: PyTree[Array]) -> PyTree:
    """For a field that cannot be averaged."""
    return args


class AveragedState(eqx.Module):
    """The mean fields over the last two steps, the lengths of those steps, and the errors so far.

    `level` is a running mean (root of mean squares) of the error per unit of time.
    """

    slope: PyTree[Array]
    length: Float[Array, ""]
    older_slope: PyTree[Array]
    older_length: Float[Array, ""]
    level: Float[Array, ""]


class QuadraticInterpolation(diffrax.AbstractLocalInterpolation):
    """The parabola from `y0` with slope `k0` per step to `y1`."""

    t0: Float[Array, ""]  # pyright: ignore[reportIncompatibleVariableOverride]
    t1: Float[Array, ""]  # pyright: ignore[reportIncompatibleVariableOverride]
    y0: PyTree[Array]
    y1: PyTree[Array]
    k0: PyTree[Array]

    def evaluate(self, t0, t1=None, left=True):
        del left
        if t1 is not None:
            return tree_sub(self.evaluate(t1), self.evaluate(t0))
        length = jnp.where(self.t1 == self.t0, 1, self.t1 - self.t0)
        x = jnp.asarray((t0 - self.t0) / length)

        def parabola(a, b, k):
            place = x.astype(a.dtype)
            return a + place * k + place**2 * (b - a - k)

        return jax.tree.map(parabola, self.y0, self.y1, self.k0)


class AveragedMidpoint(diffrax.AbstractAdaptiveSolver[AveragedState]):
    """Midpoint rule along the last step's slope, with the field averaged over the step.

    Order two, one evaluation a step; on linear problems it is the two-step Adams-Bashforth method.
    For discontinuous fields it converges to Filippov's solution; along discontinuities that the
    solution slides on, it alternates between the sides with means that hold it there.

    **Arguments:**

    - `average`: `average(args, displacement)` are the arguments with which the vector field at a
        point is its mean over the segment `point +- displacement / 2`; for a network's gradient
        flow, `lambda objective, displacement: objective.along(displacement)`. By default the field
        is taken as it is: discontinuities then enter with random signs.

    ??? cite "Reference"

        Means of a gradient over a step: McLachlan, Quispel and Robidoux, "Geometric integration
        using discrete gradients", Philosophical Transactions of the Royal Society A 357 (1999)
        1021-1045. Solutions of discontinuous equations: Filippov, Differential Equations with
        Discontinuous Righthand Sides (1988).
    """

    average: Callable[[PyTree, PyTree], PyTree] = no_average

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable[..., QuadraticInterpolation]] = QuadraticInterpolation

    def order(self, terms):
        return 2

    def error_order(self, terms):
        # What is estimated is the change of the field within a step: where the field jumps, higher
        # differences of it mean nothing.
        return 2

    def init(self, terms, t0, t1, y0, args) -> AveragedState:
        slope, none = terms.vf(t0, y0, args), jnp.zeros_like(jnp.asarray(t1 - t0))
        return AveragedState(slope, none, slope, none, none)

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        past = jax.lax.cond(
            made_jump, lambda: self.init(terms, t0, t1, y0, args), lambda: solver_state
        )
        control = terms.contr(t0, t1)
        ahead = terms.prod(past.slope, control)
        middle = tree_axpy(0.5, ahead, y0)
        along = self.average(args, ahead)
        slope = terms.vf(t0 + (t1 - t0) / 2, middle, along)
        k = terms.prod(slope, control)
        y1 = jax.tree.map(jnp.add, y0, k)
        # Slopes belong to the middles of steps; the first one to a step of no length.
        length = jnp.asarray(t1 - t0)
        joint = past.length / (past.length + length)
        k0 = jax.tree.map(lambda a, b: a + joint.astype(a.dtype) * (b - a), ahead, k)
        # Half the change of the field within the step, from the step before last: where the
        # solution slides, the field alternates from step to step, which does no harm.
        share = length / (length + 2 * past.length + past.older_length)
        older = terms.prod(past.older_slope, control)
        change = jax.tree.map(lambda a, b: share.astype(a.dtype) * (a - b), k, older)
        # It does not alternate regularly, either. Were steps rejected by the change at hand, those
        # that stay on one side would be preferred, and the mean of both would be off.
        rate = tree_norm(change) / length
        mean = jnp.sqrt((1 - _FRESH) * past.level**2 + _FRESH * rate**2)
        level = jnp.where(past.older_length > 0, mean, rate)
        # One that is far beyond the mean is an event (sliding begins), and may not hide in it.
        counted = jnp.where(rate > _SURPRISE * past.level, rate, level)
        # Alternation does harm where there is nothing else: at rest on a kink it has period two,
        # and grows with the step.
        swing = tree_sub(k, ahead)
        counted = jnp.maximum(counted, _SWING * tree_norm(swing) / length)
        shape = jax.tree.map(lambda a, b: jnp.where(rate > 0, a, b), change, swing)
        size = tree_norm(shape) / length
        smoothed = counted / jnp.where(size > 0, size, 1)
        y_error = jax.tree.map(lambda e: smoothed.astype(e.dtype) * e, shape)
        dense_info: dict[str, Any] = {"y0": y0, "y1": y1, "k0": k0}
        state = AveragedState(slope, length, past.slope, past.length, level)
        return y1, y_error, dense_info, state, diffrax.RESULTS.successful

    def log_growth(self, before: AveragedState, after: AveragedState) -> Float[Array, ""]:
        """The logarithm of the factor by which the speed grew in a step, where it grows steadily.

        A jump of the field is no growth: a shorter step would not make it smaller. What grows in
        this step as it did in the one before, is.
        """
        last, this, older = (
            jnp.log(tree_norm(slope)) for slope in (before.slope, after.slope, before.older_slope)
        )
        spacing = (before.length + before.older_length) / 2
        expected = after.length * (last - older) / jnp.where(spacing > 0, spacing, 1)
        steady = jnp.where(spacing > 0, jnp.minimum(this - last, expected), this - last)
        return jnp.where(jnp.isfinite(steady), jnp.maximum(steady, 0), 0)
