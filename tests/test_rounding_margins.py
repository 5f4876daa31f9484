"""Bounds allow for rounding where large gradients of samples cancel.

Float32 is judged in float64, float64 in extended precision.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import thalweg as tw
from thalweg.closeness import ClosedForm, Intervals
from thalweg.curvature._bound import bound_at
from thalweg.curvature._gradient_rounding import gradient_rounding
from thalweg.curvature._upper_bound import upper_bound_at

from .oracles import spectra

WIDTHS = (3, 2, 2)


def cancelling(seed, size, dtype):
    """Two linear layers, and samples in pairs whose gradients are opposite."""
    rng = np.random.default_rng(seed)
    network = tw.networks.fully_connected(
        list(WIDTHS), activation="linear", bias=False, init="xavier", key=jr.key(seed)
    )
    network = jax.tree.map(lambda w: w.astype(dtype), network)
    inputs = np.tile(rng.normal(size=(4, WIDTHS[0])), (2, 1)).astype(dtype)
    outputs = np.asarray(jax.vmap(network)(jnp.asarray(inputs)))
    away = size * rng.normal(size=(4, WIDTHS[-1]))
    targets = (outputs + np.concatenate([away, -away])).astype(dtype)
    return network, tw.Objective(tw.networks.apply, tw.losses.squared_error, inputs, targets)


def exactly(network, objective):
    """Gradient and Hessian in extended precision, from derivatives written out."""
    first, second = (np.asarray(layer.weight).astype(np.longdouble) for layer in network.layers)
    inputs, targets = (
        np.asarray(a).astype(np.longdouble) for a in (objective.inputs, objective.targets)
    )
    places = [("low", i, j) for i in range(first.shape[0]) for j in range(first.shape[1])]
    places += [("high", i, j) for i in range(second.shape[0]) for j in range(second.shape[1])]
    gradient = np.zeros(len(places), np.longdouble)
    hessian = np.zeros((len(places), len(places)), np.longdouble)
    for x, y in zip(inputs, targets, strict=True):
        away, unit = second @ (first @ x) - y, np.eye(len(y), dtype=np.longdouble)
        columns = [
            second[:, i] * x[j] if layer == "low" else unit[i] * (first[j] @ x)
            for layer, i, j in places
        ]
        jacobian = np.stack(columns, axis=1)
        gradient += jacobian.T @ away
        hessian += jacobian.T @ jacobian
        for a, (low, k, j) in enumerate(places):
            for b, (high, i, middle) in enumerate(places):
                if (low, high) == ("low", "high") and middle == k:
                    hessian[a, b] += away[i] * x[j]
                    hessian[b, a] += away[i] * x[j]
    return gradient / len(inputs), hessian / len(inputs)


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0]).astype(np.longdouble)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bounds_where_gradients_of_samples_cancel(dtype):
    """The curvature that is left is nothing but rounding errors of the data."""
    gradient = jax.jit(lambda p, o: o.gradient(p))
    worst = 0.0
    for seed in range(8):
        for size in (1.0, 1e3, 1e6):
            network, objective = cancelling(seed, size, dtype)
            exact, hessian = exactly(network, objective)
            values = spectra.eigenvalues(hessian)
            bound = bound_at(network, objective, jnp.zeros((), dtype))
            assert values[0] >= float(bound.value)
            assert np.abs(values).max() <= float(upper_bound_at(network, objective, 0.0))
            wrong = np.linalg.norm(flat(gradient(network, objective)) - exact)
            margin = float(gradient_rounding(network, objective, jnp.zeros((), dtype)))
            assert wrong <= margin
            worst = max(worst, float(wrong) / margin)
    assert worst > 1e-4, "margins are for the worst case, not without measure"


NETWORKS = {
    "relu": lambda: tw.networks.fully_connected(
        [3, 4, 4, 2], activation="relu", bias=False, init="he", key=jr.key(0)
    ),
    "convolution": lambda: tw.networks.convolutional(
        (1, 6, 6), activation="relu", channels=[2, 2], kernel=2, pool=2, padding=1, outputs=2,
        key=jr.key(0),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "loss"), [("relu", "cross_entropy"), ("convolution", "squared_error")]
)
def test_gradients_are_as_exact_as_said(name, loss):
    network = jax.tree.map(lambda w: w.astype(jnp.float32), NETWORKS[name]())
    rng = np.random.default_rng(0)
    shape = network.shape if hasattr(network, "shape") else (3,)
    inputs = rng.normal(size=(6, *shape)).astype(np.float32)
    targets = rng.integers(0, 2, 6)
    if loss == "squared_error":
        # Near interpolation, where the loss's gradient is a difference of nearly equal numbers.
        targets = np.asarray(jax.vmap(network)(jnp.asarray(inputs)))
    function = getattr(tw.losses, loss)
    objective = tw.Objective(tw.networks.apply, function, inputs, targets)
    wide = [
        jax.tree.map(lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a, tree)
        for tree in (network, jnp.asarray(inputs), jnp.asarray(targets))
    ]
    exact = tw.Objective(tw.networks.apply, function, *wide[1:]).gradient(wide[0])
    wrong = np.linalg.norm(flat(objective.gradient(network)) - flat(exact))
    margin = float(gradient_rounding(network, objective, jnp.zeros((), jnp.float32)))
    assert 0 < wrong <= margin
    # Margins grow with the ball.
    assert margin < float(gradient_rounding(network, objective, jnp.asarray(0.1, jnp.float32)))


@pytest.mark.parametrize("kind", ["proof", "intervals"])
def test_runs_that_move_by_rounding_alone(kind):
    """In float32 the gradient left by cancelling samples is mostly rounding, and adds up."""
    for seed in range(3):
        network, objective = cancelling(seed, 3e5, np.float32)
        step_size, steps = 1e-3, 40
        run = tw.descend(
            tw.GradientDescent(jnp.asarray(step_size, jnp.float32)), objective, network, steps
        )
        evidence = ClosedForm() if kind == "proof" else Intervals()
        certificate = tw.certify_run(objective, run, evidence=evidence, looks=4)
        # The flow in float64, which hardly moves: many short steps of the same method.
        wide = jax.tree.map(lambda w: w.astype(jnp.float64), network)
        data = (np.asarray(a, np.float64) for a in (objective.inputs, objective.targets))
        exact = tw.Objective(tw.networks.apply, tw.losses.squared_error, *data)
        fine = 64
        flow = tw.descend(
            tw.GradientDescent(step_size / fine), exact, wide, steps * fine, save_every=fine
        )
        apart = np.stack(
            [flat(jax.tree.map(lambda x, i=i: x[i], run.params)) for i in range(steps + 1)]
        ) - np.stack(
            [flat(jax.tree.map(lambda x, i=i: x[i], flow.params)) for i in range(steps + 1)]
        )
        true = np.linalg.norm(apart, axis=1).astype(float)
        rounding = np.finfo(np.float32).eps * np.linalg.norm(flat(network))
        assert true[-1] > 10 * rounding, "the run does move"
        assert np.all(true <= certificate.bound[run.steps])
