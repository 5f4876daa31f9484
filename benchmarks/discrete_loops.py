"""Steps per second of the optimizers, against the same optimizers in an eager PyTorch loop.

Same network, data, precision, starting point and number of threads; both full batch. PyTorch runs
`torch.optim.SGD` (plain, with momentum, with Nesterov momentum) in the ordinary loop: zero the
gradients, forward, loss, backward, step. Run with the `benchmark` extra installed:

    python benchmarks/discrete_loops.py [--steps 2000] [--json FILE]
"""

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import torch
from sklearn.datasets import load_digits

import thalweg as tw

jax.config.update("jax_enable_x64", True)


def problem(samples, hidden):
    data = load_digits()
    inputs = data.data[:samples] / 16.0
    targets = np.eye(10)[data.target[:samples]]
    widths = [64, *hidden, 10]
    params = []
    for key, fan_in, fan_out in zip(
        jr.split(jr.key(0), len(hidden) + 1), widths[:-1], widths[1:], strict=True
    ):
        weight = jr.normal(key, (fan_out, fan_in)) / np.sqrt(fan_in)
        params.append((np.asarray(weight), np.zeros(fan_out)))
    return inputs, targets, params


def predict(params, inputs):
    for weight, bias in params[:-1]:
        inputs = jnp.tanh(inputs @ weight.T + bias)
    weight, bias = params[-1]
    return inputs @ weight.T + bias


def ours(optimizer, inputs, targets, params, steps):
    objective = tw.Objective(predict, tw.losses.squared_error, inputs, targets)
    params = jax.tree.map(jnp.asarray, params)
    tw.descend(optimizer, objective, params, 2, save_every=2)
    start = time.perf_counter()
    run = tw.descend(optimizer, objective, params, steps, save_every=steps)
    jax.block_until_ready(run.params)
    return steps / (time.perf_counter() - start), float(run.loss[-1])


def eager(options, inputs, targets, params, steps):
    x, y = torch.tensor(inputs), torch.tensor(targets)
    layers = []
    for i, (weight, bias) in enumerate(params):
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.copy_(torch.tensor(bias))
        layers += [layer] if i == len(params) - 1 else [layer, torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), **options)

    def step():
        optimizer.zero_grad()
        loss = 0.5 * ((model(x) - y) ** 2).sum(dim=1).mean()
        loss.backward()
        optimizer.step()

    start = time.perf_counter()
    for _ in range(steps):
        step()
    rate = steps / (time.perf_counter() - start)
    with torch.no_grad():
        loss = 0.5 * ((model(x) - y) ** 2).sum(dim=1).mean()
    return rate, float(loss)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--hidden", type=int, nargs="+", default=[16])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    inputs, targets, params = problem(arguments.samples, arguments.hidden)
    eta = 1e-2
    cases = {
        "gradient descent": (tw.GradientDescent(eta), {"lr": eta}),
        "heavy ball": (tw.HeavyBall(eta, 0.9), {"lr": eta, "momentum": 0.9}),
        "Nesterov, constant": (
            tw.NesterovConstant(eta, 0.9),
            {"lr": eta, "momentum": 0.9, "nesterov": True},
        ),
    }
    rows = []
    print(f"{'optimizer':20s} {'thalweg/s':>10s} {'eager/s':>10s} {'ratio':>7s}  final losses")
    for name, (optimizer, options) in cases.items():
        pairs = []
        for _ in range(arguments.repeats):
            mine, loss = ours(optimizer, inputs, targets, params, arguments.steps)
            theirs, other = eager(options, inputs, targets, params, arguments.steps)
            pairs.append((mine, theirs, loss, other))
        mine, theirs, loss, other = sorted(pairs, key=lambda p: p[0] / p[1])[len(pairs) // 2]
        print(
            f"{name:20s} {mine:10.0f} {theirs:10.0f} {mine / theirs:7.2f}  {loss:.9g} {other:.9g}"
        )
        rows.append({"optimizer": name, "thalweg": mine, "eager": theirs, "ratio": mine / theirs})
    environment = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        **{name: version(name) for name in ("jax", "torch", "numpy")},
    }
    if arguments.json:
        settings = {k: v for k, v in vars(arguments).items() if k != "json"}
        arguments.json.write_text(
            json.dumps({"settings": settings, "rows": rows, "environment": environment}, indent=1)
        )


if __name__ == "__main__":
    main()
