"""The law of distances on digits: predicted and measured, at a tenth of the stability limit.

    python benchmarks/distance_law.py [--json FILE]

Smooth networks (tanh, linear, 64-64-64-10) on 500 digits, both losses; gradient descent with a
step of 0.2 over the sharpness at the start, to 20 and 200 steps' time. Deviations are the largest
over ten saved times, relative to the measured distance.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.random as jr
import numpy as np
from _digits import digits_problem, environment

import thalweg as tw

jax.config.update("jax_enable_x64", True)


def problems():
    for loss in ("squared error", "cross-entropy"):
        yield f"tanh, {loss}", *digits_problem(loss)
    data = tw.datasets.digits(500)
    network = tw.networks.fully_connected(
        [data.inputs.shape[1], 64, 64, 10], activation="linear", init="xavier", key=jr.key(0)
    )
    for name, loss, targets in (
        ("squared error", tw.losses.squared_error, data.one_hot().targets),
        ("cross-entropy", tw.losses.cross_entropy, data.targets),
    ):
        objective = tw.Objective(tw.networks.apply, loss, data.inputs, targets)
        yield f"linear, {name}", objective, network


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    print(f"{'network':24s} {'steps':>6s} {'time':>6s} {'order 1':>9s} {'order 2':>9s}")
    for name, objective, params in problems():
        sharpness = float(tw.extreme_eigenvalues(objective, params).value[0])
        descent = tw.GradientDescent(0.2 / sharpness)
        for steps in (20, 200):
            run = tw.descend(descent, objective, params, steps, save_every=steps // 10)
            flow = tw.integrate(
                tw.GradientFlow(), objective, params, save_at=run.times, rtol=1e-8, atol=1e-11
            )
            gap = tw.compare(run, flow)
            measured = np.asarray(gap.distance)[1:]
            row = {"network": name, "steps": steps, "time": float(run.times[-1])}
            for order in (1, 2):
                law = tw.predicted_distance(
                    descent, objective, params, save_at=run.times, rtol=1e-6, order=order
                )
                off = np.abs(np.asarray(law.distance)[1:] / measured - 1)
                row[f"order {order}"] = float(off.max())
                row[f"gradients {order}"] = law.stats.gradients + law.stats.error_gradients
            row["flow error"] = float(np.max(np.asarray(gap.error)[1:] / measured))
            rows.append(row)
            print(
                f"{name:24s} {steps:>6d} {row['time']:>6.3g} {100 * row['order 1']:>8.2f}%"
                f" {100 * row['order 2']:>8.2f}%   (flow's error {100 * row['flow error']:.2g}%;"
                f" {row['gradients 1']:,} and {row['gradients 2']:,} gradients)",
                flush=True,
            )
    if arguments.json:
        result = {"rows": rows, "environment": environment()}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
