"""Nesterov's method, with fading and with constant friction."""

import abc
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import check_momentum, check_positive
from .._section import Fraction, Positive
from ..flows import HeavyBallFlow, NesterovFlow
from ._base import ClassicalOptimizer, root
from ._section import OptimizerSection


class _Extrapolating(ClassicalOptimizer):
    """A gradient step from the point that the momentum leads to."""

    @abc.abstractmethod
    def momentum_at(self, k: Any) -> Any:
        """Momentum of step `k`, counted from 0."""

    def init(self, params):
        return params

    def update(self, k, params, state, gradient):
        momentum = self.momentum_at(k)

        def extrapolated(x, before):
            # A momentum computed from a step number may have more digits than the parameters.
            return x + jnp.asarray(momentum, x.dtype) * (x - before)

        ahead = jax.tree.map(extrapolated, params, state)
        new = jax.tree.map(lambda p, g: p - self.step_size * g, ahead, gradient(ahead))
        return new, params

    @property
    def time_per_step(self):
        return root(self.step_size)

    def recurrence(self, eigenvalue, k):
        momentum = float(self.momentum_at(k))
        factor = 1 - float(self.step_size) * eigenvalue
        return (1 + momentum) * factor, -momentum * factor

    def stability_limit(self, k):
        momentum = float(self.momentum_at(k))
        return 2 * (1 + momentum) / (1 + 2 * momentum)


class Nesterov(_Extrapolating):
    """Nesterov's method with momentum `(k-1) / (k + damping - 1)`, k = 1, 2, ...

    `ahead = theta[k] + momentum (theta[k] - theta[k-1])`,
    `theta[k+1] = ahead - step_size grad f(ahead)`, from rest. A discretisation of the Nesterov
    flow: step k stands at time `k sqrt(step_size)`. `damping = 3` is the classical choice.

    **Raises:** ValueError for a step size or damping that is not positive.

    ??? cite "References"

        Nesterov, "A method for solving the convex programming problem with convergence rate
        O(1/k^2)", Soviet Mathematics Doklady 27 (1983) 372-376. The flow, and general `damping`:
        Su, Boyd and Candès, Journal of Machine Learning Research 17 (2016) 1-43.
    """

    step_size: float | Float[Array, ""]
    damping: float | Float[Array, ""] = 3.0
    name: ClassVar[str] = "Nesterov"

    def __check_init__(self):
        check_positive(self.step_size, "step_size")
        check_positive(self.damping, "damping")

    def momentum_at(self, k):
        return k / (k + self.damping)

    # As for heavy ball, with friction d/t, of which k / (k + d) leaves (d/t)^2 theta' behind, and
    # the gradient at a point that is ahead by one step:
    # v'' + (d/t) v' + H v = d/(2t) theta'' + (d/t)^2 theta' - H theta'.
    # With theta = theta(0) + a t^2 + b t^4 + ..., v = (2d + 1) a t + (4d + 6) b t^3 + ...

    def error_source(self, t):
        rate = self.damping / t
        return rate / 2, rate**2, -1.0

    @property
    def error_series(self):
        """Factors of the flow's series in the error's, one power of t lower."""
        return 2 * self.damping + 1, 4 * self.damping + 6

    def limit(self):
        return NesterovFlow(damping=float(self.damping))


class NesterovConstant(_Extrapolating):
    """Nesterov's method with constant momentum.

    Its limit is the heavy-ball flow with `friction = (1 - momentum) / sqrt(step_size)`: to leading
    order it is heavy ball, and differs from it by a curvature-dependent friction of the order of
    `sqrt(step_size)`.

    **Raises:** ValueError for a step size that is not positive or a momentum outside [0, 1).

    ??? cite "Reference"

        Nesterov, Introductory Lectures on Convex Optimization (2004), section 2.2.
    """

    step_size: float | Float[Array, ""]
    momentum: float | Float[Array, ""]
    name: ClassVar[str] = "Nesterov, constant momentum"

    def __check_init__(self):
        check_positive(self.step_size, "step_size")
        check_momentum(self.momentum)

    def momentum_at(self, k):
        return self.momentum

    # Heavy ball's, and the gradient at a point that is ahead by one step.
    @property
    def error_kick(self):
        return -0.5

    def error_source(self, t):
        return (1 - self.momentum) / self.step_size**0.5 / 2, 0.0, -1.0

    def limit(self):
        return HeavyBallFlow(friction=(1 - float(self.momentum)) / root(self.step_size))


class NesterovSection(OptimizerSection):
    """`kind = "nesterov"`: momentum (k-1)/(k+damping-1); clock `sqrt(step_size)` per step."""

    kind: Literal["nesterov"] = "nesterov"
    step_size: Positive
    damping: Positive = 3.0

    def time_of_step(self) -> float:
        return root(self.step_size)

    def make(self) -> Nesterov:
        return Nesterov(self.step_size, self.damping)


class NesterovConstantSection(OptimizerSection):
    """`kind = "nesterov_constant"`: constant momentum; clock `sqrt(step_size)` per step."""

    kind: Literal["nesterov_constant"] = "nesterov_constant"
    step_size: Positive
    momentum: Fraction

    def time_of_step(self) -> float:
        return root(self.step_size)

    def make(self) -> NesterovConstant:
        return NesterovConstant(self.step_size, self.momentum)
