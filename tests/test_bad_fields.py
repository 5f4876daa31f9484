"""Fields that go wrong part of the way, and an integrator that was told something wrong."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from tests.problems import landscape, quadratic
from thalweg.flows import Integration
from thalweg.results import follow

SOLVERS = [None, tw.solvers.RKC2(), tw.solvers.RKC4(), tw.solvers.AveragedMidpoint()]
FLOWS = [tw.GradientFlow(), tw.HeavyBallFlow(1.0), tw.NesterovFlow()]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_nan_part_of_the_way(solver):
    """x' = -1 down to x = 1/2, where the loss stops being a number."""
    objective = landscape(lambda p: jnp.sum(p + 0 * jnp.sqrt(p - 0.5)))
    times = np.linspace(0, 1, 21)
    flow = tw.integrate(
        tw.GradientFlow(), objective, jnp.ones(1), save_at=times, rtol=1e-5, solver=solver
    )
    assert flow.status.kind == "diverged"
    assert "finite" in flow.status.message
    assert flow.status.time == pytest.approx(0.5, abs=1e-3)
    before = np.sum(times < flow.status.time)
    np.testing.assert_allclose(flow.times[:before], times[:before])
    true = np.abs(flow.params[:, 0] - (1 - np.asarray(flow.times)))
    assert np.all(true < 1e-5)
    assert np.all(true <= flow.error + 1e-9)
    assert np.all(np.isfinite(flow.error[: before - 1]))


@pytest.mark.parametrize("momentum_flow", FLOWS, ids=lambda f: f.name)
def test_a_loss_unbounded_below(momentum_flow):
    """f = -x^4 / 4: infinity is reached in finite time."""
    objective = landscape(lambda p: -jnp.sum(p**4) / 4)
    times = np.linspace(0, 20, 81)
    flow = tw.integrate(momentum_flow, objective, jnp.ones(1), save_at=times, rtol=1e-6)
    assert flow.status.kind == "diverged"
    assert "grows without bound" in flow.status.message
    assert 0 < flow.status.time < 20
    assert len(flow.times) >= np.sum(times < flow.status.time)
    assert np.all(np.isfinite(flow.params))
    assert np.all(np.isfinite(flow.observables["loss"]))


@pytest.mark.parametrize("momentum_flow", FLOWS, ids=lambda f: f.name)
def test_a_start_at_a_saddle(momentum_flow):
    """The exact solution stays, and it is said that it does."""
    objective = landscape(lambda p: p[0] ** 2 - p[1] ** 2)
    flow = tw.integrate(momentum_flow, objective, jnp.zeros(2), t1=10.0)
    assert flow.status.ok
    assert "critical point" in flow.status.message
    np.testing.assert_array_equal(flow.params, 0)
    limit = tw.integrate(
        momentum_flow, objective, jnp.zeros(2), until=tw.until.gradient_norm(1e-12)
    )
    assert limit.limit.index == 1


@pytest.mark.parametrize("factor", [0.01, 100.0])
@pytest.mark.parametrize("solver", SOLVERS[1:3], ids=lambda s: type(s).__name__)
def test_a_spectral_radius_that_is_wrong_by_a_hundred(solver, factor):
    """Told in the middle of the way, and never to be looked at again unless a step is rejected."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(20, 20)))[0]
    values = np.geomspace(0.1, 1000, 20)
    objective = quadratic((basis * values) @ basis.T)
    start = jnp.asarray(rng.normal(size=20))
    times = np.linspace(0, 10, 11)

    class Misled(Integration):
        def advance(self, state):
            if int(state.index) == 3:
                for name in ("solution", "companion"):

                    def radius(s, name=name):
                        return getattr(s, name).march.solver_state.radius

                    wrong = eqx.tree_at(
                        lambda r: (r.value, r.patience, r.age),
                        radius(state),
                        (factor * radius(state).value, jnp.asarray(10**9), jnp.asarray(1)),
                    )
                    state = eqx.tree_at(radius, state, wrong)
            return super().advance(state)

    def solved(kind):
        return follow(
            kind(tw.GradientFlow(), objective, start, save_at=times, rtol=1e-5, solver=solver)
        )

    right, misled = solved(Integration), solved(Misled)
    exact = (np.exp(-np.outer(times, values)) * (np.asarray(start) @ basis)) @ basis.T
    true = np.linalg.norm(misled.params - exact, axis=1)
    assert misled.status.ok
    assert np.all(true <= misled.error)
    assert true.max() < 1e-3
    if factor < 1:
        assert misled.stats.rejected > right.stats.rejected, "it was caught"
        assert misled.stats.gradients < 2 * right.stats.gradients, "and repaired"


def test_a_gradient_that_is_nan_at_the_start():
    """The value is finite there; of the branch not taken, the derivative is not."""
    objective = landscape(lambda p: p[0] + jnp.where(p[0] < 0.5, jnp.nan * p[0], 0.0))
    flow = tw.integrate(tw.GradientFlow(), objective, jnp.ones(1), t1=2.0)
    assert flow.status.kind == "diverged"
    assert "t = 0" in flow.status.message
    assert flow.stats.steps + flow.stats.rejected < 10


@pytest.mark.parametrize("rtol", [1e-6, 1e-8])
def test_a_speed_that_becomes_infinite(rtol):
    """f = log x: x^2 = 1 - 2 t reaches 0 at t = 1/2, and there is no solution after that."""
    objective = landscape(lambda p: jnp.sum(jnp.log(p)))
    times = np.linspace(0, 2, 17)
    flow = tw.integrate(tw.GradientFlow(), objective, jnp.ones(1), save_at=times, rtol=rtol)
    assert flow.status.kind == "diverged"
    assert flow.status.time == pytest.approx(0.5, abs=10 * rtol)
    assert flow.stats.steps + flow.stats.rejected < 1_000
    np.testing.assert_allclose(flow.params[:4, 0], np.sqrt(1 - 2 * times[:4]), atol=1e-5)


def test_rest_is_not_divergence():
    """f = x^4 / 4, whose x = (2 t)^(-1/2) is below any tolerance long before time is at its end."""
    objective = landscape(lambda p: jnp.sum(p**4) / 4)
    flow = tw.integrate(tw.GradientFlow(), objective, jnp.ones(1), t1=1e300, max_steps=10_000)
    assert flow.status.kind == "stopped"
    assert "less than its tolerances" in flow.status.message
    assert flow.status.time > 1e15
    assert abs(float(flow.params[-1, 0])) < 1e-8


def test_a_gradient_that_is_nearly_a_kink():
    """f = (x^2 + 1e-30)^(3/4) looks like |x|^(3/2), whose flow rests from t = 4/3 on."""
    objective = landscape(lambda p: jnp.sum((p**2 + 1e-30) ** 0.75))
    flow = tw.integrate(tw.GradientFlow(), objective, jnp.ones(1), t1=10.0, max_steps=10_000)
    assert flow.status.kind in ("completed", "stopped")
    assert abs(float(flow.params[-1, 0])) <= flow.error[-1]


@pytest.mark.parametrize("rtol", [1e-6, 1e-8])
def test_an_edge_where_the_speed_vanishes(rtol):
    """f = x^(3/2) has no gradient below 0, which the flow reaches at t = 4/3 with speed 0.

    x = (1 - 3 t / 4)^2: an error of x is one of the root in the time.
    """
    objective = landscape(lambda p: jnp.sum(p**1.5))
    flow = tw.integrate(tw.GradientFlow(), objective, jnp.ones(1), t1=10.0, rtol=rtol)
    assert flow.status.kind == "diverged"
    assert "finite" in flow.status.message
    assert flow.status.time == pytest.approx(4 / 3, abs=2 * rtol**0.5)
    assert abs(float(flow.params[-1, 0])) < 1e-6


@pytest.mark.parametrize(("dtype", "t1"), [(np.float32, 1e-30), (np.float64, 1e-300)])
def test_a_horizon_in_which_hardly_anything_moves(dtype, t1):
    objective = landscape(lambda p: jnp.sum((p - 1e-3) ** 2) / 2)
    flow = tw.integrate(tw.GradientFlow(), objective, jnp.zeros(1, dtype), t1=t1)
    assert flow.status.kind == "completed", flow.status.message
    assert abs(float(flow.params[-1, 0]) - 1e-3 * t1) <= flow.error[-1] < 1e-3 * t1


@pytest.mark.parametrize(
    ("dtype", "t1", "message"),
    [
        (np.float64, 1e-320, "below the smallest normal number of float64"),
        (np.float32, 1e-40, "below the smallest normal number of float32"),
        (np.float32, 1e40, "above the largest number of float32"),
    ],
)
def test_times_beyond_the_precision_of_the_parameters(dtype, t1, message):
    objective = landscape(lambda p: jnp.sum(p**2))
    with pytest.raises(ValueError, match=message):
        tw.integrate(tw.GradientFlow(), objective, jnp.ones(1, dtype), t1=t1)
