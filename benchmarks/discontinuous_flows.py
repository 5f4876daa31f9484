"""Gradient flow of networks with kinks: ours against gradient descent at every cost.

    python benchmarks/discontinuous_flows.py --mnist FOLDER [--json FILE] [--networks relu ...]
        [--t1 10] [--reference STEPS] [--descents STEPS ...] [--tolerances RTOL ...]

FOLDER holds MNIST in IDX format. Cross-entropy, to t = 10 unless told otherwise; 1000 images for
the fully connected network (784-50-50-10, no biases, Xavier's initialisation), 100 for the two
convolutional ones. The reference is gradient descent with steps h and 2h, extrapolated to h = 0;
its own error is estimated by the same extrapolation from steps twice as long. Errors are Euclidean
distances over all parameters at the end, divided by the distance moved.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _digits import environment
from jax.flatten_util import ravel_pytree

import thalweg as tw

jax.config.update("jax_enable_x64", True)

TOLERANCES = (1e-4, 3e-5, 1e-5, 6e-6, 5e-6)


def problems(folder):
    def objective(samples):
        data = tw.datasets.idx(folder, samples=samples)
        return tw.Objective(tw.networks.apply, tw.losses.cross_entropy, data.inputs, data.targets)

    # Name: objective, network by seed, finest reference, descents to compare with, seeds.
    descents = (500, 1000, 2000, 3000, 5000, 10_000)
    return {
        "relu": (
            objective(1000),
            lambda seed: tw.networks.fully_connected(
                [784, 50, 50, 10], activation="relu", bias=False, init="xavier", key=jr.key(seed)
            ),
            200_000,
            descents,
        ),
        "strided": (
            objective(100),
            lambda seed: tw.networks.convolutional_strided(key=jr.key(seed)),
            40_000,
            descents[:-1],
        ),
        "pooled": (
            objective(100),
            lambda seed: tw.networks.convolutional_pooled(key=jr.key(seed)),
            20_000,
            descents[:-2],
        ),
    }


def descent(objective, network, t1):
    """A function from a number of steps to the end of gradient descent with that many."""
    theta, unravel = ravel_pytree(network)

    @jax.jit
    def run(theta, steps):
        h = t1 / steps

        def step(_, y):
            return y - h * ravel_pytree(objective.gradient(unravel(y)))[0]

        return jax.lax.fori_loop(0, steps, step, theta)

    return lambda steps: np.asarray(run(theta, jnp.asarray(steps)))


def rows_for(name, seed, problem, t1, tolerances):
    objective, make, finest, descents = problem
    network = make(seed)
    start = np.asarray(ravel_pytree(network)[0])
    run = descent(objective, network, t1)
    fine, middle, coarse = (run(finest // part) for part in (1, 2, 4))
    reference = 2 * fine - middle
    moved = float(np.linalg.norm(reference - start))

    def error(end):
        return float(np.linalg.norm(end - reference)) / moved

    own = error(2 * middle - coarse)
    print(
        f"\n{name}, seed {seed}: moved {moved:.3g}; reference's error about {own:.1e}", flush=True
    )
    print(f"{'method':16s} {'rtol':>7s} {'gradients':>9s} {'error/moved':>11s} {'reported':>9s}")
    rows = []

    def add(**row):
        rows.append({"network": name, "seed": seed, "reference_error": own, **row})
        reported = f"{row['reported']:.1e}" if "reported" in row else ""
        rtol = f"{row['rtol']:.0e}" if "rtol" in row else ""
        print(
            f"{row['method']:16s} {rtol:>7s} {row['gradients']:>9,} {row['error']:>11.1e}"
            f" {reported:>9s} {row['seconds']:>7.1f} s",
            flush=True,
        )

    for steps in descents:
        begin = time.perf_counter()
        end = run(steps)
        seconds = time.perf_counter() - begin
        add(method="gradient descent", gradients=steps, error=error(end), seconds=seconds)
    for rtol in tolerances:
        begin = time.perf_counter()
        flow = tw.integrate(tw.GradientFlow(), objective, network, save_at=[t1], rtol=rtol)
        end = np.asarray(ravel_pytree(jax.tree.map(lambda x: x[-1], flow.params))[0])
        add(
            method="thalweg",
            rtol=rtol,
            gradients=flow.stats.gradients,
            error_gradients=flow.stats.error_gradients,
            error=error(end),
            reported=float(np.asarray(flow.error)[-1]) / moved,
            seconds=time.perf_counter() - begin,
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=["relu", "strided", "pooled"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--t1", type=float, default=10.0)
    parser.add_argument("--reference", type=int, help="steps of the finest descent")
    parser.add_argument("--descents", nargs="*", type=int)
    parser.add_argument("--tolerances", nargs="+", type=float, default=TOLERANCES)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = problems(arguments.mnist)
    rows = []
    for name in arguments.networks:
        seeds = arguments.seeds if name == "relu" else arguments.seeds[:1]
        objective, make, finest, descents = found[name]
        if arguments.descents is not None:
            descents = arguments.descents
        problem = objective, make, arguments.reference or finest, descents
        for seed in seeds:
            rows += rows_for(name, seed, problem, arguments.t1, arguments.tolerances)
    if arguments.json:
        result = {"rows": rows, "environment": environment()}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
