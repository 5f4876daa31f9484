"""The prediction error of a frozen kernel in mpmath, to so many digits that none is in doubt.

`Delta' = -H Delta` and its relatives, H the kernel over the number of samples: by the matrix
exponential, by the power series of Nesterov's flow, and by the methods' own steps.
"""

import mpmath
import numpy as np

_DIGITS = 50


def _matrix(array):
    return mpmath.matrix([[mpmath.mpf(float(v)) for v in row] for row in np.atleast_2d(array)])


def _column(array):
    return mpmath.matrix([mpmath.mpf(float(v)) for v in np.ravel(array)])


def _floats(column):
    return np.array([float(v) for v in column])


def gradient_flow(h, start, t):
    """`exp(-H t) start`."""
    with mpmath.workdps(_DIGITS):
        return _floats(mpmath.expm(-mpmath.mpf(t) * _matrix(h)) * _column(start))


def heavy_ball_flow(h, start, friction, t):
    """`x'' + b x' + H x = 0` from rest, as a system of first order."""
    n = len(h)
    with mpmath.workdps(_DIGITS):
        system, matrix = mpmath.zeros(2 * n), _matrix(h)
        for i in range(n):
            system[i, n + i] = 1
            system[n + i, n + i] = -mpmath.mpf(friction)
            for j in range(n):
                system[n + i, j] = -matrix[i, j]
        state = mpmath.matrix([*_column(start), *[0] * n])
        return _floats(mpmath.expm(mpmath.mpf(t) * system) * state)[:n]


def nesterov_flow(h, start, damping, t):
    """`x'' + (d/t) x' + H x = 0`: `x = sum_k c_k (-H t^2)^k start`."""
    with mpmath.workdps(_DIGITS + 60):
        step = -(mpmath.mpf(t) ** 2) * _matrix(h)
        term = _column(start)
        total, k, d = term.copy(), 0, mpmath.mpf(damping)
        while True:
            # The coefficients of t^(2k + 2) and t^(2k) in the equation.
            term = step * term / (2 * (k + 1) * (2 * k + 1 + d))
            total, k = total + term, k + 1
            if mpmath.norm(term) < mpmath.mpf(10) ** -_DIGITS:
                return _floats(total)


def steps(h, start, step, count):
    """`step(k, x, before, earlier, gradient)`, made in mpmath; all iterates."""
    with mpmath.workdps(_DIGITS):
        matrix = _matrix(h)
        points = [_column(start)] * 3
        for k in range(count):
            points.append(step(k, points[-1], points[-2], points[-3], lambda x: matrix * x))
        return np.array([_floats(x) for x in points[2:]])
