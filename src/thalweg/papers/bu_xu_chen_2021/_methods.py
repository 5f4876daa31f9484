"""The methods that the paper compares, by the numbers that it gives them."""

import abc
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...optimizers import (
    ClassicalOptimizer,
    GradientDescent,
    HeavyBall,
    HigherMomentum,
    Nesterov,
)


class Method(abc.ABC):
    """An optimizer without its step size."""

    @property
    @abc.abstractmethod
    def key(self) -> str:
        """By which its results are stored."""

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """By which people know it."""

    @abc.abstractmethod
    def optimizer(self, step_size: float) -> ClassicalOptimizer:
        """With this step size."""

    def as_published(self, step_size: float) -> ClassicalOptimizer:
        """The variant of it that the published code ran."""
        return self.optimizer(step_size)


@dataclass(frozen=True)
class Momentum(Method):
    """Heavy ball, and gradient descent where the momentum is 0."""

    beta: float

    @property
    def key(self):
        return f"heavy_ball_{self.beta:g}" if self.beta else "gradient_descent"

    @property
    def label(self):
        return f"heavy ball, β = {self.beta:g}" if self.beta else "gradient descent"

    def optimizer(self, step_size):
        return HeavyBall(step_size, self.beta) if self.beta else GradientDescent(step_size)


@dataclass(frozen=True)
class Damping(Method):
    """Nesterov's method with momentum (k - 1) / (k + d - 1)."""

    d: float

    @property
    def key(self):
        return f"nesterov_{self.d:g}"

    @property
    def label(self):
        return f"Nesterov, d = {self.d:g}"

    def optimizer(self, step_size):
        return Nesterov(step_size, self.d)

    def as_published(self, step_size):
        return PyTorchNesterov(step_size, self.d)


@dataclass(frozen=True)
class TwoMomenta(Method):
    """The paper's “higher momentum”."""

    first: float
    second: float

    @property
    def key(self):
        return f"higher_momentum_{self.first:g}_{self.second:g}"

    @property
    def label(self):
        return f"two momenta, {self.first:g} and {self.second:g}"

    def optimizer(self, step_size):
        return HigherMomentum(step_size, self.first, self.second)


class PyTorchNesterov(ClassicalOptimizer):
    """Nesterov's method as PyTorch's SGD makes it, momentum (k - 1) / (k + d - 1) set by hand.

    What is followed is the point ahead, at which gradients are taken, and one momentum stands for
    two: that of the last step and that of the next. Where it changes from step to step this is not
    quite Nesterov's method.
    """

    step_size: float | Float[Array, ""]
    damping: float | Float[Array, ""]
    name: ClassVar[str] = "Nesterov, PyTorch's form"

    def _nesterov(self) -> Nesterov:
        return Nesterov(self.step_size, self.damping)

    @property
    def time_per_step(self):
        return self._nesterov().time_per_step

    def init(self, params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(self, k, params, state, gradient):
        momentum = self._nesterov().momentum_at(k)
        g = gradient(params)
        state = jax.tree.map(lambda b, g: jnp.asarray(momentum, b.dtype) * b + g, state, g)
        params = jax.tree.map(
            lambda x, b, g: x - self.step_size * (g + jnp.asarray(momentum, b.dtype) * b),
            params,
            state,
            g,
        )
        return params, state

    def limit(self):
        return self._nesterov().limit()

    def recurrence(self, eigenvalue, k):
        decrease = float(self.step_size) * eigenvalue
        now, before = (float(self._nesterov().momentum_at(max(j, 0))) for j in (k, k - 1))
        if before == 0:
            # Nothing but the gradient is in the buffer, or nothing at all.
            return 1 - (1 + now) * decrease, -(now**2) * decrease
        share = now**2 / before
        return 1 + share - (1 + now) * decrease, -share * (1 - decrease)

    def stability_limit(self, k):
        return self._nesterov().stability_limit(k)
