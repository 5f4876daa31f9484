"""Continuous-time dynamics, one per file, and `integrate`."""

from ._base import Decay as Decay
from ._base import Flow as Flow
from ._base import Momentum as Momentum
from ._base import SecondOrderFlow as SecondOrderFlow
from ._gradient_flow import GradientFlow as GradientFlow
from ._gradient_flow import GradientFlowSection as GradientFlowSection
from ._heavy_ball_flow import HeavyBallFlow as HeavyBallFlow
from ._heavy_ball_flow import HeavyBallFlowSection as HeavyBallFlowSection
from ._integrate import integrate as integrate
from ._integration import Integration as Integration
from ._nesterov_flow import NesterovFlow as NesterovFlow
from ._nesterov_flow import NesterovFlowSection as NesterovFlowSection
from ._section import FlowSection as FlowSection
from ._until import Arrival as Arrival
from ._until import Departure as Departure
from ._until import Ending as Ending
from ._until import Watch as Watch

__all__ = ["Flow", "GradientFlow", "HeavyBallFlow", "NesterovFlow", "integrate"]
