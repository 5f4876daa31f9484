"""Which solver follows a flow, and when another one takes over.

Where stability limits the steps of a classical pair, the flow is stiff and a stabilised method goes
on; where the stabilised method takes steps that the classical pair could take too, the
higher-order pair goes on. Both signs are read off steps that are made anyway, so looking is free.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any, get_origin

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, Float, Int, PyTree

from .._trees import tree_dtype, tree_norm, tree_size, tree_sub
from ..objective import Kinks, Objective
from ..solvers import RKC2, RKC4, AveragedMidpoint, no_average
from ._base import Flow
from ._cost import evaluation_price
from ._lean import LeanMethod
from ._march import March, MarchState, never_unsuited

# A single step tells nothing about its own error: the horizon takes at least this many.
_FEWEST_STEPS = 4
# Parameters from which on memory comes before everything else.
_LARGE = 2_000_000
# Tsit5 is stable on about [-3.3, 0]; steps beyond this part of it are held down by stability.
_TSIT5_PRESSED = 2.4
# Tolerances below which the stabilised method of order four is cheaper than that of order two.
_ORDER_FOUR = 1.5e-5
# Tolerances below which oscillations are cheaper with the classical pair of order eight.
_ORDER_EIGHT = 3e-4
# The tolerances of Tsit5 and RKC4, in parts of the one given. Steps of Tsit5 are cheap, few, and at
# the start, where errors count for the whole path; with these shares no solver dominates the error.
_SHARES = 0.2, 10.0


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
        return begin, y, flow.early_cost

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
        if bool(t < state.begin):
            return march.flow.early_state(objective, params, t)
        return march.at(now, t)

    def early_error(self, params: PyTree, state: MethodState, t: float) -> float:
        """The error at a time before the first step."""
        begin = float(state.begin)
        return float(_scale(params, self.marches[0])) * (t / begin) ** 6 if t < begin else 0.0

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


def choose_method(
    flow: Flow,
    solver: diffrax.AbstractSolver | None,
    rtol: float,
    atol: float,
    t_end: float,
    dtype: jnp.dtype,
    *,
    accuracy: float,
    kinks: Kinks,
    size: int,
    stride: float = 1.0,
) -> Method | LeanMethod:
    """The solver asked for; without one, what suits the field.

    For so many parameters, `size`, that their copies count, RKC2 with few of them.

    For a field with `kinks`, a method that averages over them, if they can be read; for a smooth
    one a classical pair and, where it can help, RKC2 or RKC4.

    `accuracy` decides between the two. `stride` lengthens the first step and the longest one,
    which tolerances do not decide.
    """

    longest = stride * t_end / _FEWEST_STEPS
    lean = flow.real_spectrum and not kinks.exist and size >= _LARGE
    if lean and (solver is None or type(solver) is RKC2):
        return LeanMethod(flow, rtol, atol, t_end, longest, stride, solver or RKC2())

    def march(candidate, unsuited=never_unsuited, share=1.0):
        # As arrays, so that solution and companion share what is compiled.
        numbers = np.array([share * rtol, share * atol, t_end, longest, stride], dtype)
        own_rtol, own_atol, end, longest_step, eagerness = map(jnp.asarray, numbers)
        return March(flow, candidate, own_rtol, own_atol, end, longest_step, eagerness, unsuited)

    if solver is not None:
        return Method((march(with_tolerances(solver, rtol, atol)),))
    if kinks.exist:
        average = _Along(flow) if kinks.read else no_average
        return Method((march(AveragedMidpoint(average)),))
    if not flow.real_spectrum:
        oscillating = diffrax.Dopri8() if accuracy < _ORDER_EIGHT else diffrax.Tsit5()
        return Method((march(oscillating),))
    if accuracy < _ORDER_FOUR:
        few, many = _SHARES
        pair = march(diffrax.Tsit5(), _tsit5_pressed, few), march(RKC4(), _rkc4_idle, many)
        return Method(pair)
    return Method((march(diffrax.Tsit5(), _tsit5_pressed), march(RKC2(), _rkc2_idle)))


def _scale(params, march):
    """The tolerances of a step as a distance over all parameters."""
    return march.atol * jnp.sqrt(tree_size(params)) + march.rtol * tree_norm(params)


@eqx.filter_jit
def _early(flow, objective, params, march):
    tolerance = _scale(params, march).astype(tree_dtype(params))
    # The companion begins twice as late as the solution, with 64 times the error.
    first = march.eagerness / 2 * flow.first_time(objective, params, tolerance)
    begin = jnp.minimum(first, march.longest)
    begin = begin.astype(march.rtol.dtype)
    return begin, flow.early_state(objective, params, begin)


class _Along(eqx.Module):
    """What averages a flow's field: its landscape along the parameters' displacement."""

    flow: Flow

    def __call__(self, objective: Objective, displacement: PyTree[Array]):
        return objective.along(self.flow.params(displacement))


def check_solver(solver: diffrax.AbstractSolver) -> None:
    """Refuse a solver that cannot follow a flow with steps of its own choice.

    **Raises:** TypeError.
    """
    name = type(solver).__name__
    if not isinstance(solver, diffrax.AbstractSolver):
        raise TypeError(f"solver: expected a diffrax solver, got {name}.")
    if not isinstance(solver, diffrax.AbstractAdaptiveSolver):
        raise TypeError(f"solver: {name} has no error estimate to choose its steps by.")
    if get_origin(solver.term_structure) is diffrax.MultiTerm:
        raise TypeError(f"solver: {name} needs a field in two parts; a flow has only one.")


def with_tolerances(
    solver: diffrax.AbstractSolver, rtol: float, atol: float
) -> diffrax.AbstractSolver:
    """An implicit solver whose root finder has no tolerances of its own gets those of the steps."""
    if not isinstance(solver, diffrax.AbstractImplicitSolver):
        return solver
    given = {"rtol": rtol, "atol": atol, "norm": optimistix.rms_norm}
    # diffrax marks "as for the steps" by an object of its own in place of a number.
    mark = next(
        (v for v in (solver.root_finder.rtol, solver.root_finder.atol) if not eqx.is_array_like(v)),
        None,
    )
    names = [name for name in given if getattr(solver.root_finder, name) is mark]
    if mark is None or not names:
        return solver
    return eqx.tree_at(
        lambda s: [getattr(s.root_finder, name) for name in names],
        solver,
        [given[name] for name in names],
    )


def _tsit5_pressed(state, h, dense_info, solver_state):
    """Whether stability, not accuracy, keeps Tsit5's steps short.

    The last two stages are evaluated at the same time, at different points: the ratio of the
    differences estimates step size x spectral radius for free (Hairer and Wanner, Solving Ordinary
    Differential Equations II, section IV.2).
    """
    row = jnp.asarray(diffrax.Tsit5.tableau.a_lower[-2])

    def before_last(y, k):
        return y + jnp.tensordot(row.astype(y.dtype), k[: row.size], axes=1)

    penultimate = jax.tree.map(before_last, dense_info["y0"], dense_info["k"])
    apart = tree_norm(tree_sub(dense_info["y1"], penultimate))
    change = tree_norm(jax.tree.map(lambda k: k[-1] - k[-2], dense_info["k"]))
    return change > _TSIT5_PRESSED * apart


def _rkc2_idle(state, h, dense_info, solver_state):
    """Whether RKC2 makes steps that Tsit5 could make as well, at order five."""
    return h * solver_state.radius.value < 2


def _rkc4_idle(state, h, dense_info, solver_state):
    """Whether two steps of Tsit5, which cost as much as one of RKC4 at its fewest stages, do."""
    return h * solver_state.radius.value < 4
