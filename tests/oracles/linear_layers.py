"""Gradient flow of deep linear networks, from first principles."""

import mpmath as mp
import numpy as np
from scipy.integrate import solve_ivp


def end_to_end_in_mpmath(depth, target, initial, times, digits=25):
    """The end-to-end vector by Taylor's method at `digits` digits, from its differential equation.

    `w' = -s^(2 - 2/n) (I + (n - 1) w w^T / s^2) (w - target)`, in coordinates along the target and
    across it.
    """
    with mp.workdps(digits):
        target = [mp.mpf(float(x)) for x in target]
        initial = [mp.mpf(float(x)) for x in initial]
        size = mp.sqrt(sum(x * x for x in target))
        line = [x / size for x in target]
        along = sum(a * b for a, b in zip(line, initial, strict=True))
        rest = [b - along * a for a, b in zip(line, initial, strict=True)]
        across = mp.sqrt(sum(x * x for x in rest))
        unit = [x / across for x in rest]

        def field(_, y):
            p, r = y
            s = mp.sqrt(p * p + r * r)
            gap = p - size
            inward = (depth - 1) * (p * gap + r * r) / s**2
            scale = s ** (2 - mp.mpf(2) / depth)
            return [-scale * (gap + inward * p), -scale * (r + inward * r)]

        solution = mp.odefun(field, 0, [along, across])
        rows = []
        for t in times:
            p, r = solution(mp.mpf(float(t)))
            rows.append([float(p * a + r * b) for a, b in zip(line, unit, strict=True)])
        return np.array(rows)


def layers_in_scipy(weights, target, times, rtol=1e-13):
    """The layers' own gradient flow of `1/2 |W_n ... W_1 - target|^2`, by DOP853."""
    shapes = [w.shape for w in weights]
    ends = np.cumsum([w.size for w in weights])[:-1]

    def unpack(y):
        return [part.reshape(s) for part, s in zip(np.split(y, ends), shapes, strict=True)]

    def product(parts, width):
        result = np.eye(width)
        for w in parts:
            result = w @ result
        return result

    def field(_, y):
        layers = unpack(y)
        residual = product(layers, shapes[0][1]) - target
        gradients = []
        for j, w in enumerate(layers):
            below = product(layers[:j], shapes[0][1])
            above = product(layers[j + 1 :], w.shape[0])
            gradients.append(above.T @ residual @ below.T)
        return -np.concatenate([g.ravel() for g in gradients])

    start = np.concatenate([w.ravel() for w in weights])
    solution = solve_ivp(
        field, (0, times[-1]), start, method="DOP853", t_eval=times, rtol=rtol, atol=1e-15
    )
    return [unpack(y) for y in solution.y.T]
