"""How fast the loss falls in the long run: what theory says, from the spectrum of the kernel."""

import math
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from ..flows import Decay, Flow
from ..optimizers import ClassicalOptimizer
from ..results import AbstractResult, axes_of, citations, draw_line
from ._infinite_network import Kernels
from ._modes import Modes
from ._prediction import IN_THE_LONG_RUN, Prediction

# Below this share of the largest, an eigenvalue is nothing but rounding.
_ROUNDING = 1e-13
# Further below zero than this share of the largest, it is not even that.
_NEGATIVE = 1e-6


class PredictedRate(AbstractResult):
    """The law of the loss `1/2 sum x_i^2` of quadratic modes, as time goes on.

    - `kind`: "linear" for `exp(-exponent t)`, "sublinear" for `t^-power`, "none" where a mode goes
        on for ever, "diverges" where one grows.
    - `exponent`, `power`: of that law, `exp(-exponent t) t^-power`, t the flow time; an optimizer's
        step takes `time_per_step` of it.
    - `factor`: what one step of an optimizer multiplies the loss by in the long run; None for a
        flow.
    - `crossover`: the time up to which the power is what is seen, and from which the exponential
        is; 0 where there is no power, infinity where there is no exponential.
    - `eigenvalue`: the mode that is slowest, or that grows.
    - `still`: how many modes do not move at all, their eigenvalues being zero up to rounding.
    """

    kind: Literal["linear", "sublinear", "none", "diverges"] = eqx.field(static=True)
    exponent: float
    power: float
    factor: float | None
    crossover: float
    eigenvalue: float
    still: int

    def lines(self) -> list[str]:
        """The law, in one line."""
        return [self._law()]

    def to_xarray(self) -> xr.Dataset:
        """The numbers of the law."""
        names = ("exponent", "power", "factor", "crossover", "eigenvalue", "still")
        known = {name: getattr(self, name) for name in names}
        numbers = {name: value for name, value in known.items() if value is not None}
        attributes = {
            "result": "predicted rate",
            "kind": self.kind,
            "references": citations(predicted_rate),
        }
        return xr.Dataset(numbers, attrs=attributes)

    def plot(self, ax: Any = None) -> Any:
        """The law over the times in which it falls by a factor of a million, at most."""
        ax = axes_of(ax, "time", "loss over the loss at time 1")
        if self.kind in ("none", "diverges"):
            ax.text(0.5, 0.5, str(self), ha="center", transform=ax.transAxes, wrap=True)
            return ax
        speed = self.exponent + self.power
        times = np.geomspace(1, 1 + 14 / speed if speed > 0 else 10, 200)
        logarithm = -self.exponent * (times - 1) - self.power * np.log(times)
        draw_line(ax, times, np.exp(logarithm), label=str(self))
        return ax

    def _law(self) -> str:
        which = "1 mode does" if self.still == 1 else f"{self.still} modes do"
        still = f"; {which} not move" if self.still else ""
        if self.kind == "diverges":
            assert self.factor is not None
            return (
                f"diverges: the mode of curvature {self.eigenvalue:.4g} makes the loss"
                f" {self.factor:.10g} times larger per step"
            )
        if self.kind == "none":
            return f"none: the mode of curvature {self.eigenvalue:.4g} goes on for ever"
        if self.kind == "sublinear":
            return f"sublinear: loss ~ t^-{self.power:.3g}{still}"
        before = (
            f", after loss ~ t^-{self.power:.3g} until t = {self.crossover:.3g}"
            if self.power > 0
            else ""
        )
        return f"linear: loss ~ exp(-{self.exponent:.4g} t){before}{still}"


def predicted_rate(dynamics: Any, spectrum: Any) -> PredictedRate:
    """How the squared error falls in the long run, if the tangent kernel stays what it is.

        tw.predicted_rate(tw.NesterovFlow(3.0), spectrum)  # sublinear: loss ~ t^-3
        tw.predicted_rate(tw.Nesterov(0.1), spectrum)      # linear, after loss ~ t^-3 until ...

    In the limit of short steps Nesterov's method is sublinear, with its damping for the power. With
    real steps it is linear in the end: mode by mode the roots of its recurrence have the product
    `1 - step_size * eigenvalue`, so that the loss goes like `(1 - step_size * eigenvalue)^k k^-d`.

    **Arguments:**

    - `dynamics`: a flow, or one of the classical optimizers.
    - `spectrum`: a `Prediction` or a kernel's `Modes`; or a row of curvatures, that is eigenvalues
        of the tangent kernel divided by the number of samples.

    **Raises:** TypeError for another dynamics; ValueError for a spectrum that is empty, not finite,
    or nowhere positive, and for a prediction with another loss, whose modes drive each other.

    ??? cite "References"

        Bu, Xu and Chen, "A dynamical view on optimization algorithms of overparameterized neural
        networks", International Conference on Artificial Intelligence and Statistics, 2021; Su,
        Boyd and Candès, Journal of Machine Learning Research 17 (2016) 1-43.
    """
    if not isinstance(dynamics, Flow | ClassicalOptimizer):
        raise TypeError(
            "dynamics: expected a flow or a classical optimizer, got"
            f" {type(dynamics).__name__}; of others no recurrence is known. For plain SGD with or"
            " without momentum, use tw.GradientDescent, tw.HeavyBall or tw.NesterovConstant."
        )
    curvatures, still = curvatures_of(spectrum)
    if isinstance(dynamics, Flow):
        decays = [dynamics.decay(float(c)) for c in curvatures]
        exponent, power, slowest = min(
            (d.exponent, d.power, float(c)) for d, c in zip(decays, curvatures, strict=True)
        )
        return _made(Decay(exponent, power), None, slowest, still)
    steepest = float(curvatures[-1])
    margin = dynamics.stability_margin(steepest, IN_THE_LONG_RUN)
    if margin <= 0:
        factor = float(dynamics.multiplier(steepest, IN_THE_LONG_RUN)) ** 2
        if margin < 0:
            return PredictedRate("diverges", math.nan, math.nan, factor, math.nan, steepest, still)
        return _made(Decay(0.0, 0.0), 1.0, steepest, still)
    multipliers = dynamics.multiplier(curvatures, IN_THE_LONG_RUN)
    worst = int(np.argmax(multipliers))
    factor, slowest = min(float(multipliers[worst]) ** 2, 1.0), float(curvatures[worst])
    exponent = -math.log(factor) / dynamics.time_per_step if factor > 0 else math.inf
    # A power belongs to friction that fades, which the flow knows of.
    limit = dynamics.limit().decay(slowest)
    power = limit.power if limit.exponent == 0 else 0.0
    return _made(Decay(exponent, power), factor, slowest, still)


def _made(decay, factor, slowest, still):
    linear = decay.exponent > 0
    power = max(decay.power, 0.0)
    return PredictedRate(
        kind="linear" if linear else "sublinear" if power > 0 else "none",
        exponent=decay.exponent,
        power=power,
        factor=factor,
        crossover=power / decay.exponent if linear else math.inf,
        eigenvalue=slowest,
        still=still,
    )


def curvatures_of(spectrum: Any) -> tuple[Float[np.ndarray, "modes"], int]:
    """Positive curvatures in rising order, and how many are zero up to rounding.

    **Raises:** TypeError for what is no spectrum; ValueError for one that is empty, not finite,
    nowhere positive, somewhere negative by more than rounding, or not a row of numbers.
    """
    if isinstance(spectrum, Prediction) and not spectrum.modal:
        raise ValueError(
            "spectrum: a prediction whose loss is not the squared error; modes drive each other,"
            " and no law is known. `tw.rate` says how the loss falls."
        )
    if isinstance(spectrum, Prediction | Modes):
        spectrum = np.ravel(np.asarray(spectrum.curvatures))
    if isinstance(spectrum, eqx.Module | Kernels):
        raise TypeError(
            "spectrum: expected a Prediction, Modes or a row of curvatures, got"
            f" {type(spectrum).__name__}."
        )
    values = np.sort(np.atleast_1d(np.asarray(spectrum, float)))
    if values.ndim > 1:
        raise ValueError(
            f"spectrum: expected a row of curvatures, got shape {values.shape}; for a kernel's"
            " matrix, pass `tw.kernels.modes(matrix)`."
        )
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("spectrum: expected finite eigenvalues, and at least one.")
    if values[-1] <= 0:
        raise ValueError(f"spectrum: has no positive eigenvalue; the largest is {values[-1]:.3g}.")
    if values[0] < -_NEGATIVE * values[-1]:
        raise ValueError(
            f"spectrum: has the eigenvalue {values[0]:.3g}, below zero against the largest,"
            f" {values[-1]:.3g}; its mode would grow."
        )
    moving = values[values > _ROUNDING * values[-1]]
    return moving, len(values) - len(moving)


def heavy_ball_energy(
    friction: float,
    curvatures: Float[Array, "modes"],
    position: Float[Array, "... modes"],
    velocity: Float[Array, "... modes"],
) -> Float[Array, "..."]:
    """The Lyapunov function of heavy-ball flow on quadratic modes, which falls at the exact rate.

    With b the friction and L the smallest curvature, up to critical damping (`b <= 2 sqrt(L)`)

    `V = 1/2 sum_i (c_i - b^2/4) x_i^2 + 1/2 sum_i (v_i + b/2 x_i)^2`,  `V' = -b V`,

    and beyond it, with `a = (b - sqrt(b^2 - 4 L)) / 2`,

    `V = 1/2 sum_i (c_i - L) x_i^2 + 1/2 sum_i (v_i + a x_i)^2`,  `V' <= -2 a V`.

    **Arguments:**

    - `curvatures`: of the modes, positive.
    - `position`, `velocity`: amplitudes of the modes of the prediction error, and their derivatives
        by time.

    **Raises:** ValueError for curvatures that are not positive.
    """
    least = float(np.min(np.asarray(curvatures)))
    if not least > 0:
        raise ValueError(f"curvatures: must be positive, got {least:.3g}.")
    if friction <= 2 * math.sqrt(least):
        shift, rate = friction**2 / 4, friction / 2
    else:
        # (b - sqrt(b^2 - 4 L)) / 2, without cancellation.
        shift, rate = least, 2 * least / (friction + math.sqrt(friction**2 - 4 * least))
    potential = jnp.sum((curvatures - shift) * position**2, axis=-1)
    return (potential + jnp.sum((velocity + rate * position) ** 2, axis=-1)) / 2
