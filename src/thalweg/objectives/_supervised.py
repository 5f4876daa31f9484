"""Landscapes that are the mean loss of predictions over samples."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._abstract import AbstractObjective


class AbstractSupervised(AbstractObjective):
    """A landscape with samples and predictions.

    $f(\\theta) = \\frac1N \\sum_i \\ell(z_i(\\theta), y_i)$

    A subclass defines `samples`, `predictions`, and products with their Jacobian. `targets` have a
    leading axis of samples, and `loss` is a function `(predictions, targets) -> (samples,)`.
    Comparisons of predictions and Gauss-Newton products ask for this.
    """

    loss: eqx.AbstractVar[Callable[[Array, Array], Array]]
    targets: eqx.AbstractVar[Array]

    @property
    @abc.abstractmethod
    def samples(self) -> int:
        """Number of samples, N."""

    @abc.abstractmethod
    def predictions(self, params: PyTree) -> Float[Array, "samples ..."]:
        """Predictions on every sample."""

    @abc.abstractmethod
    def jvp(self, params: PyTree, vector: PyTree) -> Float[Array, "samples ..."]:
        """Jacobian-vector product: the change of all predictions along `vector`."""

    @abc.abstractmethod
    def vjp(self, params: PyTree, cotangent: Float[Array, "samples ..."]) -> PyTree:
        """Transposed-Jacobian-vector product: from the space of predictions to parameters.

        A sum over samples, not a mean: it is the exact transpose of `jvp`.
        """

    def gnvp(self, params: PyTree, vector: PyTree) -> PyTree:
        """Gauss-Newton-vector product: the Hessian without the curvature of the predictions."""
        slope = jax.grad(lambda z: jnp.mean(self.loss(z, self.targets)))
        change = self.jvp(params, vector)
        curved = jax.jvp(slope, (self.predictions(params),), (change,))[1]
        return self.vjp(params, curved)


def supervised(objective: AbstractObjective) -> AbstractSupervised | None:
    """The part of a landscape that has samples and predictions, if there is one."""
    found: Any = objective
    while found is not None and not isinstance(found, AbstractSupervised):
        found = getattr(found, "objective", None)
    return found
