"""Numbers as people read them: as many digits as their error leaves."""

import dataclasses
import math
from typing import Any


def significant(value: float, digits: int = 3) -> str:
    """`value` to so many significant digits, in plain or scientific notation."""
    if not math.isfinite(value):
        return "not finite" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if -4 <= exponent < 6:
        decimals = max(digits - 1 - exponent, 0)
        text = f"{value:.{decimals}f}"
        return text.replace("-", "−")
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(power)}".replace("-", "−")


def with_error(value: float, error: float | None) -> str:
    """`value ± error`, rounded to two digits of the error (and at most six of the value)."""
    if error is None or not math.isfinite(value):
        return significant(value)
    if not math.isfinite(error):
        return f"{significant(value)} (error unknown)"
    if error == 0:
        return significant(value, 6)
    if value == 0 or abs(value) < error:
        return f"{significant(value, 2)} ± {significant(error, 2)}"
    digits = math.floor(math.log10(abs(value))) - math.floor(math.log10(error)) + 2
    return f"{significant(value, min(max(digits, 2), 6))} ± {significant(error, 2)}"


def percent(fraction: float) -> str:
    """A fraction as a percentage with two significant digits."""
    return f"{significant(100 * fraction, 2)} %"


def described(thing: Any) -> str:
    """`HeavyBall(step_size=0.01, momentum=0.9)`: a dataclass of numbers, six digits each."""
    fields = [f"{f.name}={getattr(thing, f.name):.6g}" for f in dataclasses.fields(thing)]
    return f"{type(thing).__name__}({', '.join(fields)})"
