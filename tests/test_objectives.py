"""Landscapes without data, with penalties, and of one's own classes, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import thalweg as tw
from tests.problems import leaky_network, small_data, small_objective

MATRIX = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 4.0]])
START = jnp.array([1.0, -2.0, 0.5])


def bowl(p):
    return p @ MATRIX @ p / 2


def rosenbrock(p):
    return (1 - p["x"]) ** 2 + 100 * (p["y"] - p["x"] ** 2) ** 2


def rosenbrock_gradient(p):
    x, y = p["x"], p["y"]
    return {"x": -2 * (1 - x) - 400 * x * (y - x**2), "y": 200 * (y - x**2)}


def rosenbrock_hessian(p):
    x, y = p["x"], p["y"]
    return jnp.array([[2 - 400 * (y - 3 * x**2), -400 * x], [-400 * x, 200.0 + 0 * x]])


class Quadratic(tw.AbstractObjective):
    """No more than has to be defined."""

    matrix: jax.Array

    def value(self, params):
        return params @ self.matrix @ params / 2

    def gradient(self, params):
        return self.matrix @ params


GIVEN = tw.FunctionObjective(rosenbrock, gradient=rosenbrock_gradient, hessian=rosenbrock_hessian)
ALONG_THE_VALLEY = {"x": jnp.asarray(0.3), "y": jnp.asarray(-0.2)}


@pytest.mark.parametrize("objective", [GIVEN, tw.FunctionObjective(rosenbrock)])
def test_a_function_against_derivatives_by_hand(objective):
    point, vector = ALONG_THE_VALLEY, {"x": jnp.asarray(-1.5), "y": jnp.asarray(0.7)}
    objective.check(point)
    slope = ravel_pytree(rosenbrock_gradient(point))[0]
    value, gradient = objective.value_and_gradient(point)
    assert float(value) == pytest.approx(0.49 + 100 * 0.29**2)
    for found in (gradient, objective.gradient(point)):
        np.testing.assert_allclose(ravel_pytree(found)[0], slope, rtol=1e-13)
    product = rosenbrock_hessian(point) @ ravel_pytree(vector)[0]
    np.testing.assert_allclose(ravel_pytree(objective.hvp(point, vector))[0], product, rtol=1e-12)
    found = tw.extreme_eigenvalues(objective, point)
    expected = np.linalg.eigvalsh(rosenbrock_hessian(point))
    assert float(found.largest.value[0]) == pytest.approx(expected[-1], rel=1e-9)
    assert float(found.smallest.value[0]) == pytest.approx(expected[0], rel=1e-9)


@pytest.mark.parametrize("objective", [Quadratic(jnp.asarray(MATRIX)), tw.FunctionObjective(bowl)])
def test_everything_runs_on_a_landscape_without_data(objective):
    values, vectors = np.linalg.eigh(MATRIX)
    times = np.array([0.0, 0.5, 2.0])
    flow = tw.integrate(tw.GradientFlow(), objective, START, save_at=times, rtol=1e-8)
    exact = np.exp(-np.outer(times, values)) * (vectors.T @ START) @ vectors.T
    assert np.all(np.linalg.norm(flow.params - exact, axis=1) <= flow.error + 1e-12)
    run = tw.descend(tw.GradientDescent(0.05), objective, START, 40, save_every=10)
    step = np.eye(3) - 0.05 * MATRIX
    steps = np.array([np.linalg.matrix_power(step, k) @ START for k in (0, 10, 20, 30, 40)])
    np.testing.assert_allclose(run.params, steps, rtol=1e-12)

    gap = tw.compare(run, flow)
    np.testing.assert_allclose(
        gap.distance, np.linalg.norm(steps[[0, 1, 4]] - exact, axis=1), rtol=1e-4, atol=1e-12
    )
    losses = [np.einsum("ti,ij,tj->t", p, MATRIX, p) / 2 for p in (steps[[0, 1, 4]], exact)]
    assert np.all(np.abs(gap.loss_difference - (losses[0] - losses[1])) <= gap.loss_error + 1e-12)
    assert gap.prediction_distance is None
    assert gap.prediction_error is None

    law = tw.predicted_distance(tw.GradientDescent(0.05), objective, START, save_at=times)
    # theta_k - theta(t) = -(h/2) t A^2 exp(-A t) theta_0 to first order.
    first = (
        -0.5 * (times[:, None] * values**2 * np.exp(-np.outer(times, values))) * (vectors.T @ START)
    )
    np.testing.assert_allclose(law.terms[0], first @ vectors.T, rtol=1e-4, atol=1e-6)

    fine = tw.integrate(tw.GradientFlow(), objective, START, save_at=np.linspace(0, 1, 21))
    promise = tw.certify(objective, fine, epsilon=0.1)
    assert 0 < promise.step_size < 2 / values[-1]
    arrived = tw.integrate(tw.GradientFlow(), objective, START, until=tw.until.GradientNorm(1e-8))
    assert arrived.limit.found
    assert np.linalg.norm(arrived.params[-1]) <= arrived.error[-1]


def test_what_needs_predictions_says_who_has_them():
    objective = tw.FunctionObjective(bowl)
    with pytest.raises(
        TypeError, match=r"accuracy needs samples and predictions .*FunctionObjective"
    ):
        tw.observables.accuracy(objective, START)
    with pytest.raises(
        TypeError, match=r"tangent kernel needs a prediction function.*tw\.Objective"
    ):
        tw.kernels.empirical(objective, START)
    for given, said in (
        (bowl, r"a function; `tw\.FunctionObjective"),
        (7, "int"),
        (tw.Objective, "the cl"),
    ):
        with pytest.raises(TypeError, match=rf"objective: expected an objective, got {said}"):
            tw.integrate(tw.GradientFlow(), given, START, t1=1.0)


def test_kinks_of_a_function_are_read_and_slid_on():
    lasso = tw.FunctionObjective(lambda p: 0.5 * jnp.sum((p - START) ** 2) + jnp.sum(jnp.abs(p)))
    assert lasso.kinks(START) == (True, True, 0)
    assert [side.tolist() for side in lasso.kink_pattern(START)] == [[True, False, True]]
    # Half of the segment lies on either side of the kink at 0, where |p| has slope 1 and -1.
    mean = lasso.mean_gradient(jnp.zeros(3), jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(mean[:2], -START[:2], atol=1e-14)
    assert tw.FunctionObjective(bowl).kinks(START) == (False, False, 0)


@pytest.mark.parametrize("predict", [leaky_network, None])
def test_a_penalty_adds_its_derivatives(predict):
    objective, params = small_objective(predict) if predict else small_objective()
    rate = 0.3
    for penalty in (
        tw.objectives.WeightDecay(rate),
        lambda p: rate / 2 * sum(jnp.sum(w**2) for w in p),
    ):
        whole = tw.Penalised(objective, penalty)
        whole.check(params)
        flat, restore = ravel_pytree(params)
        vector = restore(jnp.linspace(-1, 1, flat.size))
        value, gradient = whole.value_and_gradient(params)
        assert float(value) == pytest.approx(
            float(objective.value(params)) + rate / 2 * float(flat @ flat)
        )
        pairs = [
            (gradient, objective.gradient(params), flat),
            (whole.hvp(params, vector), objective.hvp(params, vector), ravel_pytree(vector)[0]),
            (
                whole.mean_gradient(params, vector),
                objective.mean_gradient(params, vector),
                flat,
            ),
        ]
        for found, without, added in pairs:
            expected = ravel_pytree(without)[0] + rate * added
            np.testing.assert_allclose(ravel_pytree(found)[0], expected, rtol=1e-12, atol=1e-14)
        assert whole.kinks(params).exist == objective.kinks(params).exist
        assert len(whole.kink_pattern(params)) == len(objective.kink_pattern(params))


def test_predictions_are_those_without_the_penalty():
    objective, params = small_objective()
    whole = tw.Penalised(objective, tw.objectives.WeightDecay(0.1))
    times = np.array([0.0, 0.1, 0.2])
    flow = tw.integrate(tw.GradientFlow(), whole, params, save_at=times)
    run = tw.descend(tw.GradientDescent(0.01), whole, params, 20, save_every=10)
    gap = tw.compare(run, flow)
    ends = [jax.tree.map(lambda w: w[-1], t.params) for t in (run, flow)]
    apart = objective.predictions(ends[0]) - objective.predictions(ends[1])
    expected = np.sqrt(np.mean(np.sum(np.square(apart), axis=1)))
    np.testing.assert_allclose(gap.prediction_distance[-1], expected, rtol=1e-10)
    # The second-order part of the loss's error bar knows of the penalty's curvature.
    strong = tw.Penalised(objective, tw.objectives.WeightDecay(1e4))
    bars = tw.compare(run, flow, strong).loss_error
    steep = np.linalg.norm(ravel_pytree(strong.gradient(ends[1]))[0])
    assert float(bars[-1]) >= steep * gap.error[-1] + 0.5 * 0.99e4 * gap.error[-1] ** 2
    with pytest.raises(TypeError, match=r"tangent kernel needs .*which Penalised does not have"):
        tw.predicted_run(tw.GradientFlow(), whole, params, times)


def test_bounds_of_curvature_allow_for_weight_decay():
    network = tw.networks.fully_connected(
        [3, 4, 2], activation="relu", bias=False, key=jax.random.key(1)
    )
    inputs, targets = small_data()
    objective = tw.Objective(tw.networks.apply, tw.losses.squared_error, inputs, targets)
    whole = tw.Penalised(objective, tw.objectives.WeightDecay(0.7))
    flat, restore = ravel_pytree(network)
    values = np.linalg.eigvalsh(jax.hessian(lambda p: whole.value(restore(p)))(flat))
    low = [float(tw.curvature.lower_bound(o, network)) for o in (objective, whole)]
    assert low[0] + 0.7 - 1e-12 <= low[1] <= low[0] + 0.7
    assert low[1] <= values[0]
    high = [float(tw.curvature.upper_bound(o, network)) for o in (objective, whole)]
    assert high[0] + 0.7 <= high[1] <= high[0] + 0.7 + 1e-9
    assert high[1] >= values[-1]
    unknown = tw.Penalised(whole, lambda p: jnp.sum(ravel_pytree(p)[0] ** 4))
    with pytest.raises(TypeError, match=r"nothing is known of the curvature of its penalty"):
        tw.curvature.lower_bound(unknown, network)


def test_penalties_with_kinks_are_kinks_of_the_whole():
    objective, params = small_objective()
    lasso = tw.Penalised(objective, lambda p: sum(jnp.sum(jnp.abs(w)) for w in p))
    assert lasso.kinks(params) == (True, True, 0)
    assert objective.kinks(params) == (False, False, 0)
    sides = lasso.kink_pattern(params)
    for side, weight in zip(sides, params, strict=True):
        np.testing.assert_array_equal(side, np.asarray(weight) > 0)


def lopsided(p):
    return jnp.array([[1.0, 2.0], [0.0, 1.0]]) + 0 * p[0]


@pytest.mark.parametrize(
    ("objective", "error", "message"),
    [
        (
            tw.FunctionObjective(lambda p: p),
            ValueError,
            r"single number, got an array of shape \(2,\)",
        ),
        (tw.FunctionObjective(lambda p: jnp.log(p[0] - 1)), ValueError, r"NaN or infinity"),
        (tw.FunctionObjective(lambda p: np.sin(np.asarray(p))[0] + p[0]), TypeError, r"jax\.numpy"),
        (tw.FunctionObjective(lambda p: p[0] > 0), TypeError, r"floating-point value, got bool"),
        (
            tw.FunctionObjective(lambda p: p @ p, gradient=lambda p: p),
            ValueError,
            r"gradient: differs by 1\.41 ",
        ),
        (
            tw.FunctionObjective(lambda p: p @ p, hessian=lambda p: jnp.eye(3)),
            ValueError,
            r"hessian: expected shape \(2, 2\)",
        ),
        (tw.FunctionObjective(lambda p: p @ p, hessian=lopsided), ValueError, r"not symmetric"),
        (
            tw.FunctionObjective(lambda p: p @ p, hessian=lambda p: jnp.eye(2)),
            ValueError,
            r"hessian: .*differs",
        ),
        (
            tw.FunctionObjective(lambda p: p @ p, gradient=lambda p: 2 * p[:1]),
            ValueError,
            r"gradient has arrays of shape \(1,\)",
        ),
    ],
)
def test_functions_that_cannot_be_right(objective, error, message):
    with pytest.raises(error, match=message):
        tw.descend(tw.GradientDescent(0.1), objective, jnp.ones(2), 1)


def test_derivatives_at_a_minimum_are_rounding():
    """Where both gradients are nothing but rounding they do not have to agree."""
    centre = jnp.array([0.1, 0.7])

    def value(p):
        return jnp.sum((p - centre) ** 4) + jnp.sum(jnp.sinh(p - centre) ** 2)

    def gradient(p):
        d = p - centre + 1e-17
        return 4 * d**3 + jnp.sinh(2 * d)

    tw.FunctionObjective(value, gradient=gradient).check(centre + 1e-16)


def test_what_is_no_function():
    for arguments in ((None,), (3.0,), (dict,)):
        with pytest.raises(TypeError, match=r"function: expected a function of the parameters"):
            tw.FunctionObjective(*arguments)
    with pytest.raises(TypeError, match=r"hessian: expected a function"):
        tw.FunctionObjective(bowl, hessian=MATRIX)
    with pytest.raises(TypeError, match=r"penalty: expected a function"):
        tw.Penalised(tw.FunctionObjective(bowl), 0.1)
    with pytest.raises(ValueError, match=r"rate: must be zero or positive"):
        tw.objectives.WeightDecay(-1.0)


def test_objectives_are_the_same_if_their_parts_are():
    objective, _ = small_objective()
    again = tw.Objective(
        objective.predict, objective.loss, objective.inputs, objective.targets,
        reduction=tw.objectives.MicroBatches(3),
    )  # fmt: skip
    assert objective.same(again)
    assert not objective.same(small_objective(seed=1)[0])
    assert not objective.same(GIVEN)
    assert GIVEN.same(
        tw.FunctionObjective(rosenbrock, gradient=rosenbrock_gradient, hessian=rosenbrock_hessian)
    )
    assert not GIVEN.same(tw.FunctionObjective(rosenbrock))
    decayed = [tw.Penalised(objective, tw.objectives.WeightDecay(rate)) for rate in (0.1, 0.1, 0.2)]
    assert decayed[0].same(decayed[1])
    assert not decayed[0].same(decayed[2])
