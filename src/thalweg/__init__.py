"""A laboratory for the optimisation dynamics of neural networks."""

from . import losses as losses
from . import observables as observables
from .closeness import Comparison as Comparison
from .closeness import compare as compare
from .flows import Flow as Flow
from .flows import GradientFlow as GradientFlow
from .flows import HeavyBallFlow as HeavyBallFlow
from .flows import NesterovFlow as NesterovFlow
from .flows import integrate as integrate
from .objective import Objective as Objective
from .observables import observe as observe
from .optimizers import GradientDescent as GradientDescent
from .optimizers import HeavyBall as HeavyBall
from .optimizers import Nesterov as Nesterov
from .optimizers import NesterovConstant as NesterovConstant
from .optimizers import Optax as Optax
from .optimizers import Optimizer as Optimizer
from .optimizers import descend as descend
from .trajectory import Stats as Stats
from .trajectory import Status as Status
from .trajectory import Trajectory as Trajectory
