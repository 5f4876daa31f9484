"""Certificates of runs of gradient descent: violations on random networks, and how tight they are.

    python benchmarks/certificates.py [--runs 1000] [--digits] [--json FILE]

Random runs: networks of 2 to 4 layers, linear or tanh, both losses, random weights, data, step
sizes (0.02 to 0.5 of the stability limit at the start) and lengths; linear ones with closed-form
evidence and with eigenvalue intervals, tanh ones with intervals. A violation is a step at which the
distance from the flow, less the flow's own error, is above the bound. With `--digits`: tanh and
linear networks on 300 digits, and the ratio of the bound to the true distance over all steps.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from _digits import environment

import thalweg as tw
from thalweg.closeness import ClosedForm, Intervals

jax.config.update("jax_enable_x64", True)

_FRESH = 200
LOSSES = [tw.losses.squared_error, tw.losses.cross_entropy]


def made(objective, network, step_size, steps, evidence, looks):
    """Ratio of bound to distance at every step but the first, violations, and the certificate."""
    # As an array, lest every step size be compiled anew.
    run = tw.descend(tw.GradientDescent(jnp.asarray(step_size)), objective, network, steps)
    # A run that diverges ends before.
    steps = int(np.asarray(run.steps)[-1])
    saved = np.unique(np.round(np.linspace(0, steps, min(steps, 40) + 1)).astype(int))
    flow = tw.integrate(
        tw.GradientFlow(), objective, network, save_at=saved * step_size, rtol=1e-9, atol=1e-12
    )
    gap = tw.compare(run, flow)
    certificate = tw.certify_run(objective, run, evidence=evidence, looks=looks)
    true, error = np.asarray(gap.distance), np.asarray(gap.error)
    bound = certificate.bound[saved]
    broken = int(np.sum(true - error > bound))
    ratio = bound[1:] / np.maximum(true[1:], 1e-300)
    return ratio, broken, certificate


def random_run(seed):
    rng = np.random.default_rng(seed)
    # Few shapes, so that few programs are compiled.
    widths = [[3, 4, 2], [4, 3, 3, 2], [3, 3, 3, 3, 2]][seed % 3]
    activation = ["linear", "tanh"][seed // 3 % 2]
    loss = LOSSES[seed // 6 % 2]
    network = tw.networks.fully_connected(
        widths, activation=activation, bias=False, init="xavier", key=jr.key(seed)
    )
    network = jax.tree.map(lambda w: w * 10 ** rng.uniform(-0.6, 0.2), network)
    inputs = rng.normal(size=(8, widths[0]))
    classes, numbers = rng.integers(0, 2, 8), rng.normal(size=(8, 2))
    targets = classes if loss is tw.losses.cross_entropy else numbers
    objective = tw.Objective(tw.networks.apply, loss, inputs, targets)
    sharpness = float(tw.extreme_eigenvalues(objective, network).value[0])
    step_size = 2 / max(sharpness, 0.1) * 10 ** rng.uniform(-1.7, -0.3)
    steps = int(rng.choice([10, 20, 40, 80]))
    closed = activation == "linear" and seed // 12 % 2 == 0
    evidence = ClosedForm() if closed else Intervals()
    looks = 20 if closed else 6
    ratio, broken, certificate = made(objective, network, step_size, steps, evidence, looks)
    return {
        "seed": seed,
        "activation": activation,
        "loss": loss.name,
        "evidence": type(evidence).__name__,
        "proved": certificate.proved,
        "finite": bool(np.isfinite(certificate.bound[-1])),
        "violations": broken,
        "ratio": float(np.median(ratio)),
    }


def digits_runs():
    data = tw.datasets.digits(300)
    rows = []
    for activation in ("linear", "tanh"):
        for loss in LOSSES:
            targets = data.one_hot().targets if loss is LOSSES[0] else data.targets
            objective = tw.Objective(tw.networks.apply, loss, data.inputs, targets)
            for seed in range(3):
                network = tw.networks.fully_connected(
                    [data.inputs.shape[1], 30, 30, 10],
                    activation=activation,
                    bias=False,
                    init="lecun",
                    key=jr.key(seed),
                )
                sharpness = float(tw.extreme_eigenvalues(objective, network).value[0])
                step_size = 0.2 / sharpness
                for steps in (50, 200):
                    ratio, broken, found = made(
                        objective, network, step_size, steps, Intervals(), 10
                    )
                    rows.append(
                        {
                            "activation": activation,
                            "loss": loss.name,
                            "seed": seed,
                            "steps": steps,
                            "time": step_size * steps,
                            "violations": broken,
                            "ratio": float(np.median(ratio)),
                            "ratio_at_end": float(ratio[-1]),
                            "gradients": found.gradients,
                        }
                    )
                    print(
                        f"{activation:7s} {loss.name:14s} seed {seed}: {steps} steps to t ="
                        f" {rows[-1]['time']:.3g}: bound / distance {rows[-1]['ratio']:.3g} in the"
                        f" median, {ratio[-1]:.3g} at the end; {broken} violations;"
                        f" {found.gradients:,} gradients",
                        flush=True,
                    )
    print(f"median over runs: {np.median([row['ratio'] for row in rows]):.3g}")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    digits = digits_runs() if arguments.digits else []
    rows = []
    for seed in range(arguments.runs):
        rows.append(random_run(seed))
        if (seed + 1) % _FRESH == 0:
            # Programs that were compiled take memory that is not given back.
            jax.clear_caches()
        if (seed + 1) % 50 == 0:
            print(
                f"{seed + 1} runs, {sum(row['violations'] for row in rows)} violations", flush=True
            )
    for kind in ("ClosedForm", "Intervals"):
        of_kind = [row for row in rows if row["evidence"] == kind]
        finite = [row["ratio"] for row in of_kind if row["finite"]]
        if of_kind:
            print(
                f"{kind}: {len(of_kind)} runs, {sum(r['violations'] for r in of_kind)} violations,"
                f" {sum(r['proved'] for r in of_kind)} proved, {len(finite)} finite; bound /"
                f" distance in the median {np.median(finite):.3g}"
            )
    if arguments.json:
        result = {"rows": rows, "digits": digits, "environment": environment()}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
