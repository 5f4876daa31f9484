"""Flows against closed forms, conservation laws, and an independent integrator."""

import diffrax
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import thalweg as tw
from thalweg.flows import Integration

from . import problems
from .oracles import deep_linear, quadratic

EIGENVALUES = np.array([0.0, 0.05, 0.4, 1.0, 3.0, 20.0])
TIMES = np.array([0.0, 0.3, 1.0, 2.7, 10.0])


def flat(params):
    return np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(params)])


def rows(trajectory):
    leaves = jax.tree.leaves(trajectory.params)
    return np.concatenate([np.asarray(x).reshape(len(x), -1) for x in leaves], axis=1)


CASES = [
    (tw.GradientFlow(), quadratic.gradient_flow),
    (tw.HeavyBallFlow(0.7), lambda lam, t: quadratic.heavy_ball_flow(lam, 0.7, t)),
    (tw.HeavyBallFlow(2.0), lambda lam, t: quadratic.heavy_ball_flow(lam, 2.0, t)),
    (tw.NesterovFlow(3.0), lambda lam, t: quadratic.nesterov_flow(lam, 3.0, t) if lam else 1.0),
    (tw.NesterovFlow(7.5), lambda lam, t: quadratic.nesterov_flow(lam, 7.5, t) if lam else 1.0),
]


@pytest.mark.parametrize(("flow", "oracle"), CASES)
def test_response_is_the_closed_form(flow, oracle):
    for lam in [*EIGENVALUES, -0.3]:
        for t in TIMES:
            assert flow.response(lam, t) == pytest.approx(oracle(lam, t), rel=1e-11, abs=1e-13)


@pytest.mark.parametrize(("flow", "oracle"), CASES)
def test_integration_on_a_quadratic(flow, oracle):
    hessian, basis, start = quadratic.random_quadratic(EIGENVALUES)
    objective = problems.quadratic(hessian)
    trajectory = tw.integrate(flow, objective, jnp.asarray(start), save_at=TIMES, rtol=1e-10)
    for point, t, error in zip(trajectory.params, TIMES, trajectory.error, strict=True):
        amplitudes = np.array([oracle(lam, t) for lam in EIGENVALUES])
        exact = quadratic.on_modes(basis, start, amplitudes)
        true_error = np.linalg.norm(point - exact)
        assert true_error < 2e-8
        assert true_error <= error
    assert trajectory.status.ok
    np.testing.assert_allclose(
        trajectory.loss, [0.5 * p @ hessian @ p for p in trajectory.params], atol=1e-12
    )


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_deep_linear_network_follows_its_closed_form(depth):
    rng = np.random.default_rng(depth)
    widths = [4, *[3] * (depth - 1), 1]
    target = rng.normal(size=4)
    target /= np.linalg.norm(target)
    initial = rng.normal(size=4)
    initial *= 0.3 / np.linalg.norm(initial)
    weights = [jnp.asarray(w) for w in deep_linear.balanced_weights(widths, initial)]
    # Whitened inputs: sum over samples of x x^T / N is the identity.
    inputs = np.sqrt(4) * np.eye(4)
    objective = tw.Objective(
        problems.linear_network, tw.losses.squared_error, inputs, (inputs @ target)[:, None]
    )
    times = np.array([0.5, 2.0, 6.0, 15.0])
    flow = tw.integrate(tw.GradientFlow(), objective, weights, save_at=times, rtol=1e-11)
    ends = np.array(
        [problems.linear_network([w[i] for w in flow.params], np.eye(4))[:, 0] for i in range(4)]
    )
    exact = deep_linear.exact_flow(depth, target, initial, times)
    assert np.abs(ends - exact).max() < 1e-8


@pytest.mark.parametrize(
    ("predict", "rtol", "precision"),
    [(problems.linear_network, 1e-9, 1e-6), (problems.leaky_network, 1e-6, 1e-3)],
)
def test_gradient_flow_conserves_the_balance_of_layers(predict, rtol, precision):
    objective, params = problems.small_objective(predict, (3, 5, 4, 2))
    flow = tw.integrate(tw.GradientFlow(), objective, params, save_at=[0.0, 1.0, 4.0], rtol=rtol)
    for lower, upper in zip(flow.params[:-1], flow.params[1:], strict=True):
        balance = jnp.sum(upper**2, axis=(1, 2)) - jnp.sum(lower**2, axis=(1, 2))
        moved = jnp.abs(jnp.sum(upper**2, axis=(1, 2))[-1] - jnp.sum(upper[0] ** 2))
        assert moved > 5e-3, "a law that nothing tested"
        assert np.ptp(balance) < precision * moved
    if predict is problems.linear_network:
        full = jnp.einsum("tki,tkj->tij", flow.params[1], flow.params[1]) - jnp.einsum(
            "tik,tjk->tij", flow.params[0], flow.params[0]
        )
        assert np.abs(full - full[0]).max() < 1e-7


@pytest.mark.parametrize("flow", [tw.GradientFlow(), tw.HeavyBallFlow(1.0), tw.NesterovFlow()])
@pytest.mark.parametrize("rtol", [1e-4, 1e-7])
def test_reported_error_covers_the_true_error_of_a_network(flow, rtol):
    objective, params = problems.small_objective(seed=3)
    times = np.linspace(0, 8, 9)[1:]
    structure = jax.tree.structure(params)
    shapes = [p.shape for p in params]
    sizes = np.cumsum([p.size for p in params])[:-1]
    gradient = jax.jit(objective.gradient)

    def field(t, y):
        n = sum(p.size for p in params)
        x = jax.tree.unflatten(
            structure, [p.reshape(s) for p, s in zip(np.split(y[:n], sizes), shapes, strict=True)]
        )
        g = flat(gradient(x))
        if isinstance(flow, tw.GradientFlow):
            return -g
        if isinstance(flow, tw.HeavyBallFlow):
            return np.concatenate([y[n:], -float(flow.friction) * y[n:] - g])
        friction = float(flow.damping) / t if t > 0 else 0.0
        scale = 1 if t > 0 else 1 / (1 + float(flow.damping))
        return np.concatenate([y[n:], -friction * y[n:] - scale * g])

    start = flat(params)
    if not isinstance(flow, tw.GradientFlow):
        start = np.concatenate([start, np.zeros_like(start)])
    exact = solve_ivp(field, (0, 8), start, "DOP853", times, rtol=1e-12, atol=1e-13).y.T
    trajectory = tw.integrate(flow, objective, params, save_at=times, rtol=rtol)
    true_error = np.linalg.norm(rows(trajectory) - exact[:, : rows(trajectory).shape[1]], axis=1)
    assert np.all(true_error <= trajectory.error)
    assert np.all(true_error <= 300 * rtol)


def stiff_objective():
    hessian, basis, start = quadratic.random_quadratic(np.geomspace(1e-3, 300, 12))
    return problems.quadratic(hessian), basis, start


@pytest.mark.parametrize("rtol", [1e-4, 1e-5, 1e-7])
def test_stiff_and_mild(rtol):
    objective, basis, start = stiff_objective()
    stiff = tw.integrate(tw.GradientFlow(), objective, jnp.asarray(start), t1=200.0, rtol=rtol)
    explicit = tw.integrate(
        tw.GradientFlow(),
        objective,
        jnp.asarray(start),
        t1=200.0,
        rtol=rtol,
        solver=diffrax.Tsit5(),
    )
    assert stiff.stats.gradients < explicit.stats.gradients / 10
    exact = quadratic.on_modes(basis, start, np.exp(-np.geomspace(1e-3, 300, 12) * 200.0))
    assert np.linalg.norm(stiff.params[-1] - exact) < 100 * rtol
    mild, pair = (
        tw.integrate(
            tw.GradientFlow(), objective, jnp.asarray(start), t1=0.01, rtol=rtol, solver=solver
        )
        for solver in (None, diffrax.Dopri8())
    )
    assert mild.stats.gradients < 2 * pair.stats.gradients + 20


@pytest.mark.parametrize("solver", [None, diffrax.Tsit5(), diffrax.Dopri8(), diffrax.Bosh3()])
def test_gradients_are_counted_exactly(solver):
    objective, start = problems.small_objective()
    seen = []

    def counted(params, inputs):
        jax.debug.callback(lambda: seen.append(1))
        return problems.tanh_network(params, inputs)

    witness = tw.Objective(counted, objective.loss, objective.inputs, objective.targets)
    run = Integration(tw.GradientFlow(), witness, start, save_at=[20.0], rtol=1e-5, solver=solver)
    jax.effects_barrier()
    seen.clear()
    state, snapshot = run.advance(run.initial())
    jax.effects_barrier()
    losses_evaluated = 1
    counted_gradients = snapshot.stats.gradients + snapshot.stats.error_gradients
    assert len(seen) == counted_gradients + losses_evaluated
    assert run.finished(state)


@pytest.mark.parametrize("rtol", [1e-3, 5e-5, 1e-7])
def test_rejections_before_the_first_step_are_counted(rtol):
    """A first step that does not end leaves no field to start the next attempt from."""
    seen = []

    def counted(params, inputs):
        jax.debug.callback(lambda: seen.append(1))
        return inputs @ params**2 / 2

    stiff = tw.Objective(counted, lambda z, y: z, np.array([[1.0, 30.0, 300.0]]), np.zeros(1))
    run = Integration(tw.GradientFlow(), stiff, jnp.ones(3), save_at=[1e-9, 1.0], rtol=rtol)
    jax.effects_barrier()
    seen.clear()
    _, snapshot = run.advance(run.initial())
    jax.effects_barrier()
    assert len(seen) == snapshot.stats.gradients + snapshot.stats.error_gradients + 1


def test_times_before_the_first_step_are_counted():
    """The series of Nesterov flow costs a gradient and a Hessian-vector product each time."""
    objective, params = problems.small_objective()
    early = [0.0, 1e-6, 2e-6, 3e-6]
    counts = [
        tw.integrate(tw.NesterovFlow(), objective, params, save_at=save_at, rtol=1e-4).stats
        for save_at in ([1.0], [*early, 1.0])
    ]
    assert counts[1].gradients == counts[0].gradients + 3 * 3
    assert counts[1].error_gradients == counts[0].error_gradients + 3 * 3


def test_a_stored_state_goes_on_with_the_same_bits():
    objective, params = problems.small_objective()
    run = Integration(tw.GradientFlow(), objective, params, save_at=[0.5, 2.0, 30.0], rtol=1e-4)
    state = run.initial()
    states, snapshots = [], []
    while not run.finished(state):
        states.append([np.asarray(x).copy() for x in jax.tree.leaves(state)])
        structure = jax.tree.structure(state)
        state, snapshot = run.advance(state)
        snapshots.append(snapshot)
    again = Integration(tw.GradientFlow(), objective, params, save_at=[0.5, 2.0, 30.0], rtol=1e-4)
    resumed = jax.tree.unflatten(structure, [jnp.asarray(x) for x in states[1]])
    for expected in snapshots[1:]:
        resumed, snapshot = again.advance(resumed)
        np.testing.assert_array_equal(flat(snapshot.params), flat(expected.params))
        assert snapshot.error == expected.error
        assert snapshot.stats == expected.stats


def test_saved_times_do_not_change_the_solution():
    objective, params = problems.small_objective()
    few = tw.integrate(tw.GradientFlow(), objective, params, save_at=[5.0], rtol=1e-8)
    many = tw.integrate(
        tw.GradientFlow(), objective, params, save_at=np.linspace(0, 5, 40), rtol=1e-8
    )
    np.testing.assert_allclose(flat(few.params), rows(many)[-1], rtol=1e-13)
    assert few.stats.gradients == many.stats.gradients


def test_a_flow_without_a_lower_bound_says_where_it_ended():
    # f = -x^4 / 4: x' = x^3 reaches infinity at t = 1 / (2 x0^2).
    objective = tw.Objective(
        lambda p, x: jnp.broadcast_to(-0.25 * p**4, (1,)), lambda z, y: z, np.zeros((1, 1)), [0.0]
    )
    flow = tw.integrate(tw.GradientFlow(), objective, jnp.asarray(1.0), save_at=[0.2, 0.4, 1.0])
    assert flow.status.kind == "diverged"
    assert flow.status.time == pytest.approx(0.5, abs=1e-3)
    np.testing.assert_allclose(flow.params[:2], (1 - 2 * np.array([0.2, 0.4])) ** -0.5, rtol=1e-4)
    assert np.all(np.isfinite(flow.params))


def test_max_steps_is_a_status():
    objective, params = problems.small_objective()
    flow = tw.integrate(tw.GradientFlow(), objective, params, t1=50.0, max_steps=3)
    assert flow.status.kind == "stopped"
    assert "max_steps" in flow.status.message


def test_float32_parameters():
    objective, params = problems.small_objective()
    single = tw.Objective(
        problems.tanh_network,
        tw.losses.squared_error,
        objective.inputs.astype(jnp.float32),
        objective.targets.astype(jnp.float32),
    )
    start = [p.astype(jnp.float32) for p in params]
    for flow in (tw.GradientFlow(), tw.HeavyBallFlow(1.0), tw.NesterovFlow()):
        exact = tw.integrate(
            flow, objective, [s.astype(jnp.float64) for s in start], save_at=[5.0], rtol=1e-10
        )
        trajectory = tw.integrate(flow, single, start, save_at=[5.0])
        assert trajectory.params[0].dtype == jnp.float32
        distance = np.linalg.norm(rows(trajectory) - rows(exact))
        assert distance < 1e-3
        assert distance <= trajectory.error[-1]
    with pytest.raises(ValueError, match="float64") as refusal:
        tw.integrate(tw.GradientFlow(), single, start, t1=1.0, rtol=1e-9)
    advised = float(str(refusal.value).split("at least ")[1].split(",")[0])
    assert tw.integrate(tw.GradientFlow(), single, start, t1=1e-3, rtol=advised).status.ok


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t1": -1.0}, "t1"),
        ({"t1": float("nan")}, "t1"),
        ({"save_at": [1.0, 0.5]}, "save_at"),
        ({"save_at": []}, "save_at"),
        ({"save_at": [-1.0, 0.5]}, "save_at"),
        ({"save_at": [0.0, np.inf]}, "save_at"),
        ({"save_at": [0.0, 3.0], "t1": 2.0}, "save_at"),
        ({"t1": 1.0, "rtol": 0.0}, "rtol"),
        ({"t1": 1.0, "rtol": 1e-17}, "rtol"),
        ({"t1": 1.0, "atol": -1e-3}, "atol"),
        ({"t1": 1.0, "max_steps": 0}, "max_steps"),
        ({}, "t1"),
    ],
)
def test_bad_arguments_are_named(change, message):
    objective, params = problems.small_objective()
    with pytest.raises(ValueError, match=message):
        tw.integrate(tw.GradientFlow(), objective, params, **change)


def test_bad_flows_are_named():
    objective, params = problems.small_objective()
    with pytest.raises(ValueError, match="friction"):
        tw.HeavyBallFlow(-1.0)
    with pytest.raises(ValueError, match="damping"):
        tw.NesterovFlow(0.0)
    with pytest.raises(TypeError, match="flow"):
        tw.integrate(tw.GradientFlow, objective, params, t1=1.0)
    with pytest.raises(TypeError, match=r"flow: expected .*`limit\(\)`, got GradientDescent"):
        tw.integrate(tw.GradientDescent(0.1), objective, params, t1=1.0)  # pyright: ignore
    with pytest.raises(ValueError, match=r"params\[1\]"):
        tw.integrate(tw.GradientFlow(), objective, [params[0], params[1] * jnp.nan], t1=1.0)


@pytest.mark.parametrize("damping", [0.5, 3.0, 50.0, 202.0, 300.0, 2e4])
@pytest.mark.parametrize("argument", [-1e-6, -0.1, -10.0, -3e3, 1e-3, 10.0])
def test_the_response_of_nesterov_flow(damping, argument):
    """Against 0F1 in 60 digits; large dampings are where SciPy's fails."""
    with mpmath.workdps(60):
        exact = float(mpmath.hyp0f1((mpmath.mpf(damping) + 1) / 2, argument))
    value = tw.NesterovFlow(damping).response(-4 * argument, 1.0)
    assert abs(value - exact) <= 1e-13 * max(1, abs(exact))


def hill(p):
    return jnp.sin(p[0])


@pytest.mark.parametrize("rtol", [1e-3, 1e-6, 1e-9])
def test_the_series_of_nesterov_flow_near_an_inflection(rtol):
    """The Hessian vanishes there, and says nothing about the terms that are left out."""
    start, times = 1e-5, np.linspace(0.1, 4, 40)
    acceleration = -np.cos(start) / 4
    begin = 1e-5
    solution = solve_ivp(
        lambda t, y: [y[1], -3 / t * y[1] - np.cos(y[0])],
        (begin, 4),
        [start + acceleration * begin**2 / 2, acceleration * begin],
        t_eval=times,
        method="DOP853",
        rtol=1e-12,
        atol=1e-15,
    )
    objective = problems.landscape(hill)
    run = tw.integrate(tw.NesterovFlow(), objective, jnp.array([start]), save_at=times, rtol=rtol)
    true = np.abs(run.params[:, 0] - solution.y[0])
    assert np.sum(true > run.error) <= 1
    assert true.max() < max(200 * rtol, 1e-8)


@pytest.mark.parametrize("damping", [0.5, 3.0, 8.0, 300.0])
@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
def test_the_singular_start_of_nesterov_flow(damping, rtol):
    """Friction damping / t: integration starts from the series, whatever the damping."""
    values = np.array([1.0, 0.3, 20.0])
    objective = problems.quadratic(np.diag(values))
    flow = tw.NesterovFlow(damping)
    times = np.array([1e-4, 1e-3, 1e-2, 0.1, 1.0])
    run = tw.integrate(flow, objective, jnp.ones(3), save_at=times, rtol=rtol)
    exact = np.array([flow.response(values, t) for t in times])
    true = np.linalg.norm(run.params - exact, axis=1)
    assert np.all(true <= run.error)
    assert true.max() < 20 * rtol
    assert run.stats.gradients < 1500


@pytest.mark.parametrize(
    ("friction", "curvature", "time"), [(1e8, 1.0, 1e8), (1e6, 1e-3, 1e8), (100.0, -0.5, 3.0)]
)
def test_strong_friction_against_mpmath(friction, curvature, time):
    with mpmath.workdps(60):
        half, c, t = mpmath.mpf(friction) / 2, mpmath.mpf(curvature), mpmath.mpf(time)
        root = mpmath.sqrt(half**2 - c)
        exact = mpmath.exp(-half * t) * (
            mpmath.cosh(root * t) + half / root * mpmath.sinh(root * t)
        )
        found = tw.HeavyBallFlow(friction).response(curvature, time)
        np.testing.assert_allclose(found, float(exact), rtol=1e-9)
