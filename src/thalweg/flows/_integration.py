"""A flow being integrated, with an estimate of the global error."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._checks import check_instance, check_positive, check_positive_integer
from .._precision import jit
from .._trees import (
    check_params,
    tree_axpy,
    tree_dot,
    tree_dtype,
    tree_norm,
    tree_scattered,
    tree_size,
    tree_sub,
)
from ..objectives import AbstractObjective, check_objective
from ..results import Snapshot, Stats, Status
from ..solvers import BDF
from ._base import Flow
from ._choice import check_solver, choose_method
from ._cost import cost_is_known
from ._ending import ahead, controlled, stalled
from ._lean import LeanState
from ._method import MethodState

# The companion solution, whose distance to the solution is the error estimate, has tolerances so
# much cruder: three to four times the error, at no more than the solution's price. With methods of
# order two, of an order that varies, and over kinks, errors fall more slowly than tolerances.
_COMPANION, _COMPANION_OF_ORDER_TWO, _COMPANION_OF_BDF = 4.0, 8.0, 5.0
# What the distance is multiplied with, lest it fall short where the two errors partly cancel.
_SAFETY = 1.25
# Where tolerances do not decide (at the start, near a saddle) its steps are longer all the same.
# Two solutions with the same steps would agree about a wrong answer.
_STRIDE = 2.0

# It starts aside by so many roundings: what round-off decides then shows, in half of all cases.
_ASIDE = 64

# At how many times around the saved one it is measured.
_PLACES = 4

# Between saved times far apart the two are compared as well: at times that halve towards the saved
# time before, or towards 0, so many of them at most.
_LOOKS, _FAR = 8, 1.5


class IntegrationState(eqx.Module):
    """The solution, its cruder companion, the index of the next saved time, and their largest lag.

    The lag is how much later, or earlier, one of them passes where the other one is.
    """

    index: Int[Array, ""]
    solution: MethodState | LeanState
    companion: MethodState | LeanState
    ended: Int[Array, ""]
    lag: Float[Array, ""]


class Integration:
    """A flow being integrated, from one saved time to the next: see `integrate`.

    `times` are the saved times; `initial`, `advance` and `finished` make it a
    `thalweg.results.Resumable`. `aside` is how far the companion starts from the solution, in
    units of `rtol`: a distance of the tolerance's order finds out what symmetry hides, and is
    visible in the error.
    """

    def __init__(
        self,
        flow: Flow,
        objective: AbstractObjective,
        params: PyTree,
        *,
        save_at: Any,
        rtol: float | None = None,
        atol: float | None = None,
        solver: diffrax.AbstractSolver | None = None,
        max_steps: int = 1_000_000,
        aside: float | None = None,
    ):
        check_instance(flow, Flow, "flow", "a Flow, such as an optimizer's `limit()`")
        check_objective(objective)
        if solver is not None:
            check_solver(solver)
        check_positive_integer(max_steps, "max_steps")
        check_params(params)
        precisions = sorted({str(jnp.result_type(leaf)) for leaf in jax.tree.leaves(params)})
        if len(precisions) > 1:
            raise TypeError(
                f"params: arrays of different precision ({', '.join(precisions)}); a flow is"
                " integrated in one."
            )
        objective.check(params)
        params = jax.tree.map(jnp.asarray, params)
        self.dynamics = flow
        self.times = checked_times(save_at)
        _check_range(self.times, tree_dtype(params))
        self.kinks = objective.kinks(params)
        self.rtol, self.atol = _checked_tolerances(rtol, atol, params, self.kinks.exist)
        self.objective = objective
        self.params = params
        self._max_steps = max_steps

        # Both have the same interface, each with states of its own kind.
        def method(factor: float, stride: float) -> Any:
            return choose_method(
                flow,
                solver,
                factor * self.rtol,
                factor * self.atol,
                float(self.times[-1]),
                tree_dtype(params),
                accuracy=self.rtol,
                kinks=self.kinks,
                size=tree_size(params),
                stride=stride,
            )

        self._solution = method(1.0, 1.0)
        order_two = self.kinks.exist or self._solution.order <= 2
        cruder = _COMPANION_OF_ORDER_TWO if order_two else _COMPANION
        if isinstance(self._solution.solver, BDF):
            cruder = _COMPANION_OF_BDF
        self._companion = method(cruder, _STRIDE)
        self._aside = _ASIDE * _eps(params) if aside is None else aside * self.rtol
        if self._companion.frugal:
            self._aside = 0.0

    def initial(self) -> IntegrationState:
        """The state at time 0."""
        zero, beside = jnp.asarray(0), self.params
        if self._aside:
            first = float(self.times[self.times > 0][0])
            part = jnp.asarray(self._aside, tree_dtype(self.params))
            beside = _beside(self.objective, self.params, part, first)
        return IntegrationState(
            zero,
            self._solution.start(self.objective, self.params),
            self._companion.start(self.objective, beside),
            zero,
            jnp.zeros((), tree_dtype(self.params)),
        )

    def solution(self, state: IntegrationState, t: float) -> tuple[IntegrationState, PyTree]:
        """The flow's own state at a time within the last step; before the first, it has a cost."""
        here = self._solution.at(self.objective, self.params, state.solution, t)
        looked = self._solution.looked(state.solution, t)
        return eqx.tree_at(lambda s: s.solution, state, looked), here

    def finished(self, state: IntegrationState) -> bool:
        """Whether all saved times were reached or the flow ended early."""
        return bool(state.ended) or int(state.index) >= len(self.times)

    def advance(self, state: IntegrationState) -> tuple[IntegrationState, Snapshot]:
        """Integrate to the next saved time."""
        target = self.times[int(state.index)]
        lag = state.lag
        for look in self._looks(int(state.index)):
            state, lag = self._looked(state, look, lag)
        t, solution, status = self._reach(self._solution, state.solution, target)
        _, companion, fallen = self._reach(self._companion, state.companion, t)
        here = self._solution.at(self.objective, self.params, solution, t)
        solution = self._solution.looked(solution, t)
        params = self.dynamics.params(here)
        size, moved = (float(x) for x in _sizes(params, self.params))
        # An oscillation may be back where it began.
        moved = max(moved, self._solution.farthest(solution))
        error = float("inf")
        if moved == 0:
            error = 0.0
        elif fallen.ok:
            apart, lag = self._apart(solution, companion, t, lag)
            error = _SAFETY * max(self._distance(solution, companion, here, t), apart)
            companion = self._companion.looked(companion, t)
        steps = self._solution.accepted(solution)
        error += 4 * size * _eps(params) * float(np.sqrt(steps + 1))
        error += self._solution.early_error(self.params, solution, t)
        error += self._solution.unseen_error(solution)
        if self.kinks.exist and t > 0:
            # Where sliding begins, a single step errs by up to its tolerance, and two solutions may
            # do so alike.
            error += self.atol * np.sqrt(tree_size(params)) + self.rtol * size
        loss = float(_value(self.objective, params))
        if status.ok and not np.isfinite(loss):
            status = Status("diverged", f"the loss is not finite at t = {t:.6g}.", time=t)
        if status.ok and int(state.index) + 1 == len(self.times):
            status = controlled(params, moved, error)
        snapshot = Snapshot(
            time=t,
            params=params,
            loss=loss,
            error=error,
            status=status,
            stats=self._stats(solution, companion),
            repeats=int(state.index) > 0 and t <= float(self.times[int(state.index) - 1]),
        )
        ended = jnp.asarray(0 if status.ok else 1)
        return IntegrationState(state.index + 1, solution, companion, ended, lag), snapshot

    @property
    def _lags(self) -> bool:
        """Whether errors along the solution last: where it neither oscillates nor meets kinks."""
        return self.dynamics.real_spectrum and not self.kinks.exist and not self._companion.frugal

    def _looks(self, index: int) -> np.ndarray:
        """Times before a saved one at which the two solutions are compared as well."""
        target, before = self.times[index], self.times[index - 1] if index else 0.0
        if not self._lags or target <= _FAR * before:
            return np.zeros(0)
        looks = target * 2.0 ** np.arange(-_LOOKS, 0)
        return looks[looks > before]

    def _looked(self, state: IntegrationState, t: float, lag: Any) -> tuple[IntegrationState, Any]:
        """Both solutions brought to a time, and the largest lag up to there."""
        t, solution, status = self._reach(self._solution, state.solution, t)
        _, companion, fallen = self._reach(self._companion, state.companion, t)
        if status.ok and fallen.ok:
            _, lag = self._apart(solution, companion, t, lag)
        return eqx.tree_at(lambda s: (s.solution, s.companion), state, (solution, companion)), lag

    def _apart(self, solution: Any, companion: Any, t: float, lag: Any) -> tuple[float, Any]:
        """What the largest lag so far amounts to now, as a distance, and the lag.

        The difference of two solutions changes its sign now and then, where it says nothing about
        their errors. An error along the solution does not heal: whoever is late stays late.
        """
        march, end = self._solution.now(solution)
        other, last = self._companion.now(companion)
        if not self._lags or t < float(end.t_before) or t < float(last.t_before):
            return 0.0, lag
        hidden = jnp.asarray(self._solution.hidden_error(solution))
        places = jnp.asarray(self._places(end, last, t), end.t.dtype)
        lag, distance = _lag(march, end, other, last, places, lag, hidden)
        return float(distance), lag

    def _places(self, end: Any, last: Any, t: float) -> np.ndarray:
        """A time, and others within the last steps of both solutions, if they have any in common.

        Two solutions may cross, which says nothing about their errors: elsewhere they are hardly
        crossing as well.
        """
        first = max(float(end.t_before), float(last.t_before))
        common = np.linspace(first, min(float(end.t), float(last.t)), _PLACES)
        return np.array([t, *(common if common[0] < common[-1] else np.full(_PLACES, t))])

    def _reach(self, method: Any, state: Any, target: float) -> tuple[float, Any, Status]:
        """Bring one solution to `target`, or as far as it goes."""
        now = method.now(state)[1]
        goal = now.t.dtype.type(target)  # the time's precision is that of the parameters
        left = self._max_steps - method.attempts(state)
        # Saved times may lie close together, many within a step.
        if float(now.t) < goal and left > 0 and not bool(now.stalled):
            state = method.to(self.objective, state, target, left, self.params)
            now = method.now(state)[1]
        if float(now.t) >= goal:
            return float(target), state, Status()
        reached = float(now.t)
        if bool(now.stalled):
            numbers = ahead(self.dynamics, self.objective, now.y, now.t, self.rtol, self.atol)
            status = stalled(numbers, method.farthest(state), reached)
        else:
            status = Status(
                "stopped", f"max_steps = {self._max_steps} reached at t = {reached:.6g}.", reached
            )
        return reached, state, status

    def _distance(self, solution: Any, companion: Any, here: PyTree, t: float) -> float:
        """How far apart the two solutions are at a time or around it, whichever is more."""
        pairs = (self._solution, solution), (self._companion, companion)
        marches, ends = zip(*(method.now(state) for method, state in pairs), strict=True)
        longest = jnp.asarray(max(float(end.t - end.t_before) for end in ends))
        first = max(float(end.t_before) for end in ends)
        last = min(float(end.t) for end in ends)
        if t < first or first >= last:
            # Before the first steps, or where nothing is kept of the last ones.
            there = self._companion.at(self.objective, self.params, companion, t)
            return float(_distance(self.dynamics, here, there, longest))
        places = jnp.asarray(self._places(ends[0], ends[1], t))
        return float(_farthest(self.dynamics, marches, ends, places, longest))

    def _stats(self, solution: Any, companion: Any) -> Stats:
        known = cost_is_known(self._solution.solver)
        return Stats(
            gradients=self._solution.evaluations(solution) + self.kinks.gradients if known else -1,
            # With a gradient for its start.
            error_gradients=self._companion.evaluations(companion) + bool(self._aside)
            if known
            else -1,
            steps=self._solution.accepted(solution),
            rejected=self._solution.rejected(solution),
            solver=type(self._solution.solver).__name__,
        )


@jit
def _beside(objective, params, part, time):
    """The parameters, moved in a fixed direction by a part of their size or of the first move."""
    move = time * tree_norm(objective.gradient(params))
    length = part * jnp.minimum(tree_norm(params), jnp.nan_to_num(move))
    way = tree_scattered(params)
    return tree_axpy(length.astype(tree_dtype(params)), way, params)


@jit
def _value(objective, params):
    return objective.value(params)


@jit
def _distance(flow, a, b, h):
    return flow.distance(a, b, h)


@jit
def _farthest(flow, marches, states, times, h):
    """The largest distance of two solutions at times within the last steps of both."""

    def distance(t):
        a, b = (march.at(state, t) for march, state in zip(marches, states, strict=True))
        return flow.distance(a, b, h)

    return jnp.max(jax.lax.map(distance, times))


@jit
def _lag(march, end, other, last, places, before, hidden):
    """The largest lag of two marches up to a time, and how far the first one moves in it.

    Or in the `hidden` time, if that is longer. The time is the first of the `places` where they are
    compared.
    """

    def lag(t):
        here, velocity = jax.jvp(lambda s: march.at(end, s), (t,), (jnp.ones_like(t),))
        speed = tree_norm(velocity)
        along = tree_dot(tree_sub(other.at(last, t), here), velocity)
        return jnp.abs(along) / jnp.where(speed > 0, speed, jnp.inf) ** 2, speed

    lags, speeds = jax.lax.map(lag, places)
    now = jnp.max(jnp.nan_to_num(lags, posinf=0.0))
    largest = jnp.maximum(before, now).astype(before.dtype)
    return largest, jnp.maximum(largest, hidden) * speeds[0]


@jit
def _sizes(params, start):
    """The norm of the parameters, and how far they moved."""
    return tree_norm(params), tree_norm(tree_sub(params, start))


def _eps(params: PyTree) -> float:
    return float(jnp.finfo(tree_dtype(params)).eps)


def checked_times(save_at: Any) -> np.ndarray:
    times = np.asarray(save_at, float)
    if times.ndim != 1 or times.size == 0:
        raise ValueError(f"save_at: expected a row of times, got shape {times.shape}.")
    if not np.all(np.isfinite(times)):
        raise ValueError("save_at: contains NaN or infinity.")
    if times[0] < 0 or np.any(np.diff(times) <= 0):
        raise ValueError("save_at: times must be increasing and not negative.")
    if times[-1] == 0:
        raise ValueError("save_at: the last time must be positive.")
    return times


def _check_range(times: np.ndarray, dtype: jnp.dtype) -> None:
    """Time has the precision of the parameters."""
    numbers, positive = jnp.finfo(dtype), times[times > 0]
    if positive[0] < float(numbers.tiny):
        raise ValueError(
            f"save_at: {positive[0]:g} is below the smallest normal number of {dtype}."
        )
    if times[-1] > float(numbers.max):
        raise ValueError(f"save_at: {times[-1]:g} is above the largest number of {dtype}.")


def _checked_tolerances(
    rtol: float | None, atol: float | None, params: PyTree, kinks: bool
) -> tuple[float, float]:
    eps, dtype = _eps(params), tree_dtype(params)
    if rtol is None:
        rtol = max(1e-4 if kinks else 1e-6, 100 * eps)
    check_positive(rtol, "rtol")
    if rtol < 10 * eps:
        remedy = "" if eps < 1e-12 else ", or use float64 parameters (jax_enable_x64)"
        # Rounded up, so that what is advised is accepted.
        least = next(f"{x:.2g}" for x in (10 * eps, 10.5 * eps) if float(f"{x:.2g}") >= 10 * eps)
        raise ValueError(
            f"rtol: {rtol:g} is finer than {dtype} can give; use at least {least}{remedy}."
        )
    if rtol >= 1:
        raise ValueError(f"rtol: {rtol:g} asks for no digit at all; must be less than 1.")
    if atol is None:
        atol = rtol / 100
    check_positive(atol, "atol")
    return float(rtol), float(atol)
