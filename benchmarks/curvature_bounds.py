"""Closed-form curvature bounds on ten thousand random networks, against dense Hessians.

    python benchmarks/curvature_bounds.py [--networks 10000] [--json FILE]

Networks are fully connected (2 to 6 layers) or convolutional (in one and two dimensions, with
strides and pooling), linear, ReLU or leaky ReLU, with squared error or cross-entropy. Two hundred
at a time share an architecture; weights, their size, data and the radius of the ball are random.
For every network the smallest eigenvalue of the dense Hessian is compared with the bound at the
point, and at three points on the surface of a ball with the bound for that ball.
"""

import argparse
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _digits import environment
from jax.flatten_util import ravel_pytree

import thalweg as tw
from thalweg.curvature._bound import bound_at

jax.config.update("jax_enable_x64", True)

DRAWS, SAMPLES, POINTS = 200, 5, 3


def architecture(rng):
    """A description, and a function from a key to a network."""
    activation = str(rng.choice(["linear", "relu", "leaky_relu"]))
    outputs = int(rng.integers(2, 4))
    if rng.random() < 0.6:
        depth = int(rng.integers(2, 7))
        widths = [int(w) for w in rng.integers(2, 5, size=depth)] + [outputs]
        init = str(rng.choice(["xavier", "he", "tangent_kernel"]))
        return (
            f"{widths}, {activation}, {init}",
            (widths[0],),
            outputs,
            lambda key: tw.networks.fully_connected(
                widths, activation=activation, bias=False, init=init, key=key
            ),
        )
    dimensions = int(rng.integers(1, 3))
    shape = (int(rng.integers(1, 3)), *[int(rng.integers(6, 9))] * dimensions)
    options = {
        "channels": [2] * int(rng.integers(1, 3)),
        "kernel": int(rng.integers(2, 4)),
        "stride": int(rng.integers(1, 3)),
        "padding": int(rng.integers(1, 3)),
        "widths": [3] * int(rng.integers(0, 2)),
    }
    options["pool"] = int(rng.integers(1, 3)) if options["stride"] == 1 else 1
    return (
        f"{shape}, {options}, {activation}",
        shape,
        outputs,
        lambda key: tw.networks.convolutional(
            shape, outputs=outputs, activation=activation, key=key, **options
        ),
    )


@eqx.filter_jit
def compared(make, loss, keys, inputs, targets, scales, radii, ways):
    """Smallest eigenvalues and bounds at the point, and around it."""

    def one(key, x, y, scale, radius, way):
        network = jax.tree.map(lambda w: scale * w, make(key))
        objective = tw.Objective(tw.networks.apply, loss, x, y)
        flat, unravel = ravel_pytree(network)
        hessian = jax.hessian(lambda v: objective.value(unravel(v)))

        def least(v):
            return jnp.linalg.eigvalsh(hessian(v))[0]

        way = way[:, : flat.size]
        way = radius * way / jnp.linalg.norm(way, axis=1, keepdims=True)
        around = jax.lax.map(lambda w: least(flat + w), way)
        return (
            least(flat),
            bound_at(network, objective, jnp.zeros(())).value,
            jnp.min(around),
            bound_at(network, objective, radius).value,
        )

    return jax.lax.map(lambda a: one(*a), (keys, inputs, targets, scales, radii, ways))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows, violations = [], 0
    for seed in range(-(-arguments.networks // DRAWS)):
        rng = np.random.default_rng(seed)
        name, shape, outputs, make = architecture(rng)
        loss = [tw.losses.squared_error, tw.losses.cross_entropy][seed % 2]
        inputs = rng.normal(size=(DRAWS, SAMPLES, *shape))
        targets = rng.normal(size=(DRAWS, SAMPLES, outputs))
        if loss is tw.losses.cross_entropy:
            targets = rng.integers(0, outputs, size=(DRAWS, SAMPLES))
        try:
            size = sum(leaf.size for leaf in jax.tree.leaves(make(jr.key(0))))
        except ValueError:
            continue  # an image too small for these layers
        found = compared(
            make,
            loss,
            jr.split(jr.key(seed), DRAWS),
            jnp.asarray(inputs),
            jnp.asarray(targets),
            jnp.asarray(10 ** rng.uniform(-0.7, 0.5, DRAWS)),
            jnp.asarray(10 ** rng.uniform(-2.0, 0.0, DRAWS)),
            jnp.asarray(rng.normal(size=(DRAWS, POINTS, size))),
        )
        least, bound, around, wide = (np.asarray(x) for x in found)
        broken = int(np.sum(least < bound) + np.sum(around < wide))
        violations += broken
        bent = least < -1e-6 * np.abs(least).max()
        ratio = bound[bent] / least[bent]
        row = {
            "architecture": name,
            "loss": loss.name,
            "parameters": size,
            "networks": DRAWS,
            "violations": broken,
            "tightness": float(np.median(ratio)) if bent.any() else float("nan"),
            "tightest": float(np.min(ratio, initial=np.inf)),
        }
        rows.append(row)
        print(
            f"{seed:3d} {name}, {loss.name}: {size} parameters, {broken} violations, bound /"
            f" smallest eigenvalue: median {row['tightness']:.3g}, least {row['tightest']:.3g}",
            flush=True,
        )
        jax.clear_caches()
    networks = DRAWS * len(rows)
    medians = [row["tightness"] for row in rows]
    print(
        f"{networks:,} networks, {2 * networks:,} bounds, {violations} violations; median of the"
        f" architectures' median tightness {np.nanmedian(medians):.3g}"
    )
    if arguments.json:
        result = {"rows": rows, "violations": violations, "environment": environment()}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
