"""Carrying a study out, stage by stage, from its beginning or from where it was."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._names import look_up
from .._trees import tree_size
from ._errors import SpecError, StoreError
from ._lock import Lock
from ._provenance import digest, provenance
from ._time_needed import time_needed
from .build import build
from .declare import Declaration, declared, load_spec, parse_spec
from .plan import Plan
from .progress import Progress, Silent
from .results import read_results
from .spec import Spec
from .stages import STAGES, Stage
from .store import Store
from .verdict import verdict
from .work import Work


def run_study(
    spec: str | Path | Spec,
    directory: str | Path,
    progress: Progress | None = None,
    *,
    only: Collection[str] | None = None,
) -> Path:
    """Carry a study out; returns the path of its report.

    **Arguments:**

    - `spec`: a TOML file, or the same as a `Spec`.
    - `directory`: a new one for the results.
    - `progress`: whom to tell how far it is; nobody by default.
    - `only`: names of stages. Those and the ones that they need are carried out, all by default;
        `resume` carries out the rest.

    **Raises:** SpecError for a mistake in the file; StoreError when the directory holds results
    already or cannot be written; ValueError for a stage that there is not; whatever building the
    study raises. All before anything long.
    """
    declaration = declared(spec) if isinstance(spec, Spec) else load_spec(spec)
    return run_declared(declaration, directory, progress, only=only)


def run_declared(
    declaration: Declaration,
    directory: str | Path,
    progress: Progress | None = None,
    *,
    only: Collection[str] | None = None,
) -> Path:
    """Like `run_study`, for a study that was read already."""
    directory = Path(directory)
    _wanted(only)
    plan = build(declaration)
    with Lock(directory):
        attributes = _attributes(plan, declaration)
        store = Store.create(directory, attributes, planned_bytes(plan))
        return _carry_out(plan, store, progress or Silent(), only)


def resume(
    directory: str | Path,
    progress: Progress | None = None,
    *,
    only: Collection[str] | None = None,
) -> Path:
    """Go on with an interrupted study, from its last checkpoint; returns the path of its report.

    The numbers are, bit for bit, those of a study that was never interrupted (on the same machine
    and with the same versions). `only` as in `run_study`.

    **Raises:** StoreError for a store that is missing, damaged or in use, and when the data or the
    network's start are not those that the study began with; SpecError when the data are gone.
    """
    _wanted(only)
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
        return _carry_out(plan, store, progress or Silent(), only)


def planned_bytes(plan: Plan) -> int:
    """About how much room the results will take."""
    rows = sum(stage.rows(plan) for stage in STAGES)
    return rows * tree_size(plan.params) * np.dtype(plan.spec.study.dtype).itemsize


def _carry_out(plan: Plan, store: Store, progress: Progress, only: Collection[str] | None) -> Path:
    progress.say(plan.memory.told(planned_bytes(plan)))
    if not isinstance(progress, Silent):
        progress.say(time_needed(plan))
    work = Work(plan, store, progress)
    for stage in _wanted(only):
        stage.carry_out(work)
    found = [sentence.as_dict() for sentence in verdict(read_results(store))]
    store.annotate("", {"verdict": json.dumps(found)})
    from .report import write_report

    return write_report(store.directory)


def _wanted(only: Collection[str] | None) -> list[Stage]:
    """The stages that were asked for, with those whose results they read.

    **Raises:** ValueError for a name that no stage has.
    """
    if only is None:
        return list(STAGES)
    by_name = {stage.name: stage for stage in STAGES}
    needed, pending = set(), list(only)
    while pending:
        stage = look_up(pending.pop(), by_name, "only")
        needed.add(stage.name)
        pending += stage.after
    return [stage for stage in STAGES if stage.name in needed]


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
