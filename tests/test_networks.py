"""Networks against the same arithmetic written out in NumPy."""

import itertools
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.special
from jax.flatten_util import ravel_pytree

import thalweg as tw
from thalweg.networks import ACTIVATIONS, INITIALISATIONS
from thalweg.networks._layers import max_pool

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
    assert activation.smooth == ("relu" not in name)
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


def test_initialisations_with_their_own_numbers():
    law = tw.networks.NearZero(scale=0.5)
    assert np.asarray(law.weight(jr.key(0), (200, 300), 300, 200)).std() == pytest.approx(
        0.5 / np.sqrt(300), rel=0.02
    )
    network = tw.networks.fully_connected(
        [9, 4], init=tw.networks.TangentKernel(weight_std=2.0, bias_std=0.5), key=jr.key(0)
    )
    (layer,) = network.layers
    expected = np.asarray(layer.weight) @ np.ones(9) * 2 / 3 + 0.5 * np.asarray(layer.bias)
    np.testing.assert_allclose(network(jnp.ones(9)), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="scale"):
        tw.networks.NearZero(scale=0.0)
    with pytest.raises(ValueError, match="weight_std"):
        tw.networks.TangentKernel(weight_std=-1.0)


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_uniform_laws_reach_their_bounds_and_biases_follow_the_law(name):
    law = INITIALISATIONS[name]
    largest = float(jnp.abs(law.weight(jr.key(1), (200, 300), 300, 200)).max())
    bounds = {"xavier": np.sqrt(6 / 500), "uniform_fan_in": 1 / np.sqrt(300)}
    if name in bounds:
        assert 0.999 * bounds[name] < largest <= bounds[name]
    spread = {"uniform_fan_in": 1 / np.sqrt(3 * 300), "tangent_kernel": 1.0}.get(name, 0.0)
    assert float(law.bias(jr.key(2), 4000, 300).std()) == pytest.approx(spread, rel=0.05)


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


def test_convolutional_initialisation():
    network = tw.networks.convolutional_pooled(key=jr.key(0))
    sizes = [25, 6 * 25, 400, 120, 84, 10]
    for layer, fan_in in zip(network.convolutions, sizes[:2], strict=True):
        bound = 1 / np.sqrt(fan_in)
        assert 0.9 * bound < np.abs(np.asarray(layer.weight)).max() <= bound
        assert 0.5 * bound < np.abs(np.asarray(layer.bias)).max() <= bound
    for layer, (fan_in, fan_out) in zip(network.layers, itertools.pairwise(sizes[2:]), strict=True):
        bound = np.sqrt(6 / (fan_in + fan_out))
        assert 0.98 * bound < np.abs(np.asarray(layer.weight)).max() <= bound
        assert 0.5 < np.abs(np.asarray(layer.bias)).max() * np.sqrt(fan_in) <= 1


@pytest.mark.parametrize(
    ("build", "count"),
    [
        # LeNet-5's well-known count, and the same without its 236 biases.
        (tw.networks.convolutional_pooled, 61_706),
        (tw.networks.convolutional_strided, 61_470),
    ],
)
def test_convolutional_sizes(build, count):
    assert sum(leaf.size for leaf in jax.tree.leaves(build(key=jr.key(0)))) == count


@pytest.mark.parametrize(
    ("build", "smallest"),
    [(tw.networks.convolutional_strided, 9), (tw.networks.convolutional_pooled, 12)],
)
def test_smallest_images(build, smallest):
    network = build(side=smallest, outputs=3, key=jr.key(0))
    assert network(jnp.ones((smallest, smallest))).shape == (3,)
    for side in (smallest - 1, 2):
        with pytest.raises(ValueError, match=f"side: .*at least {smallest} x {smallest}"):
            build(side=side, key=jr.key(0))


@pytest.mark.parametrize(
    ("build", "degree"),
    [
        (tw.networks.convolutional_strided, 5),
        (partial(tw.networks.fully_connected, [784, 6, 5, 2], activation="relu", bias=False), 3),
        (
            partial(
                tw.networks.fully_connected,
                [784, 6, 2],
                activation=tw.networks.leaky_relu(0.3),
                bias=False,
            ),
            2,
        ),
    ],
)
def test_networks_without_biases_are_homogeneous_in_their_weights(build, degree):
    network = build(key=jr.key(0))
    image = jnp.asarray(np.random.default_rng(0).normal(size=(28, 28)))
    scaled = jax.tree.map(lambda w: 1.7 * w, network)
    assert float(jnp.abs(network(image)).max()) > 1e-3
    np.testing.assert_allclose(scaled(image), 1.7**degree * network(image), rtol=1e-10)


@pytest.mark.parametrize(
    "build", [tw.networks.convolutional_strided, tw.networks.convolutional_pooled]
)
def test_second_derivatives_go_through_convolutions(build):
    network = build(side=12, widths=(6,), channels=(2,), activation="tanh", key=jr.key(0))
    data = np.random.default_rng(0).normal(size=(3, 12, 12))
    objective = tw.Objective(
        tw.networks.apply, tw.losses.cross_entropy, data, np.array([0, 4, 9]), params=network
    )
    point, unravel = ravel_pytree(network)
    a, b = np.random.default_rng(1).normal(size=(2, point.size))
    gradient = jax.jit(lambda p: ravel_pytree(objective.gradient(unravel(p)))[0])
    hvp = jax.jit(lambda v: ravel_pytree(objective.hvp(network, unravel(v)))[0])
    product, step = np.asarray(hvp(b)), 1e-5
    difference = (gradient(point + step * b) - gradient(point - step * b)) / (2 * step)
    np.testing.assert_allclose(product, difference, atol=1e-6 * np.abs(product).max())
    assert a @ product == pytest.approx(b @ np.asarray(hvp(a)), rel=1e-10)


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
    with pytest.raises(TypeError, match="bias: expected True or False"):
        tw.networks.fully_connected([3, 2], bias="first", key=jr.key(0))  # pyright: ignore


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"outputs": 0}, "outputs"),
        ({"channels": (6, -1)}, "channels"),
        ({"widths": (2.5,)}, "widths"),
        ({"side": 28.0}, "side"),
    ],
)
def test_sizes_that_are_not_positive_integers(change, field):
    with pytest.raises(ValueError, match=f"{field}: expected positive integers"):
        tw.networks.convolutional_pooled(**change, key=jr.key(0))


@pytest.mark.parametrize(
    "build",
    [partial(tw.networks.fully_connected, [784, 4, 2]), tw.networks.convolutional_strided],
)
def test_samples_that_do_not_fit(build):
    network = build(key=jr.key(0))
    for shape in ((64,), (2, 28, 28)):
        with pytest.raises(ValueError, match=r"inputs: one sample has shape .* takes 784 numbers"):
            network(jnp.ones(shape))


def test_any_function_is_an_activation():
    network = tw.networks.fully_connected([3, 4, 2], activation=jnp.sin, key=jr.key(0))
    first, last = network.layers
    hidden = np.sin(np.asarray(first.weight) @ np.ones(3))
    np.testing.assert_allclose(network(jnp.ones(3)), np.asarray(last.weight) @ hidden, rtol=1e-12)
    assert network.activation.name == "sin"
    assert network.activation.smooth is None, "nobody has said so"
    assert not network.activation.homogeneous
    with pytest.raises(TypeError, match="cannot be hashed"):
        tw.networks.fully_connected([3, 2], activation=Unhashable(), key=jr.key(0))
    with pytest.raises(ValueError, match="slope"):
        tw.networks.leaky_relu(float("nan"))


class Unhashable:
    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __call__(self, x):
        return x


def test_networks_of_one_kind_share_their_structure():
    def draw(seed):
        return tw.networks.fully_connected(
            [3, 4, 2], activation=tw.networks.leaky_relu(0.2), init="he", key=jr.key(seed)
        )

    assert jax.tree.structure(draw(0)) == jax.tree.structure(draw(1))
    other = tw.networks.fully_connected([3, 4, 2], activation="leaky_relu", key=jr.key(0))
    assert jax.tree.structure(draw(0)) != jax.tree.structure(other)
    assert hash(jax.tree.structure(draw(0))) == hash(jax.tree.structure(draw(1)))


@pytest.mark.parametrize(
    ("shape", "pool", "stride", "padding"),
    [((2, 9), 1, 2, 1), ((1, 12), 2, 1, 0), ((3, 7, 6), 1, 2, 2), ((1, 8, 9), 2, 1, 1)],
)
def test_convolutions_of_any_shape(shape, pool, stride, padding):
    """Against loops over places of the kernel."""
    network = tw.networks.convolutional(
        shape,
        channels=[3],
        kernel=3,
        stride=stride,
        padding=padding,
        pool=pool,
        widths=[4],
        outputs=2,
        bias=True,
        key=jr.key(0),
    )
    x = np.random.default_rng(0).normal(size=shape)
    (convolution,), dimensions = network.convolutions, len(shape) - 1
    padded = np.pad(x, [(0, 0), *[(padding, padding)] * dimensions])
    kernel, bias = np.asarray(convolution.weight), np.asarray(convolution.bias)
    sides = [(s + 2 * padding - 3) // stride + 1 for s in shape[1:]]
    y = np.zeros((3, *sides))
    for place in np.ndindex(*sides):
        window = padded[(slice(None), *[slice(stride * p, stride * p + 3) for p in place])]
        y[(slice(None), *place)] = np.tensordot(kernel, window, axes=dimensions + 1) + bias
    y = np.maximum(y, 0)
    pooled = np.zeros((3, *[s // pool for s in sides]))
    for place in np.ndindex(*pooled.shape[1:]):
        window = y[(slice(None), *[slice(pool * p, pool * p + pool) for p in place])]
        pooled[(slice(None), *place)] = window.reshape(3, -1).max(axis=1)
    first, last = (np.asarray(layer.weight) for layer in network.layers)
    shifts = [np.asarray(layer.bias) for layer in network.layers]
    expected = last @ np.maximum(first @ pooled.ravel() + shifts[0], 0) + shifts[1]
    np.testing.assert_allclose(network(jnp.asarray(x)), expected, rtol=1e-12)


def test_a_convolutional_network_needs_channels_and_sides():
    with pytest.raises(ValueError, match="channels and sides"):
        tw.networks.convolutional((5,), channels=[2], kernel=3, outputs=1, key=jr.key(0))
    with pytest.raises(ValueError, match="too small"):
        tw.networks.convolutional((1, 2), channels=[2], kernel=3, outputs=1, key=jr.key(0))


def test_max_pooling_takes_the_largest_and_drops_the_rest():
    x = jr.normal(jr.key(0), (2, 7, 8))
    for size in (1, 2, 3):
        rows, columns = 7 // size, 8 // size
        squares = x[:, : rows * size, : columns * size].reshape(2, rows, size, columns, size)
        assert np.array_equal(max_pool(x, size), jnp.max(squares, axis=(2, 4)))
