"""Running an optimizer."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._checks import check_positive_integer
from .._precision import jit
from .._trees import check_params, tree_all_finite, tree_strong
from ..objectives import AbstractObjective
from ..results import Snapshot, Stats, Status, Trajectory, follow
from ._base import Optimizer

# A loss this many times its start (or 1, if that is more) will not come back.
_DIVERGED = 1e8


class DescentState(eqx.Module):
    """The next saved step's index, the step number, the point and the optimizer's own state."""

    index: Int[Array, ""]
    k: Int[Array, ""]
    params: PyTree[Array]
    optimizer_state: PyTree
    ceiling: Float[Array, ""]
    diverged: Bool[Array, ""]


class Descent:
    """An optimizer being run, from one saved step to the next: see `descend`.

    `times` are the saved times, `save_steps` their step numbers; `initial`, `advance` and
    `finished` make it a `thalweg.results.Resumable`.
    """

    def __init__(
        self, optimizer: Optimizer, objective: AbstractObjective, params: PyTree, *, save_steps: Any
    ):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"optimizer: expected an Optimizer, got {type(optimizer).__name__}. Wrap an optax"
                " transformation in `Optax(...)`."
            )
        check_params(params)
        objective.check(params)
        self.dynamics = optimizer
        self.save_steps = _checked_steps(save_steps)
        self.times = self.save_steps * optimizer.time_per_step
        self.objective = objective
        self.params = jax.tree.map(jnp.asarray, params)

    def initial(self) -> DescentState:
        """The state at step 0."""
        loss = _value(self.objective, self.params)
        none = jnp.asarray(0)
        state = DescentState(
            index=none,
            k=none,
            params=self.params,
            optimizer_state=jax.tree.map(jnp.asarray, self.dynamics.init(self.params)),
            ceiling=_DIVERGED * jnp.maximum(jnp.abs(loss), 1),
            diverged=jnp.asarray(False),
        )
        return tree_strong(state)

    def finished(self, state: DescentState) -> bool:
        """Whether all saved steps were made or the run diverged."""
        return bool(state.diverged) or int(state.index) >= len(self.save_steps)

    def advance(self, state: DescentState) -> tuple[DescentState, Snapshot]:
        """Run to the next saved step."""
        target = int(self.save_steps[int(state.index)])
        state = _run(self.dynamics, self.objective, state, jnp.asarray(target))
        k = int(state.k)
        loss = float(_value(self.objective, state.params))
        ceiling = float(state.ceiling)
        index = int(state.index)
        time = k * self.dynamics.time_per_step
        status, gradients = Status(), k
        if not loss <= ceiling:
            what = f"raised the loss to {loss:.3g}, above {ceiling:.3g}"
            status = Status("diverged", f"step {k} {what}.", time=time, step=k)
        elif bool(state.diverged):
            # What step k + 1 needs or leads to, beyond the point that k steps led to.
            what = (
                f"left the finite, or its gradient was taken where the loss is above {ceiling:.3g}"
            )
            status = Status(
                "diverged",
                f"step {k + 1} {what}; the last row is step {k}.",
                time=time,
                step=k + 1,
            )
        if bool(state.diverged):
            gradients += 1
        snapshot = Snapshot(
            time=time,
            step=k,
            params=state.params,
            loss=loss,
            status=status,
            stats=Stats(gradients=gradients, steps=k, solver=self.dynamics.name),
            repeats=index > 0 and k == int(self.save_steps[index - 1]),
        )
        ended = jnp.asarray(not status.ok)
        state = eqx.tree_at(lambda s: (s.index, s.diverged), state, (state.index + 1, ended))
        return state, snapshot


def descend(
    optimizer: Optimizer,
    objective: AbstractObjective,
    params: PyTree,
    steps: int,
    save_every: int | None = None,
    *,
    save_steps: Any | None = None,
) -> Trajectory:
    """Run an optimizer from `params`, full batch.

    **Arguments:**

    - `optimizer`: for instance `GradientDescent(step_size=1e-3)`.
    - `steps`: the number of steps.
    - `save_every`: save step 0 and every so many steps, and the last; 1 by default.
    - `save_steps`: the step numbers to save, increasing, instead of `save_every`.

    **Returns:** a `Trajectory` whose `times` are `step number * optimizer.time_per_step`. A run
    that stops being finite, or whose loss grows a hundred million times, stops there: its status
    is "diverged" and says at which step; its last row is the last step that was finite.

    **Raises:** ValueError for a number of steps or a spacing that is not a positive integer;
    whatever `AbstractObjective.check` raises.
    """
    check_positive_integer(steps, "steps")
    if save_every is not None:
        check_positive_integer(save_every, "save_every")
    if save_steps is None:
        save_steps = np.unique(np.append(np.arange(0, steps, save_every or 1), steps))
    elif save_every is not None:
        raise ValueError("save_every: give either this or save_steps, not both.")
    elif np.max(save_steps, initial=0) > steps:
        raise ValueError(f"save_steps: goes to {np.max(save_steps)}, beyond steps = {steps}.")
    return follow(Descent(optimizer, objective, params, save_steps=save_steps))


@jit
def _run(optimizer, objective, state, target):
    def unfinished(state):
        return (state.k < target) & ~state.diverged

    def step(state):
        losses = []

        def gradient(params):
            loss, gradient = objective.value_and_gradient(params)
            losses.append(loss)
            return gradient

        params, inner = optimizer.update(state.k, state.params, state.optimizer_state, gradient)
        fine = tree_all_finite(params)
        for loss in losses:
            fine = fine & (loss <= state.ceiling)

        def kept(new, old):
            return jnp.where(fine, new, old)

        return DescentState(
            index=state.index,
            k=state.k + fine,
            params=jax.tree.map(kept, params, state.params),
            optimizer_state=jax.tree.map(kept, inner, state.optimizer_state),
            ceiling=state.ceiling,
            diverged=~fine,
        )

    return jax.lax.while_loop(unfinished, step, state)


@jit
def _value(objective, params):
    return objective.value(params)


def _checked_steps(save_steps: Any) -> np.ndarray:
    given = np.asarray(save_steps)
    whole = given.ndim == 1 and given.size > 0 and np.all(np.isfinite(given))
    steps = given.astype(int) if whole else given
    if not whole or np.any(steps != given):
        raise ValueError(f"save_steps: expected a row of whole numbers, got {save_steps!r}.")
    if steps[0] < 0 or np.any(np.diff(steps) <= 0):
        raise ValueError("save_steps: must be increasing and not negative.")
    return steps
