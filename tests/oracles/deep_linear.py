"""Gradient flow of a deep linear network with scalar output, whitened data, balanced start.

With end-to-end vector w, |w| = s, cosine nu to the target L of length Lam, and dtau = s^(1-2/n) dt:
nu = tanh(Lam tau + c), q = (cosh(Lam tau + c) / cosh c)^n, s = q / (1/s0 + n int_0^tau q),
t = int_0^tau s^-(1-2/n). Everything below is quadrature and root finding on that closed form.
"""

import itertools

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq


def exact_flow(depth, target, initial, times):
    """The end-to-end vector at each time, from the vector `initial` at time 0."""
    n = depth
    length, s0 = np.linalg.norm(target), np.linalg.norm(initial)
    along = target / length
    nu0 = initial @ along / s0
    across = initial / s0 - nu0 * along
    across = across / np.linalg.norm(across)
    c = np.arctanh(nu0)

    def q(tau):
        return (np.cosh(length * tau + c) / np.cosh(c)) ** n

    def s(tau):
        return q(tau) / (1 / s0 + n * quad(q, 0, tau, epsabs=1e-14, epsrel=1e-13)[0])

    def t(tau):
        return quad(lambda u: s(u) ** (2 / n - 1), 0, tau, epsabs=1e-13, epsrel=1e-12)[0]

    points = []
    for time in times:
        high = 1.0
        while t(high) < time:
            high *= 1.5
        tau = brentq(lambda u, time=time: t(u) - time, 0, high, xtol=1e-14, rtol=1e-14)
        nu = np.tanh(length * tau + c)
        points.append(s(tau) * (nu * along + np.sqrt(1 - nu**2) * across))
    return np.array(points)


def balanced_weights(widths, initial, seed=0):
    """Rank-one weights W_j = s^(1/n) v_j v_{j-1}^T with unit v_j, whose product is `initial`."""
    rng = np.random.default_rng(seed)
    n, s = len(widths) - 1, np.linalg.norm(initial)
    vectors = [initial / s]
    for width in widths[1:-1]:
        v = rng.normal(size=width)
        vectors.append(v / np.linalg.norm(v))
    vectors.append(np.ones(1))
    return [s ** (1 / n) * np.outer(after, before) for before, after in itertools.pairwise(vectors)]
