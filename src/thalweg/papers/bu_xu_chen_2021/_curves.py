"""What was measured: every finished run, beside what was predicted and what was published."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...kernels import PredictedRate, Rate, predicted_rate
from ...kernels._rate import rate_of
from ...optimizers import ClassicalOptimizer
from ...study.store import Store
from ._plan import EXPERIMENTS, Run
from ._predictions import predicted
from ._published import (
    AT,
    BY_EPOCH,
    BY_WIDTH,
    EPOCHS,
    LABELS_DIGEST,
    SAMPLES,
    WIDTH,
    WIDTHS_EPOCHS,
)
from ._settings import Setting


@dataclass(frozen=True)
class Curve:
    """One run: losses without a half, as published, at the saved epochs.

    `predicted`: of the frozen kernel at the "start" and, where there is one, of the "limit" of
    large width, in the same places; `curvatures` of both. `drift`: how far the kernel has moved,
    relatively. `trouble`: why it ended early, or "". `of_the_paper`: whether the paper has it.
    """

    run: Run
    optimizer: ClassicalOptimizer
    step_size: float
    epochs: np.ndarray
    loss: np.ndarray
    drift: np.ndarray
    predicted: dict[str, np.ndarray]
    curvatures: dict[str, np.ndarray]
    trouble: str
    of_the_paper: bool

    @cached_property
    def gap(self) -> dict[str, float]:
        """The largest difference from each prediction, of errors' norms and over that at first."""
        norms = np.sqrt(self.loss)
        return {
            name: float(np.max(np.abs(np.sqrt(values) - norms)) / norms[0])
            for name, values in self.predicted.items()
        }

    @cached_property
    def rate(self) -> Rate:
        """The law that the loss followed."""
        times = (self.epochs - 1) * self.optimizer.time_per_step
        return rate_of(times, self.loss, 0.0, None)

    @cached_property
    def predicted_rate(self) -> PredictedRate:
        """In the long run, were the kernel what it was at the start."""
        return predicted_rate(self.optimizer, self.curvatures["start"])

    @property
    def steepness(self) -> float:
        """Largest curvature at the start times step size, over what is stable at the last step."""
        steepest = float(self.curvatures["start"].max()) * self.step_size
        return steepest / self.optimizer.stability_limit(int(self.epochs[-1]))

    def at(self, epoch: int) -> float | None:
        """The loss of an epoch, if it was saved."""
        found = np.flatnonzero(self.epochs == epoch)
        return float(self.loss[found[0]]) if found.size else None

    def published(self, epoch: int) -> tuple[float, float, float] | None:
        """The paper's loss, and between which other starts lie, where it is known."""
        key = self.run.method.key
        if not self.of_the_paper:
            return None
        if self.run.kind == "widths":
            row = BY_WIDTH.get(key, {}).get(self.run.width)
            return row if epoch == self.run.epochs else None
        losses = BY_EPOCH.get(key)
        loss = losses[AT.index(epoch)] if losses and epoch in AT else None
        return None if loss is None else (loss, loss, loss)


@dataclass(frozen=True)
class Group:
    """One experiment in one setting: its runs, in the order of the experiment."""

    experiment: str
    setting: Setting
    curves: list[Curve]

    @property
    def title(self) -> str:
        """The title of the experiment."""
        return EXPERIMENTS[self.experiment].title

    @property
    def logarithmic(self) -> bool:
        """Whether its figure has a logarithmic axis of epochs."""
        return EXPERIMENTS[self.experiment].logarithmic

    @property
    def by_width(self) -> bool:
        """Or else by epoch."""
        return EXPERIMENTS[self.experiment].widths is not None

    def lines(self) -> dict[str, list[Curve]]:
        """The curves of each method, by its label."""
        found: dict[str, list[Curve]] = {}
        for curve in self.curves:
            found.setdefault(curve.run.method.label, []).append(curve)
        return found


def read_groups(store: Store, settings: Iterable[Setting]) -> list[Group]:
    """The experiments of which all is there, in all settings."""
    known = store.attributes.get("labels_digest") == LABELS_DIGEST
    groups = []
    for setting, (name, experiment) in itertools.product(settings, EXPERIMENTS.items()):
        runs = list(experiment.runs(setting))
        if all(predicted(store, run.path) for run in runs):
            curves = [_read(store, run, known and _as_published(run)) for run in runs]
            groups.append(Group(name, setting, curves))
    return groups


def _predictions(run: Run) -> str:
    return f"predictions/{run.path}"


def _as_published(run: Run) -> bool:
    """Whether the paper has that run."""
    if run.setting.name != "published" or run.setting.protocol.samples != SAMPLES:
        return False
    if run.kind == "widths":
        return run.epochs == WIDTHS_EPOCHS
    return (run.width, run.epochs) == (WIDTH, EPOCHS)


def _read(store: Store, run: Run, of_the_paper: bool) -> Curve:
    rows = int(store.attribute(run.path, "rows"))
    step_size = float(store.attribute(run.path, "step_size"))
    names = sorted(set(store.columns(_predictions(run))) - {"time"}, reverse=True)
    spectrum = f"curvatures/{run.path.rpartition('/')[0]}"
    return Curve(
        run=run,
        optimizer=run.setting.optimizer(run.method, step_size),
        step_size=step_size,
        epochs=store.read(run.path, "step")[:rows].astype(int) + 1,
        loss=2 * store.read(run.path, "loss")[:rows].astype(float),
        drift=store.read(run.path, "drift")[:rows].astype(float),
        predicted={n: 2 * store.read(_predictions(run), n)[:rows] for n in names},
        curvatures={n: store.read(spectrum, n) for n in names},
        trouble=str(store.attribute(run.path, "status_message")),
        of_the_paper=of_the_paper,
    )
