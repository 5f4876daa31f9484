"""Infinite-width kernels against conditional expectations, quadrature and random networks."""

import jax
import jax.numpy as jnp
import jax.random as jr
import mpmath
import numpy as np
import pytest

import thalweg as tw
from thalweg.kernels._expectations import Pair
from thalweg.kernels._hermite import Hermite
from thalweg.kernels._infinite_network import expectations_of
from thalweg.networks import ACTIVATIONS, Activation, leaky_relu

from .oracles import wide

PAIRS = [(1.0, 1.0, 0.3), (0.4, 2.3, -0.7), (0.01, 6.0, 0.5), (2.0, 1.0, 0.9)]


def expected(activation, p, q, r):
    c = r * np.sqrt(p * q)
    found = expectations_of(activation, jnp.asarray([p, q]))
    return c, [float(x[0]) for x in found(Pair(*(jnp.asarray([x]) for x in (c, p, q))))]


@pytest.mark.parametrize("name", wide.SMOOTH)
def test_smooth_activations(name):
    for p, q, r in PAIRS:
        c, (value, slope) = expected(ACTIVATIONS[name], p, q, r)
        for ours, function in zip((value, slope), wide.SMOOTH[name], strict=True):
            # With more nodes the rule itself comes closer: how far it is off, by half of them.
            best = wide.products(function, p, q, c)
            own = abs(best - wide.products(function, p, q, c, nodes=100))
            assert abs(ours - best) < 1e-11 + 10 * own


@pytest.mark.parametrize("below", [0.0, 0.3, -1.0])
def test_activations_with_a_kink(below):
    activation = leaky_relu(below)
    for p, q, r in PAIRS:
        c, (value, slope) = expected(activation, p, q, r)
        both, positive = wide.relu_products(p, q, c)
        other, mixed = wide.relu_products(p, q, -c)
        # By symmetry, from the four quadrants.
        assert value == pytest.approx((1 + below**2) * both - 2 * below * other, abs=1e-13)
        assert slope == pytest.approx((1 + below**2) * positive + 2 * below * mixed, abs=1e-13)


def test_a_kink_that_nobody_announced_has_an_error():
    hidden = Activation("hidden", lambda x: jnp.where(x > 0, x, 0.0))
    series = Hermite(hidden, (1.0,), jnp.dtype("float64"))
    p = jnp.ones(1)
    value, slope = series(Pair(0.3 * p, p, p))
    both, positive = wide.relu_products(1.0, 1.0, 0.3)
    assert abs(value[0] - both) < series.tail
    assert abs(slope[0] - positive) < series.tail
    assert 1e-4 < series.tail < 1e-1


def random_kernels(make, inputs, seeds):
    """Tangent kernels and products of outputs of random networks."""

    def one(key):
        network = make(key)
        flat = [
            leaf.reshape(len(inputs), -1)
            for leaf in jax.tree.leaves(jax.jacrev(lambda n: jax.vmap(n)(inputs).ravel())(network))
        ]
        jacobian = jnp.concatenate(flat, axis=1)
        outputs = jax.vmap(network)(inputs).ravel()
        return jacobian @ jacobian.T, jnp.outer(outputs, outputs)

    return jax.jit(lambda keys: jax.lax.map(one, keys))(jr.split(jr.key(0), seeds))


def agrees(samples, limit, bias, error=None):
    """Within three standard errors, and what the width leaves."""
    if error is None:
        error = np.std(samples, axis=0, ddof=1)
    error = error / len(samples) ** 0.5
    gap = np.abs(np.mean(samples, axis=0) - limit)
    assert np.all(gap < 3 * error + bias * np.abs(limit).max())
    return np.max(error) / np.abs(limit).max()


def of_products(k):
    """The standard deviation of products of two Gaussian numbers with these covariances."""
    return np.sqrt(np.outer(np.diag(k), np.diag(k)) + k**2)


def test_fully_connected_networks_come_close():
    law = tw.networks.TangentKernel(1.3, 0.4)
    inputs = np.random.default_rng(0).normal(size=(3, 5))

    def make(key):
        return tw.networks.fully_connected([5, 400, 400, 1], activation="erf", init=law, key=key)

    tangent, nngp = random_kernels(make, inputs, 30)
    limit = tw.kernels.fully_connected(3, activation="erf", weight_std=1.3, bias_std=0.4)(inputs)
    assert limit.error == 0
    assert agrees(tangent, limit.tangent, 0.01) < 0.05
    agrees(nngp, limit.nngp, 0.01, of_products(limit.nngp))


@pytest.mark.parametrize("head", ["flatten", "average"])
def test_convolutional_networks_come_close(head):
    inputs = np.random.default_rng(0).normal(size=(2, 2, 5, 4))
    law = tw.networks.TangentKernel(1.3, 0.4)
    form = {"kernel": 3, "stride": 2, "padding": 1, "head": head}

    def make(key):
        return tw.networks.convolutional(
            (2, 5, 4), channels=(120, 120), widths=(120,), outputs=1, bias=True, init=law, key=key,
            **form,
        )  # fmt: skip

    tangent, nngp = random_kernels(make, inputs, 20)
    limit = tw.kernels.convolutional(
        (2, 5, 4), convolutions=2, depth=2, weight_std=1.3, bias_std=0.4, **form
    )(inputs)
    assert agrees(tangent, limit.tangent, 0.02) < 0.1
    agrees(nngp, limit.nngp, 0.02, of_products(limit.nngp))


def test_the_theorys_network():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(4, 6))
    inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)
    kernel = tw.kernels.two_layer(6)(inputs).tangent
    cosine = inputs @ inputs.T
    angle = np.arccos(np.clip(cosine, -1, 1))
    np.testing.assert_allclose(kernel, cosine * (np.pi - angle) / (2 * np.pi), atol=1e-8)

    def make(key):
        # Signs as random ones most probably fall, for one program instead of one for each draw.
        weight = jr.normal(key, (2000, 6))
        return tw.networks.TwoLayer(weight[:990], weight[990:])

    tangent, _ = random_kernels(make, inputs, 40)
    assert agrees(tangent, kernel, 0.0) < 0.01
    network = tw.networks.two_layer(6, 2000, key=jr.key(0))
    assert network.width == 2000
    assert abs(network.positive.shape[0] - 1000) < 100
    hidden = np.maximum(inputs @ np.concatenate([network.positive, network.negative]).T, 0)
    signs = np.repeat([1, -1], [len(network.positive), len(network.negative)])
    by_hand = hidden @ signs / np.sqrt(2000)
    np.testing.assert_allclose(tw.networks.apply(network, inputs), by_hand, rtol=1e-12)


def test_which_layers_are_trained():
    """One after the other, they add up to all."""
    inputs = np.random.default_rng(0).normal(size=(3, 4))
    form = {"activation": "relu", "bias_std": 0.2}
    kernels = {
        which: tw.kernels.fully_connected(2, trained=which, **form)(inputs)
        for which in ("all", "first", "last")
    }
    together = kernels["first"].tangent + kernels["last"].tangent
    np.testing.assert_allclose(kernels["all"].tangent, together, rtol=1e-12)
    np.testing.assert_allclose(kernels["last"].tangent, kernels["all"].nngp, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_blocks_change_nothing(dtype):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(23, 4)).astype(dtype)
    network = tw.kernels.fully_connected(3, activation="relu", weight_std=1.4, bias_std=0.1)
    whole, pieces = network(inputs), network(inputs, memory=8 * 4 * 36)
    assert whole.tangent.dtype == dtype
    for a, b in zip(whole[:2], pieces[:2], strict=True):
        np.testing.assert_array_equal(b, b.T)
        np.testing.assert_allclose(a, b, rtol=1e-4 if dtype == "float32" else 1e-13)
    cross = network(inputs[:5], inputs, memory=8 * 4 * 36)
    rtol = 1e-3 if dtype == "float32" else 1e-7
    np.testing.assert_allclose(cross.tangent, whole.tangent[:5], rtol=rtol)
    # Positive semidefinite up to what `modes` allows.
    found = tw.kernels.modes(pieces.tangent)
    assert float(found.eigenvalues[-1]) > 0


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_repeated_and_parallel_samples(dtype):
    """A singular kernel is told from one that is nearly so."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(6, 50)).astype(dtype)
    network = tw.kernels.fully_connected(3, activation="relu", bias_std=0.0)
    assert np.isfinite(tw.kernels.modes(network(inputs).tangent).condition)
    for factor in (1.0, 3.0):
        more = np.concatenate([inputs, factor * inputs[:1]])
        assert tw.kernels.modes(network(more).tangent).condition == np.inf


def test_bad_networks():
    with pytest.raises(ValueError, match="weight_std: 2 numbers for 3 layers"):
        tw.kernels.fully_connected(3, weight_std=(1.0, 2.0))
    with pytest.raises(ValueError, match="trained"):
        tw.kernels.fully_connected(2, trained="some")
    with pytest.raises(ValueError, match="too small"):
        tw.kernels.convolutional((1, 4, 4), convolutions=3, kernel=3)
    with pytest.raises(ValueError, match="head"):
        tw.kernels.convolutional((1, 4, 4), convolutions=1, kernel=3, head="max")
    network = tw.kernels.fully_connected(2)
    with pytest.raises(ValueError, match="NaN"):
        network(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="others"):
        network(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="one sample has shape"):
        tw.kernels.convolutional((1, 4, 4), convolutions=1, kernel=3)(np.ones((2, 5)))


def test_a_width_that_suffices():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(6, 10))
    inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)
    targets = rng.normal(size=6)
    found = tw.kernels.sufficient_width(inputs, targets)
    cosine = np.clip(inputs @ inputs.T, -1, 1)
    limit = cosine * (np.pi - np.arccos(cosine)) / (2 * np.pi)
    least = np.linalg.eigvalsh(limit)[0]
    assert found.eigenvalue == pytest.approx(least, rel=1e-6)
    # The order that is published, and a failure half as likely.
    more = tw.kernels.sufficient_width(inputs, targets, failure=0.05)
    assert more.width / found.width == pytest.approx(8, rel=0.01)
    assert 1e8 < found.width < 1e15
    # Both events that are about the width alone, at one far smaller: within what is allowed.
    weights = rng.normal(size=(20_000, 10))
    active = (weights @ inputs.T >= 0).astype(float)
    start = (inputs @ inputs.T) * (active.T @ active) / 20_000
    assert np.linalg.norm(start - limit) < least / 4
    near = np.abs(weights @ inputs.T) <= found.radius
    assert np.sum(near.mean(axis=0)) * 2 * 6 < least / 4
    with pytest.raises(ValueError, match="samples 1 and 3 agree"):
        tw.kernels.sufficient_width(np.concatenate([inputs[:3], inputs[1:2]]), targets[:4])
    with pytest.raises(ValueError, match="unit vectors, but one has length 2"):
        tw.kernels.sufficient_width(2 * inputs, targets)
    with pytest.raises(ValueError, match="expected shape"):
        tw.kernels.sufficient_width(inputs, targets[:3])


def test_defaults_are_those_of_real_networks():
    """As the parametrisation that has a limit comes without arguments."""
    inputs = np.random.default_rng(0).normal(size=(4, 5))
    limit = tw.kernels.fully_connected(3)(inputs).tangent

    def drawn(width):
        kernels = []
        for seed in range(6):
            network = tw.networks.fully_connected(
                [5, width, width, 1], init="tangent_kernel", key=jr.key(seed)
            )
            objective = tw.Objective(
                tw.networks.apply, tw.losses.squared_error, inputs, np.zeros((4, 1))
            )
            kernels.append(tw.kernels.empirical(objective, network).matrix("mean"))
        return np.mean(kernels, axis=0)

    assert np.linalg.norm(drawn(1000) - limit) < 0.03 * np.linalg.norm(limit)


def test_too_little_memory_and_a_single_sample():
    with pytest.raises(ValueError, match="the work on one entry takes"):
        tw.kernels.convolutional((1, 8, 8), convolutions=1, kernel=3, head="average")(
            np.ones((2, 1, 8, 8)), memory=1000
        )
    with pytest.raises(ValueError, match="one axis of samples and one of features"):
        tw.kernels.fully_connected(2)(np.ones(5))


@pytest.mark.parametrize("activation", ["erf", "gelu"])
@pytest.mark.parametrize(
    ("dtype", "scale", "tolerance"), [("float32", 255.0, 2e-5), ("float64", 1e6, 1e-9)]
)
def test_large_inputs(activation, dtype, scale, tolerance):
    """Against the same formulas with fifty digits."""
    inputs = (scale * np.random.default_rng(0).uniform(size=(4, 6))).astype(dtype)
    inputs = np.concatenate([inputs, 3 * inputs[:1]])
    found = tw.kernels.fully_connected(2, activation=activation, bias_std=0.0)(inputs)
    with mpmath.workdps(50):
        rows = [[mpmath.mpf(float(v)) for v in row] for row in inputs]
        exact = np.array([[float(_tangent(activation, x, y)) for y in rows] for x in rows])
    np.testing.assert_allclose(found.tangent, exact, rtol=tolerance, atol=tolerance * exact.max())


def _tangent(activation, x, y):
    """Two layers without biases, all trained."""
    p, q, c = (mpmath.fdot(a, b) / len(x) for a, b in ((x, x), (y, y), (x, y)))
    if activation == "erf":
        rest = 1 + 2 * p + 2 * q + 4 * (p * q - c**2)
        return (
            2 / mpmath.pi * mpmath.atan2(2 * c, mpmath.sqrt(rest))
            + 4 / mpmath.pi / mpmath.sqrt(rest) * c
        )
    rest = (1 + p) * (1 + q) - c**2
    densities = 1 / (2 * mpmath.pi) / mpmath.sqrt(rest)
    chances = mpmath.mpf(1) / 4 + mpmath.asin(c / mpmath.sqrt((1 + p) * (1 + q))) / (2 * mpmath.pi)
    shrunk = c / (1 + p) + c / (1 + q)
    value = c * chances + densities * (p * q - c**2 + c * shrunk)
    return value + c * (chances + densities * (shrunk + c / rest))


def test_a_kink_far_out_shows_at_the_small_variances():
    def hinge(x):
        return jnp.maximum(x - 3, 0)

    alone = tw.kernels.fully_connected(2, activation=hinge, bias_std=0.0)(np.ones((1, 1)))
    both = tw.kernels.fully_connected(2, activation=hinge, bias_std=0.0)(np.array([[1.0], [100.0]]))
    assert both.error >= alone.error > 0.01


def test_a_series_for_many_places_needs_little_room():
    series = Hermite(tw.networks.ACTIVATIONS["tanh"], (1.0,), jnp.dtype("float64"))
    found = (
        jax.jit(lambda v: series.square(v)).lower(jnp.ones((50, 144))).compile().memory_analysis()
    )
    # All of them at 1024 nodes would be 59 MB.
    assert 0 < found.temp_size_in_bytes < 1e7
