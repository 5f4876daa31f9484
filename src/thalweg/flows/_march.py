"""One solver marching along one flow, step by step, under a step size controller.

The loop drives diffrax's solvers, controllers and interpolants through their interfaces. It exists
beside `diffrax.diffeqsolve` because a flow needs what that loop keeps to itself: the exact price of
every attempt, rejected ones included, and a state that can be stored between two saved times and
taken up again with the same bits.
"""

from math import factorial
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._precision import jit
from .._trees import tree_all_finite, tree_dtype, tree_norm, tree_strong, tree_sub
from ..objectives import AbstractObjective
from ..solvers import AveragedMidpoint, PacedSolver, StabilisedSolver
from ..solvers._counted import GROWING_ERROR
from ._base import Flow
from ._cost import after_rejection, attempt_evaluations, initial_evaluations

# Changes of a step below so many times the parameters' resolution are round-off.
_NOISE = 16
_FAR = 1e17
# Steps are given up on when even the two numbers that time is kept in hardly resolve them, in
# float32, or when time would stand still without the second one, in float64.
_SHORTEST, _TIME_RESOLUTION = 8, 2.0**-52


class MarchState(eqx.Module):
    """Where a march stands: the point, the planned step, and the last step's interpolant.

    Time is `t + t_rest`: what adding up many short steps rounds off is kept. A solver sees each
    step as one from 0 to `h`, since in float32 the difference of two late times has few digits.
    `farthest` is the largest distance of the parameters from where they began.
    """

    t: Float[Array, ""]
    t_rest: Float[Array, ""]
    h: Float[Array, ""]
    h_before: Float[Array, ""]
    y: PyTree[Array]
    solver_state: PyTree
    controller_state: PyTree
    dense_info: PyTree[Array]
    evaluations: Int[Array, ""]
    steps: Int[Array, ""]
    rejected: Int[Array, ""]
    farthest: Float[Array, ""]
    stalled: Bool[Array, ""]

    @property
    def t_before(self) -> Float[Array, ""]:
        """When the last step began."""
        return self.t - self.h_before


def most_growth(order: int) -> float:
    """The logarithm of the factor by which the speed may grow within a step of a method.

    Of the exponential series, a method of this order has the terms up to that order.
    """
    return min(1.0, (GROWING_ERROR * factorial(order + 1)) ** (1 / (order + 1)))


def overgrown(y: PyTree[Array]) -> Bool[Array, ""]:
    """Whether a point is so far out that it is on its way to infinity.

    In float32 there is little room between parameters that are in use and the root of the largest
    number, where squares overflow.
    """
    return ~(tree_norm(y) < max(float(jnp.finfo(tree_dtype(y)).max) ** 0.3, _FAR))


class March(eqx.Module):
    """A flow, a solver and the tolerances: everything a march needs except where it stands.

    No step is longer than `longest`. Where tolerances do not decide, at the start and on the way
    out of a saddle, steps are `eagerness` times what they would be.
    """

    flow: Flow
    solver: diffrax.AbstractSolver
    rtol: Float[Array, ""]
    atol: Float[Array, ""]
    t_end: Float[Array, ""]
    longest: Float[Array, ""]
    eagerness: Float[Array, ""] | float = 1.0

    @property
    def controller(self) -> diffrax.PIDController:
        """A PI controller, gentle enough for steps at the edge of stability.

        Steps do not grow fast: an embedded estimate may vanish by chance, and a method that
        extrapolates from the step before goes wrong when they do.
        """
        return diffrax.PIDController(
            rtol=self.rtol,
            atol=self.atol,
            pcoeff=0.2,
            icoeff=0.5,
            safety=0.9,
            factormax=2.0 if self._averages else 3.0,
            dtmax=self.longest,  # pyright: ignore[reportArgumentType]
        )

    @property
    def _averages(self) -> bool:
        return isinstance(self.solver, AveragedMidpoint)

    @property
    def order(self) -> int:
        """The solver's; 1 for one that does not say."""
        return self.solver.order(self.term(self.t_end)) or 1

    def term(self, start: Float[Array, ""]) -> diffrax.ODETerm:
        """The flow's field, with times counted from `start`."""
        field = self.flow.vector_field
        return diffrax.ODETerm(lambda s, y, objective: field(start + s, y, objective))

    def with_growth(
        self, error: PyTree[Array], growth: Array, state: MarchState, y: PyTree, order: Any
    ) -> PyTree[Array]:
        """The error estimate of a step, larger if the solution speeds up a lot within it.

        Near a saddle everything that matters is below the tolerances. What grows there is resolved
        if no step multiplies the speed by more than a few; that is the size of error added here.
        `growth` is the logarithm of that factor.
        """
        # Over kinks growth cannot be told from jumps so finely.
        most = self.eagerness * (1.0 if self._averages else most_growth(self.order))
        excess = (growth / most) ** order

        def with_excess(e, y0, y1):
            scale = self.atol + self.rtol * jnp.maximum(jnp.abs(y0), jnp.abs(y1))
            return jnp.abs(e) + (excess * scale).astype(e.dtype)

        return jax.tree.map(with_excess, error, state.y, y)

    def start(
        self, objective: AbstractObjective, t: Array, y: PyTree, h: Float[Array, ""] | None
    ) -> MarchState:
        """Stand at `(t, y)`; with `h=None` the first step size is looked for (2 evaluations)."""
        return _start(self, objective, t, y, h)

    def to(
        self,
        objective: AbstractObjective,
        state: MarchState,
        target: Any,
        budget: Any,
        origin: PyTree,
    ) -> MarchState:
        """Step until `target` is passed, `budget` steps were attempted, or it stalls.

        `origin` are the parameters at time 0.
        """
        # As arrays, lest every new number be compiled anew.
        target = jnp.asarray(target, state.t.dtype)
        return _to(self, objective, state, target, jnp.asarray(budget), origin)

    def at(self, state: MarchState, t: Float[Array, ""]) -> PyTree:
        """The solution at a time within the last step."""
        return _at(self, state, t)


def log_growth(
    solver: diffrax.AbstractSolver, state: MarchState, dense_info: PyTree, solver_state: PyTree
) -> Float[Array, ""]:
    """The logarithm of the factor by which a step makes the speed grow, at least 0."""
    if isinstance(solver, AveragedMidpoint):
        return solver.log_growth(state.solver_state, solver_state)
    start, end = jnp.zeros_like(state.h), state.h
    ends = solver.interpolation_cls(t0=start, t1=end, **dense_info)
    before, after = (tree_norm(ends.derivative(t)) for t in (start, end))
    # Where the solution has come to rest, its speed is the noise of the gradient.
    reach = 0.0
    if isinstance(solver, StabilisedSolver):
        reach = state.h * solver.spectral_radius(solver_state)
    noise = _NOISE * (1 + reach) * jnp.finfo(after.dtype).eps * tree_norm(state.y)
    usable = (before > 0) & jnp.isfinite(after / before) & (state.h * after > noise)
    return jnp.log(jnp.where(usable, jnp.maximum(after / before, 1), 1))


@jit
def _start(march, objective, t, y, h):
    solver = march.solver
    # Time has the dtype of the tolerances, which is that of the parameters: a wider one would
    # widen everything that a step size is multiplied with.
    t = jnp.asarray(t, march.rtol.dtype)
    zero, term = jnp.zeros_like(t), march.term(t)
    left = march.t_end - t
    if isinstance(solver, PacedSolver):
        solver_state = solver.init(term, zero, left, y, objective)
        first, controller_state, looking = solver.first_step(solver_state), (), 0
    else:
        first, controller_state = march.controller.init(
            term, zero, left, y, h, objective, solver.func, solver.error_order(term)
        )
        looking = 2 if h is None else 0
        solver_state = None
    h_first = jnp.minimum(march.eagerness * jnp.asarray(first, t.dtype), march.longest)
    h_first = jnp.minimum(h_first, left)
    if solver_state is None:
        solver_state = solver.init(term, zero, h_first, y, objective)
    shapes = eqx.filter_eval_shape(
        solver.step, term, zero, h_first, y, objective, solver_state, jnp.asarray(False)
    )
    dense_info = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[2])
    none = jnp.asarray(0)
    cost = initial_evaluations(solver, solver_state) + looking
    state = MarchState(
        t=t,
        t_rest=zero,
        h=h_first,
        h_before=zero,
        y=y,
        solver_state=solver_state,
        controller_state=jax.tree.map(jnp.asarray, controller_state),
        dense_info=dense_info,
        evaluations=jnp.asarray(cost),
        steps=none,
        rejected=none,
        farthest=zero,
        stalled=jnp.asarray(False),
    )
    return tree_strong(state)


@jit
def _to(march, objective, state, target, budget, origin):
    solver, controller = march.solver, march.controller
    order = solver.error_order(march.term(state.t))

    def unfinished(carry):
        state, left = carry
        return (state.t < target) & (left > 0) & ~state.stalled

    def attempt(carry):
        state, left = carry
        no_jump, zero = jnp.asarray(False), jnp.zeros_like(state.h)
        y, error, dense_info, solver_state, result = solver.step(
            march.term(state.t), zero, state.h, state.y, objective, state.solver_state, no_jump
        )
        usable = (result == diffrax.RESULTS.successful) & tree_all_finite(y)
        if isinstance(solver, PacedSolver):
            good, length = solver.paced(solver_state, state.h, march.eagerness)
            keep, length = good & usable, jnp.where(usable, length, 0.3 * state.h)
            controller_state = state.controller_state
        else:
            growth = log_growth(solver, state, dense_info, solver_state)
            error = march.with_growth(error, growth, state, y, order)
            error = jax.tree.map(lambda e: jnp.where(usable & ~jnp.isnan(e), e, jnp.inf), error)
            # An end that is not finite is no scale to measure errors with.
            end = jax.tree.map(lambda a, b: jnp.where(usable, a, b), y, state.y)
            keep, begin, end, _, controller_state, _ = controller.adapt_step_size(
                zero, state.h, state.y, end, objective, error, order, state.controller_state
            )
            length = end - begin
        length = jnp.minimum(length, march.longest)
        eps = jnp.finfo(state.t.dtype).eps
        t, t_rest = _added(state.t, state.t_rest, jnp.where(keep, state.h, 0))
        # A remainder too short to be worth a step of its own is added to the last one.
        h, remains = length, (march.t_end - t) - t_rest
        at_end = remains <= 8 * eps * march.t_end
        t = jnp.where(at_end, march.t_end, t)
        h = jnp.where(1.01 * h >= remains, remains, h)
        smallest = _SHORTEST * max(eps**2, _TIME_RESOLUTION) * jnp.abs(t)
        # Before a place where the field stops being finite, parameters cannot come any closer.
        at_edge = ~usable & (state.h <= _SHORTEST * eps * jnp.abs(t))

        def kept(new, old):
            return jnp.where(keep, new, old)

        params = march.flow.params(y)
        away = tree_norm(tree_sub(params, origin)).astype(state.farthest.dtype)
        cost = attempt_evaluations(solver, state.solver_state, solver_state)
        after = after_rejection(solver, state.solver_state, solver_state)
        new = MarchState(
            t=t,
            t_rest=t_rest,
            h=h,
            h_before=kept(state.h, state.h_before),
            y=jax.tree.map(kept, y, state.y),
            solver_state=jax.tree.map(kept, solver_state, after),
            controller_state=jax.tree.map(jnp.asarray, controller_state),
            dense_info=jax.tree.map(kept, dense_info, state.dense_info),
            evaluations=state.evaluations + cost,
            steps=state.steps + keep,
            rejected=state.rejected + ~keep,
            farthest=jnp.where(keep, jnp.maximum(state.farthest, away), state.farthest),
            # A step that is NaN is none.
            stalled=at_edge | (~(h > smallest) & ~at_end) | (keep & overgrown(params)),
        )
        return new, left - 1

    return jax.lax.while_loop(unfinished, attempt, (state, budget))[0]


@jit
def _at(march, state, t):
    zero = jnp.zeros_like(state.h)
    interpolant = march.solver.interpolation_cls(t0=zero, t1=state.h_before, **state.dense_info)
    moved = state.h_before > 0
    place = state.h_before - ((state.t - t) + state.t_rest)
    y = interpolant.evaluate(jnp.where(moved, jnp.clip(place, 0, state.h_before), zero))
    # Before the first step there is no interpolant; at the end of a step it is the step's result.
    exact = ~moved | (t == state.t)
    return jax.tree.map(lambda a, b: jnp.where(exact, b, a).astype(b.dtype), y, state.y)


def _added(t, rest, h):
    """`t + rest + h` as a rounded sum and what it rounds off (Knuth's exact sum of two numbers)."""
    h = h + rest
    total = t + h
    back = total - t
    return total, (t - (total - back)) + (h - back)
