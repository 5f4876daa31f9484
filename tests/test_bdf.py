"""Backward differentiation in logarithmic time: accuracy, price, and what it must survive."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm
from scipy.optimize import brentq

import thalweg as tw
from tests.problems import landscape, quadratic, small_objective
from thalweg.solvers._shifted_solve import shifted_solve

FLOW = tw.GradientFlow()
BDF = tw.solvers.BDF()


def lorentz(x, t):
    """x' = 2 x / (1 + x^2)^2 from x: log x + x^2 + x^4 / 4 grows by 2 t."""

    def grown(log_y):
        y = np.exp(log_y)
        return log_y + y**2 + y**4 / 4 - (np.log(x) + x**2 + x**4 / 4) - 2 * t

    return np.exp(brentq(grown, np.log(x), 20.0, xtol=1e-15))


TAILS = {
    "1 / (1 + x^2)": (lambda x: 1 / (1 + x**2), 0.1, lorentz),
    "exp(-x)": (lambda x: jnp.exp(-x), 0.1, lambda x, t: np.log(np.exp(x) + t)),
    "x^4": (lambda x: x**4 / 4, 1.0, lambda x, t: (x**-2 + 2 * t) ** -0.5),
    "x^6": (lambda x: x**6 / 6, 1.0, lambda x, t: (x**-4 + 4 * t) ** -0.25),
}


@pytest.mark.parametrize("name", TAILS)
def test_tails_like_a_power_of_time(name):
    """Beside a stiff direction, to t = 1e12: the price of a decade does not grow."""
    value, start, exact = TAILS[name]
    objective = landscape(lambda p: value(p[0]) + p[1] ** 2)
    times = 10.0 ** np.arange(0, 13, 2)
    reference = np.array([exact(start, t) for t in times])
    for rtol in (1e-5, 1e-7):
        flow = tw.integrate(
            FLOW, objective, jnp.array([start, 1.0]), save_at=times, rtol=rtol, solver=BDF
        )
        assert flow.status.kind == "completed", flow.status.message
        truth = np.stack([reference, np.exp(-2 * times)], axis=1)
        true = np.linalg.norm(np.asarray(flow.params) - truth, axis=1)
        assert np.all(true <= 2 * flow.error), (rtol, true / flow.error)
        assert np.all(flow.error <= 0.05 * np.abs(reference) + rtol)
        assert flow.stats.gradients < 2500
        assert flow.stats.rejected < 0.15 * flow.stats.steps + 10


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stiff_quadratic(dtype):
    values = np.array([0.0, 1e-3, 1.0, 50.0, 3e4])
    objective = quadratic(np.diag(values))
    objective = tw.Objective(
        objective.predict, objective.loss, np.asarray(objective.inputs, dtype), np.zeros(5, dtype)
    )
    times = np.array([0.0, 1e-4, 0.3, 10.0, 4000.0])
    tolerances = (1e-3, 1e-4) if dtype == "float32" else (1e-4, 1e-6, 1e-8)
    exact = np.exp(-np.outer(times, values))
    worst = []
    for rtol in tolerances:
        flow = tw.integrate(
            FLOW, objective, jnp.ones(5, dtype), save_at=times, rtol=rtol, solver=BDF
        )
        true = np.linalg.norm(np.asarray(flow.params, float) - exact, axis=1)
        assert flow.status.kind == "completed"
        assert np.all(true <= flow.error)
        assert flow.stats.gradients < 2500
        worst.append(true.max() / rtol)
    assert max(worst) < 30


def test_saved_times_cost_no_steps():
    objective, params = small_objective()
    few, many = (
        tw.integrate(FLOW, objective, params, save_at=times, rtol=1e-5, solver=BDF)
        for times in ([0.0, 40.0], np.linspace(0, 40, 41))
    )
    assert few.stats.gradients == many.stats.gradients
    for a, b in zip(few.params, many.params, strict=True):
        np.testing.assert_array_equal(a[-1], b[-1])
    exact = tw.integrate(FLOW, objective, params, save_at=many.times, rtol=1e-11)
    gap = tw.compare(many, exact)
    assert np.all(gap.distance <= many.error + exact.error)
    assert gap.distance.max() < 1e-3


def test_an_ordinary_diffrax_solver():
    """In `diffeqsolve`, under someone else's step size control."""
    values = jnp.array([0.1, 1.0, 200.0])
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -values * y),
        tw.solvers.BDF(1e-6, 1e-8),
        t0=0.0,
        t1=20.0,
        dt0=1e-3,
        y0=jnp.ones(3),
        stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-7, factormax=1.5),
        saveat=diffrax.SaveAt(ts=jnp.array([0.5, 20.0])),
        adjoint=diffrax.ForwardMode(),
    )
    exact = np.exp(-np.outer([0.5, 20.0], values))
    assert np.abs(solution.ys - exact).max() < 1e-3


def test_every_evaluation_is_counted():
    """Each gradient that is computed says so."""
    calls = []
    values = np.array([0.01, 1.0, 30.0])

    def told(y):
        jax.debug.callback(lambda: calls.append(1))
        return y

    @jax.custom_vjp
    def value(p):
        return 0.5 * jnp.sum(values * p**2)

    value.defvjp(lambda p: (value(p), p), lambda p, g: (g * told(values * p),))
    flow = tw.integrate(FLOW, landscape(value), jnp.ones(3), t1=50.0, rtol=1e-4, solver=BDF)
    jax.effects_barrier()
    felt = flow.stats.gradients + flow.stats.error_gradients
    assert flow.status.kind == "completed"
    # Looking for kinks takes a gradient at the start that its price of 66 leaves out.
    assert abs(len(calls) - felt) <= 1
    assert felt > 150


def test_without_forward_derivatives():
    """Quotients alone: a network with a derivative of its own that only goes backward."""

    @jax.custom_vjp
    def softened(x):
        return jnp.log1p(jnp.exp(-x))

    softened.defvjp(lambda x: (softened(x), x), lambda x, g: (-g / (1 + jnp.exp(x)),))
    objective = landscape(lambda p: softened(p[0]) + 5 * p[1] ** 2)
    flow = tw.integrate(FLOW, objective, jnp.array([0.0, 1.0]), t1=1e4, rtol=1e-5)
    # x + exp(x) grows by t.
    exact = brentq(lambda x: x + np.exp(x) - 1 - 1e4, 0, 20)
    assert abs(flow.params[-1, 0] - exact) <= 2 * flow.error[-1]


def test_curvature_that_turns():
    """Past a maximum: the matrix of a step that is too long is not positive."""
    objective = landscape(lambda p: jnp.cos(p[0]) + 50 * p[1] ** 2)
    start = jnp.array([1e-4, 1.0])
    times = np.array([1.0, 5.0, 8.0, 10.0, 20.0, 40.0])
    flow = tw.integrate(FLOW, objective, start, save_at=times, rtol=1e-6, solver=BDF)
    exact = 2 * np.arctan(np.tan(5e-5) * np.exp(times))
    true = np.abs(flow.params[:, 0] - exact)
    assert flow.status.kind == "completed"
    assert true.max() < 3e-3
    assert np.all(true[true > 1e-4] <= flow.error[true > 1e-4])


def test_a_wall_that_was_not_foreseen():
    """The sharpness jumps by 1e4 within a short way."""
    objective = landscape(lambda p: -p[0] + jax.nn.softplus(300 * (p[0] - 3)) / 3 + p[1] ** 2)
    flow = tw.integrate(FLOW, objective, jnp.array([0.0, 1.0]), t1=20.0, rtol=1e-5, solver=BDF)
    # At rest: 100 sigmoid = 1.
    exact = 3 + np.log(1 / 99) / 300
    assert flow.status.kind == "completed"
    assert abs(flow.params[-1, 0] - exact) <= max(flow.error[-1], 1e-5)


def test_shifted_systems():
    """Against dense solves: the error told covers the true one, at any scale."""
    random = np.random.default_rng(0)
    turn = np.linalg.qr(random.normal(size=(12, 12)))[0]

    @jax.jit
    def solved(matrix, r, shift, enough, exact):
        return shifted_solve(
            lambda y: -matrix @ y,
            jnp.zeros(12),
            jnp.zeros(12),
            shift,
            r,
            enough=enough,
            hopeless=jnp.asarray(jnp.inf),
            radius=jnp.asarray(0.0),
            size=jnp.asarray(1.0),
            exact=exact,
        )

    for low, high, scale in ((-6, 2, 1.0), (-1, 0, 1e-8), (-12, 3, 1e6), (0, 0, 1.0)):
        values = np.logspace(low, high, 12) * scale
        matrix = turn * values @ turn.T
        for shift in (1e-3 * scale, scale):
            r = random.normal(size=12) * scale
            dense = np.linalg.solve(matrix + shift * np.eye(12), r)
            for part in (0.3, 1e-3):
                enough = part * np.linalg.norm(dense)
                result = solved(matrix, r, shift, enough, True)
                true = np.linalg.norm(result.x - dense)
                assert true <= 1.01 * float(result.error) <= 1.02 * enough
                assert result.definite
                assert result.radius <= 1.0001 * values.max()
    indefinite = solved(turn * np.linspace(-1, 1, 12) @ turn.T, r, 1e-3, 1e-3, True)
    assert not indefinite.definite


@pytest.mark.parametrize(("size", "turn"), [(2, 5.0), (20, 1.0)])
def test_a_gradient_that_is_none(size, turn):
    """A wrong custom derivative, so that the Jacobian is not symmetric: only the price rises."""
    random = np.random.default_rng(0)
    skew = random.normal(size=(size, size))
    matrix = np.diag(np.geomspace(0.01, 5, size)) + turn * (skew - skew.T) / 2 / np.sqrt(size)

    @jax.custom_vjp
    def value(p):
        return 0.5 * p @ matrix @ p

    value.defvjp(lambda p: (value(p), p), lambda p, g: (g * (matrix @ p),))
    times = np.array([1.0, 10.0, 100.0])
    flow = tw.integrate(FLOW, landscape(value), jnp.ones(size), save_at=times, rtol=1e-6)
    exact = np.stack([expm(-matrix * t) @ np.ones(size) for t in times])
    true = np.linalg.norm(np.asarray(flow.params) - exact, axis=1)
    assert flow.status.kind == "completed"
    assert np.all(true <= 2 * flow.error)
    assert np.all(flow.error < 1e-4)


def test_a_curvature_that_rises_between_checks_is_seen():
    """From a plateau into a narrow valley, at rest there: no product has been taken for long."""

    def product_of_six(p):
        return 0.5 * (jnp.prod(p) - 1) ** 2

    start = jnp.asarray([0.25, 0.9, 0.4, 0.7, 0.5, 0.6])
    flow = tw.integrate(FLOW, landscape(product_of_six), start, t1=1e4, rtol=1e-5)
    assert flow.status.kind == "completed"
    assert abs(jnp.prod(flow.params[-1]) - 1) < 1e-4
    assert flow.stats.gradients < 700
    assert flow.stats.rejected < 0.15 * flow.stats.steps


def test_a_tail_far_below_the_tolerance():
    """f = x^4 / 4: the solution is followed to 1e-40, with the same price for every decade."""
    times = 10.0 ** np.array([20, 40, 80])
    objective = landscape(lambda p: jnp.sum(p**4) / 4)
    flow = tw.integrate(FLOW, objective, jnp.ones(1), save_at=times)
    assert flow.status.kind == "completed"
    np.testing.assert_allclose(flow.params[:, 0], (2 * times) ** -0.5, rtol=0.05)
    assert flow.stats.gradients < 6_000
