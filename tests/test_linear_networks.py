"""Deep linear networks against closed forms, mpmath, SciPy and the network itself."""

import jax
import jax.numpy as jnp
import jax.random as jr
import mpmath
import numpy as np
import pytest

import thalweg as tw
from tests.oracles import deep_linear, linear_layers

NETWORKS = tw.linear_networks


def start_at(target, norm, cosine, seed=0):
    """A vector of this norm at this angle to the target."""
    across = np.random.default_rng(seed).normal(size=target.size)
    line = target / np.linalg.norm(target)
    across -= (line @ across) * line
    across /= np.linalg.norm(across)
    return norm * (cosine * line + np.sqrt(1 - cosine**2) * across)


TARGET = np.array([1.0, -0.5, 0.3, 0.6])


@pytest.mark.parametrize(
    ("depth", "norm", "cosine"), [(2, 0.05, -0.6), (3, 0.2, -0.99), (4, 0.05, 0.3), (8, 0.3, -0.6)]
)
def test_exact_flow_against_mpmath(depth, norm, cosine):
    initial, times = start_at(TARGET, norm, cosine), np.array([0.0, 0.1, 1.0, 10.0])
    exact = linear_layers.end_to_end_in_mpmath(depth, TARGET, initial, times, digits=18)
    found = NETWORKS.exact_flow(depth, TARGET, initial, times)
    error = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert error.max() < 1e-13


@pytest.mark.parametrize("depth", [2, 3, 5, 8])
def test_exact_flow_against_quadrature(depth):
    initial, times = start_at(TARGET, 0.1, -0.3), np.array([0.5, 4.0, 20.0])
    exact = deep_linear.exact_flow(depth, TARGET, initial, times)
    np.testing.assert_allclose(
        NETWORKS.exact_flow(depth, TARGET, initial, times), exact, atol=1e-10
    )


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize("depth", [2, slow(3), slow(4), slow(5), slow(6), slow(7), slow(8)])
def test_exact_flow_against_the_network(depth):
    """The library's own integrator on all layers, with whitened data."""
    inputs = 2.0 * np.eye(4)
    initial = start_at(TARGET, 0.4, 0.2)
    network = NETWORKS.balanced([4, *[5] * (depth - 1), 1], end_to_end=[initial], key=jr.key(1))
    objective = tw.Objective(
        tw.networks.apply, tw.losses.squared_error, inputs, inputs @ TARGET[:, None]
    )
    times = np.array([0.5, 2.0, 8.0])
    flow = tw.integrate(
        tw.GradientFlow(), objective, network, save_at=times, rtol=1e-12, atol=1e-14
    )
    found = np.array([NETWORKS.end_to_end(row(flow.params, i))[0] for i in range(3)])
    exact = NETWORKS.exact_flow(depth, TARGET, initial, times)
    assert np.abs(found - exact).max() < 1e-9


def row(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
@pytest.mark.parametrize("multiple", [-2.0, -0.1, 0.0, 1e-3, 1.0, 5.0])
def test_exact_flow_on_the_line_of_the_target(depth, multiple):
    """A scalar equation: a network of one input, by SciPy."""
    times = np.array([0.0, 0.3, 3.0, 30.0])
    found = NETWORKS.exact_flow(depth, TARGET, multiple * TARGET, times)
    size = np.linalg.norm(TARGET)
    weight = np.abs(multiple * size) ** (1 / depth)
    signs = [np.sign(multiple) or 1.0, *[1.0] * (depth - 1)]
    layers = [np.full((1, 1), s * weight) for s in signs]
    exact = linear_layers.layers_in_scipy(layers, size, times)
    numbers = [np.prod([w.item() for w in layers]) for layers in exact]
    np.testing.assert_allclose(found, np.outer(numbers, TARGET / size), atol=1e-11, rtol=1e-10)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_exact_flow_to_nothing(depth):
    """Target 0: the layers shrink alike."""
    initial, times = np.array([0.6, 0.8]), np.array([0.0, 1.0, 50.0])
    layers = deep_linear.balanced_weights([2, *[2] * (depth - 1), 1], initial)
    exact = linear_layers.layers_in_scipy(layers, np.zeros((1, 2)), times)
    rows = [np.linalg.multi_dot([np.eye(1), *parts[::-1], np.eye(2)])[0] for parts in exact]
    found = NETWORKS.exact_flow(depth, np.zeros(2), initial, times)
    np.testing.assert_allclose(found, rows, atol=1e-12)


def test_exact_flow_near_the_opposite_direction_and_far_out():
    """The norm falls by (tan of the angle)^n before it grows; nothing overflows."""
    initial = start_at(TARGET, 0.5, -1 + 1e-8)
    times = np.geomspace(1e-3, 1e30, 60)
    found = NETWORKS.exact_flow(4, TARGET, initial, times)
    assert np.all(np.isfinite(found))
    norm, size = np.linalg.norm(found, axis=1), np.linalg.norm(TARGET)
    assert norm.min() < 1e-10
    np.testing.assert_allclose(found[-1], TARGET, rtol=1e-13)
    cosine = found @ TARGET / (norm * size)
    assert np.all(np.diff(cosine) >= -1e-15)
    early = NETWORKS.exact_flow(4, TARGET, initial, times[:1])
    np.testing.assert_allclose(early[0], found[0], rtol=1e-13)


@pytest.mark.parametrize("depth", [2, 3, 5, 8])
@pytest.mark.parametrize("ratio", [1e2, 1e5, 1e8])
def test_exact_flow_from_far_beyond_the_target(depth, ratio):
    """At once, or with a stop on the way."""
    start = ratio * np.array([np.cos(2), np.sin(2)])
    first, last = NETWORKS.exact_flow(depth, [1.0, 0.0], start, [0.1, 0.3])
    (again,) = NETWORKS.exact_flow(depth, [1.0, 0.0], first, [0.2])
    np.testing.assert_allclose(again, last, rtol=1e-13, atol=1e-14)


def test_exact_flow_against_mpmath_from_far_beyond():
    initial, time = [100 * np.cos(2), 100 * np.sin(2)], 1e-4

    def field(_, w):
        size = mpmath.sqrt(w[0] ** 2 + w[1] ** 2)
        gap = [w[0] - 1, w[1]]
        along = (w[0] * gap[0] + w[1] * gap[1]) / size**2
        rate = size ** (2 - mpmath.mpf(2) / 3)
        return [-rate * (g + 2 * along * x) for g, x in zip(gap, w, strict=True)]

    with mpmath.workdps(25):
        exact = mpmath.odefun(field, 0, [mpmath.mpf(x) for x in initial])(time)
    (found,) = NETWORKS.exact_flow(3, [1.0, 0.0], initial, [time])
    np.testing.assert_allclose(found, [float(x) for x in exact], rtol=1e-12)


def test_exact_flow_where_squares_leave_the_range_of_numbers():
    found = NETWORKS.exact_flow(2, [1.0, 0.0], [6e-201, 8e-201], [0, 1000])
    np.testing.assert_allclose(found[0], [6e-201, 8e-201], rtol=1e-14)
    np.testing.assert_allclose(found[1], [1, 0], atol=1e-14)
    away = NETWORKS.exact_flow(3, [1.0, 0.0], [-1.0, 0.0], [0, 1e300])
    np.testing.assert_array_equal(away, [[-1, 0], [0, 0]])


@pytest.mark.parametrize(
    ("depth", "target", "start", "loss"), [(5, 8.2e8, 2e8, 8.27e13), (4, 1e10, 1.0, 1e19)]
)
def test_sufficient_times_on_any_scale(depth, target, start, loss):
    time = NETWORKS.sufficient_time(depth, [target], [start], loss)
    (end,) = NETWORKS.exact_flow(depth, [target], [start], [time])
    np.testing.assert_allclose(0.5 * (end[0] - target) ** 2, loss, rtol=1e-6)
    with pytest.raises(ValueError, match="cannot be told from 0"):
        NETWORKS.sufficient_steps(3, [1.0], [0.5], 1e-40)
    assert NETWORKS.sufficient_time(3, [1.0], [1e-40], 1e-2) > 1e13


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "depth"),
        ({"initial": np.ones(3)}, "initial: shape"),
        ({"target": [1.0, np.nan, 0, 0]}, "target: contains"),
        ({"times": [-1.0]}, "times: must not be negative"),
        ({"times": 1.0}, r"times: expected shape \(n,\)"),
        ({"initial": np.ones((1, 4))}, r"take its row"),
    ],
)
def test_exact_flow_refuses(change, message):
    good = {"depth": 2, "target": TARGET, "initial": np.ones(4), "times": [1.0]}
    with pytest.raises(ValueError, match=message):
        NETWORKS.exact_flow(**{**good, **change})


def test_the_end_to_end_flow_refuses_a_network():
    network = NETWORKS.balanced([2, 3, 1], norm=0.1, key=jr.key(0))
    objective = tw.Objective(tw.networks.apply, tw.losses.squared_error, np.eye(2), np.ones((2, 1)))
    with pytest.raises(TypeError, match="end_to_end"):
        tw.integrate(NETWORKS.EndToEndFlow(2), objective, network, t1=1.0)


@pytest.mark.parametrize("widths", [[4, 1], [4, 3, 1], [5, 3, 6, 3], [2, 4, 4, 5]])
def test_balanced(widths):
    network = NETWORKS.balanced(widths, norm=0.3, key=jr.key(0))
    assert NETWORKS.imbalance(None, network) < 1e-14
    np.testing.assert_allclose(np.linalg.norm(NETWORKS.end_to_end(network)), 0.3, rtol=1e-13)
    other = NETWORKS.balanced(widths, norm=0.3, key=jr.key(1))
    assert np.abs(NETWORKS.end_to_end(network) - NETWORKS.end_to_end(other)).max() > 1e-3
    given = np.random.default_rng(0).normal(size=(widths[-1], widths[0]))
    same = NETWORKS.balanced(widths, end_to_end=given, key=jr.key(0))
    np.testing.assert_allclose(NETWORKS.end_to_end(same), given, atol=1e-13)
    assert NETWORKS.imbalance(None, same) < 1e-13


@pytest.mark.parametrize(
    ("widths", "options", "message"),
    [
        ([4, 2, 3], {"norm": 1.0}, "narrower"),
        ([4, 3, 1], {}, "either norm or end_to_end"),
        ([4, 3, 1], {"norm": 1.0, "end_to_end": np.ones((1, 4))}, "either norm or end_to_end"),
        ([4, 3, 1], {"norm": -1.0}, "norm: must be positive"),
        ([4, 3, 1], {"end_to_end": np.ones((2, 4))}, "does not fit"),
        ([4, 3, 1], {"end_to_end": np.full((1, 4), np.inf)}, "NaN or infinity"),
    ],
)
def test_balanced_refuses(widths, options, message):
    with pytest.raises(ValueError, match=message):
        NETWORKS.balanced(widths, **options, key=jr.key(0))


def test_what_is_not_a_linear_network_is_refused():
    for options, message in (({"activation": "tanh"}, "tanh"), ({"activation": "linear"}, "bias")):
        network = tw.networks.fully_connected([4, 3, 1], **options, key=jr.key(0))
        with pytest.raises(ValueError, match=message):
            NETWORKS.end_to_end(network)
    with pytest.raises(ValueError, match="FullyConnected"):
        NETWORKS.imbalance(None, jnp.ones(3))


def matrix_problem(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(12, 4)), rng.normal(size=(12, 3))


def test_balance_is_conserved_by_the_flow_and_lost_slowly_by_descent():
    inputs, targets = matrix_problem()
    objective = tw.Objective(tw.networks.apply, tw.losses.squared_error, inputs, targets)
    network = NETWORKS.balanced([4, 5, 4, 3], norm=0.5, key=jr.key(2))
    flow = tw.integrate(tw.GradientFlow(), objective, network, save_at=[1.0, 5.0], rtol=1e-10)
    flow = tw.observe(flow, imbalance=NETWORKS.imbalance)
    assert np.max(flow.observables["imbalance"]) < 1e-8
    last = []
    for step_size in (0.02, 0.01):
        run = tw.descend(
            tw.GradientDescent(step_size), objective, network, steps=int(2 / step_size)
        )
        last.append(
            float(tw.observe(run, imbalance=NETWORKS.imbalance).observables["imbalance"][-1])
        )
    assert last[0] > 1e-4
    # A first-order quantity in the step size.
    assert 1.7 < last[0] / last[1] < 2.3


@pytest.mark.parametrize(
    ("depth", "loss"),
    [
        slow(1, "squared_error"),
        (2, "squared_error"),
        slow(5, "squared_error"),
        slow(1, "cross_entropy"),
        (3, "cross_entropy"),
    ],
)
def test_end_to_end_flow_is_that_of_the_layers(depth, loss):
    inputs, targets = matrix_problem()
    if loss == "cross_entropy":
        targets = np.argmax(targets, axis=1)
    network = NETWORKS.balanced([4, *[4] * (depth - 1), 3], norm=1.0, key=jr.key(3))
    times = [0.3, 1.0, 3.0]
    parts = (getattr(tw.losses, loss), inputs, targets)
    layers = tw.integrate(
        tw.GradientFlow(),
        tw.Objective(tw.networks.apply, *parts),
        network,
        save_at=times,
        rtol=1e-9,
    )
    whole = tw.integrate(
        NETWORKS.EndToEndFlow(depth),
        tw.Objective(lambda w, x: x @ w.T, *parts),
        NETWORKS.end_to_end(network),
        save_at=times,
        rtol=1e-9,
    )
    for i in range(3):
        product = NETWORKS.end_to_end(row(layers.params, i))
        gap = np.linalg.norm(product - whole.params[i])
        assert gap < 1e-6
        assert gap < 10 * (layers.error[i] * depth * 3 + whole.error[i])
    np.testing.assert_allclose(whole.loss, layers.loss, rtol=1e-6)


@pytest.mark.parametrize("depth", [slow(1), slow(2), 4])
def test_response_of_one_weight(depth):
    flow = NETWORKS.EndToEndFlow(depth)
    objective = tw.Objective(
        lambda w, x: x @ w.T, tw.losses.squared_error, np.array([[np.sqrt(2.0)]]), np.zeros((1, 1))
    )
    found = tw.integrate(flow, objective, jnp.ones((1, 1)), save_at=[0.5, 2.0], rtol=1e-10)
    np.testing.assert_allclose(found.params[:, 0, 0], flow.response(2.0, [0.5, 2.0]), rtol=1e-8)
    if depth > 1:
        assert flow.response(-1.0, 100.0) == np.inf


def whitened(target):
    inputs = 2.0 * np.eye(4)
    return tw.Objective(
        tw.networks.apply, tw.losses.squared_error, inputs, inputs @ target[:, None]
    )


@pytest.mark.parametrize(
    ("depth", "norm", "loss"), [(1, 0.2, 1e-2), (2, 0.02, 1e-2), (3, 0.2, 1e-1), (4, 0.2, 1e-1)]
)
def test_gradient_descent_keeps_the_promise(depth, norm, loss):
    target = TARGET / np.linalg.norm(TARGET)
    initial = start_at(target, norm, -0.3)
    promise = NETWORKS.sufficient_steps(depth, target, initial, loss)
    network = NETWORKS.balanced([4, *[3] * (depth - 1), 1], end_to_end=[initial], key=jr.key(0))
    objective, steps = whitened(target), promise.steps
    run = tw.descend(
        tw.GradientDescent(promise.step_size), objective, network, steps, save_every=steps // 5
    )
    assert promise.time == pytest.approx(promise.step_size * steps)
    assert run.loss[-1] <= loss
    flow = NETWORKS.exact_flow(depth, target, initial, run.times)
    for i in range(len(run.times)):
        found = NETWORKS.end_to_end(row(run.params, i))[0]
        allowed = (np.linalg.norm(flow[i]) ** (1 / depth) + promise.epsilon) ** depth
        assert np.linalg.norm(found - flow[i]) <= allowed - np.linalg.norm(flow[i])
    assert steps < 1e6


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_sufficient_time_is_when_the_flow_has_that_loss(depth):
    initial = start_at(TARGET, 0.1, 0.1)
    time = NETWORKS.sufficient_time(depth, TARGET, initial, 1e-3)
    gap = NETWORKS.exact_flow(depth, TARGET, initial, [time])[0] - TARGET
    assert gap @ gap / 2 == pytest.approx(1e-3, rel=1e-9)
    assert NETWORKS.sufficient_time(depth, TARGET, initial, 10.0) == 0
    assert NETWORKS.sufficient_steps(depth, TARGET, initial, 10.0).steps >= 0


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_a_loss_that_the_flow_does_not_reach(depth):
    with pytest.raises(ValueError, match="saddle at zero"):
        NETWORKS.sufficient_time(depth, TARGET, -0.1 * TARGET, 1e-3)


def test_a_loss_that_is_no_aim():
    with pytest.raises(ValueError, match="loss: must be positive"):
        NETWORKS.sufficient_steps(3, TARGET, TARGET, 0.0)


def test_the_target_of_whitened_data():
    """The network's loss is half the squared distance to it, and a constant."""
    data = tw.datasets.digits(80).one_hot().whitened()
    assert data.inputs.shape[1] < 64, "some pixels are always black"
    moment = data.inputs.T @ data.inputs / data.samples
    np.testing.assert_allclose(moment, np.eye(len(moment)), atol=1e-12)
    objective = tw.Objective(tw.networks.apply, tw.losses.squared_error, data.inputs, data.targets)
    target = NETWORKS.target_of(objective)
    values = []
    for seed in range(3):
        network = NETWORKS.balanced([len(moment), 12, 10], norm=2.0, key=jr.key(seed))
        gap = NETWORKS.end_to_end(network) - target
        values.append(float(objective.value(network) - jnp.sum(gap**2) / 2))
    np.testing.assert_allclose(values, values[0], rtol=1e-12)


def test_data_that_are_not_whitened_are_refused():
    inputs, targets = matrix_problem()
    plain = tw.Objective(tw.networks.apply, tw.losses.squared_error, inputs, targets)
    deviation = np.abs(inputs.T @ inputs / 12 - np.eye(4)).max()
    with pytest.raises(ValueError, match=f"by {deviation:.3g}.*whitened"):
        NETWORKS.target_of(plain)
    other = tw.Objective(tw.networks.apply, tw.losses.cross_entropy, inputs, np.zeros(12, int))
    with pytest.raises(ValueError, match="squared_error"):
        NETWORKS.target_of(other)
