"""What neural-tangents says and how long it takes; run by `tangent_kernels.py` with an old JAX.

OLD_PYTHON benchmarks/_neural_tangents.py IN.npz OUT.npz [--time]
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
import neural_tangents as nt  # noqa: E402
from neural_tangents import stax  # noqa: E402

ACTIVATIONS = {
    "relu": stax.Relu(),
    "leaky_relu": stax.LeakyRelu(0.01),
    "erf": stax.Erf(),
    "gelu": stax.Gelu(),
    "linear": stax.Identity(),
}
_LONG = 60.0
METHODS = {
    "Jacobian contraction": nt.NtkImplementation.JACOBIAN_CONTRACTION,
    "NTK-vector products": nt.NtkImplementation.NTK_VECTOR_PRODUCTS,
    "structured derivatives": nt.NtkImplementation.STRUCTURED_DERIVATIVES,
}


def wide(case, inputs):
    """Tangent and NNGP kernel of one case."""
    activation = ACTIVATIONS[case["activation"]]
    form = {"W_std": case["weight_std"], "b_std": case["bias_std"] or None}
    layers = []
    if case["kind"] == "fully_connected":
        inputs = inputs.reshape(len(inputs), -1)
    else:
        # Channels last here.
        inputs = np.moveaxis(inputs, 1, -1)
        side = case["kernel"]
        padding = "SAME" if case["padding"] else "VALID"
        for _ in range(case["convolutions"]):
            strides = (case["stride"],) * 2
            layers += [
                stax.Conv(512, (side, side), strides, padding=padding, **form),
                activation,
            ]
        layers.append(stax.GlobalAvgPool() if case["head"] == "average" else stax.Flatten())
    for _ in range(case["depth"] - 1):
        layers += [stax.Dense(512, **form), activation]
    layers.append(stax.Dense(1, **form))
    kernel = stax.serial(*layers)[2](jnp.asarray(inputs), None, ("ntk", "nngp"))
    return np.asarray(kernel.ntk), np.asarray(kernel.nngp)


def network(params, inputs):
    for weight, bias in params[:-1]:
        inputs = jnp.tanh(inputs @ weight.T + bias)
    weight, bias = params[-1]
    return inputs @ weight.T + bias


def timed(params, inputs, batch):
    """Seconds of every method, the best of three, and one kernel to compare with."""
    seconds, kernel = {}, np.zeros(())
    for name, method in METHODS.items():
        one = nt.empirical_ntk_fn(network, trace_axes=(), vmap_axes=0, implementation=method)
        whole = jax.jit(one) if batch == 0 else nt.batch(one, batch_size=batch)
        try:
            taken = []
            # The first time compiles; one that takes minutes is no contender, and is not repeated.
            while len(taken) < 4 and not (taken and taken[0] > _LONG):
                start = time.perf_counter()
                kernel = np.asarray(whole(inputs, None, params))
                taken.append(time.perf_counter() - start)
            seconds[name] = min(taken[1:] or taken)
        except Exception as error:
            seconds[name] = f"failed: {str(error)[:80]}"
    return seconds, kernel


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("given")
    parser.add_argument("made")
    parser.add_argument("--time", action="store_true")
    arguments = parser.parse_args()
    given = np.load(arguments.given)
    result = {"version": nt.__version__, "jax": jax.__version__}
    if arguments.time:
        count = sum(name.startswith("weight") for name in given)
        params = [(given[f"weight{i}"], given[f"bias{i}"]) for i in range(count)]
        params = jax.tree_util.tree_map(jnp.asarray, params)
        batch = int(given["batch"])
        result["seconds"], kernel = timed(params, jnp.asarray(given["inputs"]), batch)
        # Rows of outputs first, as they are elsewhere: (samples, samples, outputs, outputs) here.
        np.savez(arguments.made, facts=json.dumps(result), kernel=kernel[:20, :20])
        return
    cases = json.loads(str(given["cases"]))
    arrays = {}
    for i, case in enumerate(cases):
        arrays[f"tangent{i}"], arrays[f"nngp{i}"] = wide(case, given[case["inputs"]])
    np.savez(arguments.made, facts=json.dumps(result), **arrays)


if __name__ == "__main__":
    main()
