"""Landscapes with a penalty on the parameters."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .._checks import check_instance, check_positive
from .._kinks import kink_pattern, mean_over_segment
from .._precision import in_full_precision
from .._trees import tree_axpy, tree_dot
from ._abstract import AbstractObjective, Kinks


class AbstractPenalty(eqx.Module):
    """A function of the parameters whose curvature is known to lie between two numbers."""

    @abc.abstractmethod
    def __call__(self, params: PyTree) -> Float[Array, ""]:
        """The penalty."""

    @property
    @abc.abstractmethod
    def curvature(self) -> tuple[Array, Array]:
        """Between which numbers all eigenvalues of its Hessian lie, everywhere."""


class WeightDecay(AbstractPenalty):
    """`rate / 2 |params|^2`, over all parameters.

    Gradient descent on a loss with this penalty multiplies the parameters by `1 - step_size * rate`
    in every step, beside the loss's gradient.

    **Raises:** ValueError for a rate that is negative or not finite.
    """

    rate: float | Float[Array, ""]

    def __check_init__(self):
        check_positive(self.rate, "rate", zero=True)

    def __call__(self, params: PyTree) -> Float[Array, ""]:
        """The penalty."""
        return self.rate / 2 * tree_dot(params, params)

    @property
    def curvature(self) -> tuple[Array, Array]:
        """The rate is the only eigenvalue."""
        rate = jnp.asarray(self.rate)
        return rate, rate


class Penalised(AbstractObjective):
    """A landscape plus a penalty, `f(theta) + penalty(theta)`.

        penalised = tw.Penalised(objective, tw.objectives.WeightDecay(1e-3))
        lasso = tw.Penalised(objective, lambda params: 0.1 * jnp.sum(jnp.abs(params)))

    **Arguments:**

    - `objective`: any objective. Its predictions are those of the sum.
    - `penalty`: `params -> number`, written in JAX. Bounds of curvature need one that knows its
        own, such as `tw.objectives.WeightDecay`.

    **Raises:** TypeError for something else.
    """

    objective: AbstractObjective
    penalty: Callable[[PyTree], Float[Array, ""]]

    def __init__(self, objective: AbstractObjective, penalty: Callable[[PyTree], Any]):
        check_instance(objective, AbstractObjective, "objective", "an objective")
        if isinstance(penalty, type) or not callable(penalty):
            raise TypeError(
                "penalty: expected a function of the parameters, such as"
                f" tw.objectives.WeightDecay(rate), got {penalty!r}."
            )
        self.objective = objective
        self.penalty = penalty

    @in_full_precision
    def value(self, params: PyTree) -> Float[Array, ""]:
        """Loss and penalty."""
        return self.objective.value(params) + self.penalty(params)

    def gradient(self, params: PyTree) -> PyTree:
        """The sum of both gradients."""
        return self.value_and_gradient(params)[1]

    @in_full_precision
    def value_and_gradient(self, params: PyTree) -> tuple[Float[Array, ""], PyTree]:
        """The sum of both, for the price of the loss's gradient."""
        loss, slope = self.objective.value_and_gradient(params)
        penalty, pull = jax.value_and_grad(self.penalty)(params)
        return loss + penalty, _sum(slope, pull)

    @in_full_precision
    def hvp(self, params: PyTree, vector: PyTree) -> PyTree:
        """The sum of both Hessian-vector products."""
        bent = jax.jvp(jax.grad(self.penalty), (params,), (vector,))[1]
        return _sum(self.objective.hvp(params, vector), bent)

    @in_full_precision
    def mean_gradient(self, params: PyTree, displacement: PyTree) -> PyTree:
        """The sum of both means."""
        pull = jax.grad(lambda p: mean_over_segment(self.penalty, p, displacement))(params)
        return _sum(self.objective.mean_gradient(params, displacement), pull)

    def kinks(self, params: PyTree) -> Kinks:
        """The kinks of the loss and of the penalty."""
        both = self.objective.kinks(params), self._kinks_of(self.penalty, params)
        # A mean over the segment takes kinks into account that can be read, and no others.
        read = any(k.read for k in both) and all(k.read or not k.exist for k in both)
        return Kinks(any(k.exist for k in both), read, sum(k.gradients for k in both))

    def kink_pattern(self, params: PyTree) -> list[Bool[Array, "..."]]:
        """The sides of the loss's kinks, followed by those of the penalty's."""
        return [*self.objective.kink_pattern(params), *kink_pattern(self.penalty, params)]

    def check(self, params: PyTree) -> None:
        """Check the objective, and then the sum.

        **Raises:** as the objective's `check` and `AbstractObjective.check`.
        """
        self.objective.check(params)
        super().check(params)


def parted(objective: AbstractObjective) -> tuple[AbstractObjective, Array, Array]:
    """An objective without its penalties, and between which numbers their curvatures lie, in sum.

    **Raises:** TypeError for a penalty of which that is not known.
    """
    low = high = jnp.zeros(())
    while isinstance(objective, Penalised):
        if not isinstance(objective.penalty, AbstractPenalty):
            raise TypeError(
                "objective: nothing is known of the curvature of its penalty; it is known of"
                " tw.objectives.WeightDecay and other subclasses of"
                " tw.objectives.AbstractPenalty."
            )
        lowest, highest = objective.penalty.curvature
        low, high, objective = low + lowest, high + highest, objective.objective
    return objective, low, high


def _sum(a: PyTree, b: PyTree) -> PyTree:
    return tree_axpy(1, a, b)
