"""Gradient flows that slide along kinks: what they cost, and how often their error bars hold.

    python benchmarks/sliding_flows.py [--count 200] [--json FILE]

First lassos in ten parameters, against their exact solution, at three tolerances. Then random sums
of `w_j |a_j . x - b_j|` and a square, in two to six dimensions with two to eight kinks, at `rtol`
1e-3; every other one has weights from 0.1 to 1000. Their reference is SciPy's Radau with narrow
hyperbolic tangents in place of signs.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from _digits import environment

import thalweg as tw

sys.path.append(str(Path(__file__).parents[1]))
from tests.oracles import lasso, smoothed_signs
from tests.problems import landscape

jax.config.update("jax_enable_x64", True)

TOLERANCES = (1e-2, 1e-3, 1e-4)
TIMES = (0.0, 0.3, 1.0, 3.0, 8.0)


def followed(value, start, exact, times, rtol):
    """A flow beside its solution at the same times."""
    flow = tw.integrate(
        tw.GradientFlow(), landscape(value), jnp.asarray(start), save_at=times, rtol=rtol
    )
    row = {"rtol": rtol, "gradients": flow.stats.gradients, "status": flow.status.kind}
    if len(flow.times) < len(times):
        return row
    true, reported = np.linalg.norm(flow.params - exact, axis=1)[1:], np.asarray(flow.error)[1:]
    held = [bool(h) for h in true <= reported]
    return {**row, "true": true.max(), "reported": reported.max(), "held": held}


def lassos():
    for seed in (0, 1):
        matrix, vector, start = lasso.problem(10, seed)

        def value(p, matrix=matrix, vector=vector):
            smooth = jnp.vdot(p, matrix @ p) / 2 - jnp.vdot(vector, p)
            return smooth + lasso.PENALTY * jnp.sum(jnp.abs(p))

        times = np.linspace(0, 10, 11)
        exact = lasso.solution(matrix, vector, start, times)
        for rtol in TOLERANCES:
            yield {"lasso": seed, **followed(value, start, exact, times, rtol)}


def random_kinks(count):
    for seed in range(count):
        problem = smoothed_signs.random_problem(seed)
        try:
            exact = smoothed_signs.solution(problem, TIMES)
        except RuntimeError:
            continue
        rows, offsets, weights, matrix, vector = (jnp.asarray(a) for a in problem[:5])

        def value(x, rows=rows, offsets=offsets, weights=weights, matrix=matrix, vector=vector):
            kinks = jnp.sum(weights * jnp.abs(rows @ x - offsets))
            return kinks + jnp.sum((matrix @ x - vector) ** 2) / 2

        yield {"seed": seed, **followed(value, problem.start, exact, list(TIMES), 1e-3)}
        # Every problem is compiled anew.
        jax.clear_caches()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="seeds 0 to count - 1")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = {"environment": environment(), "lassos": list(lassos())}
    for row in result["lassos"]:
        print(
            f"lasso {row['lasso']}, rtol {row['rtol']:g}: {row['gradients']:,} gradients,"
            f" error {row['true']:.1e}, reported {row['reported']:.1e}"
        )
    rows = result["random"] = list(random_kinks(arguments.count))
    done = [row for row in rows if "held" in row]
    points = [held for row in done for held in row["held"]]
    print(f"{len(rows)} random sums of kinks: {len(rows) - len(done)} stopped by `max_steps`")
    print(f"true error at most the reported one at {np.mean(points):.1%} of the saved times,")
    print(f"at all four of them in {np.mean([all(row['held']) for row in done]):.1%} of the flows")
    ratios = [row["reported"] / row["true"] for row in done]
    print(f"reported / true: median {np.median(ratios):.1f}")
    print(f"gradients: median {np.median([row['gradients'] for row in done]):,.0f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
