"""Memory of a gradient flow of ten million parameters, in copies of the parameters.

    python benchmarks/memory.py [--parameters 1e7] [--precision float64] [--solver RKC2]

The network has a thousand inputs, a tanh layer, and few samples, so that parameters are what fills
memory. Measured is the resident memory of the process, sampled every two milliseconds, above what
it is before the flow with the parameters in place and a gradient compiled; compilation of the flow
is included. For comparison: the same for one gradient.
"""

import argparse
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from _digits import environment

import thalweg as tw

SOLVERS = {"none": None, "RKC2": tw.solvers.RKC2(), "RKC4": tw.solvers.RKC4()}


def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class Peak:
    """The largest resident memory while the block runs."""

    def __enter__(self):
        self.bytes, self._running = resident(), True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while self._running:
            self.bytes = max(self.bytes, resident())
            time.sleep(0.002)

    def __exit__(self, *exception):
        self._running = False
        self._thread.join()


def predict(params, inputs):
    hidden = jnp.tanh(inputs @ params.reshape(1000, -1))
    return hidden.sum(1, keepdims=True) / 100 + 1e-4 * jnp.sum(params**2)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=float, default=1e7)
    parser.add_argument("--precision", choices=("float32", "float64"), default="float64")
    parser.add_argument("--solver", choices=SOLVERS, default="none", help="none: ours to choose")
    arguments = parser.parse_args()
    dtype = jnp.dtype(arguments.precision)
    random = np.random.default_rng(0)
    count = int(arguments.parameters) // 1000 * 1000
    objective = tw.Objective(
        predict,
        tw.losses.squared_error,
        jnp.asarray(random.normal(size=(4, 1000)), dtype),
        jnp.ones((4, 1), dtype),
    )
    params = jnp.asarray(random.normal(size=count) / 100, dtype)
    gradient = jax.jit(objective.gradient)
    gradient(params).block_until_ready()
    before, copy = resident(), count * dtype.itemsize
    with Peak() as one:
        gradient(params).block_until_ready()
    with Peak() as whole:
        flow = tw.integrate(
            tw.GradientFlow(),
            objective,
            params,
            save_at=[1.0],
            rtol=1e-3,
            solver=SOLVERS[arguments.solver],
        )
    print(f"{count:,} parameters, {dtype}, {flow.stats.solver}, {flow.stats.steps} steps")
    print(f"one gradient: {(one.bytes - before) / copy:.1f} copies beside the parameters")
    print(f"the flow:     {(whole.bytes - before) / copy:.1f} copies beside the parameters")
    print(environment())


if __name__ == "__main__":
    main()
