"""Backward differentiation along flows with momentum: the velocity is eliminated from each step."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw
from tests.problems import quadratic, small_objective
from thalweg.flows import Integration
from thalweg.solvers._equations import FirstOrder, SecondOrder

BDF = tw.solvers.BDF()
CURVATURES = np.array([1e-3, 0.02, 0.7, 3.0, 90.0])


@pytest.mark.parametrize("equation", [FirstOrder(), SecondOrder(0.7), SecondOrder(0.0)])
def test_a_step_is_what_the_derivative_asks_for(equation):
    """With any force at the corrected position, the state's derivative is what the step wants."""
    rng = np.random.default_rng(0)

    def drawn():
        x = {"w": jnp.asarray(rng.normal(size=3)), "b": jnp.asarray(rng.normal(size=2))}
        return (x, jax.tree.map(lambda a: a + 1, x)) if isinstance(equation, SecondOrder) else x

    state, slope, rate = drawn(), drawn(), jnp.asarray(1.7)
    u = equation.position(drawn())
    shift, pull = equation.shift(rate), equation.pull(state, slope, rate)
    force = jax.tree.map(lambda u, p: shift * u + p, u, pull)
    change = equation.completed(u, state, slope, rate)
    end = jax.tree.map(jnp.add, state, change)
    wanted = jax.tree.map(lambda c, s: rate * c + s, change, slope)
    for a, b in zip(
        jax.tree.leaves(equation.derivative(end, force)), jax.tree.leaves(wanted), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, equation.position(change), u))


# At 2 sqrt(0.7) one mode is critically damped; 0 has no end.
@pytest.mark.parametrize("friction", [0.0, 0.05, 2 * 0.7**0.5, 30.0])
def test_on_a_quadratic(friction):
    flow, start = tw.HeavyBallFlow(friction), jnp.ones(5)
    times = np.array([0.0, 1e-3, 0.4, 5.0, 60.0])
    exact = np.asarray(flow.response(CURVATURES, times[:, None]))
    errors = []
    for rtol in (1e-4, 1e-6):
        run = tw.integrate(
            flow, quadratic(np.diag(CURVATURES)), start, save_at=times, rtol=rtol, solver=BDF
        )
        assert run.status.kind == "completed"
        true = np.linalg.norm(np.asarray(run.params) - exact, axis=1)
        assert np.mean(true <= run.error) > 0.7, (true, run.error)
        assert np.all(true <= 2 * run.error), (true, run.error)
        errors.append(true[1:].max())
    assert errors[1] < 0.1 * errors[0] < 0.1 * (0.3 if friction < 0.1 else 0.01)


@pytest.mark.parametrize("friction", [1.0, 8.0])
def test_late_steps_are_long(friction):
    """A quarter of the gradients of an explicit pair, and less."""
    objective, network = small_objective()
    flow = tw.HeavyBallFlow(friction)
    settings = {"save_at": [3.0, 400.0], "rtol": 1e-5}
    run = tw.integrate(flow, objective, network, **settings)
    pair = tw.integrate(flow, objective, network, **settings, solver=diffrax.Dopri8())
    assert run.stats.solver == "BDF"
    assert run.stats.gradients < 0.25 * pair.stats.gradients
    for a, b in zip(jax.tree.leaves(run.params), jax.tree.leaves(pair.params), strict=True):
        np.testing.assert_allclose(a, b, atol=float(run.error.max() + pair.error.max()))


def test_single_precision():
    start = jnp.ones(5, jnp.float32)
    objective = quadratic(np.diag(CURVATURES))
    objective = tw.Objective(
        objective.predict,
        objective.loss,
        objective.inputs.astype(np.float32),
        objective.targets.astype(np.float32),
    )
    flow, times = tw.HeavyBallFlow(2.0), np.array([0.1, 5.0, 500.0])
    run = tw.integrate(flow, objective, start, save_at=times)
    assert run.stats.solver == "BDF"
    true = np.linalg.norm(run.params - flow.response(CURVATURES, times[:, None]), axis=1)
    assert np.all(true <= run.error)
    assert np.all(run.error < 2e-3)


def test_where_oscillations_last_a_pair_is_chosen():
    objective, network = small_objective()

    def chosen(flow, t1, **options):
        return Integration(flow, objective, network, save_at=[t1], **options)._solution.solver

    assert isinstance(chosen(tw.HeavyBallFlow(0.1), 100.0), diffrax.Dopri8)
    assert isinstance(chosen(tw.HeavyBallFlow(0.1), 1000.0), tw.solvers.BDF)
    assert isinstance(chosen(tw.HeavyBallFlow(0.0), 1e6), diffrax.Dopri8)
    assert isinstance(chosen(tw.NesterovFlow(), 1e4), diffrax.Dopri8)
    with pytest.raises(TypeError, match="symmetric"):
        chosen(tw.NesterovFlow(), 1.0, solver=BDF)


def test_a_stored_state_goes_on_with_the_same_bits():
    objective, network = small_objective()

    def run():
        return Integration(
            tw.HeavyBallFlow(1.0), objective, network, save_at=[20.0, 50.0], rtol=1e-5
        )

    straight, stored = run(), run()
    state, _ = straight.advance(straight.initial())
    leaves, tree = jax.tree.flatten(state)
    again = jax.tree.unflatten(tree, [jnp.asarray(np.asarray(leaf)) for leaf in leaves])
    _, a = straight.advance(state)
    _, b = stored.advance(again)
    for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True):
        np.testing.assert_array_equal(x, y)
    assert a.error == b.error


def test_little_friction_is_not_lost_in_the_errors_of_solves():
    """Once the oscillations have faded, time costs next to nothing."""
    curvatures = np.array([0.01, 0.4, 2.75])
    flow = tw.HeavyBallFlow(0.02)
    run = tw.integrate(
        flow, quadratic(np.diag(curvatures)), jnp.ones(3), t1=10_000.0, rtol=1e-3, solver=BDF
    )
    assert run.status.kind == "completed"
    assert np.linalg.norm(run.params[-1]) < 1e-9
    assert run.stats.gradients < 8000
