"""Discrete-time dynamics, one per file, and `descend`."""

from ._base import ClassicalOptimizer as ClassicalOptimizer
from ._base import Optimizer as Optimizer
from ._coordinatewise import Coordinatewise as Coordinatewise
from ._coordinatewise import Responses as Responses
from ._coordinatewise import coordinatewise as coordinatewise
from ._descend import Descent as Descent
from ._descend import descend as descend
from ._gradient_descent import GradientDescent as GradientDescent
from ._gradient_descent import GradientDescentSection as GradientDescentSection
from ._heavy_ball import HeavyBall as HeavyBall
from ._heavy_ball import HeavyBallSection as HeavyBallSection
from ._higher_momentum import HigherMomentum as HigherMomentum
from ._higher_momentum import HigherMomentumSection as HigherMomentumSection
from ._linear_reading import NotCallableError as NotCallableError
from ._linear_reading import NotLinearError as NotLinearError
from ._nesterov import Nesterov as Nesterov
from ._nesterov import NesterovConstant as NesterovConstant
from ._nesterov import NesterovConstantSection as NesterovConstantSection
from ._nesterov import NesterovSection as NesterovSection
from ._optax import Optax as Optax
from ._optax import OptaxSection as OptaxSection
from ._section import OptimizerSection as OptimizerSection

__all__ = [
    "GradientDescent",
    "HeavyBall",
    "HigherMomentum",
    "Nesterov",
    "NesterovConstant",
    "Optax",
    "Optimizer",
    "descend",
]
