"""A linear network's flow in float32: round-off of descent and of an integrated flow.

    python benchmarks/float32_flows.py --mnist FOLDER [--steps 10000 20000 200000]

FOLDER holds MNIST in IDX format; 1000 images, 784-50-50-10 without biases, cross-entropy, t = 10.
Errors are Euclidean distances over all parameters to the flow in float64 at `rtol` 1e-10, at
t = 0.1, 1, 5, 10. Gradient descent is made in both precisions: in float64 its error is that of
discretisation and halves with the step; what float32 adds is round-off and grows with the number
of steps.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _digits import environment
from jax.flatten_util import ravel_pytree

import thalweg as tw

TIMES = np.array([0.1, 1.0, 5.0, 10.0])


def problem(folder, dtype):
    data = tw.datasets.idx(folder, samples=1000)
    network = tw.networks.fully_connected(
        [784, 50, 50, 10], activation="linear", bias=False, init="xavier", key=jr.key(0)
    )
    # The same numbers in both precisions.
    single = jax.tree.map(
        lambda x: x.astype(jnp.float32) if is_float(x) else x, (network, data.inputs)
    )
    network, inputs = jax.tree.map(lambda x: x.astype(dtype) if is_float(x) else x, single)
    return tw.Objective(tw.networks.apply, tw.losses.cross_entropy, inputs, data.targets), network


def is_float(x):
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)


def rows(params):
    return np.concatenate(
        [np.asarray(p, np.float64).reshape(len(TIMES), -1) for p in jax.tree.leaves(params)], axis=1
    )


def flow(objective, network, rtol):
    run = tw.integrate(tw.GradientFlow(), objective, network, save_at=TIMES, rtol=rtol)
    return rows(run.params), run


def descent(objective, network, steps, times=TIMES):
    """Gradient descent to the last of the times, saved at all; plain updates, as everybody's."""
    theta, unravel = ravel_pytree(network)
    h = jnp.asarray(times[-1] / steps, theta.dtype)

    @jax.jit
    def stretch(theta, count):
        def step(_, y):
            return y - h * ravel_pytree(objective.gradient(unravel(y)))[0]

        return jax.lax.fori_loop(0, count, step, theta)

    saved, done = [], 0
    for t in times:
        upto = round(t / times[-1] * steps)
        theta = stretch(theta, jnp.asarray(upto - done))
        done = upto
        saved.append(np.asarray(theta, np.float64))
    return np.array(saved)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[10_000, 20_000, 200_000])
    arguments = parser.parse_args()
    both = {d: problem(arguments.mnist, d) for d in (jnp.float64, jnp.float32)}
    exact, _ = flow(*both[jnp.float64], 1e-10)

    def show(name, gradients, found, note=""):
        errors = np.linalg.norm(found - exact, axis=1)
        print(f"{name:28s} {gradients:>8,}  " + "  ".join(f"{e:.1e}" for e in errors), note)

    print("error at t = " + ", ".join(f"{t:g}" for t in TIMES))
    for rtol in (1e-4, 1e-5):
        found, run = flow(*both[jnp.float32], rtol)
        reported = ", ".join(f"{e:.1e}" for e in np.asarray(run.error))
        show(f"float32 flow, rtol {rtol:g}", run.stats.gradients, found, f"reported {reported}")
    for steps in arguments.steps:
        for dtype in (jnp.float32, jnp.float64):
            name = f"{jnp.dtype(dtype)} descent"
            show(name, steps, descent(*both[dtype], steps))
    print(environment())


if __name__ == "__main__":
    main()
