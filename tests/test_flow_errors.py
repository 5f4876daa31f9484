"""The error estimate where estimates go wrong, and flows that end before their time."""

import diffrax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import thalweg as tw
from tests.problems import landscape, quadratic, small_objective


@pytest.mark.parametrize("rtol", [1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("t1", [0.01, 0.1, 1.0])
def test_few_steps_do_not_hide_the_error(t1, rtol):
    """A horizon that one step could reach: solution and companion must not coincide."""
    flow = tw.integrate(tw.GradientFlow(), quadratic(np.eye(3)), jnp.ones(3), t1=t1, rtol=rtol)
    true = np.linalg.norm(flow.params[-1] - np.exp(-t1))
    assert true <= flow.error[-1] <= 1e3 * true + 1e-14


def double_well(p):
    return jnp.sum((p**2 - 1) ** 2) / 4


@pytest.mark.parametrize("rtol", [1e-3, 1e-4, 1e-6])
@pytest.mark.parametrize("start", [1e-3, 1e-6, 1e-10, 1e-14])
def test_escape_from_a_saddle(start, rtol):
    """Everything that matters near a saddle is below the tolerances."""
    objective = landscape(double_well)
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


def test_an_oscillator_saved_where_it_returns():
    """It went a long way, and is back where it began."""
    flow = tw.integrate(
        tw.HeavyBallFlow(0.0), quadratic(np.eye(1)), jnp.ones(1), t1=2 * np.pi, rtol=1e-6
    )
    assert flow.status.kind == "completed", flow.status.message
    assert abs(flow.params[-1, 0] - 1) <= flow.error[-1] < 1e-4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_parameters_have_not_grown(dtype):
    """A gradient flow that begins at 1e12, where squares do not overflow yet."""
    objective = quadratic(np.eye(2))
    objective = tw.Objective(
        objective.predict, objective.loss, np.asarray(objective.inputs, dtype), np.zeros(2, dtype)
    )
    start = jnp.full(2, 1e12, dtype)
    for flow in (tw.GradientFlow(), tw.HeavyBallFlow(1.0)):
        run = tw.integrate(flow, objective, start, t1=3.0, rtol=1e-4)
        exact = float(flow.response(1.0, 3.0)) * 1e12
        assert run.status.kind == "completed", run.status.message
        true = np.linalg.norm(np.asarray(run.params[-1], float) - exact)
        assert true <= run.error[-1] < 1e-2 * 1e12


def test_parameters_that_become_large():
    """From 0 to a minimum at 1e12 in float32."""
    objective = tw.Objective(
        lambda p, x: p[None] - x,
        lambda z, y: z[:, 0] ** 2 / 2,
        np.full((1, 1), 1e12, np.float32),
        np.zeros(1, np.float32),
    )
    flow = tw.integrate(tw.GradientFlow(), objective, jnp.zeros(1, jnp.float32), t1=30.0)
    assert flow.status.kind == "completed", flow.status.message
    assert abs(float(flow.params[-1, 0]) - 1e12) <= flow.error[-1] < 1e9


def two_products(p):
    return 0.5 * (p[0] * p[1] - 2) ** 2 + 0.5 * (p[2] * p[3] - 0.3) ** 2


@pytest.mark.parametrize("size", [1e-14, 1e-12, 1e-6])
def test_what_grows_while_the_rest_stands_still(size):
    """Two products learned one after the other: the second one long after the first rests."""
    objective = landscape(two_products)
    times = np.array([0, 1, 8, 20, 76, 130, 150, 400.0])
    start = np.full(4, size)

    def field(t, p):
        a, b = p[0] * p[1] - 2, p[2] * p[3] - 0.3
        return -np.array([a * p[1], a * p[0], b * p[3], b * p[2]])

    exact = solve_ivp(field, (0, 400), start, "DOP853", times, rtol=1e-12, atol=1e-40).y.T
    flow = tw.integrate(tw.GradientFlow(), objective, jnp.asarray(start), save_at=times)
    true = np.linalg.norm(np.asarray(flow.params) - exact, axis=1)
    assert flow.status.kind == "completed"
    assert np.all(true <= 3 * flow.error)
    assert true[-1] < 1e-5


def rosenbrock(p):
    return 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2


def test_no_more_steps_than_allowed():
    """Checked after every thousand attempts on the device; the companion has as many of its own."""
    start = jnp.array([-1.0, 1.0])
    options = {"t1": 1e4, "rtol": 1e-4, "solver": diffrax.Tsit5()}
    flow = tw.integrate(tw.GradientFlow(), landscape(rosenbrock), start, max_steps=2500, **options)
    assert flow.status.kind == "stopped"
    assert "max_steps" in flow.status.message
    assert 2500 <= flow.stats.steps + flow.stats.rejected < 3500


@pytest.mark.parametrize("rtol", [1e-2, 1e-3, 3e-5, 1e-6])
def test_rest_at_a_minimum_costs_nothing(rtol):
    """The gradient's noise there is not a solution that grows."""
    start = jnp.array([-1.0, 1.0])
    flow = tw.integrate(tw.GradientFlow(), landscape(rosenbrock), start, t1=3000.0, rtol=rtol)
    assert flow.status.ok
    assert flow.stats.steps + flow.stats.rejected < 500
    assert np.linalg.norm(flow.params[-1] - 1) < 1e-2


@pytest.mark.parametrize("rtol", [1e-3, 1e-4, 5e-5, 1e-6])
def test_stiffness_costs_little(rtol):
    objective = quadratic(np.diag([1.0, 1e4]))
    flow = tw.integrate(tw.GradientFlow(), objective, jnp.ones(2), t1=10.0, rtol=rtol)
    assert flow.stats.gradients < 1_000
    assert flow.stats.steps < 400
    exact = np.exp([-10.0, -1e5])
    assert np.linalg.norm(flow.params[-1] - exact) <= flow.error[-1]


@pytest.mark.parametrize("rtol", [1e-6, 1e-8])
def test_stages_do_not_tie_two_solutions_together(rtol):
    """So stiff that the stages allowed, not the tolerances, keep steps short."""
    values = np.logspace(-6, 4, 8)
    times = np.linspace(0, 1000, 9)
    start = jnp.ones(8)
    flow = tw.integrate(
        tw.GradientFlow(), quadratic(np.diag(values)), start, save_at=times, rtol=rtol
    )
    true = np.linalg.norm(flow.params - np.exp(-np.outer(times, values)), axis=1)
    assert np.all(true <= flow.error)


def test_a_loss_without_a_floor():
    objective = landscape(lambda p: -0.5 * jnp.sum(p**2))
    flow = tw.integrate(tw.GradientFlow(), objective, jnp.ones(1), t1=710.0, max_steps=10_000)
    assert flow.status.kind == "diverged"
    assert "grows without bound" in flow.status.message
    assert flow.stats.steps + flow.stats.rejected < 4_000
    assert np.all(np.isfinite(flow.params))


def test_a_slow_flow_has_not_diverged():
    """Steps that overflow, since they would take more stages than are allowed, are made shorter."""
    objective = landscape(lambda p: p[0] ** 4 / 4 + p[1] ** 2)
    flow = tw.integrate(tw.GradientFlow(), objective, jnp.ones(2), t1=1.2e7, rtol=1e-3)
    assert flow.status.kind == "completed", flow.status.message
    assert abs(flow.params[-1, 0] - (1 + 2.4e7) ** -0.5) <= flow.error[-1]


def test_errors_along_curved_valleys():
    """The solution and its companion cross; the lag between them does not heal."""
    objective = landscape(lambda p: jnp.sum(100 * (p[1:] - p[:-1] ** 2) ** 2 + (1 - p[:-1]) ** 2))

    def field(t, p):
        bend = p[1:] - p[:-1] ** 2
        gradient = np.zeros_like(p)
        gradient[:-1] = -400 * p[:-1] * bend - 2 * (1 - p[:-1])
        gradient[1:] += 200 * bend
        return -gradient

    times = np.linspace(0, 10, 11)
    covered = []
    for seed in range(6):
        start = np.random.default_rng(seed).uniform(-2, 2, 5)
        exact = solve_ivp(
            field, (0, 10), start, method="DOP853", t_eval=times, rtol=1e-12, atol=1e-14
        )
        flow = tw.integrate(
            tw.GradientFlow(), objective, jnp.asarray(start), save_at=times, rtol=1e-7
        )
        true = np.linalg.norm(np.asarray(flow.params) - exact.y.T, axis=1)
        covered += list(true[1:] <= flow.error[1:])
    assert np.mean(covered) >= 0.9


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
        (diffrax.Tsit5, r"got the class Tsit5; write Tsit5\(\.\.\.\)"),
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
