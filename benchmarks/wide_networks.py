"""How wide a network must be for its frozen kernel to predict it, in the theory's own setting.

    python benchmarks/wide_networks.py [--widths 200 2000 20000] [--json FILE]

The two-layer ReLU network with 1/sqrt(m), fixed signs, unit inputs and squared error (20 samples in
10 dimensions); gradient descent, heavy ball and Nesterov for 1,000 steps. Printed for every width:
the largest relative difference between the predicted and the real norm of the prediction error,
over all steps, from the kernel at the start and from the infinitely wide network's, and how far
the kernel moved. At the end the width that the proof of docs/kernels.md asks for.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.random as jr
import numpy as np
from _digits import environment

import thalweg as tw
from thalweg.kernels._predicted_run import mode_by_mode
from thalweg.kernels._prediction import Clock

jax.config.update("jax_enable_x64", True)

SAMPLES, FEATURES, STEPS = 20, 10, 1000
# Of the mean over samples: the kernel's eigenvalues are divided by their number.
STEP_SIZE = 0.2 * SAMPLES


def problem(seed):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(SAMPLES, FEATURES))
    inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)
    return inputs, rng.normal(size=SAMPLES)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[200, 2000, 20000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    saved = np.arange(0, STEPS + 1, 5)
    rows = []
    for width in arguments.widths:
        for seed in range(arguments.seeds):
            inputs, targets = problem(seed)
            network = tw.networks.two_layer(FEATURES, width, key=jr.key(seed))
            objective = tw.Objective(tw.networks.apply, tw.losses.squared_error, inputs, targets)
            limit = tw.kernels.modes(tw.kernels.two_layer(FEATURES)(inputs).tangent)
            start = objective.predictions(network)
            for optimizer in (
                tw.GradientDescent(STEP_SIZE),
                tw.HeavyBall(STEP_SIZE, 0.9),
                tw.Nesterov(STEP_SIZE),
            ):
                run = tw.descend(optimizer, objective, network, STEPS, save_steps=saved)
                outputs = jax.lax.map(objective.predictions, run.params)
                real = np.linalg.norm(np.asarray(outputs) - targets, axis=1)
                gaps = {}
                for name, predicted in (
                    ("start", tw.predicted_run(optimizer, objective, network, saved)),
                    (
                        "limit",
                        mode_by_mode(Clock.of(optimizer, saved), objective, limit, start, None),
                    ),
                ):
                    error = np.linalg.norm(np.asarray(predicted.outputs) - targets, axis=1)
                    gaps[name] = float(np.max(np.abs(error - real)) / real[0])
                    # Of the error itself, while it is above a thousandth of what it was.
                    seen = real > 1e-3 * real[0]
                    gaps[f"{name}, pointwise"] = float(np.max(np.abs(error / real - 1)[seen]))
                drift = tw.observe(run, drift=tw.kernels.KernelDrift(SAMPLES)).observables["drift"]
                rows.append(
                    {
                        "width": width,
                        "seed": seed,
                        "optimizer": optimizer.name,
                        "gaps": gaps,
                        "drift": float(drift[-1]),
                    }
                )
                print(
                    f"width {width:6d} seed {seed} {optimizer.name:17s} from the kernel at the"
                    f" start {gaps['start']:.2%} ({gaps['start, pointwise']:.2%} of the error"
                    f" itself), from the limit {gaps['limit']:.2%}; kernel moved {drift[-1]:.2%};"
                    f" error fell to {real[-1] / real[0]:.1e}",
                    flush=True,
                )
    sufficient = [tw.kernels.sufficient_width(*problem(s)).width for s in range(arguments.seeds)]
    print("the proof asks for widths of", ", ".join(f"{width:.2g}" for width in sufficient))
    if arguments.json:
        result = {"rows": rows, "sufficient": sufficient, "environment": environment()}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
