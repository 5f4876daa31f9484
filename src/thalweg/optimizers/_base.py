"""What every discrete-time dynamics has to say about itself."""

import abc
import math
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Int, PyTree

from ..flows import Flow


class Optimizer(eqx.Module):
    """A discrete-time dynamics on the landscape of an objective.

    An optimizer keeps a state beside the parameters (a previous point, a momentum) and makes steps
    k = 0, 1, 2, ... from full-batch gradients.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def init(self, params: PyTree) -> PyTree:
        """The optimizer's own state before its first step."""

    @abc.abstractmethod
    def update(
        self,
        k: Int[Array, ""],
        params: PyTree,
        state: PyTree,
        gradient: Callable[[PyTree], PyTree],
    ) -> tuple[PyTree, PyTree]:
        """Step `k`, counted from 0: the new parameters and state. Calls `gradient` once."""

    @property
    @abc.abstractmethod
    def time_per_step(self) -> float:
        """The time of the limit flow that one step takes."""

    @abc.abstractmethod
    def limit(self) -> Flow:
        """The flow that this optimizer discretises.

        **Raises:** ValueError when there is none that the library knows.
        """

    def error_source(self, t: Any) -> tuple[Any, Any, Any]:
        """What drives the first-order error at a flow time, see `thalweg.predicted_distance`.

        The factors of the limit flow's acceleration, its velocity, and the Hessian times that.

        **Raises:** ValueError for an optimizer whose error is not known to first order.
        """
        raise ValueError(f"optimizer: no first-order law is known for {self.name}.")

    # The error's velocity at time 0, as a multiple of the gradient there.
    error_kick: ClassVar[float] = 0.0

    @property
    def error_series(self) -> tuple[Any, Any]:
        """For a flow that starts from a series: factors of its terms in the error's."""
        return 0.0, 0.0

    @abc.abstractmethod
    def response(self, eigenvalue: Any, step: Any) -> Any:
        """Amplitude after `step` steps of a quadratic mode `1/2 eigenvalue x^2` that starts at 1.

        Exact; arrays of eigenvalues and steps broadcast.
        """


class ClassicalOptimizer(Optimizer):
    """An optimizer whose step on a quadratic mode is a two-term recurrence."""

    @abc.abstractmethod
    def recurrence(self, eigenvalue: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients of step `k` on a mode: `x[k+1] = first * x[k] + second * x[k-1]`."""

    def response(self, eigenvalue, step):
        """The recurrence, run from `x[0] = x[-1] = 1`."""
        eigenvalue, step = np.broadcast_arrays(np.asarray(eigenvalue, float), step)
        if np.any(step < 0):
            raise ValueError("step: must not be negative.")
        now = before = np.ones(eigenvalue.shape)
        result = np.where(step == 0, 1.0, np.nan)
        for k in range(int(step.max(initial=0))):
            first, second = self.recurrence(eigenvalue, k)
            now, before = first * now + second * before, now
            result = np.where(step == k + 1, now, result)
        return result

    @abc.abstractmethod
    def stability_limit(self, k: int) -> float:
        """Largest `eigenvalue * step_size` at which step `k`'s recurrence, repeated, is stable."""


def root(step_size: Any) -> float:
    """The time that one step of a method with momentum takes: the root of its step size."""
    return math.sqrt(float(step_size))
