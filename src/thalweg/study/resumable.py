"""Bringing one flow or one optimizer's run to its end, saved time by saved time."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from .._trees import tree_size
from ..flows import Integration
from ..optimizers import Descent
from ..results import Resumable, Snapshot
from ._checkpoints import Checkpoints
from ._cost import Cost
from .progress import Progress
from .store import Store


@dataclass(frozen=True)
class Column:
    """What a row keeps of a saved time.

    `value` of a snapshot has the shape of `dimensions`, `(name, size)` pairs.
    """

    value: Callable[[Snapshot], Any]
    dimensions: tuple[tuple[str, int], ...] = ()


LOSS = Column(lambda snapshot: snapshot.loss)
_ERROR = Column(lambda snapshot: snapshot.error)


def everything(run: Resumable) -> dict[str, Column]:
    """Loss and parameters, and the error of a flow."""
    parameters = Column(
        lambda snapshot: ravel_pytree(snapshot.params)[0],
        (("parameter", tree_size(run.params)),),
    )
    columns = {"loss": LOSS, "params": parameters}
    return columns | {"error": _ERROR} if isinstance(run, Integration) else columns


def carry_out_run(
    store: Store,
    progress: Progress,
    path: str,
    title: str,
    run: Resumable,
    attributes: Mapping[str, Any],
    columns: Mapping[str, Column] | None = None,
    price: int = 1,
    keep: bool = False,
) -> dict[str, np.ndarray] | None:
    """Bring one resumable run to its end, writing every saved time.

    `columns`: what to store, `everything` by default. `price`: gradients that one evaluation of the
    dynamics is worth. `keep`: return the columns that were stored, where all of them were computed
    now.
    """
    if store.complete(path):
        return None
    columns = everything(run) if columns is None else columns
    initial = run.initial()
    coordinates = {"time": run.times}
    if isinstance(run, Descent):
        coordinates["step"] = run.save_steps
    dtype = str(jnp.result_type(*jax.tree.leaves(run.params)))
    dimensions = {name: column.dimensions for name, column in columns.items()}
    store.allocate(path, coordinates, dimensions, dtype, attributes)
    checkpoints = Checkpoints(store, path)
    state, index = checkpoints.start(initial)
    if store.attributes_of(path).get("rows", 0) > index:
        # Rows after the checkpoint are computed again, and may be lost.
        store.annotate(path, {"rows": index})
    store.check(path, index)
    first, kept, begun = index, {}, time.perf_counter()
    with progress.stage(title, len(run.times)) as bar:
        bar.at(index)
        while not run.finished(state):
            state, snapshot = run.advance(state)
            row = {name: column.value(snapshot) for name, column in columns.items()}
            if not snapshot.status.ok:
                # The row where it ended stands at the time where it ended.
                row["time"] = snapshot.time
                if snapshot.step is not None:
                    row["step"] = snapshot.step
            index -= snapshot.repeats
            store.write_row(path, index, row)
            if keep:
                place = {name: values[index] for name, values in coordinates.items()}
                kept[index] = {name: np.asarray(v) for name, v in (place | row).items()}
            index += 1
            store.annotate(path, _ending(snapshot, index, price))
            checkpoints.offer(state, index)
            bar.at(index)
    store.annotate(path, {"complete": True})
    store.add_seconds(path, time.perf_counter() - begun)
    if not keep or first > 0:
        return None
    # As the store has them: later stages must find the same numbers in memory and on disk.
    kinds = dict.fromkeys(columns, np.dtype(dtype)) | {n: v.dtype for n, v in coordinates.items()}
    return {
        name: np.stack([kept[i][name] for i in range(index)]).astype(kind)
        for name, kind in kinds.items()
    }


def _ending(snapshot: Snapshot, rows: int, price: int) -> dict[str, Any]:
    status = snapshot.status
    return {
        "rows": rows,
        "status_kind": status.kind,
        "status_message": status.message,
        "status_time": status.time,
        "status_step": status.step,
        **Cost.of_run(snapshot.stats, price).attributes,
    }
