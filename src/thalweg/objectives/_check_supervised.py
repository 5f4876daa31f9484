"""Checks of predictions and losses, before anything is computed with them.

Everything that is asked about data is one number, reduced over samples where they are, so that they
may be spread over devices and processes.
"""

from functools import partial
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._checks import check_precision
from .._independence import FEWEST, check_independent
from ..losses import Loss

if TYPE_CHECKING:
    from ._objective import Objective


def check_supervised(objective: "Objective", params: PyTree) -> None:
    """Evaluate predictions and losses once: see `Objective.check`."""
    first = _predictions(objective, params)
    _check_array(objective, first)
    if not bool(jnp.all(jnp.isfinite(first))):
        raise ValueError("predict: returned NaN or infinity at these parameters.")
    if not bool(jnp.all(first == objective.predictions(params))):
        raise ValueError(
            "predict: two calls with the same parameters differ, so there is no landscape to"
            " follow. Switch off dropout and other randomness."
        )
    if not objective.whole_batch:
        _check_independence(objective, params, first)
    if hasattr(objective.loss, "check"):
        objective.loss.check(first.shape, objective.targets)  # pyright: ignore
    losses = objective.checked_losses(first, objective.targets)
    check_precision(losses.dtype, "loss")
    if not bool(jnp.all(jnp.isfinite(losses))):
        raise ValueError("loss: NaN or infinity at these parameters.")
    if not (objective.whole_batch or isinstance(objective.loss, Loss)):
        check_independent("loss", objective.loss, losses, first, objective.targets)


def _predictions(objective: "Objective", params: PyTree) -> Array:
    try:
        return objective.predictions(params)
    except TypeError as error:
        # Shapes that do not fit, most of the time.
        raise TypeError(
            f"predict: failed for inputs of shape {objective.inputs.shape}: {error} It is called"
            " as predict(params, inputs), with all samples at once; for a function of one sample,"
            " use jax.vmap."
        ) from error


def _check_array(objective: "Objective", first: Array) -> None:
    if not hasattr(first, "shape") or not hasattr(first, "dtype"):
        raise TypeError(f"predict: expected one array, got {type(first).__name__}.")
    if first.ndim == 0 or first.shape[0] != objective.samples:
        raise ValueError(
            f"predict: returned shape {first.shape} for {objective.samples} samples; the leading"
            " axis must be the samples."
        )
    if not jnp.issubdtype(first.dtype, jnp.floating):
        raise TypeError(
            f"predict: expected real floating-point predictions, got {first.dtype}; they must"
            " have derivatives."
        )
    check_precision(first.dtype, "predict")


def _check_independence(objective: "Objective", params: PyTree, predictions: Array) -> None:
    """Check independence on as many samples at once as there will be, or on a few."""
    at_once = objective.reduction.at_once(objective.samples)
    together = max(FEWEST, at_once)
    inputs, whole = objective.inputs[:together], predictions[:together]
    if at_once < len(inputs):
        whole = objective.predict(params, inputs)
    check_independent("predict", partial(objective.predict, params), whole, inputs)
