"""Losses: how far predictions are from targets, sample by sample.

A loss maps a whole batch of predictions and targets to one number per sample; the mean over
samples is taken by [`thalweg.Objective`][]. Any plain function of that form works too.
"""

import abc
import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Loss(eqx.Module):
    """A per-sample loss, convex in the prediction, that can say whether targets fit predictions."""

    name: ClassVar[str]
    # The largest eigenvalue that its Hessian with respect to a prediction has anywhere, and the
    # norm that its gradient does not exceed.
    smoothness: ClassVar[float]
    steepness: ClassVar[float]

    @abc.abstractmethod
    def __call__(
        self, predictions: Float[Array, "samples *outputs"], targets: Array
    ) -> Float[Array, "samples"]:
        """Loss of every sample."""

    @abc.abstractmethod
    def check(self, predictions_shape: tuple[int, ...], targets: Array) -> None:
        """Raise ValueError when the targets do not fit predictions of this shape."""


class SquaredError(Loss):
    """Half the squared Euclidean distance, `1/2 |prediction - target|^2`, summed over outputs."""

    name: ClassVar[str] = "squared error"
    smoothness: ClassVar[float] = 1.0
    steepness: ClassVar[float] = math.inf

    def __call__(self, predictions, targets):
        if predictions.shape != targets.shape:
            # Broadcasting would pair every prediction with every target.
            self.check(predictions.shape, targets)
        residual = (predictions - targets).reshape(predictions.shape[0], -1)
        return 0.5 * jnp.sum(residual**2, axis=1)

    def check(self, predictions_shape, targets):
        if tuple(predictions_shape) != tuple(targets.shape):
            raise ValueError(
                f"targets: shape {tuple(targets.shape)} does not fit predictions of shape"
                f" {tuple(predictions_shape)}; squared_error needs equal shapes (for class labels,"
                " pass one-hot rows: `dataset.one_hot()`)."
            )


class CrossEntropy(Loss):
    """Cross-entropy of the softmax of logits, in nats.

    Targets are integer labels of shape `(samples,)` or rows of probabilities of shape
    `(samples, classes)`, one-hot rows among them.
    """

    name: ClassVar[str] = "cross-entropy"
    # `v^T (diag(p) - p p^T) v` is the variance of a number that is v_i with probability p_i: at
    # most a quarter of `(max v - min v)^2`, which is at most `2 |v|^2`.
    smoothness: ClassVar[float] = 0.5
    steepness: ClassVar[float] = math.sqrt(2.0)

    def __call__(self, predictions, targets):
        log_probabilities = jax.nn.log_softmax(predictions, axis=-1)
        if jnp.issubdtype(targets.dtype, jnp.integer):
            return -jnp.take_along_axis(log_probabilities, targets[:, None], axis=-1)[:, 0]
        return -jnp.sum(targets * log_probabilities, axis=-1)

    def check(self, predictions_shape, targets):
        if len(predictions_shape) != 2:
            raise ValueError(
                "predictions: cross_entropy needs logits of shape (samples, classes), got"
                f" {tuple(predictions_shape)}."
            )
        classes = predictions_shape[1]
        if jnp.issubdtype(targets.dtype, jnp.integer):
            if targets.ndim != 1 or targets.shape[0] != predictions_shape[0]:
                raise ValueError(
                    f"targets: integer labels need shape ({predictions_shape[0]},), got"
                    f" {tuple(targets.shape)}."
                )
            least, most = int(jnp.min(targets)), int(jnp.max(targets))
            if least < 0 or most >= classes:
                raise ValueError(
                    f"targets: labels run from {least} to {most}, but the network"
                    f" has {classes} outputs (labels 0 to {classes - 1})."
                )
        else:
            if tuple(targets.shape) != tuple(predictions_shape):
                raise ValueError(
                    f"targets: shape {tuple(targets.shape)} does not fit logits of shape"
                    f" {tuple(predictions_shape)}; cross_entropy needs integer labels or rows of"
                    " class probabilities."
                )
            sums = jnp.abs(jnp.sum(targets, axis=1) - 1)
            if float(jnp.min(targets)) < 0 or not float(jnp.max(sums)) <= 1.1e-5:
                raise ValueError(
                    "targets: rows for cross_entropy must be class probabilities (non-negative,"
                    " with sum 1)."
                )


squared_error = SquaredError()
cross_entropy = CrossEntropy()
