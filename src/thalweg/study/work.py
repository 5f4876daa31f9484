"""A study under way: what its stages share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..optimizers import Optimizer
from ..results import Resumable, Stats, Status, Trajectory
from .plan import Plan, PlannedFlow, PlannedRun
from .progress import Progress
from .resumable import carry_out_run
from .store import Store

# Bytes of trajectories that are kept from stage to stage; larger ones are read again.
_KEPT = 2**26


@dataclass(frozen=True)
class Work:
    """A study under way: its plan, its store, whom to tell how far it is, and what was computed."""

    plan: Plan
    store: Store
    progress: Progress
    _kept: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def run(self, planned: PlannedRun) -> Trajectory:
        """The run of an optimizer, as `descend` would have returned it."""
        return self._trajectory(f"optimizers/{planned.name}", planned.optimizer)

    def flow(self, planned: PlannedFlow) -> Trajectory:
        """A flow, as `integrate` would have returned it."""
        return self._trajectory(f"flows/{planned.name}", planned.flow)

    def bring_to_end(
        self, path: str, title: str, run: Resumable, attributes: Mapping[str, Any], price: int = 1
    ) -> None:
        """Carry out a flow, a run or a law, and keep it for later stages if it is small."""
        size = len(run.times) * sum(leaf.nbytes for leaf in jax.tree.leaves(run.params))
        rows = carry_out_run(
            self.store, self.progress, path, title, run, attributes, price=price, keep=size < _KEPT
        )
        if rows is not None:
            self._keep(path, rows)

    def rows(self, path: str) -> dict[str, np.ndarray]:
        """All columns of a part, down to the last row that was computed."""
        if path not in self._kept:
            rows = int(self.store.attribute(path, "rows"))
            columns = self.store.columns(path)
            self._keep(path, found := {c: self.store.read(path, c)[:rows] for c in columns})
            return found
        return self._kept[path]

    def _keep(self, path: str, rows: dict[str, np.ndarray]) -> None:
        held = sum(a.nbytes for columns in self._kept.values() for a in columns.values())
        if held + sum(a.nbytes for a in rows.values()) <= _KEPT:
            self._kept[path] = rows

    def _trajectory(self, path: str, dynamics: Any) -> Trajectory:
        rows, attribute = self.rows(path), self.store.attribute
        _, unravel = ravel_pytree(self.plan.params)
        has_steps = isinstance(dynamics, Optimizer)
        return Trajectory(
            times=jnp.asarray(rows["time"]),
            params=jax.vmap(unravel)(jnp.asarray(rows["params"])),
            observables={"loss": jnp.asarray(rows["loss"])},
            error=None if has_steps else jnp.asarray(rows["error"]),
            steps=jnp.asarray(rows["step"]) if has_steps else None,
            status=Status(attribute(path, "status_kind"), attribute(path, "status_message")),
            stats=Stats(),
            dynamics=dynamics,
            objective=self.plan.objective,
            initial=self.plan.params,
        )
