"""Networks with kinks: gradients averaged over a segment, and flows that slide."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import thalweg as tw
from tests.oracles import sliding
from tests.problems import (
    in_parts,
    landscape,
    leaky_network,
    random_weights,
    small_data,
    tanh_network,
)


def relu_network(params, inputs):
    for weight in params[:-1]:
        inputs = jax.nn.relu(inputs @ weight.T)
    return inputs @ params[-1].T


def pooled_network(params, inputs):
    hidden = inputs @ params[0].T
    pairs = hidden.reshape(len(inputs), -1, 2)
    return jnp.max(pairs, axis=-1) @ params[1].T


def min_and_abs(params, inputs):
    hidden = inputs @ params[0].T
    return jnp.abs(jnp.minimum(hidden[:, ::2], hidden[:, 1::2])) @ params[1].T


def clipped(params, inputs):
    return jnp.clip(inputs @ params[0].T, -0.5, 0.5)[:, ::2] @ params[1].T


def hard_tanh(params, inputs):
    return jax.nn.hard_tanh(inputs @ params[0].T)[:, ::2] @ params[1].T


NETWORKS = {
    "relu": (relu_network, (3, 6, 4, 2)),
    "leaky": (leaky_network, (3, 6, 4, 2)),
    "max-pool": (pooled_network, None),
    "min and abs": (min_and_abs, None),
    "clip": (clipped, None),
    "hard tanh": (hard_tanh, None),
}


def problem(name, seed=0):
    predict, widths = NETWORKS[name]
    inputs, targets = small_data(samples=2000)
    if widths is None:
        a, b = random_weights((3, 8, 2), seed)
        params = [a, b[:, ::2]]
    else:
        params = random_weights(widths, seed)
    return tw.Objective(predict, tw.losses.squared_error, inputs, targets), params


def brute_force(objective, params, displacement, pieces=1_000):
    """The mean gradient over the segment, by the midpoint rule with very many points."""
    gradient = jax.jit(
        lambda s: objective.gradient(jax.tree.map(lambda p, d: p + s * d, params, displacement))
    )
    places = (jnp.arange(pieces) + 0.5) / pieces - 0.5
    gradients = jax.lax.map(gradient, places, batch_size=100)
    return jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)


def norm(tree):
    return float(np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(tree))))


def minus(a, b):
    return jax.tree.map(jnp.subtract, a, b)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("micro_batch", [None, 700])
def test_mean_gradient_against_brute_force(name, micro_batch):
    objective, params = problem(name)
    batched = tw.Objective(
        objective.predict,
        objective.loss,
        objective.inputs,
        objective.targets,
        reduction=in_parts(micro_batch),
    )
    displacement = jax.tree.map(
        lambda p, q: 0.01 * q, params, random_weights_like(params, jr.key(1))
    )
    true = brute_force(objective, params, displacement)
    plain = norm(minus(jax.jit(objective.gradient)(params), true))
    mean = norm(minus(jax.jit(batched.mean_gradient)(params, displacement), true))
    assert plain > 2e-4, "kinks lie on the segment"
    # Sampled maxima are good to a sixteenth of the segment.
    assert mean < (0.3 if name == "max-pool" else 0.1) * plain


def random_weights_like(params, key):
    return jax.tree.map(lambda p: jr.normal(key, p.shape), params)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_displacement_it_is_the_gradient(name):
    objective, params = problem(name)
    still = jax.tree.map(jnp.zeros_like, params)
    difference = minus(objective.mean_gradient(params, still), objective.gradient(params))
    assert norm(difference) < 1e-12
    assert objective.kinks(params).exist


def test_smooth_networks_have_no_kinks():
    inputs, targets = small_data()
    params = random_weights((3, 5, 2))
    probabilities = np.eye(2)[np.arange(12) % 2]

    def with_activation(activation):
        return lambda p, x: activation(x @ p[0].T) @ p[1].T

    for predict in (
        tanh_network,
        with_activation(jax.nn.softplus),
        with_activation(jax.nn.gelu),
        with_activation(jax.nn.silu),
        with_activation(jax.nn.elu),
        with_activation(lambda z: jax.nn.softmax(z, axis=-1)),
    ):
        objective = tw.Objective(predict, tw.losses.cross_entropy, inputs, probabilities)
        assert not objective.kinks(params).exist
        displacement = jax.tree.map(lambda p: 0.1 * p, params)
        same = minus(objective.mean_gradient(params, displacement), objective.gradient(params))
        assert norm(same) < 1e-12
    absolute = tw.Objective(
        tanh_network, lambda z, y: jnp.sum(jnp.abs(z - y), axis=1), inputs, targets
    )
    assert absolute.kinks(params).exist, "the loss has kinks"


def test_own_rules_of_derivatives_are_kept():
    """A straight-through estimator is not a kink to be averaged: its author said what it is."""

    @jax.custom_jvp
    def straight_through(x):
        return jnp.where(x > 0, 1.0, 0.0) * jnp.exp(0 * x)

    straight_through.defjvp(lambda primals, tangents: (straight_through(*primals), tangents[0]))
    inputs, targets = small_data()
    params = random_weights((3, 5, 2))
    objective = tw.Objective(
        lambda p, x: straight_through(x @ p[0].T) @ p[1].T,
        tw.losses.squared_error,
        inputs,
        targets,
    )
    displacement = jax.tree.map(lambda p: 0.5 * p, params)
    same = minus(objective.mean_gradient(params, displacement), objective.gradient(params))
    assert norm(same) < 1e-12


def test_kink_pattern():
    objective, params = problem("relu")
    first, second = objective.kink_pattern(params)
    hidden = np.asarray(objective.inputs) @ np.asarray(params[0]).T
    np.testing.assert_array_equal(first, hidden > 0)
    np.testing.assert_array_equal(second, np.maximum(hidden, 0) @ np.asarray(params[1]).T > 0)
    assert (
        tw.Objective(
            tanh_network, objective.loss, objective.inputs, objective.targets
        ).kink_pattern(params)
        == []
    )


def test_kink_pattern_of_a_network_of_one_sample():
    """The axis of samples may be anywhere in a hidden layer."""
    inputs, targets = small_data()
    params = random_weights((3, 5, 2))
    objective = tw.Objective(
        jax.vmap(lambda p, x: p[1] @ jax.nn.relu(p[0] @ x), in_axes=(None, 0)),
        tw.losses.squared_error,
        inputs,
        targets,
    )
    (pattern,) = objective.kink_pattern(params)
    np.testing.assert_array_equal(pattern, inputs @ np.asarray(params[0]).T > 0)


def neurons(params, inputs):
    return jnp.sum(jax.nn.relu(inputs @ params.T), axis=1, keepdims=True)


@pytest.mark.parametrize(
    "start", [[[0.3, 0.2]], [[0.3, 0.1], [0.6, -0.1]], [[0.2, 0.3], [0.2, -0.1]]]
)
@pytest.mark.parametrize(
    "tolerances", [(1e-2, 1e-3), (3e-3, 1e-3), pytest.param((1e-3, 1e-4), marks=pytest.mark.slow)]
)
def test_sliding_flow_against_closed_form(start, tolerances):
    objective = tw.Objective(neurons, tw.losses.squared_error, sliding.INPUTS, sliding.TARGETS)
    times = np.linspace(0, 3, 31)
    exact, phases = sliding.solution(start, times)
    assert len(phases) == len(start), "every neuron slides in the end"
    exact = exact.reshape(len(times), *np.shape(start))
    errors = []
    for rtol in tolerances:
        flow = tw.integrate(
            tw.GradientFlow(), objective, jnp.array(start), save_at=times, rtol=rtol
        )
        assert flow.stats.solver == "AveragedMidpoint"
        true = np.linalg.norm((np.asarray(flow.params) - exact).reshape(len(times), -1), axis=1)
        assert true.max() < 10 * rtol
        assert np.all(true <= flow.error)
        errors.append(true.max())
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize(
    ("value", "exact"),
    [
        (lambda p: jnp.sum(jnp.abs(p)), lambda t: np.maximum(1 - t, 0)),
        (
            lambda p: jnp.sum((p - 0.5) ** 2 / 2 + jnp.abs(p)),
            lambda t: np.maximum(1.5 * np.exp(-t) - 0.5, 0),
        ),
    ],
    ids=["abs", "lasso"],
)
def test_rest_on_a_kink(value, exact):
    """The field alternates with period two there, which must not pass for a vanishing error."""
    times = np.linspace(0, 4, 41)
    flow = tw.integrate(
        tw.GradientFlow(), landscape(value), jnp.ones(1), save_at=times, rtol=1e-2, atol=1e-3
    )
    true = np.abs(flow.params[:, 0] - exact(times))
    assert flow.status.ok
    assert true.max() < 2e-2
    assert np.mean(true > flow.error) < 0.03


@jax.custom_vjp
def _own_relu(z):
    return jnp.where(z > 0, z, 0)


_own_relu.defvjp(lambda z: (_own_relu(z), z > 0), lambda active, g: (jnp.where(active, g, 0),))


def in_a_loop(activation):
    """Layers of one width, as a loop."""

    def predict(params, inputs):
        def layer(h, weight):
            return activation(h @ weight.T), None

        return jax.lax.scan(layer, inputs, params)[0]

    return predict


def sorted_units(params, inputs):
    return jnp.sort(inputs @ params[0].T, axis=1) @ params[1].T


def two_conditions(params, inputs):
    hidden = inputs @ params[0].T
    return jnp.where((hidden > 0) & (hidden < 1), hidden, 0) @ params[1].T


@pytest.mark.parametrize(
    ("predict", "rough"),
    [
        (in_a_loop(jax.nn.relu), True),
        (in_a_loop(jnp.tanh), False),
        (in_a_loop(lambda z: z), False),
        (lambda p, x: _own_relu(x @ p[0].T) @ p[1].T, True),
        (sorted_units, True),
        (two_conditions, True),
    ],
)
def test_kinks_that_cannot_be_read_are_felt(predict, rough):
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    params = jnp.asarray(rng.normal(size=(2, 3, 3)))
    objective = tw.Objective(predict, tw.losses.squared_error, inputs, targets)
    kinks = objective.kinks(params)
    assert kinks.exist == rough
    assert not kinks.read
    assert kinks.gradients == 66
    flow = tw.integrate(tw.GradientFlow(), objective, params, t1=0.3, rtol=1e-3)
    assert ("AveragedMidpoint" in flow.stats.solver) == rough
    finer = tw.integrate(tw.GradientFlow(), objective, params, t1=0.3, rtol=1e-4)
    apart = float(jnp.linalg.norm(flow.params[-1] - finer.params[-1]))
    assert apart <= flow.error[-1] + finer.error[-1]
    assert flow.stats.gradients > 66
