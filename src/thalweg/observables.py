"""What can be recorded along a trajectory.

An observable is a function `(objective, params) -> number, array or PyTree of arrays`. One that
gains from what it found at the saved time before (a warm start) has a memory instead: a method
`initial(objective, params) -> memory`, and a call `(objective, params, memory) -> (value, memory)`.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._trees import tree_norm, tree_stack
from .objective import Objective
from .trajectory import Trajectory


@runtime_checkable
class RememberingObservable(Protocol):
    """An observable that is handed what it remembered at the saved time before."""

    def initial(self, objective: Objective, params: PyTree) -> PyTree:
        """The memory at the first saved time."""
        ...

    def __call__(self, objective: Objective, params: PyTree, memory: PyTree) -> tuple[Any, PyTree]:
        """The value, and the memory for the next saved time."""
        ...


def gradient_norm(objective: Objective, params: PyTree) -> Float[Array, ""]:
    """Euclidean norm of the gradient over all parameters. Costs 1 gradient."""
    return tree_norm(objective.gradient(params))


def parameter_norm(objective: Objective, params: PyTree) -> Float[Array, ""]:
    """Euclidean norm of all parameters."""
    return tree_norm(params)


def accuracy(objective: Objective, params: PyTree) -> Float[Array, ""]:
    """Fraction of samples whose largest output is the labelled (or one-hot) class."""
    guess = jnp.argmax(objective.predictions(params), axis=-1)
    targets = objective.targets
    labels = targets if jnp.issubdtype(targets.dtype, jnp.integer) else jnp.argmax(targets, axis=-1)
    return jnp.mean(guess == labels)


def observe(
    trajectory: Trajectory,
    objective: Objective | None = None,
    **observables: Callable | RememberingObservable,
) -> Trajectory:
    """Evaluate observables at every saved time of a trajectory.

        flow = tw.observe(flow, gradient_norm=tw.observables.gradient_norm)
        flow.observables["gradient_norm"]  # shape (saves,)

    Returns the trajectory with the values added to `observables` under the names given, each with
    a leading axis of saved times. `objective` defaults to the trajectory's own.

    **Raises:** ValueError without an objective, or for a name that is taken.
    """
    objective = trajectory.objective if objective is None else objective
    if objective is None:
        raise ValueError("objective: the trajectory carries none, so pass one.")
    added = dict(trajectory.observables)
    for name, observable in observables.items():
        if name in added:
            raise ValueError(f"{name}: the trajectory has an observable of this name already.")
        added[name] = _along(trajectory, objective, observable)
    return eqx.tree_at(lambda t: t.observables, trajectory, added)


def _along(trajectory: Trajectory, objective: Objective, observable: Any) -> PyTree:
    points = [
        jax.tree.map(lambda leaf, i=i: leaf[i], trajectory.params)
        for i in range(len(trajectory.times))
    ]
    if not isinstance(observable, RememberingObservable):
        compiled = eqx.filter_jit(observable)
        return tree_stack([compiled(objective, point) for point in points])
    memory, values = observable.initial(objective, points[0]), []
    for point in points:
        value, memory = observable(objective, point, memory)
        values.append(value)
    return tree_stack(values)
