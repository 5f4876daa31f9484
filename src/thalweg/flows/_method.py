"""A march along a flow from its singular start, if it has one, to any time."""

from math import ceil
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._precision import jit
from .._trees import tree_dtype, tree_norm, tree_size
from ..objectives import AbstractObjective
from ..solvers import BDF, AveragedMidpoint
from ._cost import evaluation_price
from ._march import March, MarchState

# Attempts on the device between two looks at the budget.
_STRETCH = 1000


# Of a step's tolerance: chosen by benchmarks/curved_valleys.py.
_UNSEEN = 0.19
# Of the way.
_PART = 0.1


class MethodState(eqx.Module):
    """Where the march stands, when it began, and what was spent beside it."""

    begin: Float[Array, ""]
    march: MarchState
    beside: Int[Array, ""]


class Method(eqx.Module):
    """One solver from time 0 on."""

    march: March

    @property
    def solver(self) -> diffrax.AbstractSolver:
        """The march's."""
        return self.march.solver

    @property
    def order(self) -> int:
        """The solver's."""
        return self.march.order

    @property
    def frugal(self) -> bool:
        """Whether one more copy of the parameters would be too many."""
        return False

    def start(self, objective: AbstractObjective, params: PyTree[Array]) -> MethodState:
        """Stand at the flow's first time."""
        march = self.march
        if isinstance(march.solver, AveragedMidpoint):
            # Kinks may lie closer than a series reaches.
            begin, y = jnp.zeros((), march.rtol.dtype), march.flow.initial_state(params)
            cost = 0
        else:
            begin, y = _early(march.flow, objective, params, march)
            cost = march.flow.first_cost
        return MethodState(begin, march.start(objective, begin, y, None), jnp.asarray(cost))

    def now(self, state: MethodState) -> tuple[March, MarchState]:
        """The march and where it stands."""
        return self.march, state.march

    def to(
        self,
        objective: AbstractObjective,
        state: MethodState,
        target: Any,
        budget: int,
        origin: PyTree[Array],
    ) -> MethodState:
        """Go on until `target` is passed, the march stalls, or `budget` more steps were tried.

        The budget is checked after every stretch on the device, so that it may be overrun by a
        stretch.
        """
        limit = self.attempts(state) + budget
        while True:
            now = self.march.to(objective, state.march, target, min(budget, _STRETCH), origin)
            state = eqx.tree_at(lambda s: s.march, state, now)
            goal = now.t.dtype.type(target)
            if bool(now.t >= goal) or bool(now.stalled) or self.attempts(state) >= limit:
                return state

    def at(
        self, objective: AbstractObjective, params: PyTree, state: MethodState, t: Any
    ) -> PyTree[Array]:
        """The solution at a time within the last step, or before the first one."""
        march, now = self.now(state)
        t = jnp.asarray(t, now.t.dtype)
        if bool(t <= 0):
            return march.flow.initial_state(params)
        if bool(t < state.begin):
            return march.flow.early_state(objective, params, t)
        return march.at(now, t)

    def looked(self, state: MethodState, t: float) -> MethodState:
        """The state after one `at`, which before the first step costs a series."""
        cost = self.march.flow.early_cost if 0 < t < float(state.begin) else 0
        return eqx.tree_at(lambda s: s.beside, state, state.beside + cost)

    def early_error(self, params: PyTree, state: MethodState, t: float) -> float:
        """The error at a time before the first step."""
        begin = float(state.begin)
        if begin == 0 or t > begin:
            return 0.0
        return float(_scale(params, self.march)) * (t / begin) ** 6

    def unseen_error(self, state: MethodState) -> float:
        """What the distance of two solutions may hide: errors of steps, taken as independent.

        With an order that varies, the errors of two solutions are not in proportion to their
        tolerances, and now and then about the same. A solution that hardly moved errs by a part of
        the way at most.
        """
        if not isinstance(self.solver, BDF):
            return 0.0
        now = state.march
        params, memory = self.march.flow.params(now.y), now.solver_state
        tolerance = self.solver.tolerance(memory.scale, params, memory.way)
        hidden = _UNSEEN * float(now.steps) ** 0.5 * float(tolerance)
        return min(hidden, _PART * float(now.farthest))

    def hidden_error(self, state: MethodState) -> float:
        """The error, over the speed, because what grew was below the tolerance before."""
        if not isinstance(self.solver, BDF):
            return 0.0
        return float(state.march.solver_state.hidden.per_speed)

    def evaluations(self, state: MethodState) -> int:
        """What was spent so far, in evaluations of the vector field."""
        return ceil(evaluation_price(self.solver) * int(state.beside + state.march.evaluations))

    def farthest(self, state: MethodState) -> float:
        """The largest distance of the parameters from where they began."""
        return float(state.march.farthest)

    def accepted(self, state: MethodState) -> int:
        """Accepted steps so far."""
        return int(state.march.steps)

    def rejected(self, state: MethodState) -> int:
        """Rejected steps so far."""
        return int(state.march.rejected)

    def attempts(self, state: MethodState) -> int:
        """Attempted steps so far."""
        return self.accepted(state) + self.rejected(state)


def _scale(params, march):
    """The tolerances of a step as a distance over all parameters."""
    return march.atol * jnp.sqrt(tree_size(params)) + march.rtol * tree_norm(params)


@jit
def _early(flow, objective, params, march):
    tolerance = _scale(params, march).astype(tree_dtype(params))
    # The companion begins twice as late as the solution, with 64 times the error.
    earlier = march.eagerness / 2
    first = flow.first_time(objective, params, tolerance, march.longest / earlier)
    begin = jnp.minimum(earlier * first, march.longest)
    begin = begin.astype(march.rtol.dtype)
    return begin, flow.early_state(objective, params, begin)
