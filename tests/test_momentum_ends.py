"""Where flows with momentum end: in the well that their velocity does not carry them out of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import thalweg as tw
from tests.problems import landscape, quadratic


def tilted(p):
    return jnp.sum((p**2 - 1) ** 2) / 4 + 0.1 * jnp.sum(p)


def corrugated(p):
    return jnp.sum(1 - jnp.cos(p)) + 1e-3 * jnp.sum(p**2)


def hyperbola(p):
    return (p[0] * p[1] - 1) ** 2 / 2


def rests_at(f, friction, start):
    """Where the flow is much later, by SciPy."""
    gradient = jax.jit(jax.grad(f))

    def field(t, y):
        position, velocity = np.split(y, 2)
        return np.concatenate([velocity, -friction * velocity - np.asarray(gradient(position))])

    begin = np.concatenate([start, np.zeros(len(start))])
    late = 80 / friction
    found = solve_ivp(field, (0, late), begin, method="DOP853", rtol=1e-10, atol=1e-12)
    return found.y[: len(start), -1]


@pytest.mark.parametrize("tolerance", [1e-1, 1e-4])
@pytest.mark.parametrize(
    ("f", "friction", "start"),
    [
        (tilted, 0.3, [2.0]),
        (tilted, 0.05, [2.5]),
        # From far away, a well is narrower than a small part of the way.
        (corrugated, 0.05, [30.0]),
        # A valley of minima: how far the velocity leads along it is not known.
        (hyperbola, 0.3, [3.0, 0.0]),
        (hyperbola, 3.0, [0.1, 2.0]),
    ],
)
def test_a_swing_is_followed_to_its_end(f, friction, start, tolerance):
    exact = rests_at(f, friction, np.array(start))
    flow, ending = tw.HeavyBallFlow(friction), tw.until.gradient_norm(tolerance)
    arrived = tw.integrate(flow, landscape(f), jnp.array(start), until=ending)
    assert arrived.limit.found
    assert arrived.limit.index == 0
    distance = np.linalg.norm(np.asarray(arrived.params[-1]) - exact)
    assert distance <= arrived.error[-1] < 0.1


def test_nesterov_flow_swings_as_well():
    objective, start = landscape(tilted), jnp.array([2.0])
    late = tw.integrate(tw.NesterovFlow(), objective, start, t1=300.0)
    ending = tw.until.gradient_norm(1e-1)
    arrived = tw.integrate(tw.NesterovFlow(), objective, start, until=ending)
    assert arrived.limit.found
    assert arrived.params[-1][0] * late.params[-1][0] > 0


@pytest.mark.parametrize("flow", [tw.HeavyBallFlow(0.0), tw.NesterovFlow(1.0)])
def test_without_enough_friction_the_way_is_bounded_by_the_speed_alone(flow):
    objective, ending = quadratic(np.eye(2)), tw.until.gradient_norm(1e-1)
    swinging = tw.integrate(flow, objective, jnp.ones(2), until=ending, t1=20.0)
    assert swinging.status.kind == "stopped"
    assert swinging.limit is None


def test_at_rest_nothing_swings():
    saddle = landscape(lambda p: (p[0] ** 2 - p[1] ** 2) / 2)
    ending = tw.until.gradient_norm(1e-6)
    resting = tw.integrate(tw.HeavyBallFlow(0.1), saddle, jnp.zeros(2), until=ending)
    assert resting.limit.index == 1


def test_a_ball_that_flies_over_wells_is_in_none_of_them():
    """At rest on a well's scale of length it is not, however far from its start that is."""

    def wells(p):
        return jnp.sum(1 - jnp.cos(p) + 5e-4 * p**2)

    ending, start = tw.until.gradient_norm(0.1), jnp.array([204.38460661524038])
    arrived = tw.integrate(tw.HeavyBallFlow(0.01), landscape(wells), start, until=ending)
    # By DOP853 at 1e-9 and 1e-11; there are wells at all multiples of 6.28, nearly.
    assert abs(arrived.params[-1][0] + 31.3845) < 1e-3


def test_an_error_larger_than_a_well_is_kept():
    """The companion comes to rest in another well."""

    def wells(p):
        return jnp.sum(1 - jnp.cos(p) + 5e-4 * p**2)

    ending, start = tw.until.gradient_norm(1e-2), jnp.array([59.422115994037156])
    flow = tw.HeavyBallFlow(0.02)
    arrived = tw.integrate(flow, landscape(wells), start, until=ending, rtol=1e-3)
    exact = rests_at(wells, 0.02, np.asarray(start))
    assert np.linalg.norm(np.asarray(arrived.params[-1]) - exact) <= arrived.error[-1]
    if arrived.error[-1] > 3:
        assert "another one" in arrived.status.message


@pytest.mark.parametrize(
    ("flow", "start"),
    [
        (tw.GradientFlow(), 38.24333181701749),
        (tw.HeavyBallFlow(2.0), 34.224203958527255),
        (tw.HeavyBallFlow(0.5), 33.352722505770146),
    ],
)
def test_a_corrugated_slope_has_no_critical_point(flow, start):
    """Its gradient meets the tolerance everywhere, and vanishes nowhere beyond 10."""

    def slope(p):
        return 0.005 * jnp.sum(1 - jnp.cos(20 * p) + p**2)

    ending = tw.until.gradient_norm(0.1)
    arrived = tw.integrate(flow, landscape(slope), jnp.array([start]), until=ending)
    assert not arrived.limit.found or abs(arrived.params[-1][0]) < 10
