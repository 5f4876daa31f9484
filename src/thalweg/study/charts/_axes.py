"""Axes of a chart: where a number stands, and which ticks to write."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..._numbers import significant


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis from `low` to `high`, drawn from `start` to `end` pixels."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value, clipped to the axis."""
        if self.logarithmic:
            floor = math.log10(self.low)
            share = (math.log10(max(value, self.low)) - floor) / (math.log10(self.high) - floor)
        else:
            share = (value - self.low) / (self.high - self.low)
        share = min(max(share, 0.0), 1.0)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Values with their labels."""
        return self._decades() if self.logarithmic else self._steps()

    def _steps(self) -> list[tuple[float, str]]:
        step = _nice((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        values = [k * step for k in range(first, last + 1)]
        if decimals > 4 or max(abs(self.low), abs(self.high)) >= 1e5:
            return [(v, significant(v, 2)) for v in values]
        return [(v, f"{v:.{decimals}f}".replace("-", "−")) for v in values]

    def _decades(self) -> list[tuple[float, str]]:
        first, last = (
            math.ceil(math.log10(self.low) - 1e-9),
            math.floor(math.log10(self.high) + 1e-9),
        )
        if last - first < 1:
            return [(v, significant(v, 2)) for v in _between(self.low, self.high)]
        every = math.ceil((last - first + 1) / 7)
        return [(10.0**k, _power(k)) for k in range(first, last + 1, every)]


def _between(low: float, high: float) -> Sequence[float]:
    """Ticks 1, 2, 5 of each decade, for an axis of less than a decade or two."""
    first = math.floor(math.log10(low))
    values = [m * 10.0**k for k in range(first, first + 3) for m in (1, 2, 3, 5, 7)]
    return [v for v in values if low <= v <= high] or [low, high]


def _power(exponent: int) -> str:
    if -2 <= exponent <= 3:
        return f"{10.0**exponent:g}"
    superscript = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{superscript}"


def _nice(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))


def span(values: Sequence[float], logarithmic: bool, *, decades: int = 12) -> tuple[float, float]:
    """The range of an axis that shows all finite values with a little air."""
    finite = [v for v in values if math.isfinite(v) and (v > 0 or not logarithmic)]
    if not finite:
        return (0.1, 1.0) if logarithmic else (0.0, 1.0)
    low, high = min(finite), max(finite)
    if logarithmic:
        low = max(low, high * 10.0**-decades)
        return (low / 1.3, high * 1.3) if low < high else (low / 3, high * 3)
    air = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
    return low - air, high + air
