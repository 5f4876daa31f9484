"""What a run of one network will do, if its tangent kernel stays what it is."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._checks import check_instance
from ..flows import Flow, integrate
from ..losses import SquaredError
from ..objective import Objective
from ..optimizers import descend
from ._empirical import Outputs, empirical
from ._modes import Modes, modes
from ._prediction import Clock, Prediction, check_linear

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

    **Arguments:**

    - `dynamics`: a flow, or an optimizer whose steps are linear in the gradient.
    - `at`: increasing times of a flow, or steps of an optimizer.
    - `inputs`: other samples to predict on, `(others, ...)`.
    - `outputs`, `memory`: which kernel, see `tw.kernels.EmpiricalKernel.matrix`; other than "all"
        leaves out what one output learns from another.
    - `rtol`: of the flow, for losses other than the squared error; 1e-6 by default, and 1e-5 in
        float32.

    **Raises:** TypeError and ValueError as `Objective.check`, `tw.kernels.empirical` and its
    `matrix` do; ValueError for times or steps that are not increasing, or for an optimizer like
    Adam, whose steps are not linear.

    ??? cite "References"

        Jacot, Gabriel and Hongler, "Neural tangent kernel: convergence and generalization in neural
        networks", Advances in Neural Information Processing Systems 31 (2018); Lee et al., "Wide
        neural networks of any depth evolve as linear models under gradient descent", Advances in
        Neural Information Processing Systems 32 (2019); Bu, Xu and Chen, "A dynamical view on
        optimization algorithms of overparameterized neural networks", International Conference on
        Artificial Intelligence and Statistics, 2021.
    """
    check_instance(objective, Objective, "objective", "an Objective")
    clock = Clock.of(dynamics, at)
    check_linear(dynamics)
    kernel = empirical(objective, params)
    found = modes(kernel.matrix(outputs, memory=memory))
    start = objective.predictions(params)
    beside = None
    if inputs is not None:
        other = empirical(objective, params, inputs=inputs)
        beside = Beside(other.matrix(outputs, memory=memory), other.rows.predictions(params))
    return predicted_by(clock, objective, found, start, beside, rtol)


class Beside(eqx.Module):
    """Other samples: the kernel between them and the training data, and their predictions."""

    kernel: Array
    start: Array


def predicted_by(
    clock: Clock,
    objective: Objective,
    found: Modes,
    start: Array,
    beside: Beside | None,
    rtol: float | None,
) -> Prediction:
    """From a kernel that was diagonalised, and the predictions at the start."""
    if isinstance(objective.loss, SquaredError):
        return mode_by_mode(clock, objective, found, start, beside)
    return made_in_prediction_space(clock, objective, found, start, beside, rtol)


def mode_by_mode(
    clock: Clock, objective: Objective, found: Modes, start: Array, beside: Beside | None
) -> Prediction:
    """The squared error: exactly, from the response of every mode."""
    filters = Filters.of(clock, found)
    outputs, loss, others = _filtered(objective, found, filters, start, beside)
    return Prediction(
        times=clock.times,
        steps=clock.steps,
        outputs=outputs,
        loss=loss,
        others=others,
        modes=found,
        status=clock.status(np.asarray(found.curvatures)),
        dynamics=clock.dynamics,
    )


@eqx.filter_jit
def _filtered(objective, found, filters, start, beside):
    """Predictions and losses at every save, and predictions on other samples."""
    residual = found.amplitudes(start - objective.targets)

    def at_save(pair):
        faded, learned = (mode[..., None] for mode in pair)
        now = objective.targets + found.values(faded * residual, start.shape)
        loss = jnp.mean(objective.loss(now, objective.targets))
        if beside is None:
            return now, loss, None
        change = found.onto(beside.kernel, learned * residual, beside.start.shape)
        return now, loss, beside.start - change

    return jax.lax.map(at_save, (filters.faded, filters.learned))


class Filters(eqx.Module):
    """Of every mode at every save: what is left of it, and what the parameters have moved by.

    `learned = (1 - faded) / eigenvalue`; zero for modes that do not move, from which other samples
    learn nothing: if `J^T v` vanishes, so does the kernel between them and v.
    Shapes `(saves, kernels, modes)`.
    """

    faded: Array
    learned: Array

    @staticmethod
    def of(clock: Clock, found: Modes) -> "Filters":
        """From the response of the dynamics."""
        eigenvalues = np.asarray(found.positive, float)
        faded = clock.response(np.asarray(found.curvatures, float))
        moves = eigenvalues > 0
        learned = np.where(moves, (1 - faded) / np.where(moves, eigenvalues, 1), 0)
        dtype = found.vectors.dtype
        return Filters(jnp.asarray(faded, dtype), jnp.asarray(learned, dtype))


def made_in_prediction_space(clock, objective, found, start, beside, rtol):
    """Any loss: the run of a linear model whose features have the kernel for inner products."""
    root = jnp.sqrt(found.positive)
    model = _LinearModel(found.ndim, tuple(start.shape[1:]))
    linear = Objective(model, objective.loss, model.inputs(found, root, start), objective.targets)
    u = jnp.zeros_like(found.amplitudes(start))
    if isinstance(clock.dynamics, Flow):
        if rtol is None:
            rtol = 1e-6 if u.dtype == jnp.float64 else 1e-5
        run = integrate(clock.dynamics, linear, u, save_at=clock.at, rtol=rtol)
        assert run.error is not None
        error = jnp.max(root) * run.error
    else:
        run = descend(clock.dynamics, linear, u, max(int(clock.at[-1]), 1), save_steps=clock.at)
        error = None
    outputs, others = _along(linear, found, root, beside, run.params)
    return Prediction(
        times=run.times,
        steps=run.steps,
        outputs=outputs,
        loss=run.loss,
        others=others,
        error=error,
        modal=isinstance(objective.loss, SquaredError),
        modes=found,
        status=run.status,
        dynamics=clock.dynamics,
    )


@eqx.filter_jit
def _along(linear, found, root, beside, path):
    """Predictions of the linear model at every save, and on other samples."""
    inverse = jnp.where(root > 0, 1 / jnp.where(root > 0, root, 1), 0)[..., None]

    def at_save(u):
        if beside is None:
            return linear.predictions(u), None
        change = found.onto(beside.kernel, inverse * u, beside.start.shape)
        return linear.predictions(u), beside.start + change

    return jax.lax.map(at_save, path)


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
