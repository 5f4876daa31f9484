"""What the tangent kernel at the start predicts for every run, and how far it moves."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..kernels import KernelDrift, Modes, empirical, modes, predicted_rate, rate
from ..kernels._predicted_run import predicted_by
from ..kernels._prediction import Clock, Prediction
from ..observables import observe
from ._closeness_stages import stored_trajectory
from ._cost import Cost
from .build import Plan, PlannedRun
from .progress import Progress
from .store import Store


def kernel_outputs(plan: Plan) -> Any:
    """Which kernel a study uses."""
    objective = plan.objective
    outputs = jax.eval_shape(objective.predictions, plan.params).size // objective.samples
    return plan.spec.kernel.kind(objective.samples, outputs)


def carry_out_kernel(plan: Plan, store: Store, progress: Progress) -> None:
    """Predicted losses and the kernel's drift at every saved step of every run."""
    outputs = kernel_outputs(plan)
    left = [run for run in plan.runs if not store.complete(f"kernel/{run.name}")]
    if outputs is None or not left:
        return
    with progress.stage("tangent kernel", 1 + len(left)) as bar:
        kernel = empirical(plan.objective, plan.params)
        found = modes(kernel.matrix(outputs))
        store.require("kernel")
        made = Cost(kernel.price(outputs), solver="Jacobian, all eigenvalues")
        store.annotate("kernel", made.attributes)
        start = plan.objective.predictions(plan.params)
        bar.at(1)
        for i, planned in enumerate(left):
            _carry_out(plan, planned, store, found, start, outputs)
            bar.at(2 + i)


def _carry_out(
    plan: Plan, planned: PlannedRun, store: Store, found: Modes, start: Any, outputs: str
) -> None:
    path = f"kernel/{planned.name}"
    run = stored_trajectory(store, f"optimizers/{planned.name}", plan, planned.optimizer)
    assert run.steps is not None
    steps = np.asarray(run.steps)
    clock = Clock.of(planned.optimizer, steps)
    predicted = predicted_by(clock, plan.objective, found, start, None, plan.spec.rtol)
    moved = KernelDrift(plan.spec.kernel.drift_samples)
    drift = observe(run, drift=moved).observables["drift"]
    # One more is that of the start.
    spent = math.ceil((len(steps) + 1) * moved.price(plan.objective, plan.params))
    # A prediction that diverged ends earlier.
    missing = np.full(len(steps) - len(predicted.loss), np.nan)
    columns = {
        "predicted_loss": np.append(np.asarray(predicted.loss), missing),
        "drift": np.asarray(drift),
    }
    measured = rate(run)
    attributes = {
        "optimizer": planned.name,
        "outputs": outputs,
        "condition": found.condition,
        "alignment": _alignment(plan, found),
        "status_kind": predicted.status.kind,
        "status_message": predicted.status.message,
        "rate": str(measured),
        "rate_kind": measured.kind if measured.judged else "not judged",
        **_law(planned, predicted),
        **Cost(spent, solver="Jacobian").attributes,
    }
    time = np.asarray(run.times)
    store.allocate(path, {"time": time}, dict.fromkeys(columns, ()), str(time.dtype), attributes)
    store.write_columns(path, columns)
    store.annotate(path, {"complete": True})


def _law(planned: PlannedRun, predicted: Prediction) -> dict[str, Any]:
    """What theory has for the loss in the long run."""
    if not predicted.modal:
        return {"predicted_rate": "none is known for this loss", "predicted_rate_kind": "unknown"}
    expected = predicted_rate(planned.optimizer, predicted)
    law = {"predicted_rate": str(expected), "predicted_rate_kind": expected.kind}
    finite = np.isfinite(expected.exponent)
    return law | {"predicted_exponent": expected.exponent} if finite else law


def _alignment(plan: Plan, found: Modes) -> float:
    """With the targets, as one-hot rows."""
    targets = plan.objective.targets
    if jnp.issubdtype(targets.dtype, jnp.integer):
        assert plan.dataset.classes is not None
        targets = jax.nn.one_hot(targets, plan.dataset.classes, dtype=found.vectors.dtype)
    return found.alignment(targets)
