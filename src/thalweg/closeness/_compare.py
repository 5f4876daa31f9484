"""Two trajectories on one clock."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._trees import tree_norm, tree_scale, tree_sub
from ..objective import Objective
from ..trajectory import Trajectory

# Relative difference up to which two saved times are the same time.
_SAME_TIME = 1e-9
_ROUNDS = 10
# Gradients that a saved time is worth: one, and products with the Gauss-Newton matrix, 2 each.
PRICE = 1 + 2 * _ROUNDS


class Comparison(eqx.Module):
    """How far a run is from a flow, at the saved times that both have. Each of shape `(times,)`.

    - `distance`: Euclidean distance over all parameters; `error`: its error bar, the sum of both
      trajectories' own.
    - `moved`: how far the flow has come from its starting point; `relative`: distance over the
      farthest that the flow comes (one number for all times), NaN if it does not move.
    - `loss_difference`: loss of the run minus loss of the flow; `loss_error`: its error bar, the
      gradient's norm times `error` plus the second-order term, both first taken at the flow.
    - `prediction_distance`: root mean square over samples of the distance between predictions;
      `prediction_error`: its error bar, `error` times the largest singular value of the Jacobian
      over the root of the number of samples.

    The last three are `None` where no objective is known.
    """

    times: Float[Array, "times"]
    distance: Float[Array, "times"]
    error: Float[Array, "times"]
    moved: Float[Array, "times"]
    relative: Float[Array, "times"]
    loss_difference: Float[Array, "times"]
    loss_error: Float[Array, "times"] | None
    prediction_distance: Float[Array, "times"] | None
    prediction_error: Float[Array, "times"] | None


def compare(run: Trajectory, flow: Trajectory, objective: Objective | None = None) -> Comparison:
    """Distances between a run and a flow in parameters, loss and predictions.

    Only saved times that both have are compared (nothing is interpolated): integrate the flow with
    `save_at=run.times`. `objective` defaults to the one that the flow was integrated on.

    **Raises:** ValueError when the two share no saved time, or parameters of different structure.
    """
    ours, theirs = _common(np.asarray(run.times), np.asarray(flow.times))
    if ours.size == 0:
        raise ValueError(
            "times: the two trajectories share no saved time; integrate the flow with"
            " `save_at=run.times`."
        )
    if jax.tree.structure(run.params) != jax.tree.structure(flow.params):
        raise ValueError("params: the two trajectories' parameters have different structures.")
    pairs = zip(jax.tree.leaves(run.params), jax.tree.leaves(flow.params), strict=True)
    for ours_leaf, theirs_leaf in pairs:
        if ours_leaf.shape[1:] != theirs_leaf.shape[1:]:
            raise ValueError(
                f"params: an array has shape {ours_leaf.shape[1:]} in the run, but"
                f" {theirs_leaf.shape[1:]} in the flow."
            )
    objective = flow.objective if objective is None else objective
    a = jax.tree.map(lambda x: x[ours], run.params)
    b = jax.tree.map(lambda x: x[theirs], flow.params)
    distance = _rowwise(tree_norm, tree_sub(a, b))
    start = jax.tree.map(lambda x: x[None], flow.initial)
    moved = _rowwise(tree_norm, tree_sub(b, start))
    travelled = jnp.max(moved)
    error = _error(run, ours) + _error(flow, theirs)
    loss_error = prediction_distance = prediction_error = None
    if objective is not None:
        rows = [
            _in_prediction_space(objective, _row(a, i), _row(b, i), error[i])
            for i in range(len(ours))
        ]
        loss_error, prediction_distance, prediction_error = (
            jnp.stack(column) for column in zip(*rows, strict=True)
        )
    return Comparison(
        times=flow.times[theirs],
        distance=distance,
        error=error,
        moved=moved,
        relative=jnp.where(travelled > 0, distance / travelled, jnp.nan),
        loss_difference=run.loss[ours] - flow.loss[theirs],
        loss_error=loss_error,
        prediction_distance=prediction_distance,
        prediction_error=prediction_error,
    )


def _common(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the times that both rows have."""
    nearest = np.clip(np.searchsorted(b, a), 1, max(len(b) - 1, 1))
    left = np.clip(nearest - 1, 0, len(b) - 1)
    nearest = np.clip(nearest, 0, len(b) - 1)
    index = np.where(np.abs(a - b[left]) <= np.abs(a - b[nearest]), left, nearest)
    same = np.abs(a - b[index]) <= _SAME_TIME * np.maximum(a, b[index])
    return np.flatnonzero(same), index[same]


def _error(trajectory: Trajectory, index: np.ndarray) -> Array:
    if trajectory.error is None:
        return jnp.zeros(len(index))
    return trajectory.error[index]


def _row(params: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda x: x[i], params)


def _rowwise(function: Any, params: PyTree) -> Array:
    return jax.vmap(function)(params)


@eqx.filter_jit
def _in_prediction_space(objective, run, flow, error):
    """Error bar of the loss, distance of predictions, and its error bar."""
    apart = objective.predictions(run) - objective.predictions(flow)
    distance = jnp.sqrt(jnp.sum(apart**2) / objective.samples)

    def iterate(carry, _):
        direction, _ = carry
        image = objective.vjp(flow, objective.jvp(flow, direction))
        size = tree_norm(image) / objective.samples
        shrink = 1 / (objective.samples * jnp.where(size > 0, size, 1))
        return (tree_scale(shrink, image), size), None

    # Started from the gradient: where the error is likely to point, and never orthogonal to all.
    gradient = objective.gradient(flow)
    steepness = tree_norm(gradient)
    seed = jax.tree.map(lambda g: g / jnp.where(steepness > 0, steepness, 1) + 1e-3, gradient)
    seed = tree_scale(1 / tree_norm(seed), seed)
    (_, square), _ = jax.lax.scan(iterate, (seed, jnp.zeros_like(steepness)), length=_ROUNDS)
    return steepness * error + 0.5 * square * error**2, distance, jnp.sqrt(square) * error
