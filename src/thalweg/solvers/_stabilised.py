"""What a stabilised solver tells about itself beyond diffrax's interface."""

import abc
from typing import TypeVar

import diffrax
from jaxtyping import Array, Float, Int, PyTree

_State = TypeVar("_State")


class StabilisedSolver(diffrax.AbstractAdaptiveSolver[_State]):
    """An explicit solver whose stability interval grows with the number of its stages."""

    @abc.abstractmethod
    def evaluations(self, state: _State) -> Int[Array, ""]:
        """Evaluations of the vector field since `init`, spectral radius estimates included."""

    @abc.abstractmethod
    def spectral_radius(self, state: _State) -> Float[Array, ""]:
        """The estimate that the last step relied on."""

    @abc.abstractmethod
    def after_rejection(self, before: PyTree, after: PyTree) -> PyTree:
        """The state to retry a rejected step from, given the states before and after it.

        `diffrax.diffeqsolve` goes back to `before`; a loop that can do better keeps what the
        rejected attempt learned about the spectrum, and has it looked at again.
        """
