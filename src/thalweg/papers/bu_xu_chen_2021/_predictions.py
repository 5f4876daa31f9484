"""What the frozen tangent kernel says of every run: the network's own, and the limit's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ...kernels import Modes, empirical, modes
from ...kernels._predicted_run import mode_by_mode
from ...kernels._prediction import Clock
from ...objectives import Objective
from ...optimizers import ClassicalOptimizer
from ...study.store import Store
from ._settings import infinitely_wide


class Frozen:
    """The kernels of one network at its start: diagonalised when first needed.

    In float64: what is left of a fast mode is far below float32's digits of the whole.
    """

    def __init__(self, objective: Objective, network: PyTree, has_limit: bool):
        self._objective = _exact(objective)
        self._network = _exact(network)
        self._has_limit = has_limit
        self._found: dict[str, Modes] | None = None

    @property
    def modes(self) -> dict[str, Modes]:
        """Of the kernel at the "start" and, where there is one, of the "limit" of large width."""
        if self._found is None:
            outputs = "mean" if self._objective.targets.ndim > 1 else "all"
            matrix = empirical(self._objective, self._network).matrix(outputs)
            samples = self._objective.samples
            self._found = {"start": modes(matrix.reshape(samples, samples))}
            if self._has_limit:
                self._found["limit"] = infinitely_wide(self._objective)
        return self._found

    def losses(self, optimizer: ClassicalOptimizer, steps: np.ndarray) -> dict[str, np.ndarray]:
        """The losses that each of them predicts."""
        start = self._objective.predictions(self._network)
        clock = Clock.of(optimizer, steps)
        return {
            name: np.asarray(mode_by_mode(clock, self._objective, found, start, None).loss)
            for name, found in self.modes.items()
        }

    @property
    def curvatures(self) -> dict[str, np.ndarray]:
        """Eigenvalues over the number of samples."""
        return {name: np.ravel(found.curvatures) for name, found in self.modes.items()}


def predicted(store: Store, path: str) -> bool:
    """Whether a run is finished, and its predictions are there."""
    return store.complete(f"predictions/{path}")


def carry_out_predictions(
    store: Store, path: str, frozen: Frozen, optimizer: ClassicalOptimizer
) -> None:
    """Predicted losses at the saved steps of a finished run, and the kernels' curvatures."""
    where, spectrum = f"predictions/{path}", f"curvatures/{path.rpartition('/')[0]}"
    if not store.complete(spectrum):
        found = frozen.curvatures
        number = np.arange(len(found["start"]), dtype=float)
        _write(store, spectrum, {"time": number}, found)
    if not predicted(store, path):
        steps = store.read(path, "step").astype(int)
        _write(store, where, {"time": store.read(path, "time")}, frozen.losses(optimizer, steps))


def _write(store: Store, path: str, coordinates: Any, columns: dict[str, np.ndarray]) -> None:
    store.allocate(path, coordinates, dict.fromkeys(columns, ()), "float64", {})
    store.write_columns(path, columns)
    store.annotate(path, {"complete": True})


def _exact(tree: PyTree) -> PyTree:
    """The same in float64, where it is enabled."""
    return jax.tree.map(
        lambda a: a.astype(float) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree
    )
