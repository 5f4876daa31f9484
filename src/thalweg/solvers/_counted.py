"""What a march asks of the library's own solvers, beyond diffrax's interface."""

import abc
from typing import Any

import diffrax
from jaxtyping import Array, Bool, Float, Int

# What a step may err by where the solution grows exponentially, relatively.
GROWING_ERROR = 5e-5


class CountedSolver(diffrax.AbstractAdaptiveSolver):
    """A solver that counts its evaluations and learns from steps that are rejected."""

    @abc.abstractmethod
    def evaluations(self, state: Any) -> Int[Array, ""]:
        """Evaluations of the vector field since `init`, or what costs as much."""

    @abc.abstractmethod
    def after_rejection(self, before: Any, after: Any) -> Any:
        """The state to retry a rejected step from, given the states before and after it.

        `diffrax.diffeqsolve` goes back to `before`; a loop that can do better keeps what the
        rejected attempt learned.
        """

    @abc.abstractmethod
    def spectral_radius(self, state: Any) -> Float[Array, ""]:
        """The estimate of the Jacobian's spectral radius that the last step relied on."""


class PacedSolver(CountedSolver):
    """A solver that chooses its order, and with it the length of its steps, by itself."""

    @abc.abstractmethod
    def first_step(self, state: Any) -> Float[Array, ""]:
        """The length of the first step."""

    @abc.abstractmethod
    def paced(
        self, state: Any, h: Float[Array, ""], eagerness: Any
    ) -> tuple[Bool[Array, ""], Float[Array, ""]]:
        """Whether the step of length `h` that led to `state` is good, and how long the next is.

        Steps are limited so that exponential growth is followed with a relative error of
        `GROWING_ERROR`; `eagerness` is by how much they may exceed that.
        """
