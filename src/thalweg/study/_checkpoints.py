"""When the state to go on from is written."""

import time

from jaxtyping import PyTree

from .store import Store

# The part of a run's time that may go into its checkpoints.
_SHARE = 0.05


class Checkpoints:
    """The checkpoints of one run: as many as cost little of its time.

    A state may be far larger than the row that is kept of it. Rows that come after the last
    checkpoint are computed again on resumption, to the same numbers.
    """

    def __init__(self, store: Store, path: str):
        self._store, self._path = store, path
        self._begun, self._spent = time.perf_counter(), 0.0

    def start(self, initial: PyTree) -> tuple[PyTree, int]:
        """The state to begin with, and the row that will be computed from it."""
        return self._store.load_checkpoint(self._path, initial) or (initial, 0)

    def offer(self, state: PyTree, index: int) -> None:
        """Write down the state from which row `index` will be computed, if its time has come."""
        now = time.perf_counter()
        if self._spent > _SHARE * (now - self._begun):
            return
        self._store.save_checkpoint(self._path, state, index)
        self._spent += time.perf_counter() - now
