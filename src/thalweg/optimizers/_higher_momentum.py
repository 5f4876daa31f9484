"""Gradient descent with two momenta."""

from typing import ClassVar, Literal

import jax
import numpy as np
from jaxtyping import Array, Float

from .._checks import check_momentum, check_number, check_positive
from .._section import Fraction, Positive
from ..flows import HeavyBallFlow
from ._base import ClassicalOptimizer, root
from ._section import OptimizerSection


class HigherMomentum(ClassicalOptimizer):
    """Heavy ball that remembers two steps instead of one.

    `step[k] = first step[k-1] + second step[k-2] - step_size grad f(theta[k])`,
    `theta[k+1] = theta[k] + step[k]`, from rest. With
    `1 - first - second = friction sqrt(step_size (1 + second))` a discretisation of the heavy-ball
    flow of that friction; step k stands at time `k sqrt(step_size / (1 + second))`.

    **Raises:** ValueError for a step size that is not positive, momenta outside [0, 1), or a sum of
    1 or more, with which no step is stable.

    ??? cite "Reference"

        Bu, Xu and Chen, "A dynamical view on optimization algorithms of overparameterized neural
        networks", International Conference on Artificial Intelligence and Statistics, 2021.
    """

    step_size: float | Float[Array, ""]
    first: float | Float[Array, ""]
    second: float | Float[Array, ""]
    name: ClassVar[str] = "higher momentum"

    def __check_init__(self):
        check_positive(self.step_size, "step_size")
        check_momentum(self.first, "first")
        check_momentum(self.second, "second")
        total = check_number(self.first + self.second, "first + second")
        if total is not None and total >= 1:
            raise ValueError(
                f"first, second: their sum must be below 1, got {total:g}: steps would grow for"
                " ever."
            )

    def init(self, params):
        return params, params

    def update(self, k, params, state, gradient):
        new = jax.tree.map(
            lambda x, before, earlier, g: (
                x
                + self.first * (x - before)
                + self.second * (before - earlier)
                - self.step_size * g
            ),
            params,
            *state,
            gradient(params),
        )
        return new, (params, state[0])

    @property
    def time_per_step(self):
        return root(self.step_size / (1 + self.second))

    def limit(self):
        lost = 1 - float(self.first) - float(self.second)
        return HeavyBallFlow(friction=lost / root(self.step_size * (1 + self.second)))

    # With c = second / (1 + second), v'' + b v' + H v = b/2 theta'' + c theta''', and
    # theta''' = -b theta'' - H theta'. From rest, steps of a constant gradient are those of the
    # flow, a shift, and a part that alternates and fades like second^k.

    @property
    def error_kick(self):
        return -(1 + 3 * self.second) / (2 * (1 + self.second))

    def error_source(self, t):
        total = 1 + self.second
        friction = (1 - self.first - self.second) / (self.step_size * total) ** 0.5
        share = self.second / total
        return friction * (0.5 - share), 0.0, -share

    def recurrence(self, eigenvalue, k):
        first, second = float(self.first), float(self.second)
        return (
            1 + first - float(self.step_size) * eigenvalue,
            np.full_like(eigenvalue, second - first),
            np.full_like(eigenvalue, -second),
        )

    def stability_limit(self, k):
        return 2 * (1 + float(self.first) - float(self.second))


class HigherMomentumSection(OptimizerSection):
    """`kind = "higher_momentum"`: two momenta; clock `sqrt(step_size / (1 + second))` per step."""

    kind: Literal["higher_momentum"] = "higher_momentum"
    step_size: Positive
    first: Fraction
    second: Fraction

    def time_of_step(self) -> float:
        return root(self.step_size / (1 + self.second))

    def make(self) -> HigherMomentum:
        return HigherMomentum(self.step_size, self.first, self.second)
