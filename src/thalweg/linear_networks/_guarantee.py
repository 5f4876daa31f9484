"""How many steps of gradient descent suffice for a deep linear network, with proof."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq

from .._checks import check_positive
from ._exact_flow import exact_flow

# Into how many pieces the time is cut, on each of which curvature is bounded by one number, and
# which are no shorter than a step.
_PIECES = (16, 64, 256, 1024, 4096)
_LATEST = 1e100
# Relative to the target: below, the distance to it is rounding.
_LEAST = 1e-12


class Guarantee(NamedTuple):
    """Steps after which gradient descent has a loss of at most what was asked for.

    - `step_size`, `steps`: of gradient descent; `time` is the flow's, `step_size * steps`.
    - `epsilon`: up to that time the layers stay within this Euclidean distance of the flow's.
    - `amplification`: by how much an early error may grow, `exp(int m)` with -m the bound on
        curvature; a power of one over the initial norm, not an exponential.
    """

    step_size: float
    steps: int
    time: float
    epsilon: float
    amplification: float


def sufficient_time(depth: int, target: Any, initial: Any, loss: float) -> float:
    """When the exact flow has the loss `1/2 |w - target|^2 = loss`; 0 if it starts below.

    Arguments as in `exact_flow`. The loss falls all the way.

    **Raises:** ValueError for a loss that is not positive or that the flow never reaches: a start
    at zero stays there, and one opposite to the target ends there; and as `exact_flow` does.
    """
    check_positive(loss, "loss")
    target = np.asarray(target, float)

    def excess(t):
        gap = exact_flow(depth, target, initial, [t])[0] - target
        return 0.5 * float(gap @ gap) / loss - 1

    if np.sqrt(2 * loss) <= _LEAST * np.linalg.norm(target):
        raise ValueError(f"loss: {loss:g} cannot be told from 0 in float64 for this target.")
    if excess(0.0) <= 0:
        return 0.0
    late = 1.0
    while excess(late / 2) <= 0:
        late /= 2
    while excess(late) > 0:
        late *= 2
        if late > _LATEST:
            raise ValueError(
                f"loss: the flow does not reach {loss:g}; starts at zero, or opposite to the"
                " target, lead to the saddle at zero."
            )
    # The tolerance is relative, whatever the scale of time.
    time = brentq(excess, late / 2, late, xtol=1e-14 * late)
    return float(time)  # pyright: ignore[reportArgumentType]


def sufficient_steps(depth: int, target: Any, initial: Any, loss: float) -> Guarantee:
    """A step size and a number of steps with which gradient descent gets to a loss, with proof.

        promise = tw.linear_networks.sufficient_steps(3, target, initial, loss=1e-2)
        run = tw.descend(tw.GradientDescent(promise.step_size), objective, network, promise.steps)

    For layers that start balanced, one output, whitened data, and the loss `1/2 |w - target|^2` of
    the end-to-end vector (`initial` at the start). The flow is known exactly, and with it bounds on
    gradient, Hessian and negative curvature in a tube around it; they bound how far gradient
    descent strays (docs/linear_networks.md). Sound and not sharp: fewer steps will usually do.

    **Raises:** as `sufficient_time` does.

    ??? cite "Reference"

        Elkabetz and Cohen, "Continuous vs. discrete optimization of deep neural networks",
        Advances in Neural Information Processing Systems, 2021 (a guarantee of this kind). The
        inequality: Hairer, Nørsett and Wanner, Solving Ordinary Differential Equations I (1993),
        section I.10.
    """
    check_positive(loss, "loss")
    target = np.asarray(target, float)
    # Half the distance for the flow, half for what gradient descent is off.
    allowed = math.sqrt(2 * loss) / 2
    time = sufficient_time(depth, target, initial, allowed**2 / 2)
    final = exact_flow(depth, target, initial, [time])[0]
    norm = float(np.linalg.norm(final))
    epsilon = _more(norm, allowed, 1 / depth)
    if time == 0:
        return Guarantee(1.0, 0, 0.0, epsilon, 1.0)
    trials = [_longest_step(depth, target, initial, time, epsilon, n) for n in _PIECES]
    step_size, amplification = max(trials)
    steps = math.ceil(time / step_size)
    return Guarantee(time / steps, steps, time, epsilon, amplification)


def _more(norm: float, by: float, power: float) -> float:
    """`(norm + by)^power - norm^power`, without loss of digits."""
    if norm == 0:
        return by**power
    return norm**power * math.expm1(power * math.log1p(by / norm))


def _longest_step(depth, target, initial, time, epsilon, pieces) -> tuple[float, float]:
    """The step size that the inequality allows, and the amplification."""
    path = exact_flow(depth, target, initial, np.linspace(0, time, pieces + 1))
    norm, gap = np.linalg.norm(path, axis=1), np.linalg.norm(path - target, axis=1)
    # On a piece, the norm is largest at an end (it has one minimum at most), the gap at the first.
    norm, gap = np.maximum(norm[:-1], norm[1:]), gap[:-1]
    layer = norm ** (1 / depth) + epsilon
    gap = gap + layer**depth - norm
    bending = (depth - 1) * gap * layer ** max(depth - 2, 0)
    steepest = math.sqrt(depth) * gap * layer ** (depth - 1)
    sharpest = depth * layer ** (2 * depth - 2) + bending
    # A step may have begun in the piece before.
    before = np.concatenate([[0], np.arange(pieces - 1)])
    defect = np.maximum(sharpest, sharpest[before]) * np.maximum(steepest, steepest[before])
    piece = time / pieces
    some = np.where(bending > 0, bending, 1)
    # Over few pieces the bounds may be without end; more pieces do better.
    with np.errstate(over="ignore"):
        growth = np.exp(bending * piece)
        mean = np.where(bending > 0, np.expm1(some * piece) / some, piece)
        amplification = float(np.prod(growth))
    strayed, farthest = 0.0, 0.0
    for factor, added in zip(growth, defect * mean, strict=True):
        strayed = float(factor * strayed + added)
        farthest = max(farthest, strayed)
    allowed = epsilon / farthest if farthest > 0 else math.inf
    return min(allowed, piece), amplification
