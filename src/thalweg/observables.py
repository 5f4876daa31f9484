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
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._checks import check_positive, check_positive_integer
from ._precision import jit
from ._trees import tree_norm, tree_stack
from .objectives import AbstractObjective, AbstractSupervised, check_objective
from .results import Trajectory

# A pair that the flow crosses changes its side once, and twice if the flow turns round.
_CHATTERS = 3


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


def gradient_norm(objective: AbstractObjective, params: PyTree) -> Float[Array, ""]:
    """Euclidean norm of the gradient over all parameters. Costs 1 gradient."""
    return tree_norm(objective.gradient(params))


def parameter_norm(objective: AbstractObjective, params: PyTree) -> Float[Array, ""]:
    """Euclidean norm of all parameters."""
    return tree_norm(params)


def accuracy(objective: AbstractObjective, params: PyTree) -> Float[Array, ""]:
    """Fraction of samples whose largest output is the labelled (or one-hot) class."""
    known = check_objective(objective, AbstractSupervised, what="accuracy")
    guess = jnp.argmax(known.predictions(params), axis=-1)
    targets = known.targets
    labels = targets if jnp.issubdtype(targets.dtype, jnp.integer) else jnp.argmax(targets, axis=-1)
    return jnp.mean(guess == labels)


class ActivationFlips(eqx.Module):
    """The number of (sample, kink) pairs that changed sides since the saved time before.

        flow = tw.observe(flow, flips=tw.observables.ActivationFlips())
        flow.observables["flips"]  # shape (saves,), the first is 0

    An integer, out of as many as there are entries in `objective.kink_pattern(params)`: a ReLU has
    one for every sample and neuron, a maximum over an axis or a window one for every argument. So
    a maximum that moves from one place to another counts twice; if several arguments are equal, as
    the zeros are that ReLUs leave to a pooling layer, more of them may change at once. A pair that
    went to the other side and came back between two saved times is not seen. Remembers the
    pattern, one truth value for every entry.

    Costs no gradient, only a pass forward.

    **Raises:** ValueError for a network without kinks that can be seen (loops are not looked into).
    """

    def initial(
        self, objective: AbstractObjective, params: PyTree
    ) -> list[Bool[Array, "samples ..."]]:
        """The pattern at the first saved time."""
        return _pattern(objective, params)

    def __call__(
        self, objective: AbstractObjective, params: PyTree, memory: list[Bool[Array, "samples ..."]]
    ) -> tuple[Int[Array, ""], list[Bool[Array, "samples ..."]]]:
        """The number of entries that differ from `memory`, and the pattern at `params`."""
        pattern = _pattern(objective, params)
        return _total(jax.tree.map(jnp.not_equal, pattern, memory)), pattern


class SlidingPairs(eqx.Module):
    """The number of (sample, kink) pairs that sit on their kink, found numerically.

        flow = tw.observe(flow, sliding=tw.observables.SlidingPairs(step_size=1e-3))
        flow.observables["sliding"]  # shape (saves,)

    Where the flow runs into a kink from both sides it can leave on neither: it slides along the
    kink, with a mean of both one-sided gradients as its velocity (Filippov, "Differential equations
    with discontinuous righthand sides", 1988). Gradient descent with small steps hops from one side
    to the other there, while it changes sides once at a kink that the flow merely crosses. So a few
    steps of gradient descent are taken from `params`, and the pairs are counted that change sides
    at least three times.

    **Arguments:**

    - `step_size`: of these steps. See below for what is small and what is too small.
    - `steps`: their number, at least 3; 12 by default.

    It is a number that was detected, and can be wrong:

    - Steps too large: gradient descent overshoots along directions in which
        `step_size * sharpness` is above 1, and above 2 it is unstable. It then hops over kinks on
        which nothing slides.
    - Steps too small: where `params` are on a kink only up to the error of a solver, the steps must
        get there, that is be longer together than this error.
    - Too few steps: the more unequal the two pushes are, the rarer are the visits to the side with
        the stronger one. If they are less than about `2 / steps` of all steps, the pair is missed.
    - What begins or ends to slide within the time `steps * step_size` may be counted or not.

    Counts entries of `objective.kink_pattern(params)`, not equations: samples that are multiples of
    each other share the kink of a ReLU without a bias, and a maximum over an axis or a window that
    slides between two of its arguments counts twice, once for each.

    Costs `steps` gradients and `steps + 1` passes forward.

    **Raises:** ValueError for a step size that is not positive, for fewer than 3 steps, and for a
    network without kinks that can be seen (loops are not looked into).
    """

    step_size: float | Float[Array, ""]
    steps: int = eqx.field(static=True, default=12)

    def __check_init__(self):
        check_positive(self.step_size, "step_size")
        check_positive_integer(self.steps, "steps")
        if self.steps < _CHATTERS:
            raise ValueError(
                f"steps: {self.steps} steps cannot show {_CHATTERS} changes of side; take at least"
                f" {_CHATTERS}."
            )

    def __call__(self, objective: AbstractObjective, params: PyTree) -> Int[Array, ""]:
        """The number of pairs that slide at `params`."""
        return _chattering(objective, params, jnp.asarray(self.step_size), int(self.steps))


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


@jit
def _pattern(objective: AbstractObjective, params: PyTree) -> list[Bool[Array, "samples ..."]]:
    """The side of every kink that `params` are on, for a network that has any."""
    pattern = objective.kink_pattern(params)
    if not pattern:
        raise ValueError(
            "objective: the network shows no kinks (ReLU, max-pooling), so there are no sides to"
            " change. Kinks inside of loops are not seen."
        )
    return pattern


@jit
def _chattering(
    objective: AbstractObjective, params: PyTree, step_size: Array, steps: int
) -> Array:
    """How many pairs change sides at least `_CHATTERS` times in steps of gradient descent."""

    def step(carry, _):
        point, before, changes = carry
        gradient = objective.gradient(point)
        # A step size of higher precision must not raise that of the parameters.
        point = jax.tree.map(lambda p, g: p - step_size.astype(p.dtype) * g, point, gradient)
        after = _pattern(objective, point)
        # No further than it matters, so that a byte for each pair will do.
        changes = jax.tree.map(
            lambda n, a, b: jnp.minimum(n + (a != b), _CHATTERS).astype(n.dtype),
            changes,
            before,
            after,
        )
        return (point, after, changes), None

    start = _pattern(objective, params)
    none = jax.tree.map(lambda side: jnp.zeros(side.shape, jnp.int8), start)
    (_, _, changes), _ = jax.lax.scan(step, (params, start, none), length=steps)
    return _total([n >= _CHATTERS for n in changes])


def _total(truths: list[Bool[Array, "..."]]) -> Int[Array, ""]:
    return jnp.sum(jnp.stack([jnp.sum(truth) for truth in truths]))
