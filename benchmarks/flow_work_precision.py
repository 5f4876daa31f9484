"""Gradient flow of a network: what accuracy costs, for our choice of solver and for others.

    python benchmarks/flow_work_precision.py [--problems tanh ...] [--methods thalweg CVODE ...]
        [--mnist FOLDER] [--json FILE]

Gradients are gradient-equivalents, exact: one gradient 1, one Hessian-vector product 2. For ours,
they are the price of the solution; the error estimate and the error that it reports stand beside
them. Errors are Euclidean distances over all parameters to a reference (Dopri8 at a far tighter
tolerance) at the final time, divided by the distance moved. Wall times are without compilation.
CVODE is that of SUNDIALS, in the package scikit-sundae (`pip install "thalweg[benchmark]"`).

At the end of each problem: for every error of interest, the cheapest run of ours that is at least
as accurate beside the cheapest run of any of the others.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import jax.random as jr
import numpy as np
from _cvode import with_cvode
from _digits import digits_problem, environment
from _methods import (
    with_explicit,
    with_kvaerno5,
    with_lsoda,
    with_rk4,
    with_thalweg,
)
from jax.flatten_util import ravel_pytree

import thalweg as tw


class Problem(NamedTuple):
    """A flow, the tolerances to follow it with, and the errors that are of interest."""

    name: str
    build: Any
    t1: float
    reference: float
    ours: tuple[float, ...]
    theirs: dict[type, tuple[float, ...]]
    implicit: tuple[float, ...]
    cvode: tuple[float, ...]
    others: bool
    errors: tuple[float, ...]


def linear_problem(folder):
    if folder is None:
        raise SystemExit("linear: say where MNIST is, with --mnist FOLDER.")
    data = tw.datasets.idx(folder, samples=1000)
    network = tw.networks.fully_connected(
        [784, 50, 50, 10], activation="linear", bias=False, init="xavier", key=jr.key(0)
    )
    objective = tw.Objective(tw.networks.apply, tw.losses.cross_entropy, data.inputs, data.targets)
    return objective, network


def tanh_problem(samples, hidden, seed, folder):
    return digits_problem("squared error", samples, hidden, seed)


CVODE_TOLERANCES = (1e-3, 3e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
# Method, dimensions of its Krylov spaces, exact products.
CVODES = {
    "CVODE BDF": ("BDF", 20),
    "CVODE BDF, 40": ("BDF", 40),
    "CVODE BDF, exact": ("BDF", 20, True),
    "CVODE Adams": ("Adams", 5),
}
LOW = (diffrax.Heun, diffrax.Bosh3)
WIDE, NARROW = (1e-3, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 1e-7), (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
PROBLEMS = (
    Problem(
        name="tanh",
        build=lambda folder: digits_problem("squared error"),
        t1=1e3,
        reference=1e-11,
        ours=(2e-3, 1e-3, 3e-4, 1e-4, 3e-5, 2e-5, 1e-5, 3e-6, 1e-6, 5e-7, 2e-7, 1e-7, 1e-8),
        theirs={
            diffrax.Heun: (1e-3, 3e-4, *NARROW[1:3], 3e-6, *NARROW[3:], 1e-8),
            diffrax.Bosh3: NARROW[:-1],
            diffrax.Dopri5: NARROW[1:],
            diffrax.Tsit5: WIDE,
            diffrax.Dopri8: NARROW,
        },
        implicit=(1e-3, 1e-4),
        cvode=CVODE_TOLERANCES,
        others=True,
        errors=(1e-3, 1e-5, 3e-7, 1e-7),
    ),
    Problem(
        name="tanh, long",
        build=lambda folder: digits_problem("squared error"),
        t1=1e4,
        reference=1e-9,
        ours=(2e-3, 1e-3, 3e-4, 1e-4, 2e-5, 1e-5),
        theirs={
            diffrax.Heun: (1e-4, 1e-5),
            diffrax.Bosh3: (1e-4, 1e-5),
            diffrax.Tsit5: (1e-4, 3e-5, 1e-5),
        },
        implicit=(1e-3,),
        cvode=CVODE_TOLERANCES[:-1],
        others=False,
        errors=(1e-3, 1e-5),
    ),
    *(
        Problem(
            name=name,
            build=partial(tanh_problem, samples, hidden, seed),
            t1=1e3,
            reference=1e-11,
            ours=(3e-3, 2e-3, 1e-3, 3e-4, 1e-4, 2e-5, 1e-5, 1e-6, 1e-7, 3e-8),
            theirs={diffrax.Heun: (1e-4, 1e-5)},
            implicit=(),
            cvode=CVODE_TOLERANCES,
            others=False,
            errors=(1e-3, 1e-5, 3e-7),
        )
        for name, samples, hidden, seed in (
            ("tanh, wide", 500, (256,), 2),
            ("tanh, narrow", 300, (32, 32), 1),
        )
    ),
    Problem(
        name="cross-entropy",
        build=lambda folder: digits_problem("cross-entropy"),
        t1=1e3,
        reference=1e-12,
        ours=(3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 5e-5, 2e-5, 1e-5, 3e-6, 1e-6, 1e-7, 1e-8, 1e-9),
        theirs={
            **dict.fromkeys(LOW, (1e-2, 1e-3, 1e-4, 1e-5)),
            diffrax.Dopri5: (1e-2, *NARROW, 1e-8),
            diffrax.Tsit5: (1e-2, *WIDE, 1e-8),
            diffrax.Dopri8: (1e-2, *NARROW, 1e-8),
        },
        implicit=(1e-3, 1e-4),
        cvode=(1e-2, *CVODE_TOLERANCES, 1e-9, 1e-10),
        others=True,
        errors=(1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9),
    ),
    Problem(
        name="linear",
        build=linear_problem,
        t1=10.0,
        reference=1e-11,
        ours=(1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7),
        theirs={
            **dict.fromkeys(LOW, (1e-4, 1e-5)),
            diffrax.Tsit5: NARROW,
            diffrax.Dopri8: NARROW,
        },
        implicit=(),
        cvode=CVODE_TOLERANCES,
        others=False,
        errors=(1e-3, 1e-4, 1e-5, 1e-6),
    ),
)


def cases_of(problem, built, limit):
    """Name, tolerance, and a function that runs it."""
    t1 = problem.t1
    cases: list[Any] = [("thalweg", r, partial(with_thalweg, built, t1, r)) for r in problem.ours]
    for solver, tolerances in problem.theirs.items():
        cases += [
            (solver.__name__, r, partial(with_explicit, built, t1, r, solver())) for r in tolerances
        ]
    cases += [
        ("Kvaerno5, Newton-GMRES", r, partial(with_kvaerno5, built, t1, r))
        for r in problem.implicit
    ]
    cases += [
        (name, r, partial(with_cvode, built, t1, r, *options))
        for name, options in CVODES.items()
        for r in problem.cvode
    ]
    if problem.others:
        cases += [
            ("SciPy LSODA", 1e-4, partial(with_lsoda, built, t1, 1e-4, limit)),
            ("RK4 at 1/sharpness", None, partial(with_rk4, built, t1)),
        ]
    return cases


def rows_for(problem, folder, limit, methods):
    built = problem.build(folder)
    reference = with_explicit(built, problem.t1, problem.reference, diffrax.Dopri8())
    theta = np.asarray(ravel_pytree(built[1])[0])
    moved = float(np.linalg.norm(reference["end"] - theta))
    print(
        f"\n{problem.name}, t = {problem.t1:g}: moved {moved:.4g}; reference Dopri8 at rtol"
        f" {problem.reference:g}: {reference['gradients']:,} gradients"
    )
    header = f"{'method':22s} {'rtol':>7s} {'gradients':>10s} {'+ estimate':>10s} {'steps':>7s}"
    print(f"{header} {'seconds':>8s} {'error/moved':>11s} {'reported':>9s}")
    rows = []
    for name, rtol, solve in cases_of(problem, built, limit):
        if not name.startswith(methods):
            continue
        row = {"problem": problem.name, "t1": problem.t1, "method": name, "rtol": rtol, **solve()}
        end = row.pop("end")
        row["error"] = (
            None if end is None else float(np.linalg.norm(end - reference["end"])) / moved
        )
        if "reported" in row:
            row["reported"] /= moved
        rows.append(row)
        print(
            f"{name:22s} {'' if rtol is None else f'{rtol:.1e}':>7s} {row['gradients']:>10,}"
            f" {row.get('error_gradients', ''):>10} {row['steps']:>7,} {row['seconds']:>8.2f}"
            f" {'' if row['error'] is None else format(row['error'], '.1e'):>11s}"
            f" {format(row['reported'], '.1e') if 'reported' in row else '':>9s}"
            f"  {row.get('note', '')}",
            flush=True,
        )
    return rows


def cheapest(rows, error):
    """The row with the fewest gradients among those that are accurate enough."""
    good = [r for r in rows if r["error"] is not None and r["error"] <= error]
    return min(good, key=lambda r: r["gradients"], default=None)


def compared(problem, rows):
    """Ours against the best of the others, at the errors of interest."""
    ours = [r for r in rows if r["method"] == "thalweg"]
    theirs = [r for r in rows if r["method"] != "thalweg"]
    result = []
    for error in problem.errors:
        a, b = cheapest(ours, error), cheapest(theirs, error)
        if a is None or b is None:
            continue
        fewer = b["gradients"] / a["gradients"]
        faster = b["seconds"] / a["seconds"]
        # What the solution alone would take, by its share of the gradients.
        alone = faster * (1 + a["error_gradients"] / a["gradients"])
        result.append(
            {
                "problem": problem.name,
                "error": error,
                "thalweg": a["gradients"],
                "best": b["gradients"],
                "method": b["method"],
                "fewer": fewer,
                "faster": faster,
                "faster_without_estimate": alone,
            }
        )
        print(
            f"  error {error:.0e}: {a['gradients']:,} gradients; best of the others"
            f" {b['gradients']:,} ({b['method']}): {fewer:.2f} times fewer, {faster:.2f} times"
            f" faster ({alone:.2f} without the error estimate)"
        )
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    names = [problem.name for problem in PROBLEMS]
    parser.add_argument("--problems", nargs="+", choices=names, default=names)
    parser.add_argument("--methods", nargs="+", default=[""], help="how their names begin")
    parser.add_argument("--mnist", type=Path, help="folder with MNIST in IDX format")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds that LSODA may take")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows, ratios = [], []
    for problem in PROBLEMS:
        if problem.name in arguments.problems:
            found = rows_for(problem, arguments.mnist, arguments.limit, tuple(arguments.methods))
            rows += found
            ratios += compared(problem, found)
    if arguments.json:
        packages = ("scipy", "lineax", "optimistix", "scikit-sundae")
        result = {"rows": rows, "ratios": ratios, "environment": environment(*packages)}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
