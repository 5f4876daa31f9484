"""How an error grows along a path, given bounds on curvature and on what is added."""

import numpy as np
from jaxtyping import Float

# Below these series take over from differences of nearly equal numbers.
_SMALL, _TINY = 1e-4, 1e-8


def added_within(bending: Float[np.ndarray, "steps"], step: float) -> Float[np.ndarray, "steps"]:
    """`int_0^h exp(m (h - s)) s ds`: an error whose source grows like s since the step began."""
    x = np.asarray(bending, float) * step
    large = np.abs(x) > _SMALL
    little, some = np.where(large, 0.0, x), np.where(large, x, 1.0)
    series = 0.5 + little / 6 + little**2 / 24
    with np.errstate(over="ignore", invalid="ignore"):
        exact = (np.expm1(some) - some) / some**2
    return step**2 * np.where(large, exact, series)


def grown_within(
    bending: Float[np.ndarray, "steps"], spans: Float[np.ndarray, "steps"]
) -> Float[np.ndarray, "steps"]:
    """`int_0^h exp(m s) ds`: an error whose source is constant."""
    x = np.asarray(bending, float) * spans
    some = np.where(np.abs(x) > _TINY, x, 1.0)
    with np.errstate(over="ignore"):
        return spans * np.where(np.abs(x) > _TINY, np.expm1(some) / some, 1 + x / 2)


def amplification(bending: Float[np.ndarray, "steps"], spans: Float[np.ndarray, "steps"]) -> float:
    """By how much negative curvature may multiply an early error."""
    with np.errstate(over="ignore"):
        return float(np.exp(np.sum(np.maximum(bending, 0) * spans)))


def grown(
    start: float,
    bending: Float[np.ndarray, "steps"],
    added: Float[np.ndarray, "steps"],
    step: float | Float[np.ndarray, "steps"],
) -> Float[np.ndarray, "steps + 1"]:
    """`e[k+1] = exp(m[k] h[k]) e[k] + added[k]` from `e[0] = start`, as a sum of logarithms.

    Within a step the error is convex in time, and so at most what it is at the ends.
    """
    rates = np.concatenate([[0.0], np.cumsum(np.asarray(bending, float) * step)])
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        terms = np.log(np.concatenate([[start], added])) - rates
        total = np.logaddexp.accumulate(terms)
        result = np.exp(total + rates)
    return np.where(np.isnan(result), np.inf, result)
