"""Closed forms on a quadratic landscape, through the eigenvectors of its Hessian."""

import mpmath
import numpy as np


def random_quadratic(eigenvalues, seed=0):
    """A symmetric matrix with these eigenvalues, its eigenvectors, and a starting point."""
    rng = np.random.default_rng(seed)
    n = len(eigenvalues)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return basis @ np.diag(eigenvalues) @ basis.T, basis, rng.normal(size=n)


def on_modes(basis, start, amplitudes):
    """The point whose modes are those of `start` times `amplitudes`."""
    return basis @ (amplitudes * (basis.T @ start))


def gradient_flow(eigenvalue, t):
    return float(mpmath.exp(-mpmath.mpf(eigenvalue) * t))


def heavy_ball_flow(eigenvalue, friction, t):
    """Roots of the characteristic polynomial, in 50 digits (so that no case is critical)."""
    with mpmath.workdps(50):
        b, lam = mpmath.mpf(friction), mpmath.mpf(eigenvalue) * (1 + mpmath.mpf(10) ** -30)
        root = mpmath.sqrt(b * b / 4 - lam)
        r1, r2 = -b / 2 + root, -b / 2 - root
        x = (r2 * mpmath.exp(r1 * t) - r1 * mpmath.exp(r2 * t)) / (r2 - r1)
        return float(mpmath.re(x))


def nesterov_flow(eigenvalue, damping, t):
    """Bessel functions, ordinary or modified by the sign of the eigenvalue."""
    if t == 0:
        return 1.0
    with mpmath.workdps(40):
        order = (mpmath.mpf(damping) - 1) / 2
        x = mpmath.sqrt(abs(mpmath.mpf(eigenvalue))) * t
        bessel = mpmath.besselj(order, x) if eigenvalue > 0 else mpmath.besseli(order, x)
        return float(mpmath.gamma(order + 1) * (2 / x) ** order * bessel)


def descent_matrix(hessian, step_size):
    return np.eye(len(hessian)) - step_size * hessian
