"""The methods that the paper compares, by the numbers that it gives them."""

import abc
from dataclasses import dataclass

from ...optimizers import (
    ClassicalOptimizer,
    GradientDescent,
    HeavyBall,
    HigherMomentum,
    Nesterov,
)
from ._forms import CascadedMomenta, PyTorchNesterov


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

    def as_published(self, step_size):
        return CascadedMomenta(step_size, self.first, self.second)
