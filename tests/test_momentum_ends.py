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
