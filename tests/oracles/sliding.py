"""ReLU neurons whose gradient flow slides along a kink, in closed form.

Two samples, x = (1, 0) with target -1 and x = (1, 1) with target 1, and the network
sum_j relu(w_j . x), with squared error. The first sample pushes the first weights down to zero,
where it is inactive; the second pulls them up. From both sides the flow runs into the kink
w_j1 = 0, and Filippov's solution slides along it while the second weights go on growing. Every
phase is a linear equation, solved by a matrix exponential; phases end where a first weight is zero.
"""

import numpy as np
from scipy.linalg import expm
from scipy.optimize import brentq

INPUTS = np.array([[1.0, 0.0], [1.0, 1.0]])
TARGETS = np.array([[-1.0], [1.0]])


def system(sliding):
    """The matrix and the constant of the linear equation, with some neurons on their kink."""
    neurons = len(sliding)
    matrix, constant = np.zeros((2 * neurons, 2 * neurons)), np.zeros(2 * neurons)
    for j, slides in enumerate(sliding):
        for k in range(neurons):
            # The second sample sees all weights of all neurons.
            matrix[2 * j : 2 * j + 2, 2 * k : 2 * k + 2] -= 0.5
            if not slides and not sliding[k]:
                matrix[2 * j, 2 * k] -= 0.5
        constant[2 * j : 2 * j + 2] += 0.5
        if not slides:
            constant[2 * j] -= 0.5
        else:
            matrix[2 * j], constant[2 * j] = 0, 0
    return matrix, constant


def solution(weights, times):
    """The flow from `weights`, shape (neurons, 2), first weights positive, at increasing times."""
    now, y = 0.0, np.asarray(weights, float).ravel()
    neurons = y.size // 2
    sliding = [False] * neurons
    result, phases = [], []
    times = list(times)
    while True:
        matrix, constant = system(sliding)

        n = len(y)
        augmented = np.zeros((n + 1, n + 1))
        augmented[:n, :n], augmented[:n, n] = matrix, constant

        def at(t, augmented=augmented, y=y):
            return (expm(t * augmented) @ np.append(y, 1.0))[: len(y)]

        # One exponential serves the whole grid that phases' ends are looked for on.
        grid = np.linspace(0, times[-1] - now + 1e-9, 2000)
        stride, path = expm(grid[1] * augmented), [np.append(y, 1.0)]
        for _ in grid[1:]:
            path.append(stride @ path[-1])
        ends = []
        for j in range(neurons):
            below = np.array([p[2 * j] < 0 for p in path])
            if not sliding[j] and below[1:].any():
                first = grid[1:][below[1:]][0]
                ends.append((brentq(lambda t, j=j: at(t)[2 * j], 0, first, xtol=1e-15), j))
        end, neuron = min(ends, default=(np.inf, None))
        while times and times[0] - now <= end:
            result.append(at(times.pop(0) - now))
        if not times:
            return np.array(result), phases
        y, now = at(end), now + end
        sliding[neuron] = True
        y[2 * neuron] = 0.0
        # Sliding asks for a pull from below: the second sample's residual is negative.
        assert np.sum(y) < 1
        phases.append(now)
