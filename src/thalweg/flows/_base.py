"""What every continuous-time dynamics has to say about itself."""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._trees import tree_dtype, tree_norm, tree_sub
from ..objectives import AbstractObjective
from ..solvers import Equation


class Decay(NamedTuple):
    """A loss like `exp(-exponent t) t^-power`, but for oscillations, as time goes on."""

    exponent: float
    power: float


class Momentum(NamedTuple):
    """The velocity of a flow at some time, and how long it would last: over flat ground, the flow
    would go on by the velocity times `duration`."""

    velocity: PyTree
    duration: float


class Flow(eqx.Module):
    """A continuous-time dynamics on the landscape of an objective.

    A flow has a state `y` (parameters, and for second-order flows their velocity) that obeys
    `y' = vector_field(t, y, objective)`, starting from `initial_state(params)` at time 0.
    """

    name: ClassVar[str]
    # Whether the Jacobian's spectrum is real, as stabilised explicit methods want it.
    real_spectrum: ClassVar[bool]

    @property
    def equation(self) -> Equation | None:
        """The flow as `solvers.BDF` can follow it; `None` if it cannot.

        That takes a force with a symmetric Jacobian.
        """
        return None

    def calm(self, t_end: float) -> bool:
        """Whether most of the time up to `t_end` passes without oscillations.

        Only then is an implicit method cheaper; asked of a flow that has an `equation`.
        """
        return True

    @abc.abstractmethod
    def initial_state(self, params: PyTree) -> PyTree:
        """The state at time 0: the parameters, at rest."""

    def first_time(
        self, objective: AbstractObjective, params: PyTree, tolerance: Any, latest: Any
    ) -> Any:
        """When integration starts, for a flow that is singular at time 0; until then `early_state`.

        `tolerance` is an acceptable Euclidean distance to the exact flow, `latest` an upper limit.
        Costs `first_cost`, with the state at that time.
        """
        return jnp.zeros((), tree_dtype(params))

    def early_state(self, objective: AbstractObjective, params: PyTree, t: Any) -> PyTree:
        """The state at a time up to `first_time`. Costs `early_cost`."""
        return self.initial_state(params)

    # Gradient-equivalents.
    early_cost: ClassVar[int] = 0
    first_cost: ClassVar[int] = 0

    @abc.abstractmethod
    def params(self, state: PyTree) -> PyTree:
        """The parameters within a state."""

    def momentum(self, state: PyTree, t: float) -> Momentum | None:
        """What carries the parameters on where the gradient vanishes; `None` if nothing does."""
        return None

    def distance(self, a: PyTree, b: PyTree, h: Any) -> Float[Array, ""]:
        """How far the parameters of two states are apart around the present.

        States that oscillate cross again and again; within a time `h`, they move on.
        """
        return tree_norm(tree_sub(self.params(a), self.params(b)))

    @abc.abstractmethod
    def vector_field(
        self, t: Float[Array, ""], state: PyTree, objective: AbstractObjective
    ) -> PyTree:
        """The time derivative of the state. Costs one gradient."""

    def decay(self, eigenvalue: float) -> Decay:
        """How the loss of a quadratic mode of positive curvature fades in the long run.

        **Raises:** ValueError for a flow of which that is not known.
        """
        raise ValueError(f"flow: no law of decay is known for {self.name}.")

    @abc.abstractmethod
    def response(self, eigenvalue: Any, time: Any) -> Any:
        """Amplitude at `time` of a quadratic mode `1/2 eigenvalue x^2` that starts at 1, at rest.

        The exact solution, for eigenvalues of either sign; arrays broadcast.
        """


class SecondOrderFlow(Flow):
    """A flow with momentum, `theta'' + friction(t) theta' + grad f(theta) = 0`, from rest."""

    real_spectrum: ClassVar[bool] = False

    def initial_state(self, params):
        return params, jax.tree.map(jnp.zeros_like, params)

    def params(self, state):
        return state[0]

    def momentum(self, state, t):
        return Momentum(state[1], self.duration(t))

    @abc.abstractmethod
    def duration(self, t: float) -> float:
        """How long a velocity at time `t` lasts without a gradient, until friction stops it."""

    def distance(self, a, b, h):
        positions, velocities = tree_sub(a, b)
        return jnp.hypot(tree_norm(positions), h * tree_norm(velocities))
