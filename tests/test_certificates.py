"""Certificates against runs and flows computed far more precisely than they promise."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import thalweg as tw
from tests import problems
from thalweg.closeness import ClosedForm, Intervals
from thalweg.closeness._certify import _largest
from thalweg.closeness._growth import added_within, grown


def linear_problem(seed=0, widths=(3, 4, 2), scale=0.5, samples=8):
    rng = np.random.default_rng(seed)
    network = tw.networks.fully_connected(
        list(widths), activation="linear", bias=False, init="xavier", key=jr.key(seed)
    )
    network = jax.tree.map(lambda w: scale * w, network)
    data = rng.normal(size=(samples, widths[0])), rng.normal(size=(samples, widths[-1]))
    return tw.Objective(tw.networks.apply, tw.losses.squared_error, *data), network


def distances(objective, params, step_size, steps):
    """Of some forty iterates from the flow, to many digits."""
    saved = np.unique(np.round(np.linspace(0, steps, min(steps, 40) + 1)).astype(int))
    run = tw.descend(tw.GradientDescent(step_size), objective, params, steps, save_steps=saved)
    flow = tw.integrate(
        tw.GradientFlow(), objective, params, save_at=run.times, rtol=1e-10, atol=1e-12
    )
    gap = tw.compare(run, flow)
    return run, np.asarray(gap.distance), np.asarray(gap.error)


def test_growth_against_quadrature():
    h = 0.3
    bending = np.array([-50.0, -2.0, -1e-5, 0.0, 1e-5, 1.0, 9.0])
    s = (np.arange(200_000) + 0.5) * h / 200_000
    exact = [np.mean(np.exp(m * (h - s)) * s) * h for m in bending]
    np.testing.assert_allclose(added_within(bending, h), exact, rtol=1e-8)
    added = np.linspace(0.1, 0.7, 7)
    expected = [0.2]
    for m, a in zip(bending, added, strict=True):
        expected.append(expected[-1] * np.exp(m * h) + a)
    np.testing.assert_allclose(grown(0.2, bending, added, h), expected, rtol=1e-12)
    assert np.all(np.isinf(grown(0.0, np.array([1e6, 1e6]), np.ones(2), h)[2:]))


def test_a_convex_quadratic():
    """With one curvature in all directions the inequality is nearly an equation."""
    objective = problems.quadratic(2.0 * np.eye(3))
    run, true, error = distances(objective, jnp.ones(3), 0.01, 200)
    certificate = tw.certify_run(objective, run)
    bound = certificate.bound[run.steps]
    assert np.all(true <= bound + error)
    assert np.all(bound[1:] <= 1.2 * true[1:])
    assert not certificate.proved
    assert certificate.amplification == pytest.approx(1.0)
    assert "turning" in certificate.limit


@pytest.mark.parametrize("step_size", [1e-3, 1e-2])
def test_a_linear_network_with_proof(step_size):
    objective, network = linear_problem()
    steps = round(1.0 / step_size)
    run, true, error = distances(objective, network, step_size, steps)
    certificate = tw.certify_run(objective, run, evidence=ClosedForm())
    assert certificate.proved
    assert {h.how for h in certificate.hypotheses} == {"closed form"}
    assert np.all(true <= certificate.bound[run.steps] + error)
    assert certificate.bound[-1] < 100 * true[-1]
    np.testing.assert_allclose(certificate.times[run.steps], run.times)
    assert certificate.looks[0] == 0
    assert certificate.looks[-1] == steps


def test_a_tanh_network_with_intervals():
    objective, params = problems.small_objective()
    run, true, error = distances(objective, params, 0.02, 200)
    certificate = tw.certify_run(objective, run)
    bound = certificate.bound[run.steps]
    assert np.all(true <= bound + error)
    assert np.all(bound[1:] < 30 * true[1:])
    assert not certificate.proved
    assert "not proved" in str(certificate)
    assert "sampled: " in str(certificate)


def test_a_tube_that_grows_without_end():
    """Far too long a step: no number is made up."""
    objective, network = linear_problem(scale=2.0)
    run = tw.descend(tw.GradientDescent(0.05), objective, network, 60)
    certificate = tw.certify_run(objective, run, evidence=ClosedForm())
    assert np.isinf(certificate.bound[-1])
    assert np.isfinite(certificate.bound[certificate.until])
    assert np.isinf(certificate.bound[certificate.until + 1])
    assert f"at step {certificate.until} at most" in str(certificate)
    assert not certificate.proved
    assert "Nothing can be said beyond step" in certificate.limit


def test_a_step_over_two_pieces_takes_the_worst_of_both():
    """The gradient of the first and the curvature of the second: 10 times 10."""
    times, flat = np.array([0.0, 1.0, 2.0]), np.zeros(2)
    factors = np.array([[1.0, 10.0], [10.0, 1.0]])
    # One step of 2 adds 100 * 2^2 / 2.
    assert _largest(times, flat, factors, 199.0) == 1.0
    assert _largest(times, flat, factors, 201.0) == 2.0


def test_kinks_hidden_in_a_loop_are_not_proved_away():
    network = tw.networks.fully_connected([1, 1, 1], activation="relu", bias=False, key=jr.key(0))
    objective = tw.Objective(
        lambda p, x: jax.lax.map(p, x), tw.losses.squared_error, np.ones((1, 1)), -np.ones((1, 1))
    )
    run = tw.descend(tw.GradientDescent(0.01), objective, network, 3)
    certificate = tw.certify_run(objective, run, evidence=ClosedForm())
    assert not certificate.proved
    assert "no kink" in str(certificate)


def test_another_objective_is_refused():
    objective, network = linear_problem()
    other = tw.Objective(
        tw.networks.apply, tw.losses.squared_error, objective.inputs, 2 * objective.targets
    )
    run = tw.descend(tw.GradientDescent(0.01), objective, network, 20)
    with pytest.raises(ValueError, match="made again, end"):
        tw.certify_run(other, run, evidence=ClosedForm())
    near = tw.certify_run(objective, run, evidence=ClosedForm())
    with pytest.raises(ValueError, match="its loss at the flow's start"):
        tw.certify(other, near, epsilon=0.1, evidence=ClosedForm())


def test_kinks_are_assumed_away():
    network = tw.networks.fully_connected(
        [3, 4, 2], activation="relu", bias=False, init="he", key=jr.key(0)
    )
    data = np.ones((4, 3)), np.ones((4, 2))
    objective = tw.Objective(tw.networks.apply, tw.losses.squared_error, *data)
    run = tw.descend(tw.GradientDescent(1e-3), objective, network, 5)
    for evidence in (ClosedForm(), Intervals()):
        certificate = tw.certify_run(objective, run, evidence=evidence)
        assert any(h.how == "assumed" and "kink" in h.statement for h in certificate.hypotheses)
        assert not certificate.proved


@pytest.mark.parametrize("kind", ["proof", "intervals"])
def test_the_step_size_keeps_within_epsilon(kind):
    epsilon, t1 = 0.05, 1.0
    if kind == "proof":
        objective, params = linear_problem()
        evidence = ClosedForm()
    else:
        objective, params = problems.small_objective()
        evidence = Intervals()
    flow = tw.integrate(
        tw.GradientFlow(), objective, params, save_at=np.linspace(0, t1, 101), rtol=1e-8
    )
    certificate = tw.certify(objective, flow, epsilon=epsilon, evidence=evidence)
    assert certificate.step_size > 0
    assert certificate.uniform_step_size <= certificate.step_size
    assert certificate.t1 == t1
    _, true, error = distances(
        objective, params, certificate.step_size, round(t1 / certificate.step_size)
    )
    assert np.max(true) <= epsilon + np.max(error)
    assert np.max(true) > epsilon / 200
    assert not certificate.proved, "the flow's error is an estimate"
    assert any("two solutions" in h.statement for h in certificate.hypotheses)


def test_a_proof_without_a_computed_flow():
    """The iterates of a finer run, certified, in place of the flow."""
    objective, network = linear_problem()
    run = tw.descend(tw.GradientDescent(2e-4), objective, network, 5000, save_every=5000)
    near = tw.certify_run(objective, run, evidence=ClosedForm(), looks=50)
    certificate = tw.certify(objective, near, epsilon=0.1, evidence=ClosedForm())
    assert certificate.proved
    assert certificate.t1 == pytest.approx(1.0)
    steps = round(1.0 / certificate.step_size)
    _, true, _ = distances(objective, network, certificate.step_size, steps)
    assert np.max(true) <= 0.1


def test_a_bound_of_no_use_is_given_up():
    """Along a saddle bounds grow like exp(t): beyond what is useful they are not followed."""
    objective = problems.landscape(lambda p: 0.5 * (p[0] ** 2 - p[1] ** 2) + p[1] ** 4)
    run = tw.descend(tw.GradientDescent(1e-2), objective, jnp.array([1.0, 1e-3]), 1000)
    whole = tw.certify_run(objective, run)
    useful = 0.3
    short = tw.certify_run(objective, run, useful=useful)
    known = short.bound[: short.until + 1]
    flow = tw.integrate(tw.GradientFlow(), objective, run.initial, save_at=run.times, rtol=1e-9)
    measured = tw.compare(run, flow).distance[: short.until + 1]
    assert np.all(measured <= known)
    assert np.all(known <= useful)
    assert np.all(np.isinf(short.bound[short.until + 1 :]))
    assert 100 < short.until < 1000
    # Up to there it is no worse than the one that is followed to its end.
    assert np.all(known <= whole.bound[: short.until + 1] * (1 + 1e-9))
    assert short.gradients < whole.gradients
    assert f"step {short.until} the bound would be more than 0.3" in short.limit
    assert not short.proved
    with pytest.raises(ValueError, match="useful: must not be negative"):
        tw.certify_run(objective, run, useful=-1.0)


def test_a_saddle_multiplies_errors():
    """f = (x^2 y^2 of one sample): close to the line, errors grow as exp(t) does."""
    objective = problems.landscape(lambda p: 0.5 * (p[0] ** 2 - p[1] ** 2))
    params, t1 = jnp.array([0.0, 1e-3]), 4.0
    flow = tw.integrate(
        tw.GradientFlow(), objective, params, save_at=np.linspace(0, t1, 81), rtol=1e-9
    )
    certificate = tw.certify(objective, flow, epsilon=1e-3)
    assert certificate.amplification == pytest.approx(np.exp(t1), rel=1e-3)
    assert "Negative curvature" in certificate.limit
    # |theta_k - theta| = y0 e^t t h / 2 to first order.
    exact = 2e-3 / (1e-3 * np.exp(t1) * t1)
    assert 0.1 * exact < certificate.step_size < exact * 1.05


def test_what_is_refused():
    objective, network = linear_problem()
    flow = tw.integrate(tw.GradientFlow(), objective, network, t1=1.0, save_at=[0.5, 1.0])
    with pytest.raises(ValueError, match="first saved time must be 0"):
        tw.certify(objective, flow, epsilon=0.1)
    rows = tw.integrate(tw.GradientFlow(), objective, network, save_at=[0.0, 1.0])
    with pytest.raises(ValueError, match="flow's own error"):
        tw.certify(objective, rows, epsilon=1e-12)
    with pytest.raises(ValueError, match="epsilon"):
        tw.certify(objective, rows, epsilon=-1.0)
    with pytest.raises(TypeError, match="evidence"):
        tw.certify(objective, rows, epsilon=0.1, evidence=network)
    run = tw.descend(tw.HeavyBall(0.01, 0.9), objective, network, 5)
    with pytest.raises(TypeError, match="HeavyBall"):
        tw.certify_run(objective, run)
    with pytest.raises(TypeError, match="certify_run"):
        tw.certify(objective, run, epsilon=0.1)
    with pytest.raises(TypeError, match="GradientFlow"):
        tw.certify_run(objective, rows)
    tanh = tw.networks.fully_connected([3, 4, 2], activation="tanh", bias=False, key=jr.key(0))
    landscape = tw.Objective(
        tw.networks.apply, tw.losses.squared_error, objective.inputs, objective.targets
    )
    run = tw.descend(tw.GradientDescent(0.01), landscape, tanh, 5)
    with pytest.raises(ValueError, match="not tanh"):
        tw.certify_run(landscape, run, evidence=ClosedForm())
