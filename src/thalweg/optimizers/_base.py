"""What every discrete-time dynamics has to say about itself."""

import abc
import math
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..flows import Flow

# The products that a margin comes from are rounded by this much.
_AT_THE_LIMIT = 16 * float(np.finfo(float).eps)


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

    @property
    def error_kick(self) -> Any:
        """The error's velocity at time 0, as a multiple of the gradient there."""
        return 0.0

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
    """An optimizer whose step on a quadratic mode is a linear recurrence."""

    step_size: eqx.AbstractVar[float | Float[Array, ""]]

    @abc.abstractmethod
    def recurrence(self, eigenvalue: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
        """Coefficients c of step `k` on a mode: `x[k+1] = c[0] x[k] + c[1] x[k-1] + ...`."""

    def response(self, eigenvalue, step):
        """The recurrence, run from `x[0] = x[-1] = ... = 1`."""
        return self._run(eigenvalue, step, 1.0, 0.0)

    def approach(self, eigenvalue: Any, step: Any) -> Any:
        """`1 - response`, with all its digits where a mode has hardly moved."""
        # The coefficients of a recurrence add up to 1 - eigenvalue * step_size.
        return self._run(eigenvalue, step, 0.0, float(self.step_size))

    def _run(self, eigenvalue, step, start, pull):
        """From `x[0] = x[-1] = ... = start`, with `pull * eigenvalue` added in every step."""
        eigenvalue, step = np.asarray(eigenvalue, float), np.asarray(step)
        if np.any(step < 0):
            raise ValueError("step: must not be negative.")
        try:
            np.broadcast_shapes(eigenvalue.shape, step.shape)
        except ValueError:
            raise ValueError(
                f"eigenvalue, step: shapes {eigenvalue.shape} and {step.shape} do not broadcast."
            ) from None
        wanted, which = np.unique(step, return_inverse=True)
        kept = np.full((wanted.size, *eigenvalue.shape), start)
        place = {int(k): i for i, k in enumerate(wanted)}
        # Eigenvalues are not broadcast against steps: the recurrence runs once for each.
        recurrence = self.recurrence
        last = [np.full(eigenvalue.shape, start)] * len(recurrence(eigenvalue, 0))
        with np.errstate(over="ignore", invalid="ignore"):
            for k in range(int(step.max(initial=0))):
                terms = zip(recurrence(eigenvalue, k), last, strict=True)
                new = sum((c * x for c, x in terms), pull * eigenvalue)
                last = [new, *last[:-1]]
                if k + 1 in place:
                    kept[place[k + 1]] = new
        rank = max(eigenvalue.ndim, step.ndim)
        kept = kept.reshape(wanted.size, *[1] * (rank - eigenvalue.ndim), *eigenvalue.shape)
        others = np.ogrid[tuple(slice(n) for n in kept.shape[1:])] if rank else ()
        return kept[(which.reshape(step.shape), *others)]

    def multiplier(self, eigenvalue: Any, k: int) -> np.ndarray:
        """By how much a mode grows or shrinks per step, were step `k` repeated without end.

        The largest root of the recurrence's characteristic polynomial. On which side of 1 it lies,
        `stability_margin` knows better.
        """
        eigenvalue = np.asarray(eigenvalue, float)
        coefficients = np.stack(np.broadcast_arrays(*self.recurrence(eigenvalue, k)), axis=-1)
        order = coefficients.shape[-1]
        if order == 2:
            return _larger_root(coefficients, float(self.step_size) * eigenvalue)
        companion = np.zeros((*eigenvalue.shape, order, order))
        companion[..., 0, :] = coefficients
        companion[..., 1:, :-1] += np.eye(order - 1)
        return np.max(np.abs(np.linalg.eigvals(companion)), axis=-1)

    @abc.abstractmethod
    def stability_limit(self, k: int) -> float:
        """Largest `eigenvalue * step_size` at which step `k`'s recurrence, repeated, is stable."""

    def stability_margin(self, eigenvalue: float, k: int) -> float:
        """How far below the limit of stability a mode is, as a share of the limit.

        Negative above it, and zero where rounding does not tell.
        """
        margin = 1 - float(eigenvalue) * float(self.step_size) / self.stability_limit(k)
        return margin if abs(margin) > _AT_THE_LIMIT else 0.0


def _larger_root(coefficients: np.ndarray, at_one: np.ndarray) -> np.ndarray:
    """The modulus of the larger root of `z^2 - a z - b`, with all digits of its distance to 1.

    Where the roots nearly agree, near 1, what is under the square root has no digits but in terms
    of `w = 1 - z`: `w^2 - (2 - a) w + (1 - a - b) = 0`, whose last coefficient is `at_one`.
    """
    a, b = coefficients[..., 0], coefficients[..., 1]
    # Near -1, with the signs of both roots turned.
    constant = np.where(a < 0, 1 + a - b, at_one)
    half = (2 - np.abs(a)) / 2
    discriminant = half**2 - constant
    split = np.sqrt(np.maximum(discriminant, 0))
    far = half + np.where(half < 0, -split, split)
    near = np.divide(constant, far, out=np.zeros_like(far), where=far != 0)
    real = np.maximum(np.abs(1 - near), np.abs(1 - far))
    return np.where(discriminant < 0, np.sqrt(np.maximum(-b, 0)), real)


def root(step_size: Any) -> float:
    """The time that one step of a method with momentum takes: the root of its step size."""
    return math.sqrt(float(step_size))
