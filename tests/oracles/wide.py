"""Kernels of wide networks by other means: conditional expectations, quadrature, differences."""

import math

import mpmath
import numpy as np


def relu_products(p, q, c):
    """`E[relu(u) relu(v)]` and `E[1{u>0} 1{v>0}]`: given u, v is normal, and its half is known."""
    with mpmath.workdps(25):
        slope, rest = mpmath.mpf(c) / p, mpmath.sqrt(q - mpmath.mpf(c) ** 2 / p)

        def value(u):
            mean = slope * u
            half = mean * mpmath.ncdf(mean / rest) + rest * mpmath.npdf(mean / rest)
            return u * half * mpmath.npdf(u / mpmath.sqrt(p)) / mpmath.sqrt(p)

        def chance(u):
            return mpmath.ncdf(slope * u / rest) * mpmath.npdf(u / mpmath.sqrt(p)) / mpmath.sqrt(p)

        ends = [0, math.sqrt(p), 4 * math.sqrt(p), 14 * math.sqrt(p)]
        return float(mpmath.quad(value, ends)), float(mpmath.quad(chance, ends))


def products(function, p, q, c, nodes=120):
    """`E[f(u) f(v)]` by a Gauss-Hermite rule in two dimensions, for a smooth f."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    u = math.sqrt(p) * z[:, None]
    v = c / math.sqrt(p) * z[:, None] + math.sqrt(q - c * c / p) * z[None]
    return float(np.sum(w[:, None] * w * function(u) * function(v)))


ERF = np.vectorize(math.erf)

# Activations and their derivatives, written out.
SMOOTH = {
    "linear": (lambda x: x, np.ones_like),
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "softplus": (lambda x: np.logaddexp(0, x), lambda x: 1 / (1 + np.exp(-x))),
    "erf": (ERF, lambda x: 2 / math.sqrt(math.pi) * np.exp(-(x**2))),
    "gelu": (
        lambda x: x * (1 + ERF(x / math.sqrt(2))) / 2,
        lambda x: (
            (1 + ERF(x / math.sqrt(2))) / 2 + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
        ),
    ),
}


def linearised(jacobian, start, targets, step, steps):
    """Squared error of a linear model by hand: `step(k, w, before, gradient) -> w` on weights.

    `jacobian`: shape `(samples, outputs, parameters)`. Predictions at every step.
    """
    flat = jacobian.reshape(-1, jacobian.shape[-1])
    w = np.zeros(flat.shape[1])
    history, outputs = [w, w, w], []
    for k in range(steps + 1):
        now = start + (flat @ history[0]).reshape(start.shape)
        outputs.append(now)

        def gradient(w):
            residual = start.ravel() + flat @ w - targets.ravel()
            return flat.T @ residual / len(start)

        history = [step(k, *history, gradient), *history[:2]]
    return np.asarray(outputs)
