"""Heavy ball: gradient descent with Polyak's momentum."""

from typing import ClassVar, Literal

import jax
import numpy as np
from jaxtyping import Array, Float

from .._checks import check_momentum, check_positive
from .._section import Fraction, Positive
from ..flows import HeavyBallFlow
from ._base import ClassicalOptimizer, root
from ._section import OptimizerSection


class HeavyBall(ClassicalOptimizer):
    """`theta[k+1] = theta[k] + momentum (theta[k] - theta[k-1]) - step_size grad f(theta[k])`.

    From rest, `theta[-1] = theta[0]`. With `momentum = 1 - friction sqrt(step_size)` a
    discretisation of the heavy-ball flow of that friction: step k stands at time
    `k sqrt(step_size)`.

    **Raises:** ValueError for a step size that is not positive or a momentum outside [0, 1).

    ??? cite "Reference"

        Polyak, "Some methods of speeding up the convergence of iteration methods", USSR
        Computational Mathematics and Mathematical Physics 4 (1964) 1-17.
    """

    step_size: float | Float[Array, ""]
    momentum: float | Float[Array, ""]
    name: ClassVar[str] = "heavy ball"

    def __check_init__(self):
        check_positive(self.step_size, "step_size")
        check_momentum(self.momentum)

    def init(self, params):
        return params

    def update(self, k, params, state, gradient):
        new = jax.tree.map(
            lambda x, before, g: x + self.momentum * (x - before) - self.step_size * g,
            params,
            state,
            gradient(params),
        )
        return new, params

    @property
    def time_per_step(self):
        return root(self.step_size)

    def limit(self):
        return HeavyBallFlow(friction=(1 - float(self.momentum)) / root(self.step_size))

    # The friction acts on the last step, half a step behind: v'' + b v' + H v = b/2 theta''. From
    # rest, the first step is twice as long as the flow's.

    @property
    def error_kick(self):
        return -0.5

    def error_source(self, t):
        return (1 - self.momentum) / self.step_size**0.5 / 2, 0.0, 0.0

    def recurrence(self, eigenvalue, k):
        momentum = float(self.momentum)
        return 1 + momentum - float(self.step_size) * eigenvalue, np.full_like(
            eigenvalue, -momentum
        )

    def stability_limit(self, k):
        return 2 * (1 + float(self.momentum))


class HeavyBallSection(OptimizerSection):
    """`kind = "heavy_ball"`: its clock runs at `sqrt(step_size)` per step."""

    kind: Literal["heavy_ball"] = "heavy_ball"
    step_size: Positive
    momentum: Fraction

    def time_of_step(self) -> float:
        return root(self.step_size)

    def make(self) -> HeavyBall:
        return HeavyBall(self.step_size, self.momentum)
