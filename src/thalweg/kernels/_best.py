"""The step size and momentum that a spectrum calls for."""

import math
from typing import Any

import numpy as np

from .._checks import check_positive
from ..optimizers import GradientDescent, HeavyBall, NesterovConstant
from ._predicted_rate import curvatures_of


def best_gradient_descent(spectrum: Any) -> GradientDescent:
    """`step_size = 2 / (smallest + largest)`: contracts by `(c - 1) / (c + 1)`, c the condition.

    `spectrum`: as in `tw.predicted_rate`.
    """
    smallest, largest = _ends(spectrum)
    return GradientDescent(2 / (smallest + largest))


def best_heavy_ball(spectrum: Any, *, step_size: float | None = None) -> HeavyBall:
    """Contracts by `(sqrt(c) - 1) / (sqrt(c) + 1)`, c the condition: in the long run no method that
    goes by gradients alone does better on all spectra with these ends.

    With a given step size, the best momentum for that: `(1 - sqrt(step_size * smallest))^2`, or
    what keeps the largest mode from oscillating, if that is more.

    **Raises:** ValueError for a step size at which no momentum is stable.

    ??? cite "Reference"

        Polyak, "Some methods of speeding up the convergence of iteration methods", USSR
        Computational Mathematics and Mathematical Physics 4 (1964) 1-17.
    """
    smallest, largest = _ends(spectrum)
    if step_size is None:
        low, high = math.sqrt(smallest), math.sqrt(largest)
        return HeavyBall(4 / (low + high) ** 2, ((high - low) / (high + low)) ** 2)
    check_positive(step_size, "step_size")
    if step_size * smallest < 4 * float(np.finfo(float).eps) ** 2:
        raise ValueError(
            f"step_size: {step_size:g} is so short that the best momentum cannot be told from 1."
        )
    if step_size * largest >= 4:
        raise ValueError(
            f"step_size: with {step_size:g} no momentum is stable for the curvature {largest:.6g};"
            f" it must stay below {4 / largest:.6g}."
        )
    # Roots of a mode have the modulus sqrt(momentum) from (1 - sqrt(step curvature))^2 on.
    return HeavyBall(
        step_size, max((1 - math.sqrt(step_size * c)) ** 2 for c in (smallest, largest))
    )


def best_nesterov(spectrum: Any) -> NesterovConstant:
    """Nesterov's method with constant momentum, tuned to quadratic modes.

    `step_size = 4 / (3 largest + smallest)`, contraction `1 - 2 / sqrt(3 c + 1)`, c the condition.

    ??? cite "Reference"

        Lessard, Recht and Packard, "Analysis and design of optimization algorithms via integral
        quadratic constraints", SIAM Journal on Optimization 26 (2016) 57-95, table 1.
    """
    smallest, largest = _ends(spectrum)
    ratio = math.sqrt(3 * largest / smallest + 1)
    return NesterovConstant(4 / (3 * largest + smallest), (ratio - 2) / (ratio + 2))


def _ends(spectrum):
    curvatures, _ = curvatures_of(spectrum)
    return float(curvatures[0]), float(curvatures[-1])
