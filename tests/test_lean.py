"""The flow of a large network, followed with few copies of its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from tests.problems import landscape, quadratic, small_objective
from thalweg.flows import _choice


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    monkeypatch.setattr(_choice, "_LARGE", 1)


@pytest.mark.parametrize("rtol", [1e-3, 1e-5])
def test_a_stiff_quadratic(rtol):
    values = np.array([1e-2, 1.0, 300.0])
    times = [0.0, 0.01, 0.5, 20.0]
    flow = tw.integrate(
        tw.GradientFlow(), quadratic(np.diag(values)), jnp.ones(3), save_at=times, rtol=rtol
    )
    exact = np.exp(-np.outer(times, values))
    true = np.linalg.norm(flow.params - exact, axis=1)
    assert flow.status.ok
    assert flow.stats.solver == "RKC2"
    assert np.all(true <= flow.error)
    assert true.max() < 100 * rtol
    assert flow.stats.gradients < 20 * 300 / 3.3, "stability does not limit the steps"


def test_a_network_against_the_general_method(monkeypatch):
    objective, params = small_objective()
    times = np.linspace(0, 10, 6)
    lean = tw.integrate(tw.GradientFlow(), objective, params, save_at=times, rtol=1e-5)
    monkeypatch.setattr(_choice, "_LARGE", 10**9)
    exact = tw.integrate(tw.GradientFlow(), objective, params, save_at=times, rtol=1e-10)
    gap = tw.compare(lean, exact)
    assert np.all(gap.distance <= lean.error + exact.error)
    assert gap.distance.max() < 1e-3


def test_parameters_of_the_caller_stay():
    """Buffers are written over, but never the caller's."""
    objective, params = small_objective()
    before = [np.array(p) for p in params]
    tw.integrate(tw.GradientFlow(), objective, params, t1=1.0)
    jax.tree.map(np.testing.assert_array_equal, params, before)


def test_growth_without_bound_and_limits():
    wild = landscape(lambda p: -0.5 * jnp.sum(p**2))
    flow = tw.integrate(tw.GradientFlow(), wild, jnp.ones(1), t1=710.0, rtol=1e-2)
    assert flow.status.kind == "diverged"
    objective, params = small_objective()
    few = tw.integrate(tw.GradientFlow(), objective, params, t1=50.0, max_steps=3)
    assert few.status.kind == "stopped"


def test_kinks_and_momentum_are_left_to_the_general_method():
    objective, params = small_objective()
    flow = tw.integrate(tw.HeavyBallFlow(1.0), objective, params, t1=1.0)
    assert flow.stats.solver == "Dopri8"
