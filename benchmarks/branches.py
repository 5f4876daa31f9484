"""How well a flow of a network with kinks is determined: where do solutions part?

    python benchmarks/branches.py --mnist FOLDER [--networks strided pooled]
        [--times 1 2 5 10] [--tolerances 1e-4 3e-5 1e-5] [--nudge 1e-8] [--descents STEPS ...]

FOLDER holds MNIST in IDX format; the convolutional networks and data of discontinuous_flows.py.
The reference is our own solution at the smallest tolerance. Three things are held against it: our
solutions at the other tolerances, the solution at the smallest tolerance from a start moved by
`--nudge` of its norm, and gradient descent. Distances over all parameters, divided by the distance
moved up to that time. Where a tiny change of the start ends far away no method can be judged by
its error: the flow does not determine its own end to more digits than that.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import jax.random as jr
import numpy as np
from _digits import environment
from discontinuous_flows import problems
from float32_flows import descent
from jax.flatten_util import ravel_pytree

import thalweg as tw

jax.config.update("jax_enable_x64", True)


def rows_for(name, objective, network, arguments):
    times = np.asarray(arguments.times, float)
    start, unravel = ravel_pytree(network)

    def solve(start, rtol):
        begin = time.perf_counter()
        run = tw.integrate(
            tw.GradientFlow(), objective, unravel(start), save_at=times, rtol=rtol, max_steps=10**6
        )
        leaves = jax.tree.leaves(run.params)
        ends = np.concatenate([np.asarray(p).reshape(len(times), -1) for p in leaves], axis=1)
        return ends, run, time.perf_counter() - begin

    finest, *others = sorted(arguments.tolerances)
    reference, run, seconds = solve(start, finest)
    moved = np.linalg.norm(reference - np.asarray(start), axis=1)
    rows = []

    def add(method, ends, gradients, seconds, reported=None):
        distance = np.linalg.norm(ends - reference, axis=1) / moved
        rows.append(
            {
                "network": name,
                "method": method,
                "gradients": gradients,
                "times": times.tolist(),
                "distance": distance.tolist(),
                "reported": None if reported is None else (reported / moved).tolist(),
                "seconds": seconds,
            }
        )
        shown = " ".join(f"{d:9.1e}" for d in distance)
        print(f"{method:32s} {gradients:>8,} {seconds:>7.1f} s  {shown}", flush=True)
        if reported is not None:
            shown = " ".join(f"{d:9.1e}" for d in reported / moved)
            print(f"{'  reported':32s} {'':>8s} {'':>9s}  {shown}", flush=True)

    times_shown = " ".join(f"   t={t:<5g}" for t in times)
    print(f"\n{name}: {'':24s} gradients             {times_shown}")
    reported = np.asarray(run.error)
    add(f"rtol {finest:g} (reference)", reference, run.stats.gradients, seconds, reported)
    nudge = np.asarray(jr.normal(jr.key(7), start.shape, start.dtype))
    nudge = nudge * arguments.nudge * np.linalg.norm(start) / np.linalg.norm(nudge)
    for rtol in (finest, *others):
        if rtol != finest:
            ends, run, seconds = solve(start, rtol)
            add(f"rtol {rtol:g}", ends, run.stats.gradients, seconds, np.asarray(run.error))
        ends, run, seconds = solve(start + nudge, rtol)
        add(f"rtol {rtol:g}, start moved", ends, run.stats.gradients, seconds)
    for steps in arguments.descents:
        begin = time.perf_counter()
        ends = descent(objective, network, steps, times)
        add("gradient descent", ends, steps, time.perf_counter() - begin)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=["strided", "pooled"])
    parser.add_argument("--times", nargs="+", type=float, default=[1.0, 2.0, 5.0, 10.0])
    parser.add_argument("--tolerances", nargs="+", type=float, default=[1e-4, 3e-5, 1e-5])
    parser.add_argument("--nudge", type=float, default=1e-8)
    parser.add_argument("--descents", nargs="*", type=int, default=[1000, 5000])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = problems(arguments.mnist)
    rows = []
    for name in arguments.networks:
        objective, make, *_ = found[name]
        rows += rows_for(name, objective, make(0), arguments)
    if arguments.json:
        result = {"rows": rows, "environment": environment()}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
