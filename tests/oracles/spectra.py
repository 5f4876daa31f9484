"""Random symmetric matrices of every kind and scale, and their eigenvalues to more than float64."""

import numpy as np

KINDS = {
    "spread": lambda rng, n: rng.uniform(-1, 1, n),
    "positive": lambda rng, n: rng.uniform(0, 1, n),
    "negative": lambda rng, n: -rng.uniform(0, 1, n),
    "graded": lambda rng, n: rng.choice([-1, 1], n) * 10 ** rng.uniform(-20, 0, n),
    "clustered": lambda rng, n: rng.choice([-1, 0.5, 1], n) + 1e-7 * rng.normal(size=n),
    "tight cluster": lambda rng, n: rng.choice([-1, 1]) + 1e-15 * rng.normal(size=n),
    "repeated": lambda rng, n: rng.choice(rng.uniform(-1, 1, 3), n),
    "paired": lambda rng, n: np.repeat(rng.uniform(0, 1, n // 2), 2) * np.tile([1, -1], n // 2),
    "low rank": lambda rng, n: np.r_[rng.uniform(-1, 1, 3), np.zeros(n - 3)],
    "multiple of one": lambda rng, n: np.full(n, rng.choice([-1.0, 1.0])),
    "outlier": lambda rng, n: np.r_[1.0, 1e-6 * rng.uniform(-1, 1, n - 1)],
    "zero": lambda rng, n: np.zeros(n),
}


def draw(rng, kind, size, dtype, scale=None):
    """A matrix whose largest absolute eigenvalue is about `scale`, and that scale.

    By default one from the smallest to the largest normal number, either of them now and then.
    """
    info = np.finfo(dtype)
    low, high = float(np.log2(info.tiny)), float(np.log2(info.max))
    if scale is None:
        place = np.clip(rng.uniform(low - 0.1 * (high - low), high + 0.1 * (high - low)), low, high)
        scale = np.exp2(np.longdouble(place))
    spectrum = KINDS[kind](rng, size)
    spectrum /= max(np.abs(spectrum).max(), 1e-300)
    basis, _ = np.linalg.qr(rng.standard_normal((size, size)))
    matrix = (basis * spectrum) @ basis.T
    matrix = (matrix + matrix.T) / 2
    largest = np.longdouble(info.max)
    return np.clip(matrix * np.longdouble(scale), -largest, largest).astype(dtype), float(scale)


def eigenvalues(matrix):
    """Of a symmetric matrix as it stands, in extended precision and increasing order.

    Float64 diagonalises; Jacobi's rotations in extended precision do what is left.
    """
    _, power = np.frexp(np.abs(matrix).max(initial=0))
    scaled = np.ldexp(matrix.astype(np.longdouble), -power)
    _, basis = np.linalg.eigh(scaled.astype(float))
    basis = basis.astype(np.longdouble)
    # One step of Newton and Schulz makes it orthogonal to the square of what it lacks.
    basis = basis @ (1.5 * np.eye(len(basis)) - 0.5 * basis.T @ basis)
    nearly = basis.T @ scaled @ basis
    for _ in range(4):
        rest = np.abs(np.triu(nearly, 1))
        for p, q in np.argwhere(rest > 1e-19):
            _rotate(nearly, p, q)
    return np.ldexp(np.sort(np.diag(nearly)), power)


def _rotate(a, p, q):
    """One of Jacobi's rotations, in place."""
    if a[p, q] == 0:
        return
    ratio = (a[q, q] - a[p, p]) / (2 * a[p, q])
    tangent = (1 if ratio >= 0 else -1) / (abs(ratio) + np.hypot(ratio, np.longdouble(1)))
    cosine = 1 / np.hypot(tangent, np.longdouble(1))
    turn = cosine * np.array([[1, tangent], [-tangent, 1]], np.longdouble)
    a[:, [p, q]] = a[:, [p, q]] @ turn
    a[[p, q]] = turn.T @ a[[p, q]]


def misses(lower, upper, exact):
    """The places of the intervals that hold none of the exact eigenvalues."""
    low, high = (np.asarray(x).astype(np.longdouble) for x in (lower, upper))
    held = (exact >= low[:, None]) & (exact <= high[:, None])
    return np.flatnonzero(~held.any(axis=1))
