"""What `tests/test_sharded.py` computes, on as many devices and processes as it is started with.

    python -m tests.distributed                     # one device
    python -m tests.distributed PORT PROCESSES RANK # as one of several processes

The first process prints the numbers as JSON, in full.
"""

import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

SAMPLES = 16


def objective_of(reduction):
    import thalweg as tw
    from tests.problems import small_data, tanh_network

    inputs, targets = small_data(SAMPLES)
    return tw.Objective(tanh_network, tw.losses.squared_error, inputs, targets, reduction=reduction)


def numbers(objective):
    """Everything that is followed and measured, as plain lists."""
    import thalweg as tw
    from tests.problems import random_weights

    params = random_weights((3, 5, 2))
    objective.check(params)
    vector = jax.tree.map(lambda w: w / 3 + 1, params)
    times = np.array([0.0, 0.5, 2.0])
    # The steps of this solver do not depend on what rounding decides.
    solver = tw.solvers.RKC2()
    flow = tw.integrate(tw.GradientFlow(), objective, params, save_at=times, solver=solver)
    run = tw.descend(tw.GradientDescent(0.1), objective, params, 20, save_every=5)
    gap = tw.compare(run, flow)
    found = tw.extreme_eigenvalues(objective, params)
    kernel = tw.kernels.empirical(objective, params)
    products = {
        "value": lambda o: o.value(params),
        "gradient": lambda o: o.gradient(params),
        "hvp": lambda o: o.hvp(params, vector),
        "gnvp": lambda o: o.gnvp(params, vector),
    }
    results = {
        **{name: eqx.filter_jit(product)(objective) for name, product in products.items()},
        "flow": flow.params,
        "error": flow.error,
        "run": run.params,
        "losses": run.loss,
        "distance": gap.distance,
        "predictions": gap.prediction_distance,
        "largest": found.largest.value,
        "smallest": found.smallest.value,
        "trace": jnp.trace(kernel.matrix("mean")),
    }
    return {name: np.asarray(ravel_pytree(v)[0]).tolist() for name, v in results.items()}


def main():
    jax.config.update("jax_enable_x64", True)
    if len(sys.argv) > 1:
        port, processes, rank = map(int, sys.argv[1:])
        jax.distributed.initialize(f"127.0.0.1:{port}", processes, rank)
    import thalweg as tw

    several = jax.device_count() > 1
    found = numbers(objective_of(tw.objectives.Sharded() if several else None))
    if jax.process_index() == 0:
        print(json.dumps({"devices": jax.device_count(), **found}))


if __name__ == "__main__":
    main()
