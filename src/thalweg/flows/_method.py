"""Marches of one or several solvers along a flow, taking turns.

A march whose steps another solver would make better comes to rest, and the next one goes on from
there.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._trees import tree_dtype, tree_norm, tree_size
from ..objective import Objective
from ..solvers import AveragedMidpoint
from ._cost import evaluation_price
from ._march import March, MarchState


class MethodState(eqx.Module):
    """The marches of all candidate solvers, which of them is under way, and when they began."""

    begin: Float[Array, ""]
    marches: tuple[MarchState, ...]
    active: Int[Array, ""]
    switches: Int[Array, ""]
    evaluations: Int[Array, ""]
    steps: Int[Array, ""]
    rejected: Int[Array, ""]
    used: Int[Array, "solvers"]


class Method(eqx.Module):
    """One or several marches, taking turns."""

    marches: tuple[March, ...]

    @property
    def solvers(self) -> Sequence[diffrax.AbstractSolver]:
        """The candidates, the one that starts first."""
        return [march.solver for march in self.marches]

    @property
    def order(self) -> int:
        """The lowest order among the candidates."""
        return min(march.order for march in self.marches)

    @property
    def frugal(self) -> bool:
        """Whether one more copy of the parameters would be too many."""
        return False

    def start(self, objective: Objective, params: PyTree[Array]) -> MethodState:
        """Stand at the flow's first time with the first candidate under way."""
        begin, y, cost = self._beginning(objective, params)
        first = self.marches[0].start(objective, begin, y, None)
        # The others wait in a state of their own structure, so that the whole has a fixed one.
        others = [
            jax.tree.map(
                lambda s: jnp.zeros(s.shape, s.dtype),
                eqx.filter_eval_shape(march.start, objective, begin, y, first.t),
            )
            for march in self.marches[1:]
        ]
        none, spent = jnp.asarray(0), jnp.asarray(cost)
        used = jnp.zeros(len(self.marches), int)
        return MethodState(begin, (first, *others), none, none, spent, none, none, used)

    def _beginning(self, objective, params) -> tuple[Array, PyTree, int]:
        march = self.marches[0]
        flow = march.flow
        if self.averages:
            # Kinks may lie closer than a series reaches.
            return jnp.zeros((), march.rtol.dtype), flow.initial_state(params), 0
        begin, y = _early(flow, objective, params, march)
        return begin, y, flow.first_cost

    @property
    def averages(self) -> bool:
        """Whether the field is averaged over steps."""
        return isinstance(self.solvers[0], AveragedMidpoint)

    def now(self, state: MethodState) -> tuple[March, MarchState]:
        """The march under way and where it stands."""
        active = int(state.active)
        return self.marches[active], state.marches[active]

    def to(self, objective: Objective, state: MethodState, target: Any, budget: int) -> MethodState:
        """Go on until `target` is passed, the march stalls, or `budget` more steps were tried.

        The budget is checked after every stretch on the device, so that it may be overrun by a
        stretch.
        """
        limit = self.attempts(state) + budget
        target = jnp.asarray(target, self.marches[0].rtol.dtype)
        while True:
            march, now = self.now(state)
            patient = eqx.tree_at(lambda m: m.patience, march, self._patience(state))
            now = patient.to(objective, now, target, min(budget, 1000))
            used = state.used.at[state.active].set(1)
            state = self._with_active(eqx.tree_at(lambda s: s.used, state, used), now)
            if bool(now.t >= target) or bool(now.stalled) or self.attempts(state) >= limit:
                return state
            if bool(now.unsuited >= patient.patience):
                state = self._switched(objective, state)

    def at(self, objective: Objective, params: PyTree, state: MethodState, t: Any) -> PyTree[Array]:
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
        march, _ = self.now(state)
        cost = march.flow.early_cost if 0 < t < float(state.begin) else 0
        return eqx.tree_at(lambda s: s.evaluations, state, state.evaluations + cost)

    def early_error(self, params: PyTree, state: MethodState, t: float) -> float:
        """The error at a time before the first step."""
        begin = float(state.begin)
        if begin == 0 or t > begin:
            return 0.0
        return float(_scale(params, self.marches[0])) * (t / begin) ** 6

    def evaluations(self, state: MethodState) -> int:
        """What was spent so far by all marches, in evaluations of the vector field."""
        price = evaluation_price(self.solvers[0])
        return ceil(price * int(state.evaluations + self.now(state)[1].evaluations))

    def accepted(self, state: MethodState) -> int:
        """Accepted steps so far."""
        return int(state.steps + self.now(state)[1].steps)

    def rejected(self, state: MethodState) -> int:
        """Rejected steps so far."""
        return int(state.rejected + self.now(state)[1].rejected)

    def attempts(self, state: MethodState) -> int:
        """Attempted steps so far."""
        return self.accepted(state) + self.rejected(state)

    def solver_names(self, state: MethodState) -> str:
        """The solvers that took steps, in the order of candidates."""
        names = [type(solver).__name__ for solver in self.solvers]
        used = np.asarray(state.used)
        return ", ".join(name for name, u in zip(names, used, strict=True) if u)

    def _patience(self, state: MethodState) -> Array:
        # Each switch makes the next one harder, so that indecision stays cheap.
        return jnp.asarray(8 * 2 ** min(int(state.switches), 10))

    def _with_active(self, state: MethodState, now: MarchState) -> MethodState:
        active = int(state.active)
        marches = (*state.marches[:active], now, *state.marches[active + 1 :])
        return eqx.tree_at(lambda s: s.marches, state, marches)

    def _switched(self, objective: Objective, state: MethodState) -> MethodState:
        _, now = self.now(state)
        active = (int(state.active) + 1) % len(self.marches)
        successor = self.marches[active].start(objective, now.t, now.y, now.h)
        retired = MethodState(
            begin=state.begin,
            marches=state.marches,
            active=jnp.asarray(active),
            switches=state.switches + 1,
            evaluations=state.evaluations + now.evaluations,
            steps=state.steps + now.steps,
            rejected=state.rejected + now.rejected,
            used=state.used,
        )
        return self._with_active(retired, successor)


def _scale(params, march):
    """The tolerances of a step as a distance over all parameters."""
    return march.atol * jnp.sqrt(tree_size(params)) + march.rtol * tree_norm(params)


@eqx.filter_jit
def _early(flow, objective, params, march):
    tolerance = _scale(params, march).astype(tree_dtype(params))
    # The companion begins twice as late as the solution, with 64 times the error.
    earlier = march.eagerness / 2
    first = flow.first_time(objective, params, tolerance, march.longest / earlier)
    begin = jnp.minimum(earlier * first, march.longest)
    begin = begin.astype(march.rtol.dtype)
    return begin, flow.early_state(objective, params, begin)
