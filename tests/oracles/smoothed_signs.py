"""Gradient flows over kinks `weight |row . x - offset|` by SciPy, with signs made smooth.

The objective is `sum_j w_j |A_j . x - b_j| + |M x - c|^2 / 2`. A sign is replaced by a hyperbolic
tangent of a narrow width; the equation is then stiff and smooth, and Radau follows it.
"""

from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp

WIDTH = 3e-7


class Problem(NamedTuple):
    """Kinks with their weights, the smooth part, and a start."""

    rows: np.ndarray
    offsets: np.ndarray
    weights: np.ndarray
    matrix: np.ndarray
    vector: np.ndarray
    start: np.ndarray


def random_problem(seed):
    """Two to six parameters and two to eight kinks, every other time with weights up to 1000."""
    random = np.random.default_rng(seed)
    size, kinks = int(random.integers(2, 7)), int(random.integers(2, 9))
    return Problem(
        rows=random.normal(size=(kinks, size)),
        offsets=random.normal(size=kinks),
        matrix=random.normal(size=(size, size)) / size**0.5 * 1.5,
        vector=2 * random.normal(size=size),
        start=2 * random.normal(size=size),
        weights=10 ** random.uniform(-1, [1, 3][seed % 2], size=kinks),
    )


def solution(problem, times):
    """The flow at increasing times, the first of them 0."""
    rows, offsets, weights, matrix, vector, start = problem

    def field(t, x):
        signs = np.tanh((rows @ x - offsets) / WIDTH)
        return -(rows.T @ (weights * signs) + matrix.T @ (matrix @ x - vector))

    def jacobian(t, x):
        steep = np.cosh(np.clip((rows @ x - offsets) / WIDTH, -300, 300)) ** -2 / WIDTH
        return -(rows.T @ ((weights * steep)[:, None] * rows) + matrix.T @ matrix)

    options = {"method": "Radau", "jac": jacobian, "rtol": 1e-9, "atol": 1e-10}
    found = solve_ivp(field, (0, times[-1]), start, t_eval=times, **options)
    if not found.success:
        raise RuntimeError(found.message)
    return found.y.T
