"""What a frozen tangent kernel says a run will do."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..flows import Flow
from ..optimizers import ClassicalOptimizer, Optimizer
from ..trajectory import Status
from ._modes import Modes

# An amplitude above this is one that grows, not one that overshoots.
_GROWN = 1e3
# By then momentum that changes has become what it tends to.
IN_THE_LONG_RUN = 10**15


class Prediction(eqx.Module):
    """Predictions of a network on its training data, at saved times of a run not yet made.

    - `times`, `steps`: shape `(saves,)`, as in a `Trajectory`; `steps` is None for a flow.
    - `outputs`: shape `(saves, samples, *outputs)`; for an ensemble, its mean.
    - `loss`: shape `(saves,)`, the objective's; for an ensemble, its mean.
    - `others`: as `outputs`, for the samples that were asked for beside the training data.
    - `variance`, `others_variance`: over initialisations, for an ensemble; None for one network.
    - `error`: shape `(saves,)`, how far `outputs` are from the exact solution for this kernel, as a
        Euclidean distance; None where they are exact up to rounding. How far a network is from its
        kernel is another question, which a run answers.
    - `modes`: the kernel's. With the squared error a mode's motion is that of
        `1/2 eigenvalue / samples x^2`, and `modal` is true.
    - `status`: "diverged", with the eigenvalue that is at fault, where a mode grows.
    """

    times: Float[Array, "saves"]
    steps: Int[Array, "saves"] | None
    outputs: Float[Array, "saves samples ..."]
    loss: Float[Array, "saves"]
    others: Float[Array, "saves others ..."] | None
    modes: Modes
    status: Status = eqx.field(static=True)
    dynamics: Any
    variance: Float[Array, "saves samples ..."] | None = None
    others_variance: Float[Array, "saves others ..."] | None = None
    error: Float[Array, "saves"] | None = None
    modal: bool = eqx.field(static=True, default=True)

    @property
    def curvatures(self) -> Float[Array, "*kernels modes"]:
        """Of the modes: eigenvalues over the number of samples, those below rounding zero."""
        return self.modes.curvatures


class Clock(eqx.Module):
    """Where a dynamics is looked at: steps of an optimizer, times of a flow."""

    dynamics: Any
    at: np.ndarray

    @staticmethod
    def of(dynamics: Any, at: Any) -> "Clock":
        """Check what was asked for.

        **Raises:** TypeError for something that is no dynamics; ValueError for times that are not
        increasing or negative, or steps that are not whole.
        """
        if not isinstance(dynamics, Flow | Optimizer):
            raise TypeError(
                f"dynamics: expected a flow or an optimizer, got {type(dynamics).__name__}."
            )
        given = np.atleast_1d(np.asarray(at, float))
        fine = given.ndim == 1 and given.size > 0 and np.isfinite(given).all() and given[0] >= 0
        if not fine or np.any(np.diff(given) <= 0):
            raise ValueError(f"at: expected increasing times or steps from 0 on, got {at!r}.")
        if isinstance(dynamics, Optimizer):
            if np.any(given != np.round(given)):
                raise ValueError(f"at: steps of an optimizer must be whole, got {at!r}.")
            given = given.astype(int)
        return Clock(dynamics, given)

    @property
    def steps(self) -> Array | None:
        """Steps of an optimizer; None for a flow."""
        return jnp.asarray(self.at) if isinstance(self.dynamics, Optimizer) else None

    @property
    def times(self) -> Array:
        """Flow times."""
        if isinstance(self.dynamics, Optimizer):
            return jnp.asarray(self.at * self.dynamics.time_per_step)
        return jnp.asarray(self.at)

    def response(self, eigenvalues: Float[np.ndarray, "kernels modes"]) -> np.ndarray:
        """Amplitudes of modes of this curvature: `(saves, kernels, modes)`."""
        flat = np.ravel(eigenvalues)
        found = np.asarray(self.dynamics.response(flat[:, None], self.at[None, :]))
        return found.T.reshape(len(self.at), *np.shape(eigenvalues))

    def status(self, curvatures: np.ndarray) -> Status:
        """Whether a mode grows instead of fading."""
        worst = float(np.max(curvatures, initial=0.0))
        if isinstance(self.dynamics, ClassicalOptimizer):
            last = int(self.at[-1])
            growth = float(self.dynamics.multiplier(worst, last))
            reached = float(np.max(np.abs(self.dynamics.response(np.asarray(worst), self.at))))
            # Momentum that rises makes a step too long which was not so from the start.
            if growth > 1 + 1e-9 and not reached <= 1:
                steps = last, IN_THE_LONG_RUN
                limit = min(self.dynamics.stability_limit(k) for k in steps)
                return Status(
                    "diverged",
                    f"the mode of curvature {worst:.6g} (eigenvalue over samples) grows by"
                    f" {growth:.4g} per step; the step size must stay below {limit / worst:.6g}.",
                    time=0.0,
                    step=0,
                )
        elif isinstance(self.dynamics, Optimizer):
            reached = np.abs(self.dynamics.response(np.asarray(worst), self.at[-1:]))
            if not np.all(reached < _GROWN):
                return Status(
                    "diverged",
                    f"the mode of curvature {worst:.6g} (eigenvalue over samples) has grown"
                    f" {float(reached[0]):.3g} times.",
                    time=0.0,
                    step=0,
                )
        return Status()


def check_linear(dynamics: Any) -> None:
    """Refuse an optimizer whose steps are not linear in the gradient.

    Only then does it move the modes of a kernel one by one.

    **Raises:** ValueError, naming the optimizer.
    """
    if isinstance(dynamics, ClassicalOptimizer) or not isinstance(dynamics, Optimizer):
        return
    hessian = jnp.asarray([[1.0, 0.3], [0.3, 0.2]])

    def end(hessian, x):
        def body(k, carry):
            x, state = carry
            return dynamics.update(k, x, state, lambda p: hessian @ p)

        return jax.lax.fori_loop(0, 5, body, (x, dynamics.init(x)))[0]

    first, second = jnp.asarray([1.0, 0.0]), jnp.asarray([0.0, 1.0])
    summed = 2 * end(hessian, first) - 3 * end(hessian, second)
    turn = jnp.asarray([[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]])
    turned = end(turn @ hessian @ turn.T, turn @ first)
    apart = jnp.maximum(
        jnp.max(jnp.abs(end(hessian, 2 * first - 3 * second) - summed)),
        jnp.max(jnp.abs(turn @ end(hessian, first) - turned)),
    )
    if not float(apart) < 1e-3:
        raise ValueError(
            f"dynamics: the steps of {dynamics.name} are not linear in the gradient, or depend on"
            " the coordinates; a tangent kernel alone does not say what it will do."
        )
