"""Heavy-ball flow: a ball with friction."""

import math
from typing import Annotated, ClassVar, Literal

import jax
import numpy as np
from jaxtyping import Array, Float
from pydantic import Field

from .._checks import check_positive
from ..solvers import SecondOrder
from ._base import Decay, SecondOrderFlow
from ._section import FlowSection

# Oscillations fade like exp(-friction t / 2). From this friction times the horizon on, what follows
# them outweighs them: chosen by benchmarks/momentum_flows.py.
_CALM = 50.0


class HeavyBallFlow(SecondOrderFlow):
    """`theta'' + friction theta' + grad f(theta) = 0`, from rest.

    The limit of heavy ball (and of Nesterov's method with constant momentum) with
    `momentum = 1 - friction sqrt(step_size)`, one step taking `sqrt(step_size)` of time.

    **Raises:** ValueError for a friction that is negative or not finite.

    ??? cite "Reference"

        Polyak, "Some methods of speeding up the convergence of iteration methods", USSR
        Computational Mathematics and Mathematical Physics 4 (1964) 1-17.
    """

    friction: float | Float[Array, ""]
    name: ClassVar[str] = "heavy-ball flow"

    def __check_init__(self):
        check_positive(self.friction, "friction", zero=True)

    @property
    def equation(self):
        return SecondOrder(self.friction)

    def calm(self, t_end):
        return float(self.friction) * t_end >= _CALM

    def vector_field(self, t, state, objective):
        params, velocity = state
        gradient = objective.gradient(params)
        return velocity, jax.tree.map(lambda v, g: -self.friction * v - g, velocity, gradient)

    def duration(self, t):
        friction = float(self.friction)
        return 1 / friction if friction else math.inf

    def decay(self, eigenvalue):
        friction = float(self.friction)
        square = friction**2 / 4 - eigenvalue
        if square <= 0:
            # Times t^2 at critical damping.
            return Decay(friction, 0.0 if square < 0 else -2.0)
        # friction / 2 - sqrt(square), without cancellation.
        return Decay(2 * eigenvalue / (friction / 2 + math.sqrt(square)), 0.0)

    def response(self, eigenvalue, time):
        """The damped oscillator, under-, over- or critically damped."""
        half = float(self.friction) / 2
        curvature, t = np.broadcast_arrays(np.asarray(eigenvalue, float), time)
        square = half**2 - curvature
        root = np.sqrt(np.abs(square))
        x = root * t
        safe = np.where(root > 0, root, 1.0)
        # half - root, without cancellation; where the mode grows there is none.
        slow = np.where(
            curvature > 0, curvature / np.where(half + root > 0, half + root, 1), half - root
        )
        with np.errstate(over="ignore", invalid="ignore"):
            over = 0.5 * (
                (1 + half / safe) * np.exp(-slow * t)
                + (1 - half / safe) * np.exp(-(root + half) * t)
            )
            under = np.exp(-half * t) * (np.cos(x) + half * t * np.sinc(x / np.pi))
            signed = square * t**2
            critical = np.exp(-half * t) * (
                1 + signed / 2 + signed**2 / 24 + half * t * (1 + signed / 6 + signed**2 / 120)
            )
        return np.where(x < 1e-3, critical, np.where(square > 0, over, under))


class HeavyBallFlowSection(FlowSection):
    """`kind = "heavy_ball_flow"`, with its friction."""

    kind: Literal["heavy_ball_flow"] = "heavy_ball_flow"
    friction: Annotated[float, Field(ge=0)]

    def make(self) -> HeavyBallFlow:
        return HeavyBallFlow(self.friction)
