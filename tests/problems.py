"""Small landscapes that several test files share."""

import functools
import itertools

import jax.numpy as jnp
import numpy as np

import thalweg as tw

# Functions are compiled once for every object: those of this file are always the same ones.


def linear_model(p, x):
    return x @ p


def quadratic(hessian):
    """The objective 1/2 x^T H x, as a squared error with inputs a root of N H."""
    values, vectors = np.linalg.eigh(hessian)
    assert values.min() > -1e-9, "a squared error is convex"
    n = len(values)
    inputs = np.sqrt(n) * (vectors * np.sqrt(np.maximum(values, 0))).T
    return tw.Objective(linear_model, tw.losses.squared_error, inputs, np.zeros(n))


def small_data(samples=12, features=3, outputs=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(samples, features)), rng.normal(size=(samples, outputs))


def tanh_network(params, inputs):
    for weight in params[:-1]:
        inputs = jnp.tanh(inputs @ weight.T)
    return inputs @ params[-1].T


def linear_network(params, inputs):
    for weight in params:
        inputs = inputs @ weight.T
    return inputs


def leaky_network(params, inputs):
    for weight in params[:-1]:
        hidden = inputs @ weight.T
        inputs = jnp.where(hidden > 0, hidden, 0.1 * hidden)
    return inputs @ params[-1].T


def random_weights(widths, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return [
        jnp.asarray(scale * rng.normal(size=(b, a)) / np.sqrt(a))
        for a, b in itertools.pairwise(widths)
    ]


def small_objective(predict=tanh_network, widths=(3, 5, 2), seed=0, loss=None):
    inputs, targets = small_data(features=widths[0], outputs=widths[-1], seed=seed)
    objective = tw.Objective(predict, loss or tw.losses.squared_error, inputs, targets)
    return objective, random_weights(widths, seed)


@functools.lru_cache(16)
def landscape(value):
    """The objective `value(params)`; of one function always the same."""
    return tw.FunctionObjective(value)


def in_parts(size):
    """The reduction in micro-batches of this size, or all at once for None."""
    return None if size is None else tw.objectives.MicroBatches(size)
