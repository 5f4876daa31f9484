"""How fast a loss fell: a verdict from data, with its uncertainty."""

import math
from typing import Any, Literal

import equinox as eqx
import numpy as np
import xarray as xr

from .._checks import check_instance, check_number
from ..results import AbstractResult, Trajectory, axes_of, draw_line
from ._prediction import Prediction

Kind = Literal["linear", "sublinear", "neither"]

# Blocks of the window, each of which is left out once to see how much it matters.
_BLOCKS = 8
# A law holds if what is left of log(loss) is below this share of what it fell by ...
_MISFIT = 0.03
# ... and leaves less than this share of what the other law does.
_BETTER = 0.5
# The loss must fall by this factor at least before anything can be said.
_FALLEN = math.log(2.0)
_FEWEST = 16
# From so many crests on they have a slope of their own.
_FEW_CRESTS = 3


class Rate(AbstractResult):
    """The law that a loss followed over the later part of a run.

    - `kind`: "linear" for `exp(-exponent t)`, "sublinear" for `t^-exponent`, "neither" where
        neither law fits, or the run is too short to tell.
    - `exponent`, `uncertainty`: of that law, and how well it is known; NaN for "neither".
    - `misfit`: for both laws, the root mean square of what they leave of log(loss), over what it
        fell by.
    - `window`: the times from which and up to which.
    - `message`: why, in a sentence.
    """

    kind: Kind = eqx.field(static=True)
    exponent: float
    uncertainty: float
    misfit: dict[str, float]
    window: tuple[float, float]
    message: str = eqx.field(static=True)

    @property
    def judged(self) -> bool:
        """Whether data decided: False for "neither" where both laws, or too few times, remain."""
        return self.kind != "neither" or min(self.misfit.values(), default=0.0) > _MISFIT

    def lines(self) -> list[str]:
        """The verdict with its uncertainty, in one line."""
        return [self._verdict()]

    def _verdict(self) -> str:
        law = {"linear": "exp(-{} t)", "sublinear": "t^-{}"}
        if self.kind == "neither":
            verdict = "neither linear nor sublinear" if self.judged else "could not be judged"
            return f"{verdict}: {self.message}"
        number = f"({self.exponent:.4g} ± {self.uncertainty:.2g})"
        return f"{self.kind}: loss ~ {law[self.kind].format(number)}"

    def to_xarray(self) -> xr.Dataset:
        """The exponent and its uncertainty, the window, and what both laws leave."""
        numbers = {
            "exponent": self.exponent,
            "uncertainty": self.uncertainty,
            "from": self.window[0],
            "to": self.window[1],
            **{f"misfit_{law}": misfit for law, misfit in self.misfit.items()},
        }
        attributes = {"result": "rate", "kind": self.kind, "message": self.message}
        return xr.Dataset(numbers, attrs=attributes)

    def plot(self, ax: Any = None) -> Any:
        """The law over the window, 1 at its beginning, with the band of its uncertainty."""
        ax = axes_of(ax, "time", "loss over the loss at the beginning of the window")
        start, end = self.window
        if self.kind == "neither" or not end > start:
            ax.text(0.5, 0.5, str(self), ha="center", transform=ax.transAxes, wrap=True)
            return ax
        times = np.linspace(start, end, 100)
        elapsed = times - start if self.kind == "linear" else np.log(times / max(start, times[1]))
        exponents = self.exponent + self.uncertainty * np.array([-1, 0, 1])
        laws = np.exp(-np.outer(exponents, elapsed))
        draw_line(ax, times, laws[1], np.abs(laws[0] - laws[2]) / 2, label=str(self))
        return ax


def rate(
    trajectory: Trajectory | Prediction, *, floor: float = 0.0, start: float | None = None
) -> Rate:
    """Whether a loss fell linearly, sublinearly, or neither, from data alone.

    Losses are those of full batches, without noise. Oscillations are bridged: of each time, the
    largest loss from then on counts. Both laws are
    fitted to the logarithm of that over the window, by least squares; the one that leaves less, if
    it leaves little, is the verdict. The uncertainty is that of a jackknife over blocks of the
    window, which makes no assumption about how errors of neighbouring times depend on each other,
    or how far the exponent is from that at either end of the window by the parabola that fits
    best, or from that of the crests alone, if that is more: exponents drift where ever slower modes
    take over. Where one goes after the window is not known from the window.

    **Arguments:**

    - `trajectory`: of a flow or an optimizer; or a `Prediction` of one.
    - `floor`: what the loss falls towards, if not zero.
    - `start`: where the window begins; a quarter of the last time by default.

    **Raises:** TypeError for something that is not a trajectory; ValueError for a floor or start
    that is no number.
    """
    check_instance(trajectory, Trajectory | Prediction, "trajectory", "a Trajectory")
    check_number(floor, "floor")
    if start is not None:
        check_number(start, "start")
    found = rate_of(np.asarray(trajectory.times), np.asarray(trajectory.loss), floor, start)
    if found.kind == "neither" and trajectory.status.kind == "diverged":
        why = f"{found.message}. The run diverged: {trajectory.status.message.rstrip('.')}"
        return _neither(found.misfit, found.window, why)
    return found


def rate_of(times: np.ndarray, loss: np.ndarray, floor: float, start: float | None) -> Rate:
    """The same from the losses alone."""
    times, excess = np.asarray(times, float), np.asarray(loss, float) - floor
    begin = float(times[-1]) / 4 if start is None else float(start)
    resolution = np.finfo(loss.dtype).eps
    # Below, differences from the floor are rounding, which adds up over a run.
    finite = np.isfinite(excess)
    first = abs(float(excess[finite][0])) if finite.any() else 0.0
    least = 1e4 * resolution * (abs(floor) + resolution * first)
    envelope = np.maximum.accumulate(np.where(finite, excess, -np.inf)[::-1])[::-1]
    inside = (times >= max(begin, 0.0)) & (times > 0)
    kept = inside & finite & (envelope > least)
    t, y = times[kept], np.log(envelope[kept])
    end = _end_of_envelope(t, excess[kept], envelope[kept])
    t, y = t[:end], y[:end]
    crests = _crests(excess[kept][:end], envelope[kept][:end])
    window = (float(t[0]), float(t[-1])) if t.size else (begin, float(times[-1]))
    if t.size < _FEWEST:
        unused = {
            "before the window": np.sum(~inside),
            "where the loss is not finite": np.sum(inside & ~finite),
            "where the loss is the floor, up to rounding": np.sum(inside & finite & ~kept),
            "after the last crest of an oscillation": np.sum(kept) - end,
        }
        parts = ", ".join(f"{count} {where}" for where, count in unused.items() if count)
        why = f" ({parts} cannot)" if parts else ""
        usable = f"only {t.size} of {len(times)} saved times can be used{why}"
        message = f"too few saved times: {usable}; it takes {_FEWEST}"
        return _neither({}, window, message)
    fallen = float(y[0] - y[-1])
    if not fallen > _FALLEN:
        return _neither(
            {}, window, f"the loss fell by a factor of {math.exp(fallen):.3g} over the window only"
        )
    fits: dict[Kind, tuple[float, float, float]] = {
        "linear": _fit(t, y, fallen, crests),
        "sublinear": _fit(np.log(t), y, fallen, crests),
    }
    misfit = {name: fit[2] for name, fit in fits.items()}
    kind: Kind = "linear" if misfit["linear"] <= misfit["sublinear"] else "sublinear"
    other = "sublinear" if kind == "linear" else "linear"
    if misfit[kind] > _MISFIT:
        return _neither(
            misfit,
            window,
            f"the better of the two laws, {kind}, leaves {misfit[kind]:.1%} of what log(loss) fell"
            " by",
        )
    if misfit[kind] > _BETTER * misfit[other]:
        return _neither(
            misfit,
            window,
            f"both laws fit about as well ({misfit[kind]:.1%} and {misfit[other]:.1%} are left); a"
            " longer run would tell",
        )
    slope, deviation, _ = fits[kind]
    message = f"leaves {misfit[kind]:.1%} of what log(loss) fell by, the other {misfit[other]:.1%}"
    return Rate(kind, -slope, deviation, misfit, window, message)


def _neither(misfit, window, message):
    return Rate("neither", math.nan, math.nan, misfit, window, message)


def _end_of_envelope(t, values, envelope):
    """How many points an envelope has that lie as high as they should.

    Where losses oscillate, the last crest has no later one above the trough that follows it. A
    stretch without crests that is longer than any between them is no trough.
    """
    crests = _crests(values, envelope)
    if crests.size < 2 or t[-1] - t[crests[-1]] > 2 * np.max(np.diff(t[crests])):
        return len(t)
    return int(crests[-1]) + 1


def _crests(values, envelope):
    """Where values rise to their envelope."""
    return np.flatnonzero((values[1:] >= envelope[1:]) & (values[1:] > values[:-1])) + 1


def _fit(x, y, fallen, crests) -> tuple[float, float, float]:
    """Slope, its uncertainty, and the misfit."""
    # Times far from zero leave a parabola no digits.
    x = x - x.mean()
    slope, offset = np.polyfit(x, y, 1)
    left = float(np.sqrt(np.mean((y - slope * x - offset) ** 2))) / fallen
    slopes = []
    for block in np.array_split(np.arange(len(x)), _BLOCKS):
        rest = np.delete(np.arange(len(x)), block)
        slopes.append(np.polyfit(x[rest], y[rest], 1)[0])
    spread = np.asarray(slopes)
    variance = (_BLOCKS - 1) / _BLOCKS * np.sum((spread - spread.mean()) ** 2)
    bend, tilt, _ = np.polyfit(x, y, 2)
    drift = float(np.max(np.abs(tilt + 2 * bend * x[[0, -1]] - slope)))
    # Before a crest the envelope is as high as the crest, which is too low for that time.
    bridged = 0.0
    if crests.size >= _FEW_CRESTS:
        bridged = abs(float(np.polyfit(x[crests], y[crests], 1)[0]) - slope)
    return float(slope), max(float(np.sqrt(variance)), drift, bridged), left
