"""Do eigenvalue intervals hold eigenvalues, whatever the scale and the spectrum?

Symmetric matrices in float32 and float64 of two sizes (one is searched completely, the other is
not), with spectra that are spread, definite, graded, clustered, repeated, of low rank, zero; the
scale goes from the smallest to the largest normal number. Two eigenvalues are looked for at each
end, to tolerances from 1e-2 to 1e-9, half of the time with a start vector of any length. Judged
by the eigenvalues of the matrix as it stands, in extended precision. Every interval without one is
printed; so is how many are said not to have converged, by the reason given.

    python benchmarks/eigenvalue_scales.py [--count 2000] [--seed 0] [--json FILE]
"""

import argparse
import collections
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _digits import environment

sys.path.insert(0, str(Path(__file__).parents[1]))
import thalweg as tw
from tests.oracles import spectra

jax.config.update("jax_enable_x64", True)

SIZES, DTYPES = (24, 64), (np.float32, np.float64)


class Matrix(tw.AbstractObjective):
    matrix: jax.Array

    def value(self, params):
        return params @ self.matrix @ params / 2

    def gradient(self, params):
        return self.matrix @ params

    def hvp(self, params, vector):
        return self.matrix @ vector


def case(seed):
    rng = np.random.default_rng(seed)
    dtype, size = DTYPES[seed % 2], SIZES[seed // 2 % 2]
    kind = list(spectra.KINDS)[seed // 4 % len(spectra.KINDS)]
    matrix, scale = spectra.draw(rng, kind, size, dtype)
    info = np.finfo(dtype)
    length = np.exp2(rng.uniform(np.log2(info.tiny) / 2, np.log2(info.max) / 2))
    start = rng.normal(size=(1, size)) * (length if rng.random() < 0.5 else 0)
    tolerance = 10 ** rng.uniform(-9, -2)
    found = tw.extreme_eigenvalues(
        Matrix(jnp.asarray(matrix)),
        jnp.zeros(size, dtype),
        2,
        2,
        tolerance=tolerance,
        start=jnp.asarray(start, dtype),
        max_products=200,
        key=jr.key(seed),
    )
    exact = spectra.eigenvalues(matrix)
    missed = spectra.misses(found.lower, found.upper, exact)
    return {
        "seed": seed,
        "kind": kind,
        "dtype": np.dtype(dtype).name,
        "size": size,
        "scale": scale,
        "tolerance": tolerance,
        "missed": missed.tolist(),
        "converged": bool(np.all(found.converged)),
        "products": int(found.products),
        "limit": found.limit,
        "values": np.asarray(found.value).tolist(),
        "residuals": np.asarray(found.residual).tolist(),
        "exact": [float(x) for x in exact[[-1, -2, 0, 1]]],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of the first one")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        rows.append(case(seed))
        if rows[-1]["missed"]:
            print(json.dumps(rows[-1]), flush=True)
    without = [row for row in rows if row["missed"]]
    print(
        f"{len(rows):,} spectra, {4 * len(rows):,} intervals: {len(without)} spectra with an"
        f" interval without an eigenvalue; {sum(row['converged'] for row in rows):,} converged"
    )
    reasons = collections.Counter(
        " ".join(row["limit"].split()[:3]) for row in rows if not row["converged"]
    )
    for reason, count in reasons.most_common():
        print(f"  not converged, {count}: {reason} ...")
    if arguments.json:
        result = {"rows": rows, "environment": environment()}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
