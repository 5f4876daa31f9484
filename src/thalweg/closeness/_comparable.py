"""Whether two trajectories can be compared, and what to know about the comparison if they can."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._precision import jit
from .._trees import tree_dtype, tree_norm, tree_sub
from ..flows import Flow
from ..flows._base import SecondOrderFlow
from ..objectives import AbstractObjective
from ..optimizers import Optimizer
from ..results import Trajectory

# Starts may differ by this many units of rounding: one is float32, the other float64, say.
_ROUNDING = 4
# Up to this relative difference two parameters of a flow, a friction say, are the same.
_SAME_PARAMETER = 1e-6


def check_comparable(run: Trajectory, flow: Trajectory) -> tuple[str, ...]:
    """Refuse a comparison that means nothing; return what to know about any other.

    **Raises:** ValueError as `compare` does.
    """
    # Whoever swaps the two should not first hear about the rest.
    notes = _check_dynamics(run, flow)
    _check_structures(run, flow)
    _check_starts(run, flow)
    _check_landscapes(run, flow)
    return notes


def shortcomings(
    run: Trajectory, flow: Trajectory, common: np.ndarray, still: bool
) -> tuple[str, ...]:
    """What makes numbers of a comparison NaN, or leaves times out.

    `common` are the places of the common times among those of the run; `still`: at these times the
    flow is where it started.
    """
    return tuple(_shortcomings(run, flow, common, still))


def _shortcomings(
    run: Trajectory, flow: Trajectory, common: np.ndarray, still: bool
) -> Iterator[str]:
    for one, name in ((run, "run"), (flow, "flow")):
        if one.status.kind != "completed":
            message = one.status.message.rstrip(".") or "no reason is known"
            yield f'The {name} ended with the status "{one.status.kind}": {message}.'
        finite = np.isfinite(np.asarray(jax.vmap(tree_norm)(one.params)))
        if not finite.all():
            first = float(one.times[int(np.argmin(finite))])
            yield (
                f"Numbers of the {name} are not finite from t = {first:.6g} on: neither is the"
                " distance."
            )
    fewer = min(len(run.times), len(flow.times))
    if len(common) == 1 and float(run.times[common[0]]) == 0:
        yield (
            "The only saved time that both have is 0, where both start: the distance is zero, and"
            " `relative` is NaN. Integrate the flow with `save_at=run.times`."
        )
    else:
        if 2 * len(common) < fewer:
            yield (
                f"Only {len(common)} of the run's {len(run.times)} saved times are among the"
                f" flow's {len(flow.times)}: the others are left out. Integrate the flow with"
                " `save_at=run.times`."
            )
        if still:
            yield "The flow does not move: `relative` is NaN."
    if start_of(flow) is None:
        yield (
            "Where the flow starts is not known: `moved` and `relative` are NaN. Save it at time 0."
        )
    if flow.error is None and isinstance(flow.dynamics, Flow):
        yield "The flow has no error estimate: the error bars are NaN."


def start_of(trajectory: Trajectory) -> PyTree | None:
    """The parameters at time 0, where they are known."""
    if trajectory.initial is not None:
        return trajectory.initial
    return row(trajectory.params, 0) if float(trajectory.times[0]) == 0 else None


def row(params: PyTree, i: int) -> PyTree:
    """One saved time of a trajectory's parameters."""
    return jax.tree.map(lambda x: x[i], params)


def _check_structures(run: Trajectory, flow: Trajectory) -> None:
    if jax.tree.structure(run.params) != jax.tree.structure(flow.params):
        raise ValueError("params: the two trajectories' parameters have different structures.")
    pairs = zip(jax.tree.leaves(run.params), jax.tree.leaves(flow.params), strict=True)
    for ours, theirs in pairs:
        if ours.shape[1:] != theirs.shape[1:]:
            raise ValueError(
                f"params: an array has shape {ours.shape[1:]} in the run, but {theirs.shape[1:]} in"
                " the flow."
            )


def _check_starts(run: Trajectory, flow: Trajectory) -> None:
    a, b = start_of(run), start_of(flow)
    if a is None or b is None:
        return
    apart, size = float(tree_norm(tree_sub(a, b))), float(tree_norm(b))
    eps = max(float(jnp.finfo(tree_dtype(p)).eps) for p in (a, b))
    if not apart <= _ROUNDING * eps * max(size, float(tree_norm(a))):
        raise ValueError(
            f"run, flow: they start {apart:.3g} apart, from parameters of norm {size:.3g}. Start"
            " both from the same parameters."
        )


def _check_landscapes(run: Trajectory, flow: Trajectory) -> None:
    a, b = run.objective, flow.objective
    if a is None or b is None:
        if float(run.times[0]) == 0 == float(flow.times[0]):
            # Both have recorded the loss where they start.
            _check_losses([float(run.loss[0])], [float(flow.loss[0])], _tolerance(run, flow))
        return
    if a.same(b):
        return
    # Functions that were written twice, or samples in another order: only values can tell.
    points = [row(flow.params, 0), row(flow.params, -1), row(run.params, -1)]
    ours, theirs = ([_value_and_gradient(o, p) for p in points] for o in (a, b))
    tolerance = _tolerance(run, flow)
    _check_losses([float(v) for v, _ in ours], [float(v) for v, _ in theirs], tolerance)
    gradients = [(g, h) for (_, g), (_, h) in zip(ours, theirs, strict=True)]
    first = max(float(tree_norm(g)) for g in gradients[0])
    for g, h in gradients:
        apart, size = float(tree_norm(tree_sub(g, h))), float(tree_norm(g))
        # Near a minimum, rounding is that of the gradients of single samples.
        if apart > tolerance * max(size, first):
            raise ValueError(
                "objective: run and flow were made on different objectives: at the same parameters"
                f" the gradients differ by {apart:.3g}, and the run's has norm {size:.3g}. Use one"
                " objective for both."
            )


def _check_losses(ours: list[float], theirs: list[float], tolerance: float) -> None:
    """At the start, and at other points."""
    first = max(abs(ours[0]), abs(theirs[0]))
    for a, b in zip(ours, theirs, strict=True):
        if abs(a - b) > tolerance * max(abs(a), first) or math.isfinite(a) != math.isfinite(b):
            raise ValueError(
                "objective: run and flow were made on different objectives: at the same parameters"
                f" the loss is {a:.6g} on the run's and {b:.6g} on the flow's. Use one objective"
                " for both."
            )


def _tolerance(run: Trajectory, flow: Trajectory) -> float:
    """Relative, between values of one function that were computed in two ways."""
    kinds = {run.loss.dtype, flow.loss.dtype}
    for objective in (run.objective, flow.objective):
        if objective is not None:
            kinds |= {array.dtype for array in objective.data}
    floating = [kind for kind in kinds if jnp.issubdtype(kind, jnp.floating)]
    return max(float(jnp.finfo(kind).eps) for kind in floating) ** 0.5


def _check_dynamics(run: Trajectory, flow: Trajectory) -> tuple[str, ...]:
    first, second = run.dynamics, flow.dynamics
    if isinstance(first, Flow) and isinstance(second, Optimizer):
        raise ValueError(
            f"run, flow: the first is {first.name}, and the second {second.name}. Write"
            " `compare(run, flow)`, with the optimizer's trajectory first."
        )
    if not isinstance(first, Optimizer) or not isinstance(second, Flow | Optimizer):
        # Two flows have one time, whatever they are.
        return ()
    ours, theirs = _limit(first), _limit(second)
    if ours is None and theirs is None:
        # Two optimizers of which nothing is known are compared step by step.
        return ()
    if ours is None:
        return (_on_a_clock_of_its_own(first),)
    if theirs is None:
        return (_on_a_clock_of_its_own(second),)
    other_clock = isinstance(ours, SecondOrderFlow) != isinstance(theirs, SecondOrderFlow)
    if isinstance(second, Optimizer):
        if not other_clock:
            return ()
        return (
            f"{_named(first)} discretises {_shown(ours)}, and {second.name} {_shown(theirs)}. Their"
            " times are different things: points at the same time have nothing else in common.",
        )
    if other_clock:
        raise ValueError(
            f"flow: {first.name} discretises {_shown(ours)}, not {_shown(theirs)}, whose time is"
            f" another: a step of {first.name} takes {first.time_per_step:.6g} of its own flow's."
            " Integrate `run.dynamics.limit()`."
        )
    if _same_flow(ours, theirs):
        return ()
    return (
        f"{_named(first)} discretises {_shown(ours)}, not {_shown(theirs)}: the distance is not due"
        " to the step size alone. The flow to compare with is `run.dynamics.limit()`.",
    )


def _on_a_clock_of_its_own(optimizer: Flow | Optimizer) -> str:
    assert isinstance(optimizer, Optimizer)
    return (
        f"It is not known which flow {optimizer.name} discretises. That a step takes"
        f" {optimizer.time_per_step:.6g} of time is a choice, and the distance depends on it. Say"
        " which flow is meant and what a step takes of its time"
        " (`Optax(transformation, time_per_step=..., flow=...)`), or compare points of equal loss."
    )


def _limit(dynamics: Flow | Optimizer) -> Flow | None:
    if isinstance(dynamics, Flow):
        return dynamics
    try:
        return dynamics.limit()
    except ValueError:
        return None


def _same_flow(a: Flow, b: Flow) -> bool:
    """Whether they are the same equation, numbers included up to `_SAME_PARAMETER`."""
    pairs = [jax.tree.leaves(flow) for flow in (a, b)]
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.shape(x) == np.shape(y) and np.allclose(x, y, rtol=_SAME_PARAMETER, atol=0)
        for x, y in zip(*pairs, strict=True)
    )


def _shown(flow: Flow) -> str:
    fields = ((field.name, getattr(flow, field.name)) for field in dataclasses.fields(flow))
    numbers = [f"{name}={_number(value)}" for name, value in fields]
    return f"{type(flow).__name__}({', '.join(numbers)})"


def _number(value: Any) -> str:
    return f"{float(value):.6g}" if np.ndim(value) == 0 and not callable(value) else repr(value)


def _named(optimizer: Optimizer) -> str:
    """Its name at the beginning of a sentence."""
    return optimizer.name[:1].upper() + optimizer.name[1:]


@jit
def _value_and_gradient(objective: AbstractObjective, params: PyTree):
    return objective.value_and_gradient(params)
