"""The law of distances against exact recurrences and measured distances."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import thalweg as tw
from tests import problems

VALUES = np.array([1.0, 0.3, 20.0])
FAMILIES = {
    "gradient descent": tw.GradientDescent,
    "heavy ball": lambda h: tw.HeavyBall(h**2, 1 - 1.5 * h),
    "Nesterov": lambda h: tw.Nesterov(h**2),
    "Nesterov, damping 0.7": lambda h: tw.Nesterov(h**2, 0.7),
    "higher momentum": lambda h: tw.HigherMomentum(1.3 * h**2, 0.7 - 1.95 * h, 0.3),
    "Nesterov, constant": lambda h: tw.NesterovConstant(h**2, 1 - 1.5 * h),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_error_vector_on_a_quadratic(name):
    """Against recurrence and response at two step sizes, extrapolated to none."""
    make, times = FAMILIES[name], np.array([0.1, 0.4, 2.0])

    def quotient(h):
        optimizer = make(h)
        steps = np.round(times / h).astype(int)
        flow = optimizer.limit()
        return np.array(
            [
                (optimizer.response(VALUES, k) - flow.response(VALUES, t)) / h
                for k, t in zip(steps, times, strict=True)
            ]
        )

    fine, middle, coarse = (quotient(h) for h in (2.5e-4, 5e-4, 1e-3))
    exact = 2 * fine - middle
    uncertain = np.abs(exact - (2 * middle - coarse)).max()
    objective = problems.quadratic(np.diag(VALUES))
    law = tw.predicted_distance(make(0.01), objective, jnp.ones(3), save_at=times, rtol=1e-9)
    scale = np.abs(exact).max()
    assert uncertain < 1e-3 * scale
    assert np.abs(law.vector - exact).max() < 2 * uncertain + 1e-6 * scale
    true = np.linalg.norm(np.asarray(law.vector) - exact, axis=1)
    assert np.all(true <= law.flow_error + 4 * uncertain)
    np.testing.assert_allclose(law.rate, np.linalg.norm(law.vector, axis=1))
    np.testing.assert_allclose(law.distance, 0.01 * law.rate)
    np.testing.assert_allclose(law.at(1e-3), 1e-3 * law.rate)
    assert law.longest(1e-2) == pytest.approx(1e-2 / np.max(law.rate))


def test_a_tanh_network():
    """In proportion to the step size, with a part in the step size that falls as it does."""
    objective, params = problems.small_objective()
    gaps = []
    for steps in (100, 200):
        step_size = 4 / steps
        descent = tw.GradientDescent(step_size)
        run = tw.descend(descent, objective, params, steps=steps, save_every=steps // 4)
        law = tw.predicted_distance(
            tw.GradientDescent(step_size), objective, params, save_at=run.times, rtol=1e-8
        )
        flow = tw.integrate(tw.GradientFlow(), objective, params, save_at=run.times, rtol=1e-9)
        measured = tw.compare(run, flow).distance
        gaps.append(float(np.max(np.abs(law.distance[1:] / measured[1:] - 1))))
    assert gaps[1] < 0.02
    assert 1.5 < gaps[0] / gaps[1] < 2.7


def test_the_second_order_on_a_quadratic():
    """`(1 - h a)^(t/h) = exp(-a t) exp(-h a^2 t/2 - h^2 a^3 t/3 - ...)`."""
    times = np.array([0.1, 0.4, 2.0])
    law = tw.predicted_distance(
        tw.GradientDescent(0.01),
        problems.quadratic(np.diag(VALUES)),
        jnp.ones(3),
        save_at=times,
        order=2,
        rtol=1e-10,
    )
    t, decay = times[:, None], np.exp(-VALUES * times[:, None])
    first, second = law.terms
    np.testing.assert_allclose(first, -(VALUES**2) * t / 2 * decay, atol=1e-7)
    np.testing.assert_allclose(
        second, (VALUES**4 * t**2 / 8 - VALUES**3 * t / 3) * decay, atol=1e-5
    )
    exact = np.linalg.norm(0.01 * np.asarray(first) + 1e-4 * np.asarray(second), axis=1)
    np.testing.assert_allclose(law.distance, exact, rtol=1e-12)
    epsilon = 0.02
    longest = law.longest(epsilon)
    assert float(jnp.max(law.at(longest))) == pytest.approx(epsilon)
    assert float(jnp.max(law.at(0.9 * longest))) < epsilon


def test_the_second_order_of_a_tanh_network():
    """What is left falls with the square of the step."""
    objective, params = problems.small_objective()
    gaps = []
    for steps in (50, 100):
        descent = tw.GradientDescent(4 / steps)
        run = tw.descend(descent, objective, params, steps=steps, save_every=steps // 4)
        law = tw.predicted_distance(
            descent, objective, params, save_at=run.times, rtol=1e-8, order=2
        )
        flow = tw.integrate(tw.GradientFlow(), objective, params, save_at=run.times, rtol=1e-9)
        measured = tw.compare(run, flow).distance
        gaps.append(float(np.max(np.abs(law.distance[1:] / measured[1:] - 1))))
    assert gaps[1] < 1e-3
    assert 3 < gaps[0] / gaps[1] < 6


def test_what_it_costs():
    """The flow's evaluations, at three gradients each."""
    objective, params = problems.small_objective()
    law = tw.predicted_distance(tw.GradientDescent(0.01), objective, params, t1=2.0)
    assert law.stats.gradients % 3 == 0
    assert law.status.kind == "completed"
    assert law.rate.shape == (2,)
    assert jax.tree.structure(law.vector) == jax.tree.structure(params)


def test_what_has_no_law_is_refused():
    objective, params = problems.small_objective()
    unknown = tw.Optax(optax.sgd(0.1), flow=tw.GradientFlow(), time_per_step=0.1)
    with pytest.raises(ValueError, match="no first-order law"):
        tw.predicted_distance(unknown, objective, params, t1=1.0)
    network = tw.networks.fully_connected([3, 4, 2], activation="relu", key=jr.key(0))
    kinked = tw.Objective(
        tw.networks.apply, tw.losses.squared_error, objective.inputs, objective.targets
    )
    with pytest.raises(ValueError, match="kinks"):
        tw.predicted_distance(tw.GradientDescent(0.1), kinked, network, t1=1.0)
    with pytest.raises(ValueError, match=r"Nesterov.* known to order 1, not 2"):
        tw.predicted_distance(tw.Nesterov(0.01), objective, params, t1=1.0, order=2)
    with pytest.raises(ValueError, match="order"):
        tw.predicted_distance(tw.GradientDescent(0.01), objective, params, t1=1.0, order=0)
    with pytest.raises(TypeError, match="optimizer"):
        tw.predicted_distance(tw.GradientFlow(), objective, params, t1=1.0)


@pytest.mark.parametrize(
    ("method", "epsilon"),
    [(tw.GradientDescent, 0.1), (lambda h: tw.HeavyBall(h, 1 - h**0.5), 1e-2)],
    ids=["gradient descent", "heavy ball"],
)
def test_the_largest_step(method, epsilon):
    """At every step of a run with it, and not with one a tenth longer."""
    objective, params = problems.small_objective()
    found = tw.largest_step(objective, params, epsilon, 4.0, method=method)

    def farthest(steps):
        power = 1 if method is tw.GradientDescent else 2
        optimizer = method((4.0 / steps) ** power)
        run = tw.descend(optimizer, objective, params, steps, save_every=1)
        flow = tw.integrate(optimizer.limit(), objective, params, save_at=run.times, rtol=1e-8)
        return float(np.max(tw.compare(run, flow).distance))

    assert found.distance + found.error <= epsilon
    assert farthest(found.steps) <= 1.02 * epsilon
    assert farthest(int(found.steps * 0.9)) > epsilon
    assert found.step_size == pytest.approx(found.predicted, rel=0.5)


def test_an_epsilon_that_no_run_keeps():
    objective, params = problems.small_objective()
    with pytest.raises(ValueError, match="epsilon"):
        tw.largest_step(objective, params, -1.0, 4.0)
