"""Extreme Hessian eigenvalues along a run: products and errors, ours and peers', against dense.

The digits problem of `_digits.py`, at its start and along gradient descent. Every method looks for
the largest and the smallest eigenvalue to a residual of 1e-3, relative to the spectral norm; SciPy
ARPACK stops by its own estimate, relative to the eigenvalue, one run for each end; matfree has no
stopping rule and gets as many products as ours from a cold start. For each end of the spectrum,
`residual` is |Hv - value v| with the dense Hessian (ours has its reported bound beside it) and
`error` the distance to the dense eigenvalue, relative to the spectral norm.

    python benchmarks/curvature_intervals.py [--points 6] [--json FILE]
"""

import argparse
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _digits import digits_problem, environment
from jax.flatten_util import ravel_pytree
from matfree import decomp, eig
from scipy.sparse.linalg import LinearOperator, eigsh

from thalweg.curvature import ExtremeEigenvalues, extreme_eigenvalues

TOLERANCE = 1e-3


def ours(found):
    """Values, flat vectors, bounds and products of our result."""
    vectors = jax.vmap(lambda v: ravel_pytree(v)[0])(found.vectors)
    return found.value, vectors, found.residual, int(found.products)


def arpack(product, size):
    products, values, vectors = 0, [], []

    def counted(vector):
        nonlocal products
        products += 1
        return np.asarray(product(vector))

    operator = LinearOperator((size, size), matvec=counted, dtype=float)  # pyright: ignore
    start = np.random.default_rng(0).standard_normal(size)
    for end in ("LA", "SA"):
        value, vector = eigsh(operator, k=1, which=end, v0=start, tol=TOLERANCE)  # pyright: ignore
        values.append(value[0])
        vectors.append(vector[:, 0])
    return values, vectors, None, products


def matfree(product, size, products):
    lanczos = eig.eigh_partial(decomp.tridiag_sym(products, reortho="full"))
    values, vectors = lanczos(product, jr.normal(jr.key(0), (size,)))
    ends = np.array([-1, 0])
    return values[ends], vectors[ends], None, products


def row(point, method, result, matrix):
    spectrum = np.linalg.eigvalsh(matrix)
    norm = np.abs(spectrum).max()
    values, vectors, bound, products = result
    values, vectors = np.asarray(values), np.asarray(vectors)
    residual = np.linalg.norm(vectors @ matrix - values[:, None] * vectors, axis=1)
    return {
        "point": point,
        "method": method,
        "products": products,
        "residual": (residual / norm).tolist(),
        "bound": None if bound is None else (np.asarray(bound) / norm).tolist(),
        "error": (np.abs(values - spectrum[[-1, 0]]) / norm).tolist(),
    }


def show(row):
    def pair(numbers):
        return "-" if numbers is None else " ".join(f"{x:.1e}" for x in numbers)

    numbers = "".join(f"{pair(row[name]):>18s}" for name in ("residual", "bound", "error"))
    print(f"{row['point']:5d}  {row['method']:14s}{row['products']:9d}{numbers}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=6)
    parser.add_argument("--steps", type=int, default=20, help="descent steps between points")
    parser.add_argument("--step-size", type=float, default=0.01)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--hidden", type=int, nargs="+", default=[16])
    parser.add_argument("--loss", default="squared error")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    objective, params = digits_problem(arguments.loss, arguments.samples, arguments.hidden)
    start, unravel = ravel_pytree(params)
    dense = jax.jit(jax.hessian(lambda p: objective.value(unravel(p))))
    gradient = eqx.filter_jit(objective.gradient)
    hvp = jax.jit(lambda p, v: ravel_pytree(objective.hvp(p, unravel(v)))[0])
    observable = ExtremeEigenvalues(tolerance=TOLERANCE)
    carry = observable.initial(objective, params)
    rows = []
    print(f"{start.size} parameters; pairs are: largest, smallest")
    head = "".join(f"{name:>18s}" for name in ("residual", "bound", "error"))
    print(f"{'point':5s}  {'method':14s}{'products':>9s}{head}")
    for point in range(arguments.points):
        matrix = np.asarray(dense(ravel_pytree(params)[0]))

        def product(vector, params=params):
            return hvp(params, jnp.asarray(vector))

        cold = ours(extreme_eigenvalues(objective, params, tolerance=TOLERANCE))
        found, carry = observable(objective, params, carry)
        results = {
            "thalweg, cold": cold,
            "thalweg, warm": ours(found),
            "scipy eigsh": arpack(product, start.size),
            "matfree": matfree(product, start.size, cold[-1]),
        }
        for method, result in results.items():
            rows.append(row(point, method, result, matrix))
            show(rows[-1])
        for _ in range(arguments.steps):
            downhill = gradient(params)
            params = jax.tree.map(lambda p, g: p - arguments.step_size * g, params, downhill)
    if arguments.json:
        settings = {k: v for k, v in vars(arguments).items() if k != "json"}
        report = {
            "settings": settings,
            "rows": rows,
            "environment": environment("scipy", "matfree"),
        }
        arguments.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
