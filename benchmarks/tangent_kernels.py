"""Tangent kernels beside neural-tangents: the same numbers, how long they take, how much room.

    python benchmarks/tangent_kernels.py --peer OLD_PYTHON [--samples 1000] [--json FILE]
    python benchmarks/tangent_kernels.py --operator 20000

`OLD_PYTHON` is the interpreter of an environment with neural-tangents 0.6.5 and a JAX that it still
works with (`jax==0.4.20 jaxlib==0.4.20 numpy<2 scipy<1.13`). The first command compares kernels of
infinitely wide networks (largest relative difference), and times the kernel of a real network with
about 10^5 parameters and 10 outputs on digits, all pairs of outputs, float32: every method of
neural-tangents, and ours at several memory budgets, each in a process of its own, best of three.
The second makes products with the kernel on that many samples and tells the peak memory.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.random as jr
import numpy as np
from _digits import environment

import thalweg as tw

WIDTHS = [64, 280, 280, 10]
BUDGETS = (600, 1000, 2000)


def cases():
    rows = [
        {
            "kind": "fully_connected",
            "inputs": "flat",
            "activation": activation,
            "depth": depth,
            "weight_std": 1.3,
            "bias_std": bias,
        }
        for activation in ("linear", "relu", "leaky_relu", "erf", "gelu")
        for depth, bias in ((2, 0.0), (5, 0.3))
    ]
    rows += [
        {
            "kind": "convolutional",
            "inputs": "images",
            "activation": activation,
            "convolutions": 2,
            "kernel": 3,
            "stride": stride,
            "padding": padding,
            "head": head,
            "depth": 2,
            "weight_std": 1.3,
            "bias_std": 0.3,
        }
        for activation in ("relu", "erf")
        for head in ("flatten", "average")
        for stride, padding in ((1, 1), (1, 0))
    ]
    return rows


def ours(case, inputs):
    form = {k: case[k] for k in ("activation", "depth", "weight_std", "bias_std")}
    if case["kind"] == "fully_connected":
        return tw.kernels.fully_connected(form.pop("depth"), **form)(inputs)
    form |= {k: case[k] for k in ("convolutions", "kernel", "stride", "padding", "head")}
    return tw.kernels.convolutional(inputs.shape[1:], **form)(inputs)


def saved(path, arrays):
    np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})  # pyright: ignore


def peer(python, *arguments):
    script = Path(__file__).with_name("_neural_tangents.py")
    subprocess.run([python, str(script), *map(str, arguments)], check=True)


def agreement(python, folder):
    """Largest relative difference over all cases."""
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    given = {"flat": rng.normal(size=(12, 20)), "images": rng.normal(size=(5, 2, 7, 7))}
    saved(folder / "in.npz", {"cases": np.asarray(json.dumps(cases())), **given})
    peer(python, folder / "in.npz", folder / "out.npz")
    theirs = np.load(folder / "out.npz")
    rows = []
    for i, case in enumerate(cases()):
        found = ours(case, given[case["inputs"]])
        gaps = [
            float(np.max(np.abs(a - theirs[f"{name}{i}"])) / np.max(np.abs(a)))
            for name, a in (("tangent", found.tangent), ("nngp", found.nngp))
        ]
        rows.append(case | {"tangent": gaps[0], "nngp": gaps[1]})
        label = " ".join(str(case.get(k, "")) for k in ("kind", "activation", "depth", "head"))
        print(f"{label:45s} tangent {gaps[0]:.1e}, nngp {gaps[1]:.1e}", flush=True)
    print(f"largest: {max(max(r['tangent'], r['nngp']) for r in rows):.1e}")
    return json.loads(str(theirs["facts"])), rows


def problem(samples):
    network = tw.networks.fully_connected(WIDTHS, key=jr.key(0))
    network = jax.tree.map(lambda w: w.astype(np.float32), network)
    inputs = np.asarray(tw.datasets.digits(min(samples, 1797)).inputs, np.float32)
    if samples > len(inputs):
        # Digits again, a little changed, so that none is there twice.
        more = np.random.default_rng(0).normal(size=(samples, inputs.shape[1]))
        inputs = np.resize(inputs, more.shape) + 0.05 * more.astype(np.float32)
    targets = np.zeros((samples, 10), np.float32)
    objective = tw.Objective(
        tw.networks.apply,
        tw.losses.squared_error,
        inputs,
        targets,
        reduction=tw.objectives.MicroBatches(500),
    )
    return objective, network


def peak():
    """The most memory that the process had since its peak was forgotten, in bytes."""
    return _memory("VmHWM")


def forget_peak():
    """Start again from what the process has now, which is returned."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(field))
    return int(line.split()[1]) * 1024


def timed(samples, budget):
    """Seconds, and what memory rose by, in a process of its own."""
    objective, network = problem(samples)
    kernel = tw.kernels.empirical(objective, network)
    times, rose, corner = [], [], np.zeros(())
    for _ in range(4):
        before = forget_peak()
        start = time.perf_counter()
        matrix = np.asarray(kernel.matrix(memory=budget * 10**6))
        times.append(time.perf_counter() - start)
        rose.append(peak() - before)
        corner = np.array(matrix[:20, :, :20, :])
        del matrix
    # The first time compiles.
    best, rose = min(times[1:]), max(rose[1:])
    return {"budget": budget, "seconds": best, "memory": rose / 1e6, "corner": corner.tolist()}


def race(python, folder, samples):
    objective, network = problem(samples)
    arrays = {f"weight{i}": np.asarray(layer.weight) for i, layer in enumerate(network.layers)}
    arrays |= {f"bias{i}": np.asarray(layer.bias) for i, layer in enumerate(network.layers)}
    count = sum(a.size for a in arrays.values())
    result = {"samples": samples, "parameters": count, "precision": "float32"}
    theirs = {}
    for batch in (0, 100):
        saved(folder / "in.npz", {"inputs": objective.inputs, "batch": batch, **arrays})
        peer(python, folder / "in.npz", folder / "out.npz", "--time")
        made = np.load(folder / "out.npz")
        for name, seconds in json.loads(str(made["facts"]))["seconds"].items():
            label = f"{name}, {'at once' if batch == 0 else f'batches of {batch}'}"
            theirs[label] = seconds
            print(f"neural-tangents, {label}: {seconds}", flush=True)
    kernel = np.moveaxis(made["kernel"], 1, 2)
    own = []
    for budget in BUDGETS:
        command = [sys.executable, __file__, "--samples", str(samples), "--budget", str(budget)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        row = json.loads(done.stdout)
        gap = np.max(np.abs(np.asarray(row.pop("corner")) - kernel)) / np.max(np.abs(kernel))
        own.append(row | {"difference": float(gap)})
        print(
            f"ours, {budget} MB: {row['seconds']:.3g} s, memory rose by {row['memory']:.0f} MB,"
            f" difference {gap:.1e}",
            flush=True,
        )
    best = min(s for s in theirs.values() if isinstance(s, float))
    print(f"ours / best of theirs: {min(r['seconds'] for r in own) / best:.3g}")
    return result | {"theirs": theirs, "ours": own}


def operator(samples):
    objective, network = problem(samples)
    kernel = tw.kernels.empirical(objective, network)
    values = jr.normal(jr.key(1), (samples, 10), np.float32)
    np.asarray(kernel @ values)
    start = time.perf_counter()
    np.asarray(kernel @ values)
    seconds = time.perf_counter() - start
    print(f"{samples} samples: {seconds:.3g} s a product, peak memory {peak() / 1e9:.3g} GB")
    return {"samples": samples, "seconds": seconds, "peak": peak()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--budget", type=int)
    parser.add_argument("--operator", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.budget:
        print(json.dumps(timed(arguments.samples, arguments.budget)))
        return
    result: dict = {"environment": environment()}
    if arguments.operator:
        result["operator"] = operator(arguments.operator)
    if arguments.peer:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            result["race"] = race(arguments.peer, folder, arguments.samples)
            result["peer"], result["agreement"] = agreement(arguments.peer, folder)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
