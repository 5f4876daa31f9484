"""Gradient descent."""

from typing import ClassVar, Literal

from jaxtyping import Array, Float

from .._checks import check_positive
from .._section import Positive
from .._trees import tree_axpy
from ..flows import GradientFlow
from ._base import ClassicalOptimizer
from ._section import OptimizerSection


class GradientDescent(ClassicalOptimizer):
    """Gradient descent, `theta[k+1] = theta[k] - step_size grad f(theta[k])`.

    Euler's method on gradient flow: step k stands at time `k step_size`.

    **Raises:** ValueError for a step size that is not positive.
    """

    step_size: float | Float[Array, ""]
    name: ClassVar[str] = "gradient descent"

    def __check_init__(self):
        check_positive(self.step_size, "step_size")

    def init(self, params):
        return ()

    def update(self, k, params, state, gradient):
        return tree_axpy(-self.step_size, gradient(params), params), state

    @property
    def time_per_step(self):
        return float(self.step_size)

    def limit(self):
        return GradientFlow()

    # h v' + h^2/2 theta'' = -h H v, with theta'' = -H theta'.

    def error_source(self, t):
        return 0.0, 0.0, 0.5

    def recurrence(self, eigenvalue, k):
        return (1 - float(self.step_size) * eigenvalue,)

    def stability_limit(self, k):
        return 2.0


class GradientDescentSection(OptimizerSection):
    """`kind = "gradient_descent"`: its clock runs at `step_size` per step."""

    kind: Literal["gradient_descent"] = "gradient_descent"
    step_size: Positive

    def time_of_step(self) -> float:
        return self.step_size

    def make(self) -> GradientDescent:
        return GradientDescent(self.step_size)
