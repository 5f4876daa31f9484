"""Networks against the same arithmetic written out in NumPy."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.special

import thalweg as tw
from thalweg.networks import ACTIVATIONS, INITIALISATIONS

NUMPY = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(x, 0),
    "erf": scipy.special.erf,
    "gelu": lambda x: x * scipy.special.ndtr(x),
}


@pytest.mark.parametrize("name", NUMPY)
def test_activations(name):
    x = np.linspace(-3, 3, 13)
    activation = ACTIVATIONS[name]
    np.testing.assert_allclose(activation(jnp.asarray(x)), NUMPY[name](x), rtol=1e-12, atol=1e-15)
    scaled = np.asarray(activation(jnp.asarray(2.5 * x)))
    assert activation.homogeneous == np.allclose(scaled, 2.5 * NUMPY[name](x), atol=1e-12)
    if activation.slopes is not None:
        assert activation.slopes == (-float(NUMPY[name](np.array(-1.0))), float(NUMPY[name](1.0)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["tanh", "relu", "gelu"])
def test_fully_connected_forward(name, bias):
    network = tw.networks.fully_connected(
        [4, 7, 5, 3], activation=name, bias=bias, init="uniform_fan_in", key=jr.key(1)
    )
    inputs = np.random.default_rng(0).normal(size=(6, 4))
    x = inputs
    for i, layer in enumerate(network.layers):
        x = x @ np.asarray(layer.weight).T
        if bias:
            x = x + np.asarray(layer.bias)
        if i < 2:
            x = NUMPY[name](x)
    np.testing.assert_allclose(tw.networks.apply(network, jnp.asarray(inputs)), x, rtol=1e-12)
    assert all(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(network))
    assert len(jax.tree.leaves(network)) == (6 if bias else 3)


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("xavier", 2 / (300 + 200)),
        ("lecun", 1 / 300),
        ("he", 2 / 300),
        ("near_zero", 1e-4 / 300),
        ("tangent_kernel", 1.0),
        ("uniform_fan_in", 1 / (3 * 300)),
    ],
)
def test_initialisation_variances(name, variance):
    law = INITIALISATIONS[name]
    weights = np.asarray(law.weight(jr.key(0), (200, 300), 300, 200))
    assert weights.var() == pytest.approx(variance, rel=0.03)
    assert abs(weights.mean()) < 5 * np.sqrt(variance / weights.size)


def test_tangent_kernel_scaling_is_in_the_forward_pass():
    network = tw.networks.fully_connected(
        [300, 200, 1], activation="linear", init="tangent_kernel", key=jr.key(0)
    )
    x = np.random.default_rng(0).normal(size=300)
    first, last = network.layers
    hidden = np.asarray(first.weight) @ x / np.sqrt(300) + 0.1 * np.asarray(first.bias)
    out = np.asarray(last.weight) @ hidden / np.sqrt(200) + 0.1 * np.asarray(last.bias)
    np.testing.assert_allclose(network(jnp.asarray(x)), out, rtol=1e-10)


def convolve(images, weight, bias, stride, padding):
    """Cross-correlation by explicit loops."""
    channels, height, width = images.shape
    padded = np.zeros((channels, height + 2 * padding, width + 2 * padding))
    padded[:, padding : padding + height, padding : padding + width] = images
    outputs, _, kernel, _ = weight.shape
    rows = (padded.shape[1] - kernel) // stride + 1
    columns = (padded.shape[2] - kernel) // stride + 1
    result = np.zeros((outputs, rows, columns))
    for o, i, j in itertools.product(range(outputs), range(rows), range(columns)):
        patch = padded[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
        result[o, i, j] = (patch * weight[o]).sum() + (0 if bias is None else bias[o])
    return result


def pooled(images):
    channels, height, width = images.shape
    result = np.zeros((channels, height // 2, width // 2))
    for c, i, j in itertools.product(range(channels), range(height // 2), range(width // 2)):
        result[c, i, j] = images[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max()
    return result


@pytest.mark.parametrize(
    ("build", "stride", "pool", "leaves"),
    [
        (tw.networks.convolutional_strided, 2, False, 5),
        (tw.networks.convolutional_pooled, 1, True, 10),
    ],
)
def test_convolutional_forward(build, stride, pool, leaves):
    network = build(key=jr.key(2))
    assert len(jax.tree.leaves(network)) == leaves
    image = np.random.default_rng(1).normal(size=(28, 28))
    x = image[None]
    for i, layer in enumerate(network.convolutions):
        bias = None if layer.bias is None else np.asarray(layer.bias)
        x = convolve(x, np.asarray(layer.weight), bias, stride, 2 if i == 0 else 0)
        x = np.maximum(x, 0)
        x = pooled(x) if pool else x
    assert x.shape == (16, 5, 5)
    x = x.ravel()
    for i, layer in enumerate(network.layers):
        x = np.asarray(layer.weight) @ x + (0 if layer.bias is None else np.asarray(layer.bias))
        x = np.maximum(x, 0) if i < 2 else x
    np.testing.assert_allclose(network(jnp.asarray(image)), x, rtol=1e-10)
    np.testing.assert_allclose(network(jnp.asarray(image.ravel())), x, rtol=1e-10)


@pytest.mark.parametrize(
    "build", [tw.networks.convolutional_strided, tw.networks.convolutional_pooled]
)
def test_second_derivatives_go_through_convolutions(build):
    network = build(side=12, widths=(6,), channels=(2,), activation="tanh", key=jr.key(0))
    data = np.random.default_rng(0).normal(size=(3, 12, 12))
    objective = tw.Objective(
        tw.networks.apply, tw.losses.cross_entropy, data, np.array([0, 4, 9]), params=network
    )
    leaves, structure = jax.tree.flatten(network)
    keys = jr.split(jr.key(1), 2 * len(leaves))
    a, b = (
        jax.tree.unflatten(
            structure, [jr.normal(k, x.shape) for k, x in zip(ks, leaves, strict=True)]
        )
        for ks in (keys[: len(leaves)], keys[len(leaves) :])
    )

    def dot(x, y):
        return sum(
            float(jnp.vdot(p, q))
            for p, q in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
        )

    assert dot(a, objective.hvp(network, b)) == pytest.approx(dot(b, objective.hvp(network, a)))


def test_keys_decide():
    a, b, c = (
        tw.networks.fully_connected([3, 4, 2], key=jr.key(seed)).layers[0].weight
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": [3]}, "widths"),
        ({"widths": [3, 0, 2]}, "widths"),
        ({"activation": "than"}, "'tanh'"),
        ({"init": "xaver"}, "'xavier'"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        tw.networks.fully_connected(**{"widths": [3, 4, 2], "key": jr.key(0), **change})
    with pytest.raises(ValueError, match="side"):
        tw.networks.convolutional_strided(side=4, key=jr.key(0))
    with pytest.raises(TypeError, match="activation"):
        tw.networks.fully_connected([3, 2], activation=3, key=jr.key(0))  # pyright: ignore


def test_any_function_is_an_activation():
    network = tw.networks.fully_connected([3, 4, 2], activation=jnp.sin, key=jr.key(0))
    assert network.activation.name == "sin"
    assert np.isfinite(network(jnp.ones(3))).all()
