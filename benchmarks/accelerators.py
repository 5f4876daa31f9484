"""A flow and a descent on an accelerator, against the processor of the same machine and PyTorch.

    python benchmarks/accelerators.py [--sizes small large] [--json FILE]

Tanh networks with half the squared error to a random teacher's outputs: "small" is 64-64-64-10 on
500 samples, "large" is 784-1024-1024-10 on 10,000. On every device: the time of a gradient; a
gradient flow (wall time without compilation, its gradients, how far its end is from the end on the
processor, and the error that it reports); steps per second of gradient descent, and those of
`torch.optim.SGD` in an eager loop on the same device where PyTorch is installed. Float64 is the
precision of studies, float32 what accelerators are made for.
"""

import argparse
import itertools
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _digits import environment, predict
from jax.flatten_util import ravel_pytree

import thalweg as tw

torch: Any = None
with suppress(ImportError):
    import torch

SIZES = {"small": ([64, 64, 64, 10], 500), "large": ([784, 1024, 1024, 10], 10_000)}
STEP = 1e-2


def network(widths, random):
    return [
        (random.normal(size=(b, a)) / np.sqrt(a), np.zeros(b))
        for a, b in itertools.pairwise(widths)
    ]


def problem(size, dtype):
    widths, samples = SIZES[size]
    random = np.random.default_rng(0)
    inputs = random.normal(size=(samples, widths[0]))
    teacher, params = network(widths, random), network(widths, random)
    targets = np.asarray(predict(teacher, inputs))
    return jax.tree.map(lambda x: np.asarray(x, dtype), (inputs, targets, params))


def seconds(function, repeats):
    """The fastest of some calls, after one that compiles."""
    jax.block_until_ready(function())
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        spent.append(time.perf_counter() - start)
    return min(spent)


def eager(device, data, steps):
    """Steps per second of the loop that a PyTorch user writes."""
    x, y = (torch.tensor(part, device=device) for part in data[:2])
    layers = []
    for weight, bias in data[2]:
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=x.dtype, device=device)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.copy_(torch.tensor(bias))
        layers += [layer, torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(model.parameters(), lr=STEP)

    def run(count):
        for _ in range(count):
            optimizer.zero_grad()
            (0.5 * ((model(x) - y) ** 2).sum(dim=1).mean()).backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    run(3)
    start = time.perf_counter()
    run(steps)
    return steps / (time.perf_counter() - start)


def measured(device, size, dtype, t1, rtol, steps):
    data = problem(size, dtype)
    with jax.default_device(device):
        inputs, targets, params = jax.tree.map(jnp.asarray, data)
        objective = tw.Objective(predict, tw.losses.squared_error, inputs, targets)
        gradient = jax.jit(lambda p: objective.gradient(p))
        row = {
            "device": device.device_kind,
            "size": size,
            "precision": np.dtype(dtype).name,
            "parameters": sum(x.size for x in jax.tree.leaves(params)),
            "gradient_seconds": seconds(lambda: gradient(params), 10),
        }

        def flow():
            return tw.integrate(tw.GradientFlow(), objective, params, t1=t1, rtol=rtol)

        found = flow()
        row["flow_seconds"] = seconds(lambda: flow().params, 1)
        row["gradients"] = found.stats.gradients + found.stats.error_gradients
        row["reported"], row["status"] = float(np.asarray(found.error)[-1]), found.status.kind
        last = jax.tree.map(lambda x: np.asarray(x[-1], float), found.params)

        def descent():
            optimizer = tw.GradientDescent(STEP)
            return tw.descend(optimizer, objective, params, steps, save_every=steps).params

        row["steps_per_second"] = steps / seconds(descent, 2)
    if torch is not None:
        name = "cpu" if device.platform == "cpu" else "cuda"
        if name == "cpu" or torch.cuda.is_available():
            row["eager_steps_per_second"] = eager(name, data, steps)
    return row, ravel_pytree(last)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    processor = jax.devices("cpu")[0]
    devices = [processor, *(d for d in jax.devices()[:1] if d.platform != "cpu")]
    rows = []
    for size in arguments.sizes:
        t1, steps = (1000.0, 2000) if size == "small" else (10.0, 20)
        for dtype, rtol in ((np.float64, 1e-6), (np.float32, 1e-4)):
            ends = []
            for device in devices:
                more = 10 if device.platform != "cpu" and size == "large" else 1
                row, end = measured(device, size, dtype, t1, rtol, more * steps)
                ends.append(end)
                row["apart"] = float(np.linalg.norm(end - ends[0]))
                rows.append(row)
                eager_rate = row.get("eager_steps_per_second", float("nan"))
                print(
                    f"{size:6s} {row['precision']} {row['device']:24s}"
                    f" gradient {1e3 * row['gradient_seconds']:9.3f} ms;"
                    f" flow {row['flow_seconds']:8.2f} s, {row['gradients']} gradients,"
                    f" {row['apart']:.1e} from the processor's end, reported {row['reported']:.1e},"
                    f" {row['status']}; descent {row['steps_per_second']:.1f} steps/s,"
                    f" eager {eager_rate:.1f}",
                    flush=True,
                )
    if arguments.json:
        result = {"rows": rows, "environment": environment()}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
