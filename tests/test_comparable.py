"""What `compare` refuses, what it warns of, and what it takes."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg as tw
from tests.problems import quadratic

TIMES = np.linspace(0, 1, 3)
VALUES = np.array([0.5, 1.0, 2.0])
PARAMS = jnp.array([1.0, -2.0, 0.5])
OBJECTIVE = quadratic(np.diag(VALUES))


def trajectory(dynamics, objective=OBJECTIVE, params=PARAMS, modes=None):
    """What `integrate` or `descend` would return, from the exact response to every mode."""
    if isinstance(dynamics, tw.Flow):
        clock, steps, error = TIMES, None, jnp.full(3, 1e-9)
    else:
        clock = np.round(TIMES / dynamics.time_per_step).astype(int)
        steps, error = jnp.asarray(clock), None
    response = np.stack([dynamics.response(VALUES, k) for k in clock]) if modes is None else modes
    rows = jnp.asarray(response, params.dtype) * params
    return tw.Trajectory(
        times=jnp.asarray(TIMES),
        params=rows,
        observables={"loss": jnp.stack([objective.value(row) for row in rows])},
        error=error,
        steps=steps,
        status=tw.Status(),
        stats=tw.Stats(),
        dynamics=dynamics,
        objective=objective,
        initial=params,
    )


FLOW = trajectory(tw.GradientFlow())
RUN = trajectory(tw.GradientDescent(0.05))
BALL = tw.HeavyBall(0.0025, 1 - 2.0 * 0.05)
FRICTION_2 = trajectory(tw.HeavyBallFlow(2.0))


def test_what_belongs_together_is_taken_without_a_word():
    assert tw.compare(RUN, FLOW).notes == ()
    for optimizer in (
        BALL,
        tw.NesterovConstant(0.0025, 0.9),
        tw.HigherMomentum(0.003, 0.78, 0.2),
        tw.Nesterov(0.0025),
        tw.Nesterov(jnp.asarray(0.0025, jnp.float32), 5.0),
    ):
        run, flow = trajectory(optimizer), trajectory(optimizer.limit())
        assert tw.compare(run, flow).notes == ()


def test_the_friction_may_differ_by_rounding():
    for friction in (2.0, jnp.asarray(2.0), 2.0 * (1 + 1e-8)):
        assert tw.compare(trajectory(BALL), trajectory(tw.HeavyBallFlow(friction))).notes == ()


def test_two_flows_and_two_optimizers():
    assert tw.compare(FRICTION_2, FLOW).notes == ()
    assert tw.compare(RUN, trajectory(tw.GradientDescent(0.025))).notes == ()
    assert tw.compare(trajectory(BALL), trajectory(tw.Nesterov(0.0025))).notes == ()
    adam = tw.Optax(optax.adam(1e-2), time_per_step=0.1)
    assert tw.compare(trajectory(adam), trajectory(adam)).notes == ()


def test_swapped_arguments():
    with pytest.raises(ValueError, match=r"first is gradient flow, .*Write `compare\(run, flow\)`"):
        tw.compare(FLOW, RUN)
    with pytest.raises(ValueError, match="optimizer's trajectory first"):
        tw.compare(FRICTION_2, RUN)


@pytest.mark.parametrize("field", ["run", "flow", "objective"])
def test_other_things_than_trajectories(field):
    arguments = {"run": RUN, "flow": FLOW, field: PARAMS}
    with pytest.raises(TypeError, match=field):
        tw.compare(**arguments)


@pytest.mark.parametrize(
    ("optimizer", "flow", "message"),
    [
        (BALL, tw.GradientFlow(), r"heavy ball discretises HeavyBallFlow\(friction=2\)"),
        (tw.GradientDescent(0.05), tw.HeavyBallFlow(2.0), r"GradientFlow\(\), not HeavyBallFlow"),
        (tw.Nesterov(0.0025), tw.GradientFlow(), r"NesterovFlow\(damping=3\), not GradientFlow"),
    ],
)
def test_other_clocks_are_refused(optimizer, flow, message):
    with pytest.raises(ValueError, match=message + r".*Integrate `run\.dynamics\.limit\(\)`"):
        tw.compare(trajectory(optimizer), trajectory(flow))


@pytest.mark.parametrize(
    ("optimizer", "flow", "message"),
    [
        (BALL, tw.HeavyBallFlow(2.1), r"HeavyBallFlow\(friction=2\), not .*\(friction=2\.1\)"),
        (BALL, tw.HeavyBallFlow(2.0001), r"not HeavyBallFlow\(friction=2\.0001\)"),
        (BALL, tw.NesterovFlow(), r"Heavy ball discretises .*, not NesterovFlow\(damping=3\)"),
        (tw.Nesterov(0.0025), tw.NesterovFlow(4.0), r"damping=3\), not NesterovFlow\(damping=4\)"),
        (tw.Optax(optax.adam(1e-2), time_per_step=0.1), tw.GradientFlow(), "takes 0.1 of time"),
        (tw.Optax(optax.sgd(0.05), time_per_step=0.05), tw.GradientFlow(), "not known which flow"),
    ],
)
def test_other_flows_and_clocks_of_their_own_are_told(optimizer, flow, message):
    run, flow = trajectory(optimizer), trajectory(flow)
    with pytest.warns(UserWarning, match=message) as caught:
        gap = tw.compare(run, flow)
    assert caught[0].filename == __file__
    assert gap.notes == (str(caught[0].message),)
    np.testing.assert_array_equal(gap.distance, jnp.linalg.norm(run.params - flow.params, axis=1))


def test_optimizers_with_different_clocks_are_told():
    with pytest.warns(UserWarning, match="different things"):
        tw.compare(RUN, trajectory(BALL))
    with pytest.warns(UserWarning, match="not known which flow optax"):
        tw.compare(RUN, trajectory(tw.Optax(optax.adam(0.1), time_per_step=0.1)))


def test_whoever_says_the_flow_is_believed():
    sgd = tw.Optax(optax.sgd(0.05), time_per_step=0.05, flow=tw.GradientFlow())
    assert tw.compare(trajectory(sgd), FLOW).notes == ()
    with pytest.raises(ValueError, match="optax discretises GradientFlow"):
        tw.compare(trajectory(sgd), FRICTION_2)


@pytest.mark.parametrize("shift", [1e-10, 1e-3, 1.0])
def test_different_starts(shift):
    other = trajectory(tw.GradientFlow(), params=PARAMS + jnp.array([shift, 0, 0]))
    for changed in (other, dataclasses.replace(other, initial=None)):
        with pytest.raises(ValueError, match=rf"start {shift:.3g} apart, from parameters of norm"):
            tw.compare(RUN, changed)


def test_a_start_in_another_precision_is_the_same():
    params = jnp.array([1 / 3, -2.0, 1e-3])
    single = quadratic(np.diag(VALUES))
    single = dataclasses.replace(single, inputs=single.inputs.astype(jnp.float32))
    run = trajectory(tw.GradientDescent(0.05), single, params.astype(jnp.float32))
    flow = trajectory(tw.GradientFlow(), params=params)
    assert tw.compare(run, flow).notes == ()
    run = dataclasses.replace(run, times=run.times.astype(jnp.float32) * (1 + 1e-7))
    assert len(tw.compare(run, flow).times) == 3
    with pytest.raises(ValueError, match="start"):
        tw.compare(run, trajectory(tw.GradientFlow(), params=params * (1 + 1e-5)))


def other_objectives():
    data = OBJECTIVE.inputs, OBJECTIVE.targets
    yield tw.Objective(lambda p, x: x @ p, tw.losses.squared_error, data[0], data[1] + 1e-3)
    yield tw.Objective(lambda p, x: x @ p, tw.losses.squared_error, 1.001 * data[0], data[1])
    yield tw.Objective(lambda p, x: x @ jnp.tanh(p), tw.losses.squared_error, *data)
    yield tw.Objective(lambda p, x: x @ p, lambda z, y: (z - y) ** 2, *data)
    turned = jnp.linalg.qr(jnp.arange(9.0).reshape(3, 3) + jnp.eye(3))[0]
    yield tw.Objective(lambda p, x: x @ (turned @ p), tw.losses.squared_error, jnp.eye(3), data[1])


def test_different_objectives():
    for objective in other_objectives():
        run = trajectory(tw.GradientDescent(0.05), objective)
        with pytest.raises(ValueError, match="made on different objectives: at the same param"):
            tw.compare(run, FLOW)
        with pytest.raises(ValueError, match="different objectives"):
            tw.compare(trajectory(tw.GradientFlow(), objective), FLOW)


def test_objectives_that_differ_only_in_their_gradient():
    """At the start, the only point that both have."""
    turned = jnp.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
    params = jnp.ones(3)
    plain, other = (
        tw.Objective(f, tw.losses.squared_error, OBJECTIVE.inputs, jnp.ones(3))
        for f in (lambda p, x: x @ p, lambda p, x: x @ (turned @ p))
    )
    still = np.ones((3, 3))
    with pytest.raises(ValueError, match="the gradients differ by"):
        tw.compare(
            trajectory(tw.GradientDescent(0.05), plain, params, still),
            trajectory(tw.GradientFlow(), other, params, still),
        )


def test_objectives_that_are_the_same_in_other_words():
    order = jnp.array([2, 0, 1])
    shuffled = tw.Objective(
        lambda p, x: jnp.sum(x * p, axis=1),
        tw.losses.squared_error,
        OBJECTIVE.inputs[order],
        OBJECTIVE.targets[order],
    )
    in_parts = dataclasses.replace(OBJECTIVE, reduction=tw.objectives.MicroBatches(2))
    again = quadratic(np.diag(VALUES))
    for objective in (shuffled, in_parts, again):
        run = trajectory(tw.GradientDescent(0.05), objective)
        np.testing.assert_allclose(tw.compare(run, FLOW).distance, tw.compare(RUN, FLOW).distance)


def test_without_an_objective_recorded_losses_are_held_side_by_side():
    bare = dataclasses.replace(FLOW, objective=None)
    gap = tw.compare(RUN, bare)
    assert gap.prediction_distance is not None, "the run knows the objective"
    neither = tw.compare(dataclasses.replace(RUN, objective=None), bare)
    assert neither.prediction_distance is None
    np.testing.assert_array_equal(gap.loss_difference, neither.loss_difference)
    for objective in other_objectives():
        run = trajectory(tw.GradientDescent(0.05), objective)
        with pytest.raises(ValueError, match="different objectives"):
            tw.compare(dataclasses.replace(run, objective=None), bare)


def test_another_objective_to_measure_on():
    hessian = np.diag([1.0, 3.0, 0.1])
    gap = tw.compare(RUN, FLOW, quadratic(hessian))
    run, flow = RUN.params, FLOW.params
    energies = [0.5 * np.einsum("ti,ij,tj->t", p, hessian, p) for p in (run, flow)]
    np.testing.assert_allclose(gap.loss_difference, energies[0] - energies[1], atol=1e-15)
    apart = np.einsum("ti,ij,tj->t", run - flow, hessian, run - flow)
    np.testing.assert_allclose(gap.prediction_distance, np.sqrt(apart), atol=1e-15)
    steepness = np.linalg.norm(flow @ hessian, axis=1)
    np.testing.assert_allclose(gap.loss_error, steepness * gap.error, rtol=1e-6)


def test_what_is_not_known_is_not_a_number():
    nowhere = dataclasses.replace(
        FLOW, initial=None, error=None, times=FLOW.times.at[0].set(0.01), objective=None
    )
    gap = tw.compare(RUN, nowhere)
    start, bars = gap.notes
    assert "`moved` and `relative` are NaN" in start
    assert "the error bars are NaN" in bars
    assert np.all(np.isnan(gap.moved))
    assert np.all(np.isnan(gap.relative))
    assert np.all(np.isnan(gap.error))
    assert np.all(np.isfinite(gap.distance))


def test_what_is_missing_is_noted():
    def at(times, flow=FLOW):
        return dataclasses.replace(flow, times=jnp.asarray(times))

    (only_start,) = tw.compare(RUN, at([0.0, 0.3, 0.7])).notes
    assert only_start.startswith("The only saved time that both have is 0")
    assert "save_at=run.times" in only_start
    (few,) = tw.compare(RUN, at([0.1, 0.5, 0.7])).notes
    assert few.startswith("Only 1 of the run's 3 saved times")
    status = tw.Status("diverged", "step 2 raised the loss.", step=2)
    params = RUN.params.at[2].set(jnp.inf)
    ended, infinite = tw.compare(dataclasses.replace(RUN, status=status, params=params), FLOW).notes
    assert ended == 'The run ended with the status "diverged": step 2 raised the loss.'
    assert infinite.startswith("Numbers of the run are not finite from t = 1 on")
    still = dataclasses.replace(FLOW, params=jnp.broadcast_to(PARAMS, (3, 3)))
    assert tw.compare(RUN, still).notes == ("The flow does not move: `relative` is NaN.",)
