"""One solver marching along one flow, step by step, under a step size controller.

The loop drives diffrax's solvers, controllers and interpolants through their interfaces. It exists
beside `diffrax.diffeqsolve` because a flow needs what that loop keeps to itself: the exact price of
every attempt, rejected ones included; a state that can be stored between two saved times and taken
up again with the same bits; and a way out when the method no longer suits the problem.
"""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._trees import tree_all_finite, tree_dtype, tree_norm
from ..objective import Objective
from ..solvers import AveragedMidpoint
from ._base import Flow
from ._cost import after_rejection, attempt_evaluations, initial_evaluations

# The logarithm of the factor by which the speed may grow within a step.
_MOST_GROWTH = 1.0


class MarchState(eqx.Module):
    """Where a march stands: the point, the planned step, and the last step's interpolant."""

    t: Float[Array, ""]
    t_next: Float[Array, ""]
    y: PyTree[Array]
    solver_state: PyTree
    controller_state: PyTree
    t_before: Float[Array, ""]
    dense_info: PyTree[Array]
    evaluations: Int[Array, ""]
    steps: Int[Array, ""]
    rejected: Int[Array, ""]
    unsuited: Int[Array, ""]
    stalled: Bool[Array, ""]


def overgrown(y: PyTree[Array]) -> Bool[Array, ""]:
    """Whether a point is so far out that it is on its way to infinity."""
    return ~(tree_norm(y) < jnp.finfo(tree_dtype(y)).max ** 0.3)


def never_unsuited(
    state: MarchState, h: Float[Array, ""], dense_info: PyTree, solver_state: PyTree
) -> Bool[Array, ""]:
    """For a solver that was asked for: it stays."""
    return jnp.asarray(False)


class March(eqx.Module):
    """A flow, a solver and the tolerances: everything a march needs except where it stands.

    No step is longer than `longest`. Where tolerances do not decide, at the start and on the way
    out of a saddle, steps are `eagerness` times what they would be.
    `unsuited(state, h, dense_info, solver_state)` says whether an attempted step of length `h` was
    one that another method would have made better; the march comes to rest when `patience` more of
    its attempts were of that kind than were not.
    """

    flow: Flow
    solver: diffrax.AbstractSolver
    rtol: Float[Array, ""]
    atol: Float[Array, ""]
    t_end: Float[Array, ""]
    longest: Float[Array, ""]
    eagerness: float = eqx.field(static=True, default=1.0)
    unsuited: Callable[..., Bool[Array, ""]] = eqx.field(static=True, default=never_unsuited)
    patience: Int[Array, ""] | int = 8

    @property
    def controller(self) -> diffrax.PIDController:
        """A PI controller, gentle enough for steps at the edge of stability."""
        return diffrax.PIDController(
            rtol=self.rtol,
            atol=self.atol,
            pcoeff=0.2,
            icoeff=0.5,
            safety=0.9,
            factormax=5.0,
            dtmax=self.longest,  # pyright: ignore[reportArgumentType]
        )

    @property
    def term(self) -> diffrax.ODETerm:
        return diffrax.ODETerm(self.flow.vector_field)  # pyright: ignore[reportArgumentType]

    def with_growth(
        self, error: PyTree[Array], growth: Array, state: MarchState, y: PyTree, order: Any
    ) -> PyTree[Array]:
        """The error estimate of a step, larger if the solution speeds up a lot within it.

        Near a saddle everything that matters is below the tolerances. What grows there is resolved
        if no step multiplies the speed by more than a few; that is the size of error added here.
        `growth` is the logarithm of that factor.
        """
        excess = (growth / (self.eagerness * _MOST_GROWTH)) ** order

        def with_excess(e, y0, y1):
            scale = self.atol + self.rtol * jnp.maximum(jnp.abs(y0), jnp.abs(y1))
            return jnp.abs(e) + (excess * scale).astype(e.dtype)

        return jax.tree.map(with_excess, error, state.y, y)

    def start(
        self, objective: Objective, t: Array, y: PyTree, h: Float[Array, ""] | None
    ) -> MarchState:
        """Stand at `(t, y)`; with `h=None` the first step size is looked for (2 evaluations)."""
        return _start(self, objective, t, y, h)

    def to(self, objective: Objective, state: MarchState, target: Any, budget: Any) -> MarchState:
        """Step until `target` is passed, `budget` steps were attempted, or something is amiss."""
        # As arrays, lest every new number be compiled anew.
        target = jnp.asarray(target, state.t.dtype)
        return _to(self, objective, state, target, jnp.asarray(budget))

    def at(self, state: MarchState, t: Float[Array, ""]) -> PyTree:
        """The solution at a time within the last step."""
        return _at(self, state, t)


def log_growth(
    solver: diffrax.AbstractSolver, state: MarchState, dense_info: PyTree, solver_state: PyTree
) -> Float[Array, ""]:
    """The logarithm of the factor by which a step makes the speed grow, at least 0."""
    if isinstance(solver, AveragedMidpoint):
        return solver.log_growth(state.solver_state, solver_state)
    ends = solver.interpolation_cls(t0=state.t, t1=state.t_next, **dense_info)
    before, after = (tree_norm(ends.derivative(t)) for t in (state.t, state.t_next))
    usable = (before > 0) & jnp.isfinite(after / before)
    return jnp.log(jnp.where(usable, jnp.maximum(after / before, 1), 1))


def _stopped(march: March, state: MarchState) -> Bool[Array, ""]:
    return state.stalled | (state.unsuited >= march.patience)


@eqx.filter_jit
def _start(march, objective, t, y, h):
    solver, term = march.solver, march.term
    # Time has the dtype of the tolerances, which is that of the parameters: a wider one would
    # widen everything that a step size is multiplied with.
    t = jnp.asarray(t, march.rtol.dtype)
    t_next, controller_state = march.controller.init(
        term, t, march.t_end, y, h, objective, solver.func, solver.error_order(term)
    )
    first_step = jnp.minimum(march.eagerness * (jnp.asarray(t_next, t.dtype) - t), march.longest)
    t_next = jnp.minimum(t + first_step, march.t_end)
    solver_state = solver.init(term, t, t_next, y, objective)
    shapes = eqx.filter_eval_shape(
        solver.step, term, t, t_next, y, objective, solver_state, jnp.asarray(False)
    )
    dense_info = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[2])
    zero = jnp.asarray(0)
    first = initial_evaluations(solver) + (2 if h is None else 0)
    return MarchState(
        t=t,
        t_next=t_next,
        y=y,
        solver_state=solver_state,
        controller_state=jax.tree.map(jnp.asarray, controller_state),
        t_before=t,
        dense_info=dense_info,
        evaluations=jnp.asarray(first),
        steps=zero,
        rejected=zero,
        unsuited=zero,
        stalled=jnp.asarray(False),
    )


@eqx.filter_jit
def _to(march, objective, state, target, budget):
    solver, term, controller = march.solver, march.term, march.controller
    order = solver.error_order(term)

    def unfinished(carry):
        state, left = carry
        return (state.t < target) & (left > 0) & ~_stopped(march, state)

    def attempt(carry):
        state, left = carry
        no_jump = jnp.asarray(False)
        y, error, dense_info, solver_state, result = solver.step(
            term, state.t, state.t_next, state.y, objective, state.solver_state, no_jump
        )
        usable = (result == diffrax.RESULTS.successful) & tree_all_finite(y)
        error = jax.tree.map(lambda e: jnp.where(usable & ~jnp.isnan(e), e, jnp.inf), error)
        growth = log_growth(solver, state, dense_info, solver_state)
        error = march.with_growth(error, growth, state, y, order)
        keep, t, t_next, _, controller_state, _ = controller.adapt_step_size(
            state.t, state.t_next, state.y, y, objective, error, order, state.controller_state
        )
        # A remainder too short to be worth a step of its own is added to the last one.
        h = t_next - t
        near_end = t + 1.01 * h >= march.t_end
        t_next = jnp.where(near_end, march.t_end, t_next)
        smallest = 8 * jnp.finfo(t.dtype).eps * jnp.maximum(jnp.abs(t), jnp.abs(h))

        def kept(new, old):
            return jnp.where(keep, new, old)

        amiss = march.unsuited(state, state.t_next - state.t, dense_info, solver_state)
        cost = attempt_evaluations(solver, state.solver_state, solver_state)
        after = after_rejection(solver, state.solver_state, solver_state)
        new = MarchState(
            t=kept(t, state.t),
            t_next=t_next,
            y=jax.tree.map(kept, y, state.y),
            solver_state=jax.tree.map(kept, solver_state, after),
            controller_state=jax.tree.map(jnp.asarray, controller_state),
            t_before=kept(state.t, state.t_before),
            dense_info=jax.tree.map(kept, dense_info, state.dense_info),
            evaluations=state.evaluations + cost,
            steps=state.steps + keep,
            rejected=state.rejected + ~keep,
            unsuited=jnp.maximum(state.unsuited + jnp.where(amiss, 1, -1), 0),
            stalled=((h <= smallest) & (t < march.t_end)) | (keep & overgrown(y)),
        )
        return new, left - 1

    return jax.lax.while_loop(unfinished, attempt, (state, budget))[0]


@eqx.filter_jit
def _at(march, state, t):
    interpolant = march.solver.interpolation_cls(t0=state.t_before, t1=state.t, **state.dense_info)
    moved = state.t > state.t_before
    y = interpolant.evaluate(jnp.where(moved, t, state.t_before))
    # Before the first step there is no interpolant; at the end of a step it is the step's result.
    exact = ~moved | (t == state.t)
    return jax.tree.map(lambda a, b: jnp.where(exact, b, a).astype(b.dtype), y, state.y)
