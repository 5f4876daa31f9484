"""What a run of one network will do, if its tangent kernel stays what it is."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._precision import jit
from ..flows import integrate
from ..losses import SquaredError
from ..objectives import Objective, check_objective
from ..optimizers import Optimizer, descend
from ..results import Status
from ._empirical import Outputs, empirical
from ._modes import Modes, modes
from ._prediction import Clock, Prediction

_MEMORY = 2**32


def predicted_run(
    dynamics: Any,
    objective: Objective,
    params: PyTree[Array],
    at: Any,
    *,
    inputs: Any | None = None,
    outputs: Outputs = "all",
    memory: int = _MEMORY,
    rtol: float | None = None,
) -> Prediction:
    """What a flow or an optimizer will do to a network whose tangent kernel does not change.

        predicted = tw.predicted_run(tw.HeavyBall(0.1, 0.9), objective, params, at=range(1001))
        predicted.loss, predicted.outputs

    It is the linearised network's run. For the squared error every mode of the kernel moves by
    itself, by the dynamics' `response`: exponentials, oscillators, Bessel functions, or the
    recurrence of the discrete method with its real step size and momentum. For any other loss the
    run is made, in the space of predictions.

    An optax transformation is predicted if its update, which is read off its computation, is linear
    in gradients and parameters and the same for all of these: schedules, momentum of any kind,
    accumulated gradients, weight decay. Decay pulls parameters to zero, and predictions to what the
    linearised network says there.

    **Arguments:**

    - `dynamics`: a flow, or an optimizer of that kind.
    - `at`: increasing times of a flow, or steps of an optimizer.
    - `inputs`: other samples to predict on, `(others, ...)`.
    - `outputs`, `memory`: which kernel, see `tw.kernels.EmpiricalKernel.matrix`; other than "all"
        leaves out what one output learns from another.
    - `rtol`: of the flow, for losses other than the squared error; 1e-6 by default, and 1e-5 in
        float32.

    **Raises:** TypeError and ValueError as `Objective.check`, `tw.kernels.empirical` and its
    `matrix` do; ValueError for times or steps that are not increasing, and for an optimizer whose
    steps are not linear (Adam, clipping, rounded accumulators), couple coordinates (centralisation)
    or treat parameters differently (`optax.masked`, `optax.multi_transform`), saying which.

    ??? cite "References"

        Jacot, Gabriel and Hongler, "Neural tangent kernel: convergence and generalization in neural
        networks", Advances in Neural Information Processing Systems 31 (2018); Lee et al., "Wide
        neural networks of any depth evolve as linear models under gradient descent", Advances in
        Neural Information Processing Systems 32 (2019); Bu, Xu and Chen, "A dynamical view on
        optimization algorithms of overparameterized neural networks", International Conference on
        Artificial Intelligence and Statistics, 2021.
    """
    check_objective(objective, Objective, what="a prediction by the tangent kernel")
    kernel = empirical(objective, params)
    clock = Clock.of(dynamics, at, kernel.params)
    found = modes(kernel.matrix(outputs, memory=memory))
    objective = objective.gathered()
    start = objective.predictions(params)
    image = image_of(clock, objective, params)
    beside = None
    if inputs is not None:
        other = empirical(objective, params, inputs=inputs)
        beside = Beside(
            other.matrix(outputs, memory=memory),
            other.rows.predictions(params),
            image_of(clock, other.rows, params),
        )
    return predicted_by(clock, objective, found, start, beside, rtol, image)


class Beside(eqx.Module):
    """Other samples: the kernel between them and the training data, predictions, and their images.

    See `image_of`.
    """

    kernel: Array
    start: Array
    image: Array | None = None


def image_of(clock: Clock, objective: Objective, params: PyTree[Array]) -> Array | None:
    """The Jacobian times the parameters themselves, which is what weight decay takes away.

    Without them, the linearised network predicts `predictions - image`. None where no parameter is
    pulled towards zero.
    """
    return _image(objective, params) if clock.may_decay else None


@jit
def _image(objective, params):
    return objective.jvp(params, params)


def predicted_by(
    clock: Clock,
    objective: Objective,
    found: Modes,
    start: Array,
    beside: Beside | None,
    rtol: float | None,
    image: Array | None = None,
) -> Prediction:
    """From a kernel that was diagonalised, and predictions and `image_of` the start."""
    if isinstance(objective.loss, SquaredError):
        return mode_by_mode(clock, objective, found, start, beside, image)
    return made_in_prediction_space(clock, objective, found, start, beside, rtol, image)


def mode_by_mode(
    clock: Clock,
    objective: Objective,
    found: Modes,
    start: Array,
    beside: Beside | None,
    image: Array | None = None,
) -> Prediction:
    """The squared error: exactly, from the response of every mode."""
    filters, status = filtered(clock, found, beside is not None)
    outputs, loss, others = _predicted(objective, found, filters, start, beside, image)
    return Prediction(
        times=clock.times,
        steps=clock.steps,
        outputs=outputs,
        loss=loss,
        others=others,
        modes=found,
        status=status,
        dynamics=clock.dynamics,
    )


@jit
def _predicted(objective, found, filters, start, beside, image):
    """Predictions and losses at every save, and predictions on other samples.

    With r = f0 - y and p = J theta0, a prediction is `y + faded r + pulled (p - r)` along a mode.
    """
    residual = found.amplitudes(start - objective.targets)
    own = jnp.zeros_like(residual) if image is None else found.amplitudes(image)

    def at_save(save):
        faded, pulled, learned, drifted = (mode[..., None] for mode in save[:-1])
        now = faded * residual + (0 if image is None else pulled * (own - residual))
        now = objective.targets + found.values(now, start.shape)
        loss = jnp.mean(objective.loss(now, objective.targets))
        if beside is None:
            return now, loss, None
        moved = drifted * own - learned * residual
        others = beside.start + found.onto(beside.kernel, moved, beside.start.shape)
        return now, loss, others if beside.image is None else others + save[-1] * beside.image

    return jax.lax.map(at_save, tuple(filters))


class Filters(NamedTuple):
    """What becomes of every mode at every save: `(saves, kernels, modes)`.

    - `faded`, `pulled`: see `thalweg.optimizers.Responses`.
    - `learned`, `drifted`: these, over the eigenvalue: what other samples learn from the residual
        of a mode, and from its part of `image_of`. They are zero for modes that do not move: if
        `J^T v` vanishes, so does the kernel between other samples and v.
    - `still`: `pulled` of parameters that no sample moves, `(saves,)`.
    """

    faded: Array
    pulled: Array
    learned: Array
    drifted: Array
    still: Array


def filtered(clock: Clock, found: Modes, elsewhere: bool) -> tuple[Filters, Status]:
    """From the responses of the dynamics; and whether a mode grows.

    `elsewhere`: predictions are made on other samples, too, where parameters count that the data
    do not move.
    """
    eigenvalues = np.asarray(found.positive, float)
    # With one that does not move.
    curvatures = np.append(np.ravel(found.curvatures), 0.0)
    responses = clock.responses(curvatures)
    faded, pulled, learned, drifted = (
        part[:, :-1].reshape(-1, *eigenvalues.shape) for part in responses[:4]
    )
    still = responses.pulled[:, -1]
    moves = eigenvalues > 0
    inverse = np.where(moves, 1 / np.where(moves, eigenvalues, 1), 0)
    kept = (faded, pulled, learned * inverse, drifted * inverse, still)
    parts = (jnp.asarray(p, found.vectors.dtype) for p in kept)
    seen = slice(None) if elsewhere else slice(-1)
    return Filters(*parts), clock.status(curvatures[seen], responses.of(seen))


def made_in_prediction_space(clock, objective, found, start, beside, rtol, image=None):
    """Any loss: the run of a linear model whose features have the kernel for inner products."""
    root = jnp.sqrt(found.positive)
    inverse = jnp.where(root > 0, 1 / jnp.where(root > 0, root, 1), 0)[..., None]
    # Parameters along the modes, where it matters how far they are from zero.
    own = jnp.zeros_like(found.amplitudes(start))
    if image is not None:
        own = inverse * found.amplitudes(image)
    model = _LinearModel(found.ndim, tuple(start.shape[1:]))
    there = start - found.values(root[..., None] * own, start.shape)
    linear = Objective(model, objective.loss, model.inputs(found, root, there), objective.targets)
    run = _run_of(clock, linear, own, rtol)
    still = None
    if beside is not None and beside.image is not None:
        left = Clock(clock.dynamics, clock.at[: len(run.times)], clock.rule)
        still = jnp.asarray(left.responses(np.zeros(1)).pulled[:, 0], own.dtype)
    outputs, others = _along(linear, found, inverse, beside, run.params, own, still)
    return Prediction(
        times=run.times,
        steps=run.steps,
        outputs=outputs,
        loss=run.loss,
        others=others,
        error=None if run.error is None else jnp.max(root) * run.error,
        modal=isinstance(objective.loss, SquaredError),
        modes=found,
        status=run.status,
        dynamics=clock.dynamics,
    )


class _Path(NamedTuple):
    """What is used of a trajectory of the linear model."""

    times: Array
    steps: Array | None
    params: Array
    loss: Array
    error: Array | None
    status: Status


def _run_of(clock, linear, start, rtol) -> _Path:
    """The flow or the optimizer on the linear model."""
    if isinstance(clock.rule, Optimizer):
        steps = max(int(clock.at[-1]), 1)
        run = descend(clock.rule, linear, start, steps, save_steps=clock.at)
    elif clock.at[-1] > 0:
        if rtol is None:
            rtol = 1e-6 if start.dtype == jnp.float64 else 1e-5
        run = integrate(clock.rule, linear, start, save_at=clock.at, rtol=rtol)
    else:
        # There is nothing to integrate up to time zero.
        none = jnp.zeros(1, start.dtype)
        return _Path(clock.times, None, start[None], linear.value(start)[None], none, Status())
    return _Path(run.times, run.steps, run.params, run.loss, run.error, run.status)


@jit
def _along(linear, found, inverse, beside, path, own, still):
    """Predictions of the linear model at every save, and on other samples."""

    def at_save(save):
        u, pulled = save
        if beside is None:
            return linear.predictions(u), None
        shape = beside.start.shape
        others = beside.start + found.onto(beside.kernel, inverse * (u - own), shape)
        if pulled is not None:
            # What decays beside the modes.
            rest = beside.image - found.onto(beside.kernel, inverse * own, shape)
            others = others + pulled * rest
        return linear.predictions(u), others

    return jax.lax.map(at_save, (path, still))


class _LinearModel(eqx.Module):
    """Predictions that are linear in `u`, of shape `(kernels, modes, copies)`.

    A sample's inputs are its features, for each kernel or output, and its predictions at the start.
    """

    ndim: int = eqx.field(static=True)
    outputs: tuple[int, ...] = eqx.field(static=True)

    @property
    def _rows(self) -> int:
        """Rows of features that a sample has."""
        return 1 if self.ndim == 2 else math.prod(self.outputs)

    def inputs(self, found: Modes, root: Array, start: Array) -> Array:
        """Features, in a row with the predictions at the start."""
        features = found.vectors * root[:, None, :]
        if self.ndim == 3:
            features = jnp.swapaxes(features, 0, 1)
        samples = start.shape[0]
        return jnp.concatenate([features.reshape(samples, -1), start.reshape(samples, -1)], axis=1)

    def __call__(self, u: Array, inputs: Array) -> Array:
        count = math.prod(self.outputs)
        features = inputs[:, :-count].reshape(inputs.shape[0], self._rows, -1)
        start = inputs[:, -count:]
        if self.ndim == 2:
            change = features[:, 0] @ u[0]
        elif self.ndim == 3:
            change = jnp.einsum("som,om->so", features, u[..., 0])
        else:
            change = features @ u[0, :, 0]
        return (start + change).reshape(inputs.shape[0], *self.outputs)
