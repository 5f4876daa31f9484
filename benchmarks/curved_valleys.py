"""How far the error reported can be trusted along curved valleys, where two solutions may cross.

    python benchmarks/curved_valleys.py [--starts 16] [--kinds rosenbrock-20 ...] [--json FILE]

Rosenbrock's function in 2, 5 and 20 dimensions, a matrix factorisation and a deep scalar chain,
from random starts, with ten saved times each and `rtol` from 1e-4 to 1e-8. The reference is SciPy's
DOP853 at `rtol` 1e-13 on gradients written by hand. A true error below 1e-12 is round-off and is
not judged.

The targets: true <= reported in 98 % for every kind and every `rtol`, and a median of reported /
true of at most 12.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _digits import environment
from scipy.integrate import solve_ivp

import thalweg as tw

TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
SAVES = 11
ROUND_OFF = 1e-12
FACTORED = np.array([[3.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.3]])


class Kind(NamedTuple):
    """A landscape, its gradient by hand, how starts are drawn, and the last time."""

    value: Any
    gradient: Any
    draw: Any
    t1: float


def rosenbrock(p):
    return jnp.sum(100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2)


def rosenbrock_gradient(p):
    bend, gradient = p[1:] - p[:-1] ** 2, np.zeros_like(p)
    gradient[:-1] = -400 * p[:-1] * bend - 2 * (1 - p[:-1])
    gradient[1:] += 200 * bend
    return gradient


def factorisation(p):
    left, right = p[:6].reshape(3, 2), p[6:].reshape(3, 2)
    return 0.5 * jnp.sum((left @ right.T - FACTORED) ** 2)


def factorisation_gradient(p):
    left, right = p[:6].reshape(3, 2), p[6:].reshape(3, 2)
    residual = left @ right.T - FACTORED
    return np.concatenate([(residual @ right).ravel(), (residual.T @ left).ravel()])


def chain(p):
    return 0.5 * (jnp.prod(p) - 1) ** 2


def chain_gradient(p):
    others = np.array([np.prod(np.delete(p, i)) for i in range(len(p))])
    return (np.prod(p) - 1) * others


KINDS = {
    **{
        f"rosenbrock-{n}": Kind(
            rosenbrock, rosenbrock_gradient, lambda r, n=n: r.uniform(-2, 2, n), 10.0
        )
        for n in (2, 5, 20)
    },
    "factorisation": Kind(
        factorisation,
        factorisation_gradient,
        lambda r: r.normal(size=12) * r.choice([0.01, 0.3, 1.0]),
        30.0,
    ),
    "chain": Kind(chain, chain_gradient, lambda r: 0.5 * np.abs(r.normal(size=6)) + 0.2, 100.0),
}


def measured(kind, rtol, references):
    """True and reported errors at all saved times of all starts, and what they cost."""
    objective = tw.Objective(
        lambda p, x: kind.value(p) + 0 * x, lambda z, y: z[:, 0], [[0.0]], [0.0]
    )
    true, reported, spent, kinds = [], [], np.zeros(2), set()
    for start, times, exact in references:
        flow = tw.integrate(
            tw.GradientFlow(), objective, jnp.asarray(start), save_at=times, rtol=rtol
        )
        kinds.add(flow.status.kind)
        rows = np.asarray(flow.params)
        true.append(np.linalg.norm(rows - exact[: len(rows)], axis=1)[1:])
        reported.append(np.asarray(flow.error)[1:])
        spent += flow.stats.gradients, flow.stats.error_gradients
    true, reported = np.concatenate(true), np.concatenate(reported)
    judged = true > ROUND_OFF
    true, reported = true[judged], reported[judged]
    return {
        "rtol": rtol,
        "judged": int(judged.sum()),
        "covered": float(np.mean(true <= reported)),
        "median_ratio": float(np.median(reported / true)),
        "gradients": spent[0] / len(references),
        "error_gradients": spent[1] / len(references),
        "status": sorted(kinds),
    }


def reference(kind, seed):
    start = kind.draw(np.random.default_rng(seed))
    times = np.linspace(0, kind.t1, SAVES)
    solution = solve_ivp(
        lambda t, p: -kind.gradient(p),
        (0, kind.t1),
        start,
        method="DOP853",
        t_eval=times,
        rtol=1e-13,
        atol=1e-15,
    )
    return start, times, solution.y.T


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=16)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    results = []
    for name in arguments.kinds:
        kind = KINDS[name]
        references = [reference(kind, seed) for seed in range(arguments.starts)]
        for rtol in TOLERANCES:
            row = {"kind": name, **measured(kind, rtol, references)}
            results.append(row)
            print(
                f"{name:14s} rtol {rtol:.0e}: true <= reported in {row['covered']:6.1%} of"
                f" {row['judged']}, reported / true {row['median_ratio']:.3g} in the median,"
                f" {row['gradients']:.0f} + {row['error_gradients']:.0f} gradients,"
                f" {', '.join(row['status'])}",
                flush=True,
            )
    if arguments.json:
        result = {"flows": results, "environment": environment()}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
