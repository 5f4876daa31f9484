"""What a frozen tangent kernel says a run will do."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int, PyTree

from .._numbers import significant
from ..flows import Flow
from ..optimizers import (
    ClassicalOptimizer,
    Coordinatewise,
    NotCallableError,
    NotLinearError,
    Optimizer,
    Responses,
    coordinatewise,
)
from ..results import AbstractResult, Status, axes_of, citations, draw_line, labelled
from ._modes import Modes

# An amplitude above this is one that grows, not one that overshoots.
_GROWN = 1e3
# A smaller growth per step counts as none, since roots that nearly agree are inexact.
_RESOLVED = 1e-7
# By then momentum that changes has become what it tends to.
IN_THE_LONG_RUN = 10**15


class Prediction(AbstractResult):
    """Predictions of a network on its training data, at saved times of a run not yet made.

    - `times`, `steps`: shape `(saves,)`, as in a `Trajectory`; `steps` is None for a flow.
    - `outputs`: shape `(saves, samples, *outputs)`; for an ensemble, its mean.
    - `loss`: shape `(saves,)`, the objective's; for an ensemble, its mean.
    - `others`: as `outputs`, for the samples that were asked for beside the training data.
    - `variance`, `others_variance`: over initialisations, for an ensemble; None for one network.
    - `error`: shape `(saves,)`, how far `outputs` are from the exact solution, as a Euclidean
        distance: what integration and, for an ensemble, random draws and a kernel that is known
        from a series only leave open. None where they are exact up to rounding. How far a network
        is from its kernel is another question, which a run answers.
    - `modes`: the kernel's. With the squared error a mode's motion is that of
        `1/2 eigenvalue / samples x^2`, and `modal` is true.
    - `status`: "diverged", with the eigenvalue that is at fault, where a mode grows; its message
        says so, too, where one is at the limit of stability.
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
        """The modes' curvatures: eigenvalues over samples, zero for those below rounding."""
        return self.modes.curvatures

    def lines(self) -> list[str]:
        """What is predicted, the losses, and how far predictions are from the exact solution."""
        name = getattr(self.dynamics, "name", "a run")
        status = self.status.message or self.status.kind
        end = significant(float(self.times[-1]))
        start, last = (significant(float(self.loss[i])) for i in (0, -1))
        exact = "exact for this kernel, up to rounding"
        known = exact if self.error is None else f"error {significant(float(self.error[-1]))}"
        told = [
            f"prediction of {name} by a kernel that stays, to t = {end}: {status}",
            f"loss: {start} at first, {last} at last",
            f"outputs at the end: {known}",
        ]
        if self.variance is not None:
            spread = float(jnp.sqrt(jnp.mean(self.variance[-1])))
            told.append(f"standard deviation over initialisations: {significant(spread)}")
        return told

    def to_xarray(self) -> xr.Dataset:
        """Losses and predictions, with their variances and errors where there are any."""
        names = ("loss", "outputs", "others", "variance", "others_variance", "error")
        variables = {}
        for name in names:
            if (value := getattr(self, name)) is not None:
                variables |= labelled(name, value, ["time"])
        coordinates: dict[str, Any] = {
            "time": (["time"], np.asarray(self.times), {"units": "flow time"})
        }
        if self.steps is not None:
            coordinates["step"] = (["time"], np.asarray(self.steps))
        attributes = {
            "result": "prediction",
            "dynamics": repr(self.dynamics),
            "status": self.status.kind,
            "message": self.status.message,
            "references": citations(self.dynamics),
        }
        return xr.Dataset(variables, coordinates, attributes)

    def plot(self, ax: Any = None) -> Any:
        """The predicted loss. Its error is known in predictions, not in the loss."""
        ax = axes_of(ax, "time", "loss")
        draw_line(ax, self.times, self.loss, label=f"predicted, {self.dynamics.name}")
        return ax


class Clock(eqx.Module):
    """Where a dynamics is looked at: steps of an optimizer, times of a flow.

    `rule`: what it does to one mode, or to any array: the dynamics itself, if it is a flow or has a
    recurrence, else what was read off the optimizer's update.
    """

    dynamics: Any
    at: np.ndarray
    rule: Flow | ClassicalOptimizer | Coordinatewise

    @staticmethod
    def of(dynamics: Any, at: Any, params: PyTree[Array] | None = None) -> "Clock":
        """Check what was asked for.

        `params`: what the dynamics will move. Without them, a matrix and a vector stand for the
        parameters of infinitely wide layers.

        **Raises:** TypeError for something that is no dynamics; ValueError for times that are not
        increasing or negative, or steps that are not whole, and for an optimizer whose steps are
        not linear, or depend on the coordinates.
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
        return Clock(dynamics, given, _rule(dynamics, int(given[-1]), params))

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

    @property
    def may_decay(self) -> bool:
        """Whether parameters may be pulled towards zero, beside what the gradient does to them."""
        return isinstance(self.rule, Coordinatewise)

    def responses(self, curvatures: Float[np.ndarray, "modes"]) -> Responses:
        """What becomes of modes: shapes `(saves, modes)`."""
        if isinstance(self.rule, Coordinatewise):
            return self.rule.responses(curvatures, self.at)
        faded = np.asarray(self.rule.response(curvatures[None], self.at[:, None]))
        if isinstance(self.rule, ClassicalOptimizer):
            learned = np.asarray(self.rule.approach(curvatures[None], self.at[:, None]))
        else:
            learned = 1 - faded
        return Responses(faded, np.zeros_like(faded), learned, np.zeros_like(faded), None)

    def status(self, curvatures: Float[np.ndarray, "modes"], responses: Responses) -> Status:
        """Whether a mode grows instead of fading: while steps are made, if they change.

        The verdict of `predicted_rate`, where that has one.
        """
        reached = np.max(np.abs(responses.faded), axis=0)
        if isinstance(self.rule, ClassicalOptimizer):
            return self._by_recurrence(self.rule, curvatures, reached)
        if isinstance(self.rule, Coordinatewise):
            return _by_growth(curvatures, responses, reached)
        return Status()

    def _by_recurrence(self, rule, curvatures, reached) -> Status:
        worst = int(np.argmax(curvatures))
        curvature = float(curvatures[worst])
        # The last step that is made. Momentum that rises makes steps too long that were not so at
        # first.
        last = max(int(self.at[-1]) - 1, 0)
        margin = rule.stability_margin(curvature, last)
        if margin < 0:
            growth = float(rule.multiplier(curvature, last))
            limit = min(rule.stability_limit(k) for k in (last, IN_THE_LONG_RUN))
            return _diverged(
                curvature,
                f"grows by {growth:.10g} per step; the step size must stay below"
                f" {limit / curvature:.6g}.",
            )
        if margin == 0:
            return Status(
                message=f"the {_mode(curvature)} is at the limit of stability: it goes on for ever,"
                f" up to {reached[worst]:.3g} times its start at the saved steps."
            )
        return Status()


def _by_growth(curvatures, responses: Responses, reached) -> Status:
    """From the last step, or, where steps change, from what modes came to."""
    largest = int(np.argmax(np.where(np.isnan(reached), np.inf, reached)))
    if responses.growth is None:
        if not reached[largest] < _GROWN:
            return _diverged(curvatures[largest], f"has grown {reached[largest]:.3g} times.")
        return Status()
    worst = int(np.argmax(responses.growth))
    if responses.growth[worst] > 1 + _RESOLVED:
        growth = responses.growth[worst]
        return _diverged(curvatures[worst], f"grows by {growth:.10g} per step.")
    if not reached[largest] < _GROWN:
        return Status(
            message=f"the {_mode(curvatures[largest])} has grown {reached[largest]:.3g} times, but"
            " the last step, were it repeated, would not make it grow further."
        )
    return Status()


def _diverged(curvature, what: str) -> Status:
    return Status("diverged", f"the {_mode(curvature)} {what}", time=0.0, step=0)


def _mode(curvature) -> str:
    return f"mode of curvature {float(curvature):.6g} (eigenvalue over samples)"


def _rule(dynamics, last: int, params: PyTree[Array] | None):
    """What a dynamics does to a single mode."""
    if isinstance(dynamics, Flow | ClassicalOptimizer):
        return dynamics
    try:
        if params is not None:
            return coordinatewise(dynamics, params, last)
        return _read_without_params(dynamics, last)
    except NotLinearError as error:
        raise ValueError(
            f"dynamics: a tangent kernel alone does not say what {dynamics.name} will do; {error}"
        ) from None


def _read_without_params(dynamics, last: int) -> Coordinatewise:
    layer = {"weight": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}
    try:
        return coordinatewise(dynamics, layer, last)
    except NotCallableError as error:
        raise NotLinearError(
            f"{error} Masks and labels need the names of parameters, and those of an infinitely"
            " wide network have no names."
        ) from error
