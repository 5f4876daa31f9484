"""The error estimate where estimates go wrong, and flows that end before their time."""

import diffrax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from tests.problems import landscape, quadratic, small_objective


@pytest.mark.parametrize("rtol", [1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("t1", [0.01, 0.1, 1.0])
def test_few_steps_do_not_hide_the_error(t1, rtol):
    """A horizon that one step could reach: solution and companion must not coincide."""
    flow = tw.integrate(tw.GradientFlow(), quadratic(np.eye(3)), jnp.ones(3), t1=t1, rtol=rtol)
    true = np.linalg.norm(flow.params[-1] - np.exp(-t1))
    assert true <= flow.error[-1] <= 1e3 * true + 1e-14


@pytest.mark.parametrize("rtol", [1e-3, 1e-4, 1e-6])
@pytest.mark.parametrize("start", [1e-3, 1e-6, 1e-10, 1e-14])
def test_escape_from_a_saddle(start, rtol):
    """Everything that matters near a saddle is below the tolerances."""
    objective = landscape(lambda p: jnp.sum((p**2 - 1) ** 2) / 4)
    times = np.linspace(0, 60, 121)
    flow = tw.integrate(tw.GradientFlow(), objective, jnp.array([start]), save_at=times, rtol=rtol)
    exact = start * np.exp(times) / np.sqrt(1 + start**2 * (np.exp(2 * times) - 1))
    true = np.abs(flow.params[:, 0] - exact)
    assert true.max() < 2e-3
    large = true > 0.5 * true.max()
    assert np.all(true[large] <= flow.error[large])


def test_two_solutions_that_cross():
    """One frictionless oscillator: the difference of two solutions vanishes every half period."""
    times = np.linspace(0, 60, 1001)
    flow = tw.integrate(
        tw.HeavyBallFlow(0.0), quadratic(np.eye(1)), jnp.ones(1), save_at=times, rtol=1e-4
    )
    true = np.abs(flow.params[:, 0] - np.cos(times))
    assert np.mean(true > flow.error) < 0.01
    assert true.max() < flow.error.max()


def test_a_loss_without_a_floor():
    objective = landscape(lambda p: -0.5 * jnp.sum(p**2))
    flow = tw.integrate(tw.GradientFlow(), objective, jnp.ones(1), t1=710.0, max_steps=10_000)
    assert flow.status.kind == "diverged"
    assert "grows without bound" in flow.status.message
    assert flow.stats.steps + flow.stats.rejected < 2_000
    assert np.all(np.isfinite(flow.params))


def test_a_loss_that_stops_being_a_number():
    objective = landscape(lambda p: jnp.sum(jnp.where(p < 0.5, jnp.nan, p)))
    flow = tw.integrate(tw.GradientFlow(), objective, jnp.ones(1), save_at=np.linspace(0, 1, 11))
    assert flow.status.kind == "diverged"
    assert float(flow.times[-1]) == pytest.approx(0.5, abs=0.11)
    assert np.all(np.diff(flow.times) > 0)


def test_implicit_solvers_get_the_tolerances_of_the_steps():
    objective, params = small_objective()
    ours, implicit = (
        tw.integrate(tw.GradientFlow(), objective, params, t1=3.0, rtol=1e-6, solver=solver)
        for solver in (None, diffrax.Kvaerno5())
    )
    gap = tw.compare(implicit, ours)
    assert gap.distance[-1] < 1e-5
    assert implicit.stats.gradients == -1, "its cost is not known"


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (diffrax.Euler(), "Euler has no error estimate"),
        (diffrax.KenCarp4(), "KenCarp4 needs a field in two parts"),
        ("Tsit5", "expected a diffrax solver, got str"),
    ],
)
def test_solvers_that_cannot_follow_a_flow(solver, message):
    objective, params = small_objective()
    with pytest.raises(TypeError, match=message):
        tw.integrate(tw.GradientFlow(), objective, params, t1=1.0, solver=solver)


def test_one_precision():
    objective = tw.Objective(
        lambda p, x: x * p["a"] + p["b"], tw.losses.squared_error, np.ones((2, 1)), np.ones((2, 1))
    )
    mixed = {"a": jnp.ones(1, jnp.float32), "b": jnp.ones(1)}
    with pytest.raises(TypeError, match=r"params: .*float32, float64"):
        tw.integrate(tw.GradientFlow(), objective, mixed, t1=1.0)
    with pytest.raises(ValueError, match=r"max_steps: .*2\.5"):
        tw.integrate(tw.GradientFlow(), objective, {"a": 1.0}, t1=1.0, max_steps=2.5)
