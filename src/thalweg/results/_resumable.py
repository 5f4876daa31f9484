"""Computations that go from saved time to saved time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._trees import tree_stack
from ..objectives import AbstractObjective
from ._status import Stats, Status
from ._trajectory import Trajectory


@dataclass(frozen=True)
class Snapshot:
    """One saved time of a trajectory in the making.

    `stats` are cumulative. `repeats`: the run ended where it was saved last, so that this snapshot
    takes the last one's place.
    """

    time: float
    params: PyTree
    loss: float
    step: int | None = None
    error: float | None = None
    status: Status = field(default_factory=Status)
    stats: Stats = field(default_factory=Stats)
    repeats: bool = False


State = TypeVar("State")


class Resumable(Protocol[State]):
    """A computation that goes from saved time to saved time and can be taken up again.

    The state is a PyTree of arrays of fixed structure; `advance` depends on nothing else, so that a
    state stored on disk leads to the same bits as one that never left memory.
    """

    @property
    def times(self) -> np.ndarray:
        """The saved times, increasing."""
        ...

    @property
    def dynamics(self) -> Any:
        """The flow or optimizer that is followed."""
        ...

    @property
    def objective(self) -> AbstractObjective:
        """The landscape it is followed on."""
        ...

    @property
    def params(self) -> PyTree:
        """The parameters that it starts from."""
        ...

    def initial(self) -> State:
        """The state before anything was computed."""
        ...

    def advance(self, state: State) -> tuple[State, Snapshot]:
        """Go on to the next saved time."""
        ...

    def finished(self, state: State) -> bool:
        """Whether there is no further saved time to go to."""
        ...


def assembled(snapshots: Sequence[Snapshot], run: Resumable) -> Trajectory:
    """Put the snapshots of one run in a row; status and stats are the last one's."""
    if not snapshots:
        raise ValueError("snapshots: a trajectory needs at least one.")
    last = snapshots[-1]
    error, steps = None, None
    if last.error is not None:
        error = jnp.asarray([s.error for s in snapshots])
    if last.step is not None:
        steps = jnp.asarray([s.step for s in snapshots])
    return Trajectory(
        times=jnp.asarray([s.time for s in snapshots]),
        params=tree_stack([s.params for s in snapshots]),
        observables={"loss": jnp.asarray([s.loss for s in snapshots])},
        error=error,
        steps=steps,
        status=last.status,
        stats=last.stats,
        dynamics=run.dynamics,
        objective=run.objective,
        initial=run.params,
    )


def follow(run: Resumable) -> Trajectory:
    """Advance a run from its beginning until it is finished."""
    state = run.initial()
    snapshots = []
    while not run.finished(state):
        state, snapshot = run.advance(state)
        if snapshot.repeats:
            snapshots.pop()
        snapshots.append(snapshot)
    return assembled(snapshots, run)
