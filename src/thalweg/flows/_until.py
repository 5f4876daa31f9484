"""Following a flow to its limit instead of to a given time."""

from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._trees import tree_dtype, tree_norm, tree_sub
from ..objectives import AbstractObjective
from ..results import Snapshot, Status, Trajectory, assembled
from ._base import Momentum
from ._ending import controlled
from ._integration import Integration

# Between two looks at where the flow is, time grows by this factor.
_STRIDE = 1.5
_MOST_LOOKS = 400
# What finding the scale of time costs: a gradient and a Hessian-vector product.
_LOOKING = 3
# After so many looks without a change beyond rounding, nothing more will happen. Long steps with
# many stages leave this many units of the parameters' resolution undecided.
_RESTS, _ROUNDING = 6, 256
# How far the companion starts from the solution, in units of `rtol`. Past a saddle it then goes its
# own way long before round-off decides for the solution, and is seen to do so.
_ASIDE = 0.01
# How often the time is halved at which a flow will have left a saddle.
_HALVINGS = 20


class Departure(NamedTuple):
    """How a flow leaves a saddle: along a mode of negative curvature, `-curvature`.

    It is a `distance` away now, and leaves when it is `far` away.
    """

    curvature: float
    distance: float
    far: float


class Arrival(eqx.Module):
    """What an ending says about a point: nothing but what looking cost, or that it is the end.

    At the end, `departure` says how the flow leaves, if it does, and `advice` what to do where the
    error is too large.
    """

    params: PyTree = None
    limit: Any = None
    error: float = 0.0
    cost: int = 0
    message: str = ""
    departure: Departure | None = None
    advice: str = "Use a smaller `rtol`."

    @property
    def final(self) -> bool:
        """Whether the flow ends here."""
        return self.limit is not None


class Watch(Protocol):
    """Looks at one flow now and then, and remembers what it saw of it."""

    @property
    def cost(self) -> int:
        """Gradients that it took to begin."""
        ...

    def __call__(
        self,
        objective: AbstractObjective,
        params: PyTree,
        error: float,
        rate: float,
        momentum: Momentum | None,
    ) -> Arrival:
        """Called now and then, with where the flow is and the error of that.

        What relaxes with `rate` or faster has had the time to do so. `momentum` is what carries the
        flow on, for one that has a velocity.
        """
        ...


@runtime_checkable
class Ending(Protocol):
    """Decides where a flow has arrived: see `thalweg.until`."""

    def watch(self, objective: AbstractObjective, params: PyTree) -> Watch:
        """Called once for a flow, with where it begins."""
        ...


def follow_until(
    flow, objective: AbstractObjective, params: PyTree, ending: Ending, save_at: Any, t1, **options
) -> Trajectory:
    """Follow a flow until `ending` says so, or to `t1` at the latest.

    Rows: the saved times that were reached, then the end.
    """
    wanted = np.asarray([0.0] if save_at is None else save_at, float)
    times = _looks(objective, params, t1)
    times = np.union1d(times, wanted[wanted <= times[-1]])
    run = Integration(flow, objective, params, save_at=times, aside=_ASIDE, **options)
    watch = ending.watch(objective, run.params)
    cost = _LOOKING + watch.cost
    state, rows = run.initial(), []
    arrival, before, resting = Arrival(), run.params, 0
    last: Snapshot | None = None
    lost, doubted = Status(), 0.0
    while not run.finished(state):
        state, last = run.advance(state)
        if last.time in wanted:
            rows.append(last)
        if last.time == 0 or not last.status.ok:
            continue
        # Once the flow was lost from sight, what comes after may be another way's end.
        moved = _moved(last.params, run.params)
        apart = controlled(last.params, moved, last.error or 0.0, advice="")
        lost = lost if lost.kind == "uncontrolled" else replace(apart, time=last.time)
        if apart.kind == "uncontrolled":
            doubted = max(doubted, float(last.error or 0.0))
        rate = last.time ** (-1 if flow.real_spectrum else -2)
        state, here = run.solution(state, last.time)
        momentum = flow.momentum(here, last.time)
        arrival = watch(objective, last.params, float(last.error or 0.0), rate, momentum)
        cost += arrival.cost
        resting = resting + 1 if _same(last.params, before) else 0
        if resting == _RESTS:
            # What moves slowly still may seem to rest, unless its gradient is rounding alone.
            norm, cost = _speed(objective, last.params), cost + 1
            resting = resting if norm > rate * _resolution(last.params) else 0
        before = last.params
        if arrival.final or resting >= _RESTS:
            break
    assert last is not None
    if rows and rows[-1] is last:
        rows.pop()
    if arrival.final:
        moved = _moved(arrival.params, run.params)
        status = controlled(arrival.params, moved, arrival.error, advice="")
        place = ""
        if status.kind == "completed" and lost.kind == "uncontrolled":
            status, place = lost, f"on the way, at t = {lost.time:.3g}, "
        doubt = ""
        if status.kind == "uncontrolled":
            doubt = f" But {place}{status.message} {arrival.advice}"
        last = replace(
            last,
            params=arrival.params,
            loss=float(objective.value(arrival.params)),
            # The exact flow may be where the other solution went.
            error=max(arrival.error, doubted),
            status=Status(status.kind, arrival.message + _leaving(flow, arrival) + doubt),
        )
    elif resting >= _RESTS:
        message = (
            f"the flow is at rest up to rounding since t = {last.time / _STRIDE**_RESTS:.3g}, but"
            " its gradient norm stays above the tolerance, which cannot be reached in this"
            " precision."
        )
        last = replace(last, status=Status("stopped", message, time=last.time))
    elif last.status.ok:
        norm, cost = _speed(objective, last.params), cost + 1
        message = (
            f"the gradient norm fell to {norm:.2g} by t = {last.time:.6g}, not to the tolerance."
        )
        last = replace(last, status=Status("stopped", message, time=last.time))
    last = replace(last, stats=replace(last.stats, gradients=last.stats.gradients + cost))
    return replace(assembled([*rows, last], run), limit=arrival.limit)


def _moved(params: PyTree, start: PyTree) -> float:
    return float(tree_norm(tree_sub(params, start)))


def _same(params: PyTree, before: PyTree) -> bool:
    """Whether two points differ by no more than rounding."""
    return float(tree_norm(tree_sub(params, before))) <= _resolution(params)


def _resolution(params: PyTree) -> float:
    eps = float(jnp.finfo(tree_dtype(params)).eps)
    return _ROUNDING * eps * float(tree_norm(params))


def _speed(objective: AbstractObjective, params: PyTree) -> float:
    return float(tree_norm(objective.gradient(params)))


def _leaving(flow, arrival: Arrival) -> str:
    """When a flow will have left the saddle where it ends."""
    if arrival.departure is None:
        return ""
    curvature, distance, far = arrival.departure
    if distance >= far:
        # So flat that the place where its slope vanishes is out of sight.
        return ""

    def left(time):
        return flow.response(-curvature, time) >= far / distance

    late = curvature ** (-1.0 if flow.real_spectrum else -0.5)
    while not left(late):
        late *= 2
    early = 0.0
    for _ in range(_HALVINGS):
        middle = (early + late) / 2
        early, late = (early, middle) if left(middle) else (middle, late)
    return f" It will have left after a time of about {late:.2g}."


def _looks(objective, params, t1) -> np.ndarray:
    """When to look: at times that grow in proportion, from the flow's own scale of time on."""
    gradient = objective.gradient(params)
    speed = float(tree_norm(gradient))
    change = float(tree_norm(objective.hvp(params, gradient)))
    scale = speed / change if change > 0 and np.isfinite(speed / change) else 1.0
    largest = float(jnp.finfo(tree_dtype(params)).max) ** 0.5
    looks = scale * _STRIDE ** np.arange(_MOST_LOOKS)
    end = largest if t1 is None else float(t1)
    return np.append(looks[looks < end], end) if t1 is not None else looks[looks < end]
