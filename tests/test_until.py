"""Flows followed to their limits, and to an error that was asked for."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import thalweg as tw
from tests.problems import (
    landscape,
    leaky_network,
    linear_model,
    quadratic,
    random_weights,
    small_data,
    small_objective,
)


def last(trajectory):
    return jax.tree.map(lambda x: x[-1], trajectory.params)


def spread(values):
    """A positive definite matrix with these eigenvalues, in a random basis."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(len(values),) * 2))[0]
    return (basis * values) @ basis.T


@pytest.mark.parametrize("flow", [tw.GradientFlow(), tw.HeavyBallFlow(1.0), tw.NesterovFlow()])
def test_the_minimum_of_a_quadratic(flow):
    objective = quadratic(spread([1e-3, 1.0, 30.0]))
    arrived = tw.integrate(flow, objective, jnp.ones(3), until=tw.until.gradient_norm(1e-12))
    assert arrived.status.ok
    assert "a minimum" in arrived.status.message
    assert arrived.limit.index == 0
    low, high = arrived.limit.smallest_eigenvalue
    assert low <= 1e-3 <= high
    assert high - low < 1e-4
    assert np.linalg.norm(last(arrived)) <= arrived.error[-1] < 1e-8
    assert arrived.limit.gradient_norm <= 1e-12


def test_the_minimum_of_a_tanh_network_against_a_long_flow():
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(30, 3))
    objective = tw.Objective(
        lambda p, x: jnp.tanh(x @ p[0].T) @ p[1].T,
        tw.losses.squared_error,
        inputs,
        np.tanh(inputs @ rng.normal(size=(3, 1))) + 0.3 * rng.normal(size=(30, 1)),
    )
    params = random_weights((3, 1, 1))
    sizes = [p.size for p in params]

    def field(t, y):
        parts = [
            jnp.asarray(a).reshape(p.shape)
            for a, p in zip(np.split(y, np.cumsum(sizes)[:-1]), params, strict=True)
        ]
        return -np.concatenate([np.ravel(g) for g in gradient(parts)])

    gradient = jax.jit(objective.gradient)
    start = np.concatenate([np.ravel(p) for p in params])
    exact = solve_ivp(field, (0, 3000), start, "LSODA", rtol=1e-11, atol=1e-13).y[:, -1]
    arrived = tw.integrate(
        tw.GradientFlow(), objective, params, until=tw.until.gradient_norm(1e-11)
    )
    end = np.concatenate([np.ravel(p) for p in last(arrived)])
    assert arrived.limit.index == 0
    assert arrived.limit.newton_steps > 0
    assert np.linalg.norm(end - exact) < 1e-6
    assert float(jnp.sqrt(sum(jnp.sum(g**2) for g in gradient(last(arrived))))) <= 1e-11


@pytest.mark.slow
def test_a_network_with_more_weights_than_data():
    """A flat valley: the limit depends on the way, and the error of the way stays."""
    objective, params = small_objective(widths=(3, 40, 2))
    arrived = tw.integrate(
        tw.GradientFlow(), objective, params, until=tw.until.gradient_norm(1e-10)
    )
    assert arrived.status.ok
    assert arrived.limit.gradient_norm <= 1e-10
    assert "flat direction" in arrived.limit.kind
    long = tw.integrate(
        tw.GradientFlow(), objective, params, t1=3 * float(arrived.times[-1]) + 100, rtol=1e-9
    )
    apart = np.sqrt(
        sum(np.sum((a - b) ** 2) for a, b in zip(last(arrived), last(long), strict=True))
    )
    residual = np.sqrt(sum(float(jnp.sum(g**2)) for g in objective.gradient(last(long))))
    assert residual < 1e-4
    assert apart <= arrived.error[-1] + long.error[-1] + 30 * residual


def test_a_saddle_is_passed_and_a_start_on_one_is_told():
    """f = (x^2 - 1)^2 / 4 + y^2 / 2: a saddle at 0, minima at x = -1 and 1."""
    objective = landscape(lambda p: (p[0] ** 2 - 1) ** 2 / 4 + p[1] ** 2 / 2)
    ending = tw.until.gradient_norm(1e-12)
    passed = tw.integrate(tw.GradientFlow(), objective, jnp.array([1e-6, 2.0]), until=ending)
    np.testing.assert_allclose(last(passed), [1, 0], atol=1e-9)
    assert passed.limit.index == 0
    on_it = tw.integrate(tw.GradientFlow(), objective, jnp.array([0.0, 0.0]), until=ending)
    assert on_it.limit.index == 1
    assert "saddle of index 1" in on_it.status.message
    stable = tw.integrate(tw.GradientFlow(), objective, jnp.array([0.0, 2.0]), until=ending)
    assert stable.limit.index == 1, "on the way that leads into the saddle"
    assert stable.status.kind == "uncontrolled", "a start that is known to rounding may be beside"
    assert "A smaller `rtol` does not help" in stable.status.message


def test_a_tolerance_met_while_passing_a_saddle():
    """Near (1, 0) the gradient is below the tolerance, but the flow from (1.5, 0.02) goes on."""
    valley = landscape(lambda p: 0.5 * (p[0] - 1) ** 2 - 0.05 * p[1] ** 2 + 0.01 * p[1] ** 4)
    for tolerance, found in ((1e-2, False), (1e-8, True)):
        flow = tw.integrate(
            tw.GradientFlow(),
            valley,
            jnp.array([1.5, 0.02]),
            until=tw.until.gradient_norm(tolerance),
        )
        assert flow.limit.found is found
        assert flow.status.kind == "completed"
    assert flow.limit.index == 0
    np.testing.assert_allclose(flow.params[-1], [1, 2.5**0.5], rtol=1e-7)


@pytest.mark.parametrize("power", [3, 4])
def test_a_point_that_does_not_stand_alone(power):
    """An inflection with a slope of 1e-7, and a minimum of order four: no isolated minimum."""

    def quartic(p):
        return p[0] ** 4 / 4 + p[1] ** 2 / 2

    def inflection(p):
        wall = jnp.where(p[0] > -2, p[0] ** 3 / 3, -8 / 3 + 4 * (p[0] + 2) + 10 * (p[0] + 2) ** 2)
        return wall + 1e-7 * p[0] + p[1] ** 2 / 2

    flow = tw.integrate(
        tw.GradientFlow(),
        landscape(inflection if power == 3 else quartic),
        jnp.array([1.0, 1.0]),
        until=tw.until.gradient_norm(1e-6),
    )
    assert not flow.limit.isolated
    assert not (power == 3 and flow.limit.found)
    # Where the flow is at that time: dx/dt = -x^2 - 1e-7, or -x^3.
    t = float(flow.times[-1])
    root = 1e-7**0.5
    there = root * np.tan(np.arctan(1 / root) - root * t) if power == 3 else (1 + 2 * t) ** -0.5
    assert abs(float(flow.params[-1, 0]) - there) <= flow.error[-1]


def test_saved_times_and_a_latest_time():
    objective = quadratic(np.eye(2))
    saved = tw.integrate(
        tw.GradientFlow(),
        objective,
        jnp.ones(2),
        save_at=[0.0, 0.5, 1.0],
        until=tw.until.gradient_norm(1e-10),
    )
    np.testing.assert_allclose(saved.times[:3], [0, 0.5, 1])
    np.testing.assert_allclose(saved.params[1], np.exp(-0.5), atol=1e-5)
    late = tw.integrate(
        tw.GradientFlow(),
        landscape(falling),
        jnp.zeros(1),
        t1=50.0,
        until=tw.until.gradient_norm(1e-9),
    )
    assert late.status.kind == "stopped"
    assert "fell to 0.02 by t = 50, not to the tolerance" in late.status.message
    assert late.times[-1] == 50


def falling(p):
    return jnp.exp(-p[0])


def product(p, x):
    return x * p["a"] * p["b"]


def hyperbola():
    """1/2 (a b - 1)^2, three times: its minima are the hyperbola a b = 1, and a saddle is at 0."""
    ones = np.ones((3, 1))
    return tw.Objective(product, tw.losses.squared_error, ones, ones)


def pair(a, b):
    return {"a": jnp.array(a), "b": jnp.array(b)}


@pytest.mark.parametrize("start", [[1.0, 0.5], [0.2, 2.0]])
def test_a_valley_of_minima_is_told_from_a_minimum(start):
    """Its zero eigenvalue comes out positive by as much as the gradient left allows."""
    flow = tw.integrate(
        tw.GradientFlow(), hyperbola(), pair(*start), until=tw.until.gradient_norm(1e-10)
    )
    assert flow.status.kind == "completed"
    assert not flow.limit.isolated
    assert "flat direction" in str(flow.limit)
    a, b = last(flow).values()
    difference = start[0] ** 2 - start[1] ** 2
    exact = np.sqrt((difference + np.sqrt(difference**2 + 4)) / 2)
    assert np.abs(a * b - 1) < 1e-9
    assert np.hypot(a - exact, b - 1 / exact) <= flow.error[-1]


def test_a_limit_that_round_off_chose_is_not_called_sure():
    """The exact flow from (1, -1), turned by some angle, keeps a = -b and ends in the saddle."""
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    flow = tw.integrate(
        tw.GradientFlow(),
        landscape(lambda p: 0.5 * (jnp.prod(turn @ p) - 1) ** 2),
        turn.T @ jnp.array([1.0, -1.0]),
        until=tw.until.gradient_norm(1e-10),
    )
    assert flow.status.kind == "uncontrolled"
    assert np.linalg.norm(flow.params[-1]) <= flow.error[-1]
    assert "may lead elsewhere" in flow.status.message


def test_a_gradient_that_cannot_be_reached():
    """Where residuals of several samples cancel, and their rounding does not."""
    rng = np.random.default_rng(0)
    objective = tw.Objective(
        linear_model, tw.losses.squared_error, rng.normal(size=(7, 2)), rng.normal(size=7)
    )
    flow = tw.integrate(
        tw.GradientFlow(), objective, jnp.ones(2), until=tw.until.gradient_norm(1e-19)
    )
    assert flow.status.kind == "stopped"
    assert "cannot be reached in this precision" in flow.status.message
    assert flow.limit is None


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-10])
def test_separable_classes_have_no_critical_point(tolerance):
    objective = tw.Objective(linear_model, tw.losses.cross_entropy, np.eye(2), np.array([0, 1]))
    flow = tw.integrate(
        tw.GradientFlow(), objective, jnp.zeros((2, 2)), until=tw.until.gradient_norm(tolerance)
    )
    assert "infinity" in flow.status.message
    assert "infinity" in str(flow.limit)
    assert not flow.limit.found


def test_what_an_ending_costs_is_counted():
    seen = []

    def predict(p, x):
        jax.debug.callback(lambda: seen.append(1))
        return jnp.sum((p**2 - 1) ** 2) + 0 * x

    counted = tw.Objective(predict, lambda z, y: z[:, 0], [[0.0]], [0.0])
    options = {"t1": 1e-3, "rtol": 1e-4}
    costs, calls = [], []
    for ending in ({}, {"until": tw.until.gradient_norm(1e-12)}):
        jax.effects_barrier()
        seen.clear()
        flow = tw.integrate(tw.GradientFlow(), counted, 0.5 * jnp.ones(2), **options, **ending)
        jax.effects_barrier()
        costs.append(flow.stats.gradients + flow.stats.error_gradients)
        calls.append(len(seen))
    # A Hessian-vector product counts twice and calls once.
    assert costs[1] - costs[0] == calls[1] - calls[0] + 1


def test_an_infimum_at_infinity_is_no_critical_point():
    objective = landscape(falling)
    arrived = tw.integrate(
        tw.GradientFlow(), objective, jnp.zeros(1), until=tw.until.gradient_norm(1e-6)
    )
    assert "infimum" in arrived.status.message


@pytest.mark.parametrize("error", [1e-2, 1e-5, 1e-8])
@pytest.mark.parametrize("flow", [tw.GradientFlow(), tw.NesterovFlow()])
def test_aiming_at_an_error(flow, error):
    objective, params = small_objective()
    times = np.linspace(0, 10, 11)
    aimed = tw.integrate(flow, objective, params, save_at=times, error=error)
    exact = tw.integrate(flow, objective, params, save_at=times, rtol=1e-11)
    assert aimed.status.kind == "completed"
    assert aimed.error.max() <= error
    gap = tw.compare(aimed, exact)
    assert gap.distance.max() <= error
    assert aimed.stats.error_gradients > 0


def test_aiming_over_kinks_does_not_overshoot():
    objective, params = small_objective(leaky_network, (3, 6, 2))
    aimed = tw.integrate(tw.GradientFlow(), objective, params, t1=5.0, error=1e-3)
    assert aimed.status.kind == "completed"
    assert 1e-5 < aimed.error[-1] <= 1e-3


def test_an_attempt_that_came_to_the_end_is_kept():
    """The finer one runs out of steps."""
    objective = landscape(lambda p: jnp.sum((p**2 - 1) ** 2) / 4)
    options = {"t1": 12.0, "error": 1e-5, "max_steps": 300, "solver": diffrax.Heun()}
    flow = tw.integrate(tw.GradientFlow(), objective, jnp.array([1e-3]), **options)
    assert flow.status.kind == "uncontrolled"
    assert flow.times[-1] == 12.0
    assert "max_steps" in flow.status.message
    assert flow.stats.error_gradients > flow.stats.gradients


def test_an_error_out_of_reach():
    objective, params = small_objective()
    params = [p.astype(jnp.float32) for p in params]
    data = [jnp.asarray(a, jnp.float32) for a in small_data()]
    objective = tw.Objective(objective.predict, objective.loss, *data)
    aimed = tw.integrate(tw.GradientFlow(), objective, params, t1=5.0, error=1e-9)
    assert aimed.status.kind == "uncontrolled"
    assert aimed.status.ok
    assert "1e-09 was asked for" in aimed.status.message


def test_an_error_as_large_as_the_way():
    objective, params = small_objective()
    wild = tw.integrate(tw.NesterovFlow(), objective, params, t1=300.0, rtol=0.5, atol=0.5)
    assert wild.status.kind == "uncontrolled"
    assert wild.status.ok


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"error": -1.0, "t1": 1.0}, "error"),
        ({"error": 1e-3, "rtol": 1e-3, "t1": 1.0}, "takes the place of rtol"),
        ({"error": 1e-3, "until": tw.until.gradient_norm(1e-3)}, "cannot be combined"),
        ({}, "t1: give the final time"),
    ],
)
def test_options_that_exclude_each_other(options, message):
    objective, params = small_objective()
    with pytest.raises(ValueError, match=message):
        tw.integrate(tw.GradientFlow(), objective, params, **options)
    with pytest.raises(ValueError, match="tolerance"):
        tw.until.gradient_norm(0.0)


def test_things_that_are_not_what_is_expected():
    objective, params = small_objective()
    with pytest.raises(TypeError, match="until: expected an ending"):
        tw.integrate(tw.GradientFlow(), objective, params, until=1e-8)
    with pytest.raises(TypeError, match=r"until: .* the class GradientNorm; write"):
        tw.integrate(tw.GradientFlow(), objective, params, until=tw.until.GradientNorm)
    with pytest.raises(TypeError, match="objective: expected an objective, got a function"):
        tw.integrate(tw.GradientFlow(), lambda p: p, params, t1=1.0)
    with pytest.raises(TypeError, match=r"flow: .* the class GradientFlow; write GradientFlow\("):
        tw.integrate(tw.GradientFlow, objective, params, t1=1.0)
