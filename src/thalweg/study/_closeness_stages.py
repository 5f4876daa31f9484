"""How far runs are from their flows: measured, predicted, and bounded."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from .._trees import tree_norm
from ..closeness import ClosedForm, Intervals, certify_run, compare
from ..closeness._compare import PRICE
from ..closeness._error_flow import Extended, error_flow
from ..flows import Integration
from ..optimizers import GradientDescent, Optimizer
from ..results import Stats, Status, Trajectory
from ._cost import Cost
from .build import Plan, PlannedRun
from .progress import Progress
from .store import Store

# The law is of first order; finer tolerances would not make it truer.
_LAW_RTOL = 1e-5
# Stretches with a curvature of their own.
_LOOKS = 8
_METHODS = {ClosedForm: "norms of the weights", Intervals: "Lanczos, at points of a tube"}


def planned_laws(plan: Plan) -> dict[str, Integration]:
    """Flows with their first-order errors, by the first run that each is for.

    None for a network with kinks.
    """
    if not plan.spec.closeness.predict or plan.objective.kinks(plan.params).exist:
        return {}
    return {run.name: _law(plan, run) for run in plan.runs if _law_of(plan, run) == run.name}


def _law_of(plan: Plan, planned: PlannedRun) -> str:
    """The first run with the same law: that of gradient descent is in proportion to the step."""

    def same(run):
        both = (run.optimizer, planned.optimizer)
        alike = all(isinstance(optimizer, GradientDescent) for optimizer in both)
        return (
            alike
            and len(_times(run)) == len(_times(planned))
            and np.allclose(_times(run), _times(planned), rtol=1e-12, atol=0)
        )

    return next(run.name for run in plan.runs if run is planned or same(run))


def _times(planned: PlannedRun) -> np.ndarray:
    return planned.save_steps * planned.optimizer.time_per_step


def _law(plan: Plan, planned: PlannedRun) -> Integration:
    return Integration(
        error_flow(planned.optimizer, 1),
        Extended(plan.objective),
        (plan.params, jax.tree.map(jnp.zeros_like, plan.params)),
        save_at=_times(planned),
        rtol=max(_LAW_RTOL, plan.spec.rtol),
        max_steps=plan.spec.flow.max_steps,
    )


def carry_out_certificate(
    plan: Plan, planned: PlannedRun, store: Store, progress: Progress
) -> None:
    """A bound on the distance at every saved step, for gradient descent on smooth networks."""
    path, optimizer = f"certificates/{planned.name}", planned.optimizer
    if not plan.spec.closeness.certify or not isinstance(optimizer, GradientDescent):
        return
    if store.complete(path) or plan.objective.kinks(plan.params).exist:
        return
    if store.attribute(f"optimizers/{planned.name}", "status_kind") != "completed":
        return
    run = stored_trajectory(store, f"optimizers/{planned.name}", plan, optimizer)
    assert run.steps is not None
    evidence = _evidence(plan)
    with progress.stage(f"certificate, {planned.name}", 1) as bar:
        found = certify_run(plan.objective, run, evidence=evidence, looks=_LOOKS)
        bar.at(1)
    attributes = {
        "optimizer": planned.name,
        "proved": found.proved,
        "hypotheses": json.dumps([[h.statement, h.how] for h in found.hypotheses]),
        "amplification": found.amplification,
        "limit": found.limit,
        **Cost(found.gradients, solver=_METHODS[type(evidence)]).attributes,
    }
    dtype = str(run.loss.dtype)
    store.allocate(path, {"time": np.asarray(run.times)}, {"bound": ()}, dtype, attributes)
    store.write_columns(path, {"bound": found.bound[np.asarray(run.steps)]})
    store.annotate(path, {"complete": True})


def _evidence(plan: Plan):
    """What can prove, where there is such, else intervals."""
    closed = ClosedForm(plan.params)
    try:
        closed.check(plan.objective, plan.params)
    except (TypeError, ValueError):
        return Intervals()
    return closed


def carry_out_comparison(plan: Plan, planned: PlannedRun, store: Store) -> None:
    """Distances between a run and its flow, measured and predicted."""
    path = f"comparisons/{planned.name}"
    if store.complete(path):
        return
    flow = next(f for f in plan.flows if f.name == planned.flow)
    run = stored_trajectory(store, f"optimizers/{planned.name}", plan, planned.optimizer)
    reference = stored_trajectory(store, f"flows/{flow.name}", plan, flow.flow)
    gap = compare(run, reference)
    columns = {
        "distance": gap.distance,
        "distance_error": gap.error,
        "moved": gap.moved,
        "relative": gap.relative,
        "loss_difference": gap.loss_difference,
        "loss_error": gap.loss_error,
        "prediction_distance": gap.prediction_distance,
        "prediction_error": gap.prediction_error,
        **_predicted(plan, planned, store, len(gap.times)),
    }
    time = np.asarray(gap.times)
    dtype = str(gap.distance.dtype)
    cost = Cost(PRICE * len(gap.times), solver="Gauss-Newton power iteration")
    attributes = {"optimizer": planned.name, "flow": flow.name, **cost.attributes}
    store.allocate(path, {"time": time}, dict.fromkeys(columns, ()), dtype, attributes)
    store.write_columns(path, columns)
    store.annotate(path, {"complete": True})


def _predicted(plan: Plan, planned: PlannedRun, store: Store, rows: int) -> dict[str, np.ndarray]:
    """What the law says at the saved times, NaN beyond its last, and its error bar."""
    path = f"laws/{_law_of(plan, planned)}"
    if not store.has(path):
        return {}
    _, unravel = ravel_pytree((plan.params, plan.params))
    known = min(int(store.attribute(path, "rows")), rows)
    flat = jnp.asarray(store.read(path, "params")[:known])
    rate = jax.vmap(lambda row: tree_norm(unravel(row)[1]))(flat)
    step, more = planned.optimizer.time_per_step, np.full(rows - known, np.nan)
    error = store.read(path, "error")[:known]
    return {
        "predicted": np.append(step * np.asarray(rate), more),
        "predicted_error": np.append(step * error, more),
    }


def stored_trajectory(store: Store, path: str, plan: Plan, dynamics: Any) -> Trajectory:
    """The trajectory that a stage stored, as `integrate` or `descend` would have returned it."""
    rows = int(store.attribute(path, "rows"))
    _, unravel = ravel_pytree(plan.params)
    flat = jnp.asarray(store.read(path, "params")[:rows])
    has_steps = isinstance(dynamics, Optimizer)
    return Trajectory(
        times=jnp.asarray(store.read(path, "time")[:rows]),
        params=jax.vmap(unravel)(flat),
        observables={"loss": jnp.asarray(store.read(path, "loss")[:rows])},
        error=None if has_steps else jnp.asarray(store.read(path, "error")[:rows]),
        steps=jnp.asarray(store.read(path, "step")[:rows]) if has_steps else None,
        status=Status(
            store.attribute(path, "status_kind"), store.attribute(path, "status_message")
        ),
        stats=Stats(),
        dynamics=dynamics,
        objective=plan.objective,
        initial=plan.params,
    )
