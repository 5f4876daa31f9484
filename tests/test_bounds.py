"""Closed-form curvature bounds against dense Hessians."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import thalweg as tw
from thalweg.curvature import lower_bound
from thalweg.curvature._bound import bound_at
from thalweg.curvature._chain import layer_gain, layer_norm
from thalweg.curvature._upper_bound import upper_bound_at

DRAWS = 12
RADII = (0.0, 0.05, 0.5)


def fully_connected(widths, activation, **options):
    return lambda key: tw.networks.fully_connected(
        widths, activation=activation, key=key, **{"bias": False, "init": "he", **options}
    )


def convolutional(shape, activation, **options):
    return lambda key: tw.networks.convolutional(
        shape, activation=activation, outputs=2, key=key, **options
    )


NETWORKS = {
    "linear, 2 layers": fully_connected([3, 4, 2], "linear"),
    "linear, 5 layers": fully_connected([3, 2, 4, 3, 2, 2], "linear"),
    "relu, 3 layers": fully_connected([3, 4, 4, 2], "relu"),
    "leaky, 6 layers": fully_connected([2, 3, 3, 3, 3, 3, 2], "leaky_relu"),
    "steep": fully_connected([3, 4, 4, 2], tw.networks.leaky_relu(-2.0)),
    "scaled": fully_connected([3, 5, 5, 2], "relu", init="tangent_kernel"),
    "1-D": convolutional((2, 8), "relu", channels=[2, 2], kernel=3, stride=2, widths=[3]),
    "2-D": convolutional((1, 6, 6), "leaky_relu", channels=[2, 2], kernel=3, padding=1, stride=2),
    "2-D linear": convolutional((1, 5, 5), "linear", channels=[2], kernel=2, widths=[3]),
    "pooled": convolutional((1, 6, 6), "relu", channels=[2, 2], kernel=2, pool=2, padding=1),
}


def problem(make, loss, seed):
    """A network of random size, and data."""
    rng = np.random.default_rng(seed)
    network = jax.tree.map(lambda w: w * 10 ** rng.uniform(-0.5, 0.4), make(jr.key(seed)))
    shape = network.shape if hasattr(network, "shape") else (network.layers[0].weight.shape[1],)
    inputs = rng.normal(size=(5, *shape))
    if loss == "cross-entropy":
        return network, inputs, rng.integers(0, 2, 5)
    return network, inputs, rng.normal(size=(5, 2))


@eqx.filter_jit
def spectrum(network, loss, inputs, targets):
    flat, unravel = ravel_pytree(network)
    objective = tw.Objective(tw.networks.apply, loss, inputs, targets)
    return jnp.linalg.eigvalsh(jax.hessian(lambda v: objective.value(unravel(v)))(flat))


def smallest(*problem):
    return spectrum(*problem)[0]


def moved(network, radius, seed):
    flat, unravel = ravel_pytree(network)
    way = np.random.default_rng(seed).normal(size=flat.size)
    return unravel(flat + radius * way / np.linalg.norm(way))


@pytest.mark.parametrize("loss", ["squared error", "cross-entropy"])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_eigenvalue_is_beyond_the_bounds(name, loss):
    function = {"squared error": tw.losses.squared_error, "cross-entropy": tw.losses.cross_entropy}
    tightness, upper_tightness = [], []
    for seed in range(DRAWS):
        network, inputs, targets = problem(NETWORKS[name], loss, seed)
        objective = tw.Objective(tw.networks.apply, function[loss], inputs, targets)
        bounds = [float(bound_at(network, objective, jnp.asarray(r)).value) for r in RADII]
        assert all(a >= b for a, b in itertools.pairwise(bounds)), "a larger ball, a lower bound"
        for radius, bound in zip(RADII, bounds, strict=True):
            there = moved(network, radius, seed)
            values = spectrum(there, function[loss], inputs, targets)
            least, largest = float(values[0]), float(jnp.max(jnp.abs(values)))
            assert least >= bound
            above = float(upper_bound_at(network, objective, jnp.asarray(radius)))
            assert largest <= above
            if radius == 0 and largest > 1e-6:
                upper_tightness.append(above / largest)
            if radius == 0 and least < -1e-6:
                tightness.append(bound / least)
    assert not tightness or min(tightness) < 20, "no bound says anything"
    assert min(upper_tightness) < 100, "no bound says anything"


def test_two_linear_layers_at_zero():
    """f = 1/2 (w2 w1 - 1)^2: the Hessian at 0 is that of -w1 w2, and the bound its eigenvalue."""
    network = tw.networks.fully_connected([1, 1, 1], activation="linear", bias=False, key=jr.key(0))
    network = jax.tree.map(jnp.zeros_like, network)
    objective = tw.Objective(tw.networks.apply, tw.losses.squared_error, [[1.0]], [[1.0]])
    bound = lower_bound(objective, network)
    np.testing.assert_allclose(float(bound), -1.0, rtol=1e-12)
    found = tw.extreme_eigenvalues(objective, network)
    assert bound.tightness(found) == pytest.approx(1.0)
    near = lower_bound(objective, network, radius=0.1)
    assert -1.2 < float(near) < -1.0


def test_one_linear_layer_is_as_sharp_as_the_bound():
    network = tw.networks.fully_connected([3, 2], activation="linear", bias=False, key=jr.key(0))
    inputs = np.random.default_rng(0).normal(size=(6, 3))
    objective = tw.Objective(tw.networks.apply, tw.losses.squared_error, inputs, np.ones((6, 2)))
    exact = np.linalg.eigvalsh(inputs.T @ inputs / 6)[-1]
    for radius in (0.0, 2.0):
        bound = tw.curvature.upper_bound(objective, network, radius=radius)
        assert float(bound) == pytest.approx(exact, rel=1e-9)
    with pytest.raises(ValueError, match="radius"):
        tw.curvature.upper_bound(objective, network, radius=-1.0)


def test_depth_three_at_zero_bends_nowhere():
    """Every pair of layers acts through the third, which is zero."""
    network = tw.networks.fully_connected(
        [3, 4, 4, 2], activation="relu", bias=False, key=jr.key(0)
    )
    network = jax.tree.map(jnp.zeros_like, network)
    objective = tw.Objective(
        tw.networks.apply, tw.losses.squared_error, np.ones((2, 3)), np.ones((2, 2))
    )
    assert float(lower_bound(objective, network)) == 0
    radii = np.array([0.01, 0.02])
    bounds = [float(lower_bound(objective, network, radius=r)) for r in radii]
    assert bounds[0] / bounds[1] == pytest.approx(0.5, rel=1e-2), "in proportion to the radius"


def test_one_layer_is_convex():
    network = tw.networks.fully_connected([3, 2], activation="linear", bias=False, key=jr.key(0))
    data = np.ones((4, 3)), np.array([0, 1, 1, 0])
    objective = tw.Objective(tw.networks.apply, tw.losses.cross_entropy, *data)
    assert float(lower_bound(objective, network, radius=3.0)) == 0


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_a_bias_in_the_first_layer(activation):
    """It is one more input, which is 1."""
    make = fully_connected([3, 4, 4, 2], activation, bias=True)
    for seed in range(DRAWS):
        network, inputs, targets = problem(make, "squared error", seed)
        network = eqx.tree_at(lambda m: [x.bias for x in m.layers[1:]], network, [None, None])
        objective = tw.Objective(tw.networks.apply, tw.losses.squared_error, inputs, targets)
        for radius in RADII:
            there = moved(network, radius, seed)
            least = float(smallest(there, tw.losses.squared_error, inputs, targets))
            assert least >= float(lower_bound(objective, network, radius=radius))


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2), (2, 3), (4, 3)])
def test_norms_of_convolutions(dimensions, kernel, stride):
    """Against the matrix of the map, on images so large that their borders hardly matter."""
    side = 40 if dimensions == 1 else 14
    network = tw.networks.convolutional(
        (2, *[side] * dimensions),
        channels=[3],
        kernel=kernel,
        stride=stride,
        padding=2,
        outputs=1,
        key=jr.key(kernel),
    )
    layer = network.convolutions[0]
    matrix = jax.jacobian(layer)(jnp.zeros((2, *[side] * dimensions)))
    exact = np.linalg.norm(np.asarray(matrix).reshape(-1, 2 * side**dimensions), 2)
    assert exact * (1 - 1e-12) <= float(layer_norm(layer)) <= 1.35 * exact
    assert float(layer_norm(layer)) <= layer_gain(layer) * np.linalg.norm(layer.weight) * 1.1


def test_a_radius_can_be_traced():
    network, inputs, targets = problem(NETWORKS["relu, 3 layers"], "squared error", 0)
    objective = tw.Objective(tw.networks.apply, tw.losses.squared_error, inputs, targets)
    values = jax.vmap(lambda r: bound_at(network, objective, r).value)(jnp.array(RADII))
    single = [float(lower_bound(objective, network, radius=r)) for r in RADII]
    np.testing.assert_allclose(values, single, rtol=1e-12)


def refused(network, match, error=ValueError, loss=tw.losses.squared_error, **options):
    inputs = np.ones((2, 3))
    objective = tw.Objective(tw.networks.apply, loss, inputs, np.ones((2, 2)))
    with pytest.raises(error, match=match):
        lower_bound(objective, network, **options)


def test_hypotheses_that_fail_are_named():
    make = fully_connected([3, 4, 2], "relu", bias=True)
    refused(make(jr.key(0)), "layer 2 has them.*extreme_eigenvalues")
    refused(fully_connected([3, 4, 2], "tanh")(jr.key(0)), "not tanh.*extreme_eigenvalues")
    good = fully_connected([3, 4, 2], "relu")(jr.key(0))
    refused(good, "losses", TypeError, loss=lambda z, y: jnp.sum((z - y) ** 4, axis=1))
    refused(good, "radius: must be zero or positive", radius=-1.0)
    linear = eqx.nn.Linear(3, 2, key=jr.key(0))
    refused(linear, "not Linear", TypeError)
    inputs = np.ones((2, 3))
    objective = tw.Objective(
        lambda p, x: 2 * tw.networks.apply(p, x), tw.losses.squared_error, inputs, np.ones((2, 2))
    )
    with pytest.raises(ValueError, match="something else"):
        lower_bound(objective, good)
    rows = jax.tree.map(lambda x: jnp.stack([x, x]), good)
    with pytest.raises(ValueError, match="take one row"):
        lower_bound(objective, rows)
