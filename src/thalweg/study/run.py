"""Carrying a study out, stage by stage, from its beginning or from where it was."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._numbers import described
from .._trees import tree_size
from ..closeness._error_flow import ErrorFlow
from ..flows import Integration
from ..optimizers import ClassicalOptimizer, Descent
from ._closeness_stages import carry_out_certificate, carry_out_comparison, planned_laws
from ._curvature_stage import carry_out_curvature, curvature_paths
from ._errors import SpecError, StoreError
from ._kernel_stage import carry_out_kernel
from ._lock import Lock
from ._provenance import digest, provenance
from ._run_stage import carry_out_run
from .build import Plan, PlannedFlow, PlannedRun, build
from .declare import Declaration, load_spec, parse_spec
from .progress import Progress, Silent
from .store import Store
from .verdict import verdict


def run_study(spec: str | Path, directory: str | Path, progress: Progress | None = None) -> Path:
    """Carry out the study that a TOML file declares; returns the path of its report.

    **Raises:** SpecError for a mistake in the file; StoreError when the directory holds results
    already or cannot be written; whatever building the study raises. All before anything long.
    """
    return run_declared(load_spec(spec), directory, progress)


def run_declared(
    declaration: Declaration, directory: str | Path, progress: Progress | None = None
) -> Path:
    """Like `run_study`, for a study that was read already."""
    directory = Path(directory)
    plan = build(declaration)
    with Lock(directory):
        attributes = _attributes(plan, declaration)
        store = Store.create(directory, attributes, planned_bytes(plan))
        return _carry_out(plan, store, progress or Silent())


def resume(directory: str | Path, progress: Progress | None = None) -> Path:
    """Go on with an interrupted study, from its last checkpoint; returns the path of its report.

    The numbers are, bit for bit, those of a study that was never interrupted (on the same machine
    and with the same versions).

    **Raises:** StoreError for a store that is missing, damaged or in use, and when the data or the
    network's start are not those that the study began with; SpecError when the data are gone.
    """
    store = Store.open(directory)
    text, folder = str(store.attributes["spec"]), Path(str(store.attributes["folder"]))
    try:
        declaration = parse_spec(text, f"{directory}, as stored", folder)
    except SpecError as error:
        raise SpecError(f"this version cannot read it ({error})", str(directory)) from error
    plan = build(declaration)
    for name, found in _fingerprints(plan).items():
        if store.attributes[name] != found:
            raise StoreError(
                f"the {name.removesuffix('_digest').replace('_', ' ')} are not those that the"
                " study began with, so that it cannot go on to the same numbers.",
                store.directory,
            )
    with Lock(store.directory):
        store.sweep()
        return _carry_out(plan, store, progress or Silent())


def planned_bytes(plan: Plan) -> int:
    """About how much room the results will take."""
    # A law's rows hold flow and error.
    runs = sum(len(r.save_steps) for r in plan.runs) * (3 if plan.spec.closeness.predict else 1)
    rows = sum(len(f.times) for f in plan.flows) + runs
    dtype = np.dtype(plan.spec.study.dtype)
    # Checkpoints hold the points, slopes and interpolants of two solutions with two solvers.
    return (rows + 120 * len(plan.flows)) * tree_size(plan.params) * dtype.itemsize


def _carry_out(plan: Plan, store: Store, progress: Progress) -> Path:
    progress.say(plan.memory.told(planned_bytes(plan)))
    for position, flow in enumerate(plan.flows):
        path = f"flows/{flow.name}"
        run = Integration(
            flow.flow,
            plan.objective,
            plan.params,
            save_at=flow.times,
            rtol=plan.spec.rtol,
            atol=plan.spec.flow.atol,
            max_steps=plan.spec.flow.max_steps,
        )
        attributes = {"position": position, **_flow_attributes(flow, run)}
        carry_out_run(store, progress, path, flow.flow.name, run, attributes)
    for position, planned in enumerate(plan.runs):
        path = f"optimizers/{planned.name}"
        descent = Descent(
            planned.optimizer, plan.objective, plan.params, save_steps=planned.save_steps
        )
        attributes = {"position": position, **_run_attributes(planned)}
        carry_out_run(store, progress, path, planned.name, descent, attributes)
    for position, (name, law) in enumerate(planned_laws(plan).items()):
        attributes = {"position": position, "optimizer": name}
        title = f"predicted distance, {name}"
        flow = law.dynamics
        assert isinstance(flow, ErrorFlow)
        carry_out_run(store, progress, f"laws/{name}", title, law, attributes, price=flow.price)
    for planned in plan.runs:
        carry_out_certificate(plan, planned, store, progress)
        carry_out_comparison(plan, planned, store)
    for path, title in curvature_paths(plan):
        carry_out_curvature(plan, store, progress, path, title)
    carry_out_kernel(plan, store, progress)
    sentences = verdict(store)
    store.annotate("", {"verdict": json.dumps([s.as_dict() for s in sentences])})
    from .report import write_report

    return write_report(store.directory)


def _fingerprints(plan: Plan) -> dict[str, str]:
    """Digests of what a study starts from, by which it is known again."""
    objective = plan.objective
    return {
        "data_digest": digest(objective.inputs, objective.targets),
        "initial_parameters_digest": digest(*jax.tree.leaves(plan.params)),
    }


def _attributes(plan: Plan, declaration: Declaration) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(plan.params)
    layout = [
        {"leaf": jax.tree_util.keystr(path).lstrip("."), "shape": list(leaf.shape)}
        for path, leaf in leaves
    ]
    spec = plan.spec
    return {
        "name": spec.study.name,
        "spec": declaration.text,
        "folder": str(declaration.folder),
        "seed": spec.study.seed,
        "dtype": spec.study.dtype,
        "samples": plan.objective.samples,
        "data": plan.dataset.name,
        "parameters": tree_size(plan.params),
        # Where in a row of `params` each array of the network stands, in order, row-major.
        "parameter_layout": json.dumps(layout),
        "rtol": spec.rtol,
        "atol": spec.flow.atol if spec.flow.atol is not None else spec.rtol / 100,
        **provenance(),
        **_fingerprints(plan),
    }


def _flow_attributes(flow: PlannedFlow, run: Integration) -> dict[str, Any]:
    return {
        "kind": type(flow.flow).__name__,
        "label": flow.flow.name,
        "repr": described(flow.flow),
        "rtol": run.rtol,
        "atol": run.atol,
    }


def _run_attributes(planned: PlannedRun) -> dict[str, Any]:
    optimizer = planned.optimizer
    assert isinstance(optimizer, ClassicalOptimizer)
    last = int(planned.save_steps[-1])
    return {
        "kind": type(optimizer).__name__,
        "label": optimizer.name,
        "repr": described(optimizer),
        "flow": planned.flow,
        "step_size": float(optimizer.step_size),  # pyright: ignore[reportAttributeAccessIssue]
        "time_per_step": optimizer.time_per_step,
        # On a quadratic mode, the largest stable eigenvalue x step size at the last step.
        "stability_limit": optimizer.stability_limit(last),
    }
