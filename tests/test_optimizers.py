"""Optimizers against matrix powers, against optax, and against the flows they discretise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw

from . import problems
from .oracles import quadratic

EIGENVALUES = np.array([0.0, 0.1, 1.0, 5.0])
ETA = 0.1


def companion_power(first, second, steps):
    """x after `steps` steps of x+ = first x + second x-, from rest at 1, by matrix powers."""
    matrix = np.array([[first, second], [1.0, 0.0]])
    return (np.linalg.matrix_power(matrix, steps) @ np.ones(2))[0]


def third_order_power(first, second, third, steps):
    matrix = np.array([[first, second, third], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    return (np.linalg.matrix_power(matrix, steps) @ np.ones(3))[0]


def nesterov_by_hand(lam, damping, steps):
    w = before = 1.0
    for k in range(1, steps + 1):
        p = w + (k - 1) / (k + damping - 1) * (w - before)
        w, before = p - ETA * lam * p, w
    return w


CASES = [
    (tw.GradientDescent(ETA), lambda lam, k: (1 - ETA * lam) ** k),
    (
        tw.HeavyBall(ETA, 0.8),
        lambda lam, k: companion_power(1.8 - ETA * lam, -0.8, k),
    ),
    (
        tw.NesterovConstant(ETA, 0.8),
        lambda lam, k: companion_power(1.8 * (1 - ETA * lam), -0.8 * (1 - ETA * lam), k),
    ),
    (tw.Nesterov(ETA), lambda lam, k: nesterov_by_hand(lam, 3.0, k)),
    (tw.Nesterov(ETA, damping=6.0), lambda lam, k: nesterov_by_hand(lam, 6.0, k)),
    (
        tw.HigherMomentum(ETA, 0.4, 0.3),
        lambda lam, k: third_order_power(1.4 - ETA * lam, -0.1, -0.3, k),
    ),
    (tw.Optax(optax.sgd(ETA)), lambda lam, k: (1 - ETA * lam) ** k),
]


@pytest.mark.parametrize(("optimizer", "oracle"), CASES)
def test_response_is_the_closed_form(optimizer, oracle):
    steps = np.array([0, 1, 2, 7, 40])
    expected = [[oracle(lam, k) for k in steps] for lam in EIGENVALUES]
    response = optimizer.response(EIGENVALUES[:, None], steps)
    np.testing.assert_allclose(response, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("optimizer", "oracle"), CASES)
def test_runs_on_a_quadratic(optimizer, oracle):
    hessian, basis, start = quadratic.random_quadratic(EIGENVALUES)
    objective = problems.quadratic(hessian)
    run = tw.descend(optimizer, objective, jnp.asarray(start), 40, save_every=8)
    np.testing.assert_array_equal(run.steps, [0, 8, 16, 24, 32, 40])
    np.testing.assert_allclose(run.times, run.steps * optimizer.time_per_step)
    for point, k in zip(run.params, np.asarray(run.steps), strict=True):
        amplitudes = np.array([oracle(lam, int(k)) for lam in EIGENVALUES])
        np.testing.assert_allclose(
            point, quadratic.on_modes(basis, start, amplitudes), rtol=1e-10, atol=1e-12
        )
    assert run.stats.gradients == 40
    assert run.error is None


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (tw.GradientDescent(ETA), optax.sgd(ETA)),
        (tw.HeavyBall(ETA, 0.9), optax.sgd(ETA, momentum=0.9)),
    ],
)
def test_agrees_with_optax_on_a_network(ours, theirs):
    objective, params = problems.small_objective()
    a = tw.descend(ours, objective, params, 200, save_every=50)
    b = tw.descend(tw.Optax(theirs), objective, params, 200, save_every=50)
    for x, y in zip(a.params, b.params, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12)


def test_nesterov_of_optax_is_ours_seen_from_the_point_ahead():
    """optax keeps the extrapolated point as its parameters, and scales velocity by 1/step."""
    objective, params = problems.small_objective()
    momentum, steps = 0.7, 60
    ours = tw.descend(tw.NesterovConstant(ETA, momentum), objective, params, steps + 1)
    theirs = tw.descend(
        tw.Optax(optax.sgd(ETA, momentum=momentum, nesterov=True)), objective, params, steps
    )
    for x, y in zip(ours.params, theirs.params, strict=True):
        now, before = x[steps], x[steps - 1]
        ahead = now + momentum * (now - before)
        np.testing.assert_allclose(ahead, y[steps], rtol=1e-9, atol=1e-12)


def test_adam_through_the_adapter():
    objective, params = problems.small_objective()
    run = tw.descend(tw.Optax(optax.adam(1e-2)), objective, params, 30, save_every=30)
    transformation, point = optax.adam(1e-2), params
    state = transformation.init(point)
    for _ in range(30):
        updates, state = transformation.update(objective.gradient(point), state, point)
        point = optax.apply_updates(point, updates)
    for x, y in zip(run.params, point, strict=True):
        np.testing.assert_allclose(x[-1], y, rtol=1e-10)
    with pytest.raises(ValueError, match="flow"):
        tw.Optax(optax.adam(1e-2)).limit()


@pytest.mark.parametrize(
    ("family", "order"),
    [
        (lambda h: tw.GradientDescent(h), 1),
        (lambda h: tw.HeavyBall(h**2, 1 - 1.0 * h), 1),
        (lambda h: tw.NesterovConstant(h**2, 1 - 1.0 * h), 1),
        (lambda h: tw.Nesterov(h**2), 1),
        (lambda h: tw.HigherMomentum(1.2 * h**2, 0.8 - 1.2 * h, 0.2), 1),
    ],
)
def test_the_limit_is_the_limit(family, order):
    """Halving the time of a step halves the distance to the flow."""
    objective, params = problems.small_objective()
    distances = []
    for h in (0.02, 0.01, 0.005):
        optimizer = family(h)
        assert optimizer.time_per_step == pytest.approx(h)
        run = tw.descend(optimizer, objective, params, round(2 / h), save_every=round(2 / h))
        flow = tw.integrate(optimizer.limit(), objective, params, save_at=[2.0], rtol=1e-9)
        distances.append(float(tw.compare(run, flow).distance[-1]))
    orders = np.log2(np.divide(distances[:-1], distances[1:]))
    assert orders[-1] == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("optimizer", [case[0] for case in CASES if case[0].name != "optax"])
def test_stability_limit(optimizer):
    k = 10**9
    edge = optimizer.stability_limit(k) / ETA
    for lam, stable in ((0.999 * edge, True), (1.001 * edge, False)):
        coefficients = [float(c) for c in optimizer.recurrence(np.asarray(lam), k)]
        radius = np.abs(np.roots([1, *(-c for c in coefficients)])).max()
        assert (radius <= 1) == stable
        assert optimizer.multiplier(lam, k) == pytest.approx(radius, rel=1e-12)


def test_a_diverging_run_is_a_result():
    hessian, _, start = quadratic.random_quadratic([0.5, 4.0])
    objective = problems.quadratic(hessian)
    point, first, losses = np.asarray(start), 0, []
    while not losses or losses[-1] <= 1e8 * max(losses[0], 1):
        losses.append(0.5 * point @ hessian @ point)
        point = point - hessian @ point
    first = len(losses) - 1
    for save_every in (1, 7, first, 1000):
        run = tw.descend(
            tw.GradientDescent(1.0), objective, jnp.asarray(start), 1000, save_every=save_every
        )
        assert run.status.kind == "diverged"
        assert run.status.step == first
        assert f"step {first} " in run.status.message
        assert run.steps[-1] == first
        assert np.all(np.diff(run.steps) > 0), "no step is saved twice"
        np.testing.assert_allclose(run.loss[-1], losses[-1])
        assert run.stats.gradients in (first, first + 1)


def test_divergence_in_the_last_step_is_seen():
    objective = problems.quadratic(np.eye(2))
    for step_size in (1e5, 1e160, 1e200):
        run = tw.descend(tw.GradientDescent(step_size), objective, jnp.ones(2), 1)
        assert run.status.kind == "diverged"
        assert run.status.step == 1
        assert np.all(np.diff(run.steps) > 0)


def test_a_run_that_jumps_to_infinity_is_a_result():
    objective = tw.Objective(
        lambda p, x: jnp.exp(jnp.exp(p * x)), tw.losses.squared_error, [1.0], [0.0]
    )
    run = tw.descend(tw.GradientDescent(1.0), objective, jnp.asarray(-1.0), 50)
    again = tw.descend(tw.GradientDescent(1e3), objective, jnp.asarray(2.0), 50)
    assert run.status.ok
    assert not again.status.ok or np.all(np.isfinite(again.params))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: tw.GradientDescent(0.0), "step_size"),
        (lambda: tw.GradientDescent(-1.0), "step_size"),
        (lambda: tw.GradientDescent(float("nan")), "step_size"),
        (lambda: tw.HeavyBall(0.1, 1.0), "momentum"),
        (lambda: tw.HeavyBall(0.1, -0.1), "momentum"),
        (lambda: tw.NesterovConstant(0.1, 1.5), "momentum"),
        (lambda: tw.Nesterov(0.1, 0.0), "damping"),
        (lambda: tw.Optax(optax.sgd(0.1), time_per_step=0.0), "time_per_step"),
    ],
)
def test_bad_optimizers_are_named(make, field):
    with pytest.raises(ValueError, match=field):
        make()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"steps": 10, "save_every": 0}, "save_every"),
        ({"steps": 10, "save_steps": [0, 20]}, "save_steps"),
        ({"steps": 10, "save_steps": [5, 2]}, "save_steps"),
        ({"steps": 10, "save_steps": [0.5]}, "save_steps"),
        ({"steps": 10, "save_steps": [1], "save_every": 2}, "save_every"),
    ],
)
def test_bad_runs_are_named(arguments, field):
    objective, params = problems.small_objective()
    with pytest.raises(ValueError, match=field):
        tw.descend(tw.GradientDescent(0.1), objective, params, **arguments)
    with pytest.raises(TypeError, match="optimizer"):
        tw.descend(optax.sgd(0.1), objective, params, 10)  # pyright: ignore[reportArgumentType]


def test_float32_stays_float32():
    objective, params = problems.small_objective()
    single = tw.Objective(
        problems.tanh_network,
        objective.loss,
        objective.inputs.astype(jnp.float32),
        objective.targets.astype(jnp.float32),
    )
    start = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    momentum = tw.HeavyBall(0.1, 0.9), tw.Nesterov(0.1), tw.Nesterov(0.1, 3)
    for optimizer in (tw.GradientDescent(0.1), *momentum):
        run = tw.descend(optimizer, single, start, 5)
        assert all(p.dtype == jnp.float32 for p in run.params)
