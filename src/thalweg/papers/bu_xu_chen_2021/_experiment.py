"""Heavy ball, Nesterov's method and two momenta, by epoch and by width, in two settings.

The settings share their runs between experiments; every run keeps its losses, and how far the
tangent kernel has moved, in one store. Predictions of the frozen kernel are made afterwards.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

from ..._names import look_up
from ..._numbers import described
from ...datasets import Dataset, idx
from ...kernels import KernelDrift
from ...objectives import Objective
from ...optimizers import Descent
from ...study import StoreError
from ...study._lock import Lock
from ...study._provenance import digest, provenance
from ...study.progress import Progress, Silent
from ...study.resumable import LOSS, Column, carry_out_run
from ...study.sentences import Sentence
from ...study.store import STORE_NAME, Store
from ._curves import read_groups
from ._findings import findings
from ._page import write_page
from ._plan import EXPERIMENTS, Run
from ._predictions import Frozen, carry_out_predictions, predicted
from ._settings import DTYPE, SETTINGS, Protocol, Setting


def reproduce(
    data: str | Path,
    directory: str | Path,
    *,
    experiments: Sequence[str] = tuple(EXPERIMENTS),
    settings: Sequence[str] = tuple(SETTINGS),
    seed: int = 1,
    protocols: Mapping[str, Protocol] | None = None,
    progress: Progress | None = None,
) -> tuple[Path, list[Sentence]]:
    """Carry the experiments out, or go on with them; returns the page that tells all, and findings.

    **Arguments:**

    - `data`: a folder with MNIST's training images in IDX format, or with only the first of them.
    - `directory`: where to keep the results. What is complete there is not computed again.
    - `experiments`, `settings`: which of `EXPERIMENTS`, in which of `SETTINGS`.
    - `seed`: for the networks' starts. (The published ones cannot be had: another generator.)
    - `protocols`: others than the settings' own, by the name of the setting.

    **Raises:** ValueError for names that are not known, numbers of epochs that are not positive,
    and data with too few images; StoreError where other results lie.
    """
    for name in experiments:
        look_up(name, EXPERIMENTS, "experiments")
    for name in settings:
        look_up(name, SETTINGS, "settings")
    if not experiments or not settings:
        raise ValueError("experiments, settings: at least one of each.")
    given = protocols or {}
    every = [type(s)(given.get(name, s.protocol)) for name, s in SETTINGS.items()]
    chosen = [setting for setting in every if setting.name in settings]
    images = _images(data, max(setting.protocol.samples for setting in chosen))
    directory = Path(directory)
    progress = progress or Silent()
    page = directory / "report.html"
    with Lock(directory):
        store = _store(directory, images, seed, every)

        def told() -> list[Sentence]:
            groups = read_groups(store, every)
            found = findings(groups)
            write_page(groups, found, page)
            return found

        for name in experiments:
            for setting in chosen:
                problem = _Problem(setting, images, seed)
                runs = list(EXPERIMENTS[name].runs(setting))
                if sum(_carry_out(problem, run, store, progress) for run in runs):
                    # So that there is something to look at from early on.
                    told()
        return page, told()


class _Problem:
    """A setting with its data, and the network of the width that was asked for last."""

    def __init__(self, setting: Setting, images: Dataset, seed: int):
        self.setting = setting
        count = setting.protocol.samples
        self.objective = setting.objective(images.inputs[:count], images.targets[:count])
        by_epoch, by_width = setting.step_sizes(self.objective)
        self.step_sizes = {"epochs": by_epoch, "widths": by_width}
        self._features = int(np.prod(images.inputs.shape[1:]))
        self._key = jr.key(seed)
        self._last: tuple[int, PyTree, Frozen] | None = None

    def network(self, width: int) -> tuple[PyTree, Frozen]:
        """The start, the same for all methods, and its kernel."""
        if self._last is None or self._last[0] != width:
            network = self.setting.network(self._features, width, self._key)
            frozen = Frozen(self.objective, network, self.setting.has_limit)
            self._last = width, network, frozen
        return self._last[1:]


def _carry_out(problem: _Problem, run: Run, store: Store, progress: Progress) -> bool:
    """Bring a run to its end, and what is predicted for it; whether there was anything to do."""
    if predicted(store, run.path):
        return False
    step_size = problem.step_sizes[run.kind]
    optimizer = problem.setting.optimizer(run.method, step_size)
    network, frozen = problem.network(run.width)
    if not store.complete(run.path):
        descent = Descent(optimizer, problem.objective, network, save_steps=run.save_steps)
        attributes = {
            "label": run.method.label,
            "repr": described(optimizer),
            "step_size": step_size,
        }
        title = f"{run.setting.name}, width {run.width}, {run.method.label}"
        columns = {"loss": LOSS, "drift": _drift(problem.objective, network)}
        carry_out_run(store, progress, run.path, title, descent, attributes, columns)
        store.discard_checkpoint(run.path)
    carry_out_predictions(store, run.path, frozen, optimizer)
    return True


def _drift(objective: Objective, network: PyTree) -> Column:
    """How far the kernel is from that of the start."""
    measure = KernelDrift()
    initial = measure.initial(objective, network)
    return Column(lambda snapshot: measure(objective, snapshot.params, initial)[0])


def _images(folder: str | Path, count: int) -> Dataset:
    """The first images, with pixels in [0, 1] and labels as numbers."""
    found = idx(folder, normalise=None)
    if found.samples < count:
        raise ValueError(
            f"data: {folder} holds {found.samples} images; the experiments take the first {count}"
            " of MNIST's training set."
        )
    return Dataset(
        found.inputs[:count], found.targets[:count].astype(float), found.name, found.classes
    )


def _store(directory: Path, images: Dataset, seed: int, settings: Sequence[Setting]) -> Store:
    """The store of these experiments, new or begun earlier."""
    identity: dict[str, Any] = {
        "spec": f"bu-xu-chen-2021, seed {seed}, {[repr(setting) for setting in settings]}",
        "data_digest": digest(images.inputs, images.targets),
        "initial_parameters_digest": digest(jr.key_data(jr.key(seed))),
    }
    if not (directory / STORE_NAME).exists():
        # Two slots of the widest network's checkpoint, with two former points.
        widest = max(run.width for s in settings for e in EXPERIMENTS.values() for run in e.runs(s))
        room = 6 * widest * images.inputs[0].size * jnp.dtype(DTYPE).itemsize
        attributes = {
            "name": "Bu, Xu and Chen (2021)",
            "folder": ".",
            "samples": images.samples,
            "labels_digest": digest(np.asarray(images.targets, np.uint8)),
        }
        return Store.create(directory, attributes | identity | provenance(), room)
    store = Store.open(directory)
    if any(store.attributes.get(name) != value for name, value in identity.items()):
        raise StoreError(
            "holds results of other data, seed or numbers of epochs; choose another directory"
            " (`--out`).",
            directory,
        )
    store.sweep()
    return store
