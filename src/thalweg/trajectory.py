"""What a flow or an optimizer leaves behind."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ._trees import tree_stack
from .objectives import AbstractObjective


@dataclass(frozen=True)
class Status:
    """How a trajectory ended.

    `kind`: "completed" when every saved time was reached, or the tolerance of `until`, whether the
    flow stays there (`Trajectory.limit.found`) or not; "diverged" when numbers stopped being finite
    or grew without bound; "stopped" when a limit (of steps, say) was met first; "uncontrolled" when
    the end was reached with an error too large to rely on. `time` and, for an optimizer, `step` say
    where it ended unless it completed.
    """

    kind: Literal["completed", "diverged", "stopped", "uncontrolled"] = "completed"
    message: str = ""
    time: float | None = None
    step: int | None = None

    @property
    def ok(self) -> bool:
        """Whether the end was reached: the kind is "completed" or "uncontrolled"."""
        return self.kind in ("completed", "uncontrolled")


@dataclass(frozen=True)
class Stats:
    """What a trajectory cost.

    `gradients` and `error_gradients` count gradient-equivalents: one gradient or one evaluation of
    a vector field is 1, one Hessian-vector product 2; `gradients` is the price of the solution,
    spectral-radius estimates and rejected steps included, and `error_gradients` what the error
    estimate cost on top. Either is -1 where a solver's cost is not known. `steps` are accepted
    steps, `rejected` rejected ones, both of the solution alone. `solver` names the methods used.
    """

    gradients: int = 0
    error_gradients: int = 0
    steps: int = 0
    rejected: int = 0
    solver: str = ""


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


class Trajectory(eqx.Module):
    """Saved times of one dynamics, with everything recorded there.

    - `times`: shape `(saves,)`, flow time. An optimizer's k-th iterate stands at
      `k * optimizer.time_per_step`.
    - `params`: the parameters' PyTree, each leaf with a leading axis of saved times: those at the
      last one are `jax.tree.map(lambda x: x[-1], trajectory.params)`.
    - `observables`: name -> array with a leading axis of saved times; "loss" is always there.
    - `error`: shape `(saves,)`, the estimated Euclidean distance, over all parameters, to the exact
      flow; `None` for an optimizer, whose iterates are what they are up to round-off. An estimate,
      not a bound: features of the landscape that are narrower than a step may go unseen.
    - `steps`: shape `(saves,)`, step numbers of an optimizer; `None` for a flow.
    - `status`, `stats`, `dynamics`, `objective`, `initial`: how it ended, what it cost, what was
      followed, on which landscape, and from which parameters.
    - `limit`: for a flow that met the tolerance of `until`, where it ended, and whether it stays
      there: a `thalweg.until.CriticalPoint`. Otherwise `None`.
    """

    times: Float[Array, "saves"]
    params: PyTree
    observables: dict[str, Array]
    error: Float[Array, "saves"] | None
    steps: Int[Array, "saves"] | None
    status: Status = eqx.field(static=True)
    stats: Stats = eqx.field(static=True)
    dynamics: Any
    objective: AbstractObjective | None = None
    initial: PyTree = None
    limit: Any = None

    @property
    def loss(self) -> Float[Array, "saves"]:
        """The objective's value at every saved time."""
        return self.observables["loss"]

    @staticmethod
    def from_snapshots(snapshots: Sequence[Snapshot], run: Resumable) -> "Trajectory":
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
    return Trajectory.from_snapshots(snapshots, run)
