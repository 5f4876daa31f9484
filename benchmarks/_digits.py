"""The problem of the benchmarks: 500 digits, a tanh network 64-64-64-10 with biases.

Pixels are standardised feature by feature over these 500 digits; weights are N(0, 1/fan_in), biases
zero; the loss is half the squared error of one-hot rows, or cross-entropy.
"""

import platform
from importlib.metadata import version

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from sklearn.datasets import load_digits

import thalweg as tw

jax.config.update("jax_enable_x64", True)

LOSSES = {"squared error": tw.losses.squared_error, "cross-entropy": tw.losses.cross_entropy}


def predict(params, inputs):
    for weight, bias in params[:-1]:
        inputs = jnp.tanh(inputs @ weight.T + bias)
    weight, bias = params[-1]
    return inputs @ weight.T + bias


def digits_problem(loss, samples=500, hidden=(64, 64), seed=0):
    data = load_digits()
    pixels = data.data[:samples]
    spread = np.where(pixels.std(0) > 0, pixels.std(0), 1.0)
    inputs = (pixels - pixels.mean(0)) / spread
    targets = np.eye(10)[data.target[:samples]]
    widths = [64, *hidden, 10]
    keys = jr.split(jr.key(seed), len(widths) - 1)
    params = [
        (jr.normal(k, (b, a)) / np.sqrt(a), jnp.zeros(b))
        for k, a, b in zip(keys, widths[:-1], widths[1:], strict=True)
    ]
    return tw.Objective(predict, LOSSES[loss], inputs, targets), params


def environment(*packages):
    names = ("jax", "jaxlib", "diffrax", "equinox", "numpy", *packages)
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "precision": "float64",
        **{name: version(name) for name in names},
    }
