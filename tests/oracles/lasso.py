"""The gradient flow of a lasso, exactly: a linear equation between events.

The objective is `p.H p / 2 - b.p + penalty |p|_1`. A parameter that meets zero stays there as long
as the others pull it by less than the penalty: Filippov's solution. Between these events the
equation is linear, and solved by a matrix exponential; the events are roots of one function each.
"""

import itertools

import numpy as np
from scipy.linalg import expm
from scipy.optimize import brentq

PENALTY = 0.3


def problem(size, seed):
    """The matrix and the vector of a random regression with few coefficients, and a start."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(3 * size, size))
    weights = random.normal(size=size) * (random.random(size) < 0.5)
    targets = inputs @ weights + 0.3 * random.normal(size=3 * size)
    matrix, vector = inputs.T @ inputs / len(inputs), inputs.T @ targets / len(inputs)
    return matrix, vector, random.normal(size=size)


def solution(matrix, vector, start, times):
    """The flow at increasing times."""
    now, y, side = 0.0, np.asarray(start, float), np.sign(start)
    result = []
    for time in times:
        while True:
            y, side, spent = _until_event(matrix, vector, y, side, time - now)
            now += spent
            if now >= time:
                break
        result.append(y)
    return np.array(result)


def _until_event(matrix, vector, y, side, span):
    """Where the flow is after a span, or at the first event in it, and how long that took.

    `side` is the sign of every parameter, 0 for one that rests at zero.
    """
    size, rests = len(y), side == 0
    augmented = np.zeros((size + 1, size + 1))
    augmented[:size, :size], augmented[:size, size] = -matrix, vector - PENALTY * side
    augmented[:size][rests] = 0

    def at(t):
        return (expm(t * augmented) @ np.append(y, 1.0))[:size]

    def margins(t):
        """Positive as long as nothing happens."""
        point = at(t)
        return np.where(rests, PENALTY - np.abs(vector - matrix @ point), side * point)

    grid = np.linspace(0, span, 200)
    for begin, end in itertools.pairwise(grid):
        if span > 0 and np.any(margins(end) < 0):
            # One that has just left zero begins there.
            begin = begin or 1e-9 * span
            roots = [
                (brentq(lambda t, i=i: margins(t)[i], begin, end, xtol=1e-14), i)
                for i in np.flatnonzero(margins(end) < 0)
            ]
            moment, which = min(roots)
            point, side = at(moment), side.copy()
            pull = (vector - matrix @ point)[which]
            side[which] = 0 if not rests[which] and abs(pull) <= PENALTY else np.sign(pull)
            if not rests[which]:
                point[which] = 0
            return point, side, moment
    return at(span), side, span
