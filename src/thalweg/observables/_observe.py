"""Recording observables along a trajectory that is there already."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
from jaxtyping import PyTree

from .._precision import jit
from .._trees import tree_stack
from ..objectives import AbstractObjective
from ..results import Trajectory


@runtime_checkable
class RememberingObservable(Protocol):
    """An observable that is handed what it remembered at the saved time before."""

    def initial(self, objective: AbstractObjective, params: PyTree) -> PyTree:
        """The memory at the first saved time."""
        ...

    def __call__(
        self, objective: AbstractObjective, params: PyTree, memory: PyTree
    ) -> tuple[Any, PyTree]:
        """The value, and the memory for the next saved time."""
        ...


def observe(
    trajectory: Trajectory,
    objective: AbstractObjective | None = None,
    **observables: Callable | RememberingObservable,
) -> Trajectory:
    """Evaluate observables at every saved time of a trajectory.

        flow = tw.observe(flow, gradient_norm=tw.observables.gradient_norm)
        flow.observables["gradient_norm"]  # shape (saves,)

    Returns the trajectory with the values added to `observables` under the names given, each with
    a leading axis of saved times. `objective` defaults to the trajectory's own.

    **Raises:** ValueError without an objective, or for a name that is taken; TypeError for a class.
    """
    objective = trajectory.objective if objective is None else objective
    if objective is None:
        raise ValueError("objective: the trajectory carries none, so pass one.")
    added = dict(trajectory.observables)
    for name, observable in observables.items():
        if name in added:
            raise ValueError(f"{name}: the trajectory has an observable of this name already.")
        if isinstance(observable, type):
            raise TypeError(f"{name}: got the class {observable.__name__}; pass an instance of it.")
        added[name] = _along(trajectory, objective, observable)
    return eqx.tree_at(lambda t: t.observables, trajectory, added)


def _along(trajectory: Trajectory, objective: AbstractObjective, observable: Any) -> PyTree:
    points = [
        jax.tree.map(lambda leaf, i=i: leaf[i], trajectory.params)
        for i in range(len(trajectory.times))
    ]
    if not isinstance(observable, RememberingObservable):
        return tree_stack([_observed(observable, objective, point) for point in points])
    memory, values = observable.initial(objective, points[0]), []
    for point in points:
        value, memory = observable(objective, point, memory)
        values.append(value)
    return tree_stack(values)


@jit
def _observed(observable: Any, objective: AbstractObjective, params: PyTree) -> PyTree:
    return observable(objective, params)
