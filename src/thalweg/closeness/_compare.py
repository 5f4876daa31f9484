"""Two trajectories on one clock."""

import warnings
from dataclasses import fields
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PyTree

from .._checks import check_instance
from .._numbers import percent, significant, with_error
from .._precision import jit
from .._trees import tree_norm, tree_scale, tree_sub
from ..flows import Flow
from ..objectives import AbstractObjective, check_objective, supervised
from ..results import AbstractResult, Trajectory, axes_of, draw_line
from ._comparable import check_comparable, row, shortcomings, start_of

# Relative difference up to which two saved times are the same time, and in units of rounding.
_SAME_TIME, _ROUNDING = 1e-9, 4
_ROUNDS = 10
# Gradients that a saved time is worth: one, and products with the Gauss-Newton matrix, 2 each.
PRICE = 1 + 2 * _ROUNDS


class Comparison(AbstractResult):
    """How far a run is from a flow, at the saved times that both have. Each of shape `(times,)`.

    - `distance`: Euclidean distance over all parameters; `error`: its error bar, the sum of both
      trajectories' own.
    - `moved`: the flow's Euclidean distance from its starting point; `relative`: `distance` divided
      by the largest `moved` (one number for all times). Both are NaN if the start is not known;
      `relative` is NaN, too, if the flow does not move or only time 0 is common.
    - `loss_difference`: loss of the run minus loss of the flow; `loss_error`: its error bar, the
      gradient's norm times `error` plus the second-order term, both first taken at the flow.
    - `prediction_distance`: root mean square over samples of the distance between predictions;
      `prediction_error`: its error bar, `error` times the largest singular value of the Jacobian
      over the root of the number of samples.
    - `notes`: what makes these numbers doubtful or NaN, in sentences; see `compare`.

    `loss_error` is `None` where no objective is known. `prediction_distance` and `prediction_error`
    are `None` where the objective has no predictions, too.
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
    notes: tuple[str, ...] = eqx.field(static=True, default=())

    def lines(self) -> list[str]:
        """The distance at the last common time and where it is largest, in each of its measures."""
        last = significant(float(self.times[-1]))
        top = int(jnp.argmax(jnp.where(jnp.isnan(self.distance), -jnp.inf, self.distance)))
        relative = f" ({percent(float(self.relative[-1]))} of what the flow moves)"
        told = [
            f"comparison at {len(self.times)} common times, the last one t = {last}",
            f"distance: {self._at(self.distance, self.error, -1)} at the last"
            + (relative if bool(jnp.isfinite(self.relative[-1])) else ""),
            f"largest distance: {self._at(self.distance, self.error, top)} at"
            f" t = {significant(float(self.times[top]))}",
            f"difference of losses: {self._at(self.loss_difference, self.loss_error, -1)}",
        ]
        if self.prediction_distance is not None:
            apart = self._at(self.prediction_distance, self.prediction_error, -1)
            told.append(f"distance of predictions: {apart}, root mean square over samples")
        return [*told, *self.notes]

    @staticmethod
    def _at(values: Array, errors: Array | None, i: int) -> str:
        return with_error(float(values[i]), None if errors is None else float(errors[i]))

    def to_xarray(self) -> xr.Dataset:
        """Every measure of distance beside its error bar."""
        names = [field.name for field in fields(self) if field.name not in ("times", "notes")]
        known = {name: getattr(self, name) for name in names}
        variables = {n: (["time"], np.asarray(v)) for n, v in known.items() if v is not None}
        time = (["time"], np.asarray(self.times), {"units": "flow time"})
        attributes = {"result": "comparison", "notes": list(self.notes)}
        return xr.Dataset(variables, {"time": time}, attributes)

    def plot(self, ax: Any = None) -> Any:
        """The distance in parameters with its error band."""
        ax = axes_of(ax, "time", "distance to the flow")
        draw_line(ax, self.times, self.distance, self.error)
        return ax


def compare(
    run: Trajectory, flow: Trajectory, objective: AbstractObjective | None = None
) -> Comparison:
    """Distances between a run and a flow in parameters, loss and predictions.

        run = tw.descend(optimizer, objective, params, steps=1000, save_every=100)
        flow = tw.integrate(optimizer.limit(), objective, params, save_at=run.times)
        gap = tw.compare(run, flow)

    Two flows can be compared as well, and two optimizers: with another tolerance, step size or
    precision, say. The second one is what `moved` and the error bars are taken from.

    What `tw.predicted_run` returns cannot be compared here, since it has losses and predictions but
    no parameters: compare its `loss` with the run's.

    **Arguments:**

    - `run`, `flow`: two `Trajectory` objects, as `tw.descend`, `tw.integrate` and `tw.observe`
        return them, from the same parameters, on the same objective. Only saved times that both
        have are compared (nothing is interpolated).
    - `objective`: another objective to measure losses and predictions on, for instance with data
        that were not trained on. By default the flow's, or the run's where the flow has none.

    **Raises:** TypeError for anything but two trajectories and an objective. ValueError when

    - the flow is the first argument and the run the second;
    - the two share no saved time, or have parameters of different structures;
    - they start from different parameters, beyond rounding;
    - they were made on different objectives. Two objectives with the same function, loss and data
        are the same, and so are any whose values and gradients agree where flow and run begin and
        end. Where a trajectory has no objective, the first recorded losses are compared;
    - the run is of a method with momentum and the flow is not, or the other way round. The time of
        such a run is in units of the root of the step size, and not that of the flow.

    **Warns:** with UserWarning, and in `Comparison.notes`, when

    - the flow is not the one that the optimizer discretises (`run.dynamics.limit()`): another
        friction, say. The distance then has two causes;
    - it is not known which flow an optimizer discretises. This is so for optax transformations such
        as Adam unless `Optax(..., flow=...)` says it: what a step takes of time is then a choice;
    - two optimizers discretise flows with different times.

    `Comparison.notes` says also, without a warning, when

    - a trajectory ended early or with an error that is too large to rely on (its status is
        "diverged", "stopped" or "uncontrolled"), or holds numbers that are not finite;
    - the only common time is 0, or fewer than half of the saved times of the shorter trajectory
        are common;
    - the flow's start or error is not known, or the flow does not move, so that some numbers are
        NaN.
    """
    check_instance(run, Trajectory, "run", "a Trajectory")
    check_instance(flow, Trajectory, "flow", "a Trajectory")
    if objective is not None:
        check_objective(objective)
    notes = check_comparable(run, flow)
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    ours, theirs = _common(np.asarray(run.times), np.asarray(flow.times))
    if ours.size == 0:
        raise ValueError(
            "times: the two trajectories share no saved time; integrate the flow with"
            " `save_at=run.times`."
        )
    a, b = _rows(run.params, ours), _rows(flow.params, theirs)
    distance = _rowwise(tree_norm, tree_sub(a, b))
    moved = _moved(flow, b)
    travelled = jnp.max(moved)
    error = _error(run, ours) + _error(flow, theirs)
    loss_difference = _rows(run.loss, ours) - _rows(flow.loss, theirs)
    measured = loss_difference
    loss_error = prediction_distance = prediction_error = None
    known = objective or flow.objective or run.objective
    if known is not None:
        predicting = supervised(known)
        points = [(row(a, i), row(b, i), error[i]) for i in range(len(ours))]
        if predicting is not None:
            rows = [_in_prediction_space(known, predicting, *point) for point in points]
            measured, loss_error, prediction_distance, prediction_error = _columns(rows)
        if predicting is not known:
            # A penalty curves the landscape, but not the predictions.
            measured, loss_error = _columns([_in_loss(known, *point) for point in points])
        if objective is not None:
            loss_difference = measured
    notes += shortcomings(run, flow, ours, bool(travelled == 0))
    return Comparison(
        times=_rows(flow.times, theirs),
        distance=distance,
        error=error,
        moved=moved,
        relative=jnp.where(travelled > 0, distance / travelled, jnp.nan),
        loss_difference=loss_difference,
        loss_error=loss_error,
        prediction_distance=prediction_distance,
        prediction_error=prediction_error,
        notes=notes,
    )


def _common(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the times that both rows have."""
    nearest = np.clip(np.searchsorted(b, a), 1, max(len(b) - 1, 1))
    left = np.clip(nearest - 1, 0, len(b) - 1)
    nearest = np.clip(nearest, 0, len(b) - 1)
    index = np.where(np.abs(a - b[left]) <= np.abs(a - b[nearest]), left, nearest)
    kinds = [np.result_type(t, np.float32) for t in (a, b)]
    tolerance = max(_SAME_TIME, *(_ROUNDING * float(np.finfo(kind).eps) for kind in kinds))
    same = np.abs(a - b[index]) <= tolerance * np.maximum(a, b[index])
    return np.flatnonzero(same), index[same]


def _rows(tree: PyTree, index: np.ndarray) -> PyTree:
    """The chosen rows of every array, without a copy where they are all of them."""
    return jax.tree.map(lambda x: x if np.array_equal(index, np.arange(len(x))) else x[index], tree)


def _error(trajectory: Trajectory, index: np.ndarray) -> Array:
    if trajectory.error is not None:
        return _rows(trajectory.error, index)
    # An optimizer's iterates are what they are; of a flow without an error nothing is known.
    return jnp.full(len(index), jnp.nan if isinstance(trajectory.dynamics, Flow) else 0.0)


def _moved(flow: Trajectory, rows: PyTree) -> Array:
    start = start_of(flow)
    if start is None:
        return jnp.full(jax.tree.leaves(rows)[0].shape[0], jnp.nan)
    return _rowwise(tree_norm, tree_sub(rows, jax.tree.map(lambda x: x[None], start)))


def _columns(rows: list[tuple[Array, ...]]) -> list[Array]:
    return [jnp.stack(column) for column in zip(*rows, strict=True)]


def _rowwise(function: Any, params: PyTree) -> Array:
    return jax.vmap(function)(params)


@jit
def _in_loss(objective, run, flow, error):
    """Difference of losses and its error bar, without predictions."""
    difference = objective.value(run) - objective.value(flow)
    gradient = objective.gradient(flow)
    curvature = _largest(lambda v: objective.hvp(flow, v), gradient)
    return difference, _loss_error(gradient, curvature, error)


@jit
def _in_prediction_space(objective, predicting, run, flow, error):
    """Difference of losses, its error bar, distance of predictions, and its error bar."""
    difference = objective.value(run) - objective.value(flow)
    apart = predicting.predictions(run) - predicting.predictions(flow)
    distance = jnp.sqrt(jnp.sum(apart**2) / predicting.samples)
    gradient = objective.gradient(flow)
    # Divided before the transposed product, lest it overflow.
    square = _largest(
        lambda v: predicting.vjp(flow, predicting.jvp(flow, v) / predicting.samples), gradient
    )
    return difference, _loss_error(gradient, square, error), distance, jnp.sqrt(square) * error


def _loss_error(gradient, curvature, error):
    """First order and second."""
    return tree_norm(gradient) * error + 0.5 * curvature * error**2


def _largest(product, gradient):
    """The eigenvalue of largest size of a symmetric operator, by power iteration.

    Started from the gradient: where the error is likely to point, and never orthogonal to all.
    """

    def iterate(carry, _):
        direction, _ = carry
        image = product(direction)
        size = tree_norm(image)
        return (tree_scale(1 / jnp.where(size > 0, size, 1), image), size), None

    steepness = tree_norm(gradient)
    seed = jax.tree.map(lambda g: g / jnp.where(steepness > 0, steepness, 1) + 1e-3, gradient)
    seed = tree_scale(1 / tree_norm(seed), seed)
    (_, size), _ = jax.lax.scan(iterate, (seed, jnp.zeros_like(steepness)), length=_ROUNDS)
    return size
