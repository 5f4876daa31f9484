"""What infinitely wide networks will do: mean and variance over initialisations."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from .._checks import check_instance, check_positive_integer
from .._precision import jit
from ..losses import SquaredError
from ..objectives import Objective, check_objective
from ._infinite_network import InfiniteNetwork
from ._kernel_error import UncertainKernel
from ._modes import Modes, modes
from ._predicted_run import Beside, filtered, made_in_prediction_space
from ._prediction import Clock, Prediction

# A pull towards zero by less than this share of the parameters is none.
_PULLED = 1e-10


def predicted_ensemble(
    dynamics: Any,
    objective: Objective,
    network: InfiniteNetwork,
    at: Any,
    *,
    inputs: Any | None = None,
    outputs: int | None = None,
    draws: int | None = None,
    key: PRNGKeyArray | None = None,
    rtol: float | None = None,
) -> Prediction:
    """What a flow or an optimizer does to an infinitely wide network, over all initialisations.

        network = tw.kernels.fully_connected(3, activation="relu", weight_std=2**0.5)
        predicted = tw.kernels.predicted_ensemble(
            tw.GradientDescent(0.1), objective, network, at=range(0, 1001, 10), inputs=test
        )
        predicted.others, predicted.others_variance

    At initialisation predictions are a Gaussian process, and the kernel that drives them stays what
    it is. With the squared error they remain Gaussian, and mean and variance are exact; with any
    other loss they are those of `draws` runs from random initial predictions. For a kernel from a
    series (`Kernels.error`), `error` says by how much the mean is in doubt.

    **Arguments:**

    - `dynamics`, `at`, `rtol`: as in `tw.predicted_run`.
    - `objective`: for its data and its loss; its `predict` is not used.
    - `inputs`: other samples to predict on, `(others, ...)`.
    - `outputs`: how many the networks have, where targets are labels; as many as rows of targets
        have columns otherwise.
    - `draws`, `key`: for losses other than the squared error; `error` is then the standard error of
        the mean, together with those of the flows and of the kernel, as a Euclidean distance over
        all outputs.

    **Raises:** ValueError for targets that do not say how many outputs there are, if `outputs` does
    not, or have not the shape of predictions; for too few draws or no key; for an optimizer with
    weight decay, which leads networks of any width away from their kernel; what `tw.predicted_run`
    raises.

    ??? cite "Reference"

        Lee et al., "Wide neural networks of any depth evolve as linear models under gradient
        descent", Advances in Neural Information Processing Systems 32 (2019), section 2.3.
    """
    check_objective(objective, Objective, what="a prediction by the tangent kernel")
    objective = objective.gathered()
    check_instance(network, InfiniteNetwork, "network", "an infinitely wide network")
    clock = Clock.of(dynamics, at)
    _check_without_decay(clock)
    count = _outputs_of(objective, network, outputs)
    kernels = network(objective.inputs)
    found = modes(kernels.tangent)
    uncertain = UncertainKernel.of(kernels, network.activations)
    if isinstance(objective.loss, SquaredError):
        return _exact(clock, objective, network, kernels.nngp, found, uncertain, inputs)
    if draws is None or key is None:
        raise ValueError(
            f"draws, key: with {getattr(objective.loss, 'name', 'this loss')} predictions do not"
            " remain Gaussian; say how many initialisations to draw, and from which key."
        )
    check_positive_integer(draws, "draws")
    if draws < 2:
        raise ValueError(f"draws: a variance takes at least 2, got {draws}.")
    prior = kernels.nngp
    shape = () if network.scalar else (count,)
    return _drawn(
        clock, objective, network, prior, found, uncertain, inputs, shape, draws, key, rtol
    )


def _check_without_decay(clock: Clock) -> None:
    """Refuse an optimizer that pulls parameters towards zero."""
    if not clock.may_decay:
        return
    pulled = clock.responses(np.zeros(1)).pulled
    if not np.all(np.abs(pulled) < _PULLED):
        raise ValueError(
            f"dynamics: {clock.dynamics.name} decays parameters, of which an infinitely wide"
            " network has infinitely many: its kernel does not stay what it is, and does not say"
            " what becomes of predictions. `tw.predicted_run` predicts a network of finite width."
        )


def _exact(clock, objective, network, nngp, found: Modes, uncertain, inputs):
    """With the residual `r = f - y` at the start, of mean -y and covariance that of the prior."""
    filters, status = filtered(clock, found, inputs is not None)
    targets = objective.targets
    beside = None if inputs is None else _beside(network, objective, inputs)
    mean, variance, others, spread = _moments(found, filters, targets, nngp, beside)
    outputs = targets[0].size
    loss = jax.vmap(lambda m: jnp.mean(objective.loss(m, targets)))(mean)
    loss = loss + outputs * jnp.mean(variance, axis=1) / 2

    def widened(values, like):
        if values is None:
            return None
        axes = tuple(range(2, like.ndim))
        # Rounding may leave a variance that is zero a little below it.
        return jnp.broadcast_to(jnp.expand_dims(jnp.maximum(values, 0), axes), like.shape)

    return Prediction(
        times=clock.times,
        steps=clock.steps,
        outputs=mean,
        loss=loss,
        others=others,
        variance=widened(variance, mean),
        others_variance=widened(spread, others),
        error=None if uncertain is None else uncertain.of_means(clock, found, targets),
        modes=found,
        status=status,
        dynamics=clock.dynamics,
    )


@jit
def _moments(found, filters, targets, nngp, beside):
    """Means and variances at every save, on the data and on other samples."""
    residual = found.amplitudes(-targets)
    vectors = found.vectors[0]
    prior = vectors.T @ nngp @ vectors

    def at_save(pair):
        faded, learned = pair
        mean = targets + found.values(faded[..., None] * residual, targets.shape)
        left = vectors * faded[0]
        variance = jnp.einsum("sm,mn,sn->s", left, prior, left)
        if beside is None:
            return mean, variance, None, None
        cross, between, own = beside
        # f(x) = f0(x) - w (f0 - y) with these weights.
        weights = found.crossed(cross)[0] * learned[0]
        shape = (cross.shape[0], *targets.shape[1:])
        others = -found.onto(cross, learned[..., None] * residual, shape)
        spread = (
            own
            - 2 * jnp.einsum("tm,ms,ts->t", weights, vectors.T, between)
            + jnp.einsum("tm,mn,tn->t", weights, prior, weights)
        )
        return mean, variance, others, spread

    return jax.lax.map(at_save, (filters.faded, filters.learned))


def _beside(network, objective, inputs):
    """Kernels between other samples and the training data, and the prior's variances there."""
    trained = network.checked(objective.inputs, "objective.inputs").shape[1:]
    if (given := network.checked(inputs, "inputs").shape[1:]) != trained:
        raise ValueError(
            f"inputs: samples of shape {given}, but those of the objective have {trained}."
        )
    between = network(inputs, objective.inputs)
    return between.tangent, between.nngp, network.prior_variances(inputs)


def _drawn(clock, objective, network, nngp, found, uncertain, inputs, shape, draws, key, rtol):
    samples = objective.samples
    everything = nngp
    cross = None
    if inputs is not None:
        between = network(inputs, objective.inputs)
        cross = between.tangent
        own = network(inputs).nngp
        everything = jnp.block([[nngp, between.nngp.T], [between.nngp, own]])
    values, vectors = jnp.linalg.eigh(everything)
    root = vectors * jnp.sqrt(jnp.maximum(values, 0))
    starts = [
        root @ jr.normal(k, (len(everything), *shape), root.dtype) for k in jr.split(key, draws)
    ]

    def made(kernel_modes, start):
        beside = None if cross is None else Beside(cross, start[samples:])
        return made_in_prediction_space(
            clock, objective, kernel_modes, start[:samples], beside, rtol
        )

    runs = [made(found, start) for start in starts]
    doubted = None if uncertain is None else made(uncertain.moved(found), starts[0])
    rows = min(len(run.times) for run in [*runs, *([] if doubted is None else [doubted])])

    def moments(name):
        stacked = jnp.stack([getattr(run, name)[:rows] for run in runs])
        return jnp.mean(stacked, axis=0), jnp.var(stacked, axis=0, ddof=1)

    mean, variance = moments("outputs")
    others, spread = (None, None) if cross is None else moments("others")
    standard = jnp.sqrt(jnp.sum(variance, axis=tuple(range(1, variance.ndim))) / draws)
    if runs[0].error is not None:
        standard = standard + moments("error")[0]
    if doubted is not None:
        gap = (doubted.outputs[:rows] - runs[0].outputs[:rows]).reshape(rows, -1)
        standard = standard + jnp.linalg.norm(gap, axis=1)
    worst = next((run for run in runs if not run.status.ok), runs[0])
    return Prediction(
        times=runs[0].times[:rows],
        steps=None if runs[0].steps is None else runs[0].steps[:rows],
        outputs=mean,
        loss=moments("loss")[0],
        others=others,
        variance=variance,
        others_variance=spread,
        error=standard,
        modal=False,
        modes=found,
        status=worst.status,
        dynamics=clock.dynamics,
    )


def _outputs_of(objective: Objective, network: InfiniteNetwork, given: int | None) -> int:
    """How many outputs targets are meant for."""
    targets = objective.targets
    if given is not None:
        check_positive_integer(given, "outputs")
    squared = isinstance(objective.loss, SquaredError)
    if network.scalar:
        if targets.ndim != 1 or given not in (None, 1):
            raise ValueError(
                f"targets: shape {targets.shape}, but a prediction of this network is one number;"
                f" expected ({objective.samples},)."
            )
        return 1
    if squared and targets.ndim == 1:
        raise ValueError(
            f"targets: shape {targets.shape}, but predictions of this network are rows, (samples,"
            " outputs); pass `targets[:, None]` for one output."
        )
    if targets.ndim == 2 or squared:
        found = math.prod(targets.shape[1:])
        if given not in (None, found):
            raise ValueError(
                f"outputs: {given}, but targets of shape {targets.shape} are for {found}."
            )
        return found
    if targets.ndim != 1 or not jnp.issubdtype(targets.dtype, jnp.integer):
        raise ValueError(
            f"targets: shape {targets.shape}; with this loss expected rows, (samples, outputs), or"
            " labels, integers of shape (samples,)."
        )
    if given is None:
        raise ValueError(
            "outputs: labels do not say how many classes there are; say how many outputs the"
            " networks have, or pass one-hot rows for targets."
        )
    return given
