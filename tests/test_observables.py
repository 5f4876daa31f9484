"""Observables against their definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw

from . import problems
from .oracles import sliding


@pytest.fixture(scope="module")
def run():
    objective, params = problems.small_objective()
    return tw.descend(tw.GradientDescent(0.1), objective, params, 10, save_every=5)


def point(run, i):
    return jax.tree.map(lambda x: x[i], run.params)


def test_functions_along_a_trajectory(run):
    seen = tw.observe(
        run, gradient_norm=tw.observables.gradient_norm, norm=tw.observables.parameter_norm
    )
    assert set(seen.observables) == {"loss", "gradient_norm", "norm"}
    for i in range(3):
        gradient = run.objective.gradient(point(run, i))
        flat = np.concatenate([np.asarray(g).ravel() for g in gradient])
        assert seen.observables["gradient_norm"][i] == pytest.approx(np.linalg.norm(flat))
        flat = np.concatenate([np.asarray(p).ravel() for p in point(run, i)])
        assert seen.observables["norm"][i] == pytest.approx(np.linalg.norm(flat))
    np.testing.assert_array_equal(seen.loss, run.loss)


def test_an_observable_with_a_memory(run):
    class Counting:
        def initial(self, objective, params):
            return jnp.asarray(0)

        def __call__(self, objective, params, memory):
            return {"count": memory, "value": objective.value(params)}, memory + 1

    seen = tw.observe(run, counting=Counting()).observables["counting"]
    np.testing.assert_array_equal(seen["count"], [0, 1, 2])
    np.testing.assert_allclose(seen["value"], run.loss)


@pytest.mark.parametrize("one_hot", [False, True])
def test_accuracy(one_hot):
    inputs = np.eye(4)
    labels = np.array([0, 1, 2, 1])
    targets = np.eye(4)[labels] if one_hot else labels
    objective = tw.Objective(lambda p, x: x * p, tw.losses.cross_entropy, inputs, targets)
    assert tw.observables.accuracy(objective, jnp.ones(4)) == 0.75


def test_names_are_not_taken_twice(run):
    with pytest.raises(ValueError, match="loss"):
        tw.observe(run, loss=tw.observables.gradient_norm)


def relu_network(params, inputs):
    for weight in params[:-1]:
        inputs = jax.nn.relu(inputs @ weight.T)
    return inputs @ params[-1].T


def pooled_network(params, inputs):
    pairs = (inputs @ params[0].T).reshape(len(inputs), -1, 2)
    return jnp.max(pairs, axis=-1) @ params[1].T


def relu_sides(params, inputs, slope=0.0):
    """Which neurons are active, layer by layer."""
    sides = []
    for weight in params[:-1]:
        hidden = inputs @ np.asarray(weight).T
        sides.append((hidden > 0).ravel())
        inputs = np.where(hidden > 0, hidden, slope * hidden)
    return np.concatenate(sides)


def pooled_sides(params, inputs):
    """Both arguments of every maximum: whether they are the larger one."""
    first, second = np.moveaxis((inputs @ np.asarray(params[0]).T).reshape(-1, 2), 1, 0)
    return np.concatenate([first > second, second > first])


KINKED = {
    "relu": (relu_network, (3, 6, 4, 2), relu_sides),
    "leaky": (
        problems.leaky_network,
        (3, 6, 4, 2),
        lambda params, inputs: relu_sides(params, inputs, slope=0.1),
    ),
    "max-pool": (pooled_network, (3, 8, 2), pooled_sides),
}


@pytest.mark.parametrize(
    ("name", "micro_batch"), [("relu", None), ("relu", 5), ("leaky", None), ("max-pool", None)]
)
def test_activation_flips_against_a_loop(name, micro_batch):
    predict, widths, sides = KINKED[name]
    inputs, targets = problems.small_data()
    params = problems.random_weights(widths)
    if name == "max-pool":
        params = [params[0], params[1][:, ::2]]
    objective = tw.Objective(
        predict, tw.losses.squared_error, inputs, targets, reduction=problems.in_parts(micro_batch)
    )
    run = tw.descend(tw.GradientDescent(0.1), objective, params, 60, save_every=6)
    flips = tw.observe(run, flips=tw.observables.ActivationFlips()).observables["flips"]
    seen = [sides(point(run, i), inputs) for i in range(11)]
    expected = [0, *(np.sum(seen[i] != seen[i - 1]) for i in range(1, 11))]
    np.testing.assert_array_equal(flips, expected)
    assert np.sum(expected) > 5, "something flips"
    assert jnp.issubdtype(flips.dtype, jnp.integer)


def test_activation_flips_has_a_memory():
    assert isinstance(tw.observables.ActivationFlips(), tw.observables.RememberingObservable)


def neurons(params, inputs):
    return jnp.sum(jax.nn.relu(inputs @ params.T), axis=1, keepdims=True)


def pooled_neurons(params, inputs):
    """The same, with every ReLU written as the largest of two numbers along an axis."""
    hidden = inputs @ params.T
    return jnp.sum(jnp.max(jnp.stack([hidden, 0 * hidden]), axis=0), axis=1, keepdims=True)


def sliding_objective(predict=neurons):
    return tw.Objective(predict, tw.losses.squared_error, sliding.INPUTS, sliding.TARGETS)


ONE = ((0.3, 0.2),)
TWO = ((0.3, 0.1), (0.6, -0.1))
TOGETHER = ((0.2, 0.3), (0.2, -0.1))


@functools.cache
def closed_form(start):
    """Times in steps of 0.05, the flow at these times, and when each neuron begins to slide."""
    times = np.linspace(0, 2, 41)
    exact, phases = sliding.solution(start, times)
    assert len(phases) == len(start), "every neuron slides in the end"
    return times, jnp.array(exact).reshape(len(times), *np.shape(start)), phases


@pytest.mark.parametrize("step_size", [1e-3, 1e-5])
@pytest.mark.parametrize("start", [ONE, TWO, TOGETHER])
def test_sliding_pairs_against_closed_form(start, step_size):
    times, exact, phases = closed_form(start)
    # What begins to slide during the steps themselves may be counted or not.
    clear = [i for i, t in enumerate(times) if not any(0 <= began - t < 0.02 for began in phases)]
    observable = tw.observables.SlidingPairs(step_size=step_size)
    found = [observable(sliding_objective(), exact[i]) for i in clear]
    expected = [sum(began < times[i] for began in phases) for i in clear]
    np.testing.assert_array_equal(found, expected)
    assert set(expected) >= {0, len(start)}


def test_sliding_pairs_along_a_trajectory():
    step_size = 2e-3
    run = tw.descend(
        tw.GradientDescent(step_size), sliding_objective(), jnp.array(TWO), 1000, save_every=200
    )
    found = tw.observe(run, sliding=tw.observables.SlidingPairs(step_size)).observables["sliding"]
    _, _, phases = closed_form(TWO)
    np.testing.assert_array_equal(found, [sum(began < t for began in phases) for t in run.times])
    assert jnp.issubdtype(found.dtype, jnp.integer)


def test_a_maximum_that_slides_counts_for_each_argument():
    observable = tw.observables.SlidingPairs(step_size=1e-3)
    times, exact, _ = closed_form(TWO)
    at = [6, 16, 40]
    np.testing.assert_allclose(times[at], [0.3, 0.8, 2.0])
    found = [observable(sliding_objective(pooled_neurons), exact[i]) for i in at]
    np.testing.assert_array_equal(found, [0, 2, 4])


# On the kink, from above the first weight falls by s / 2 where s is the second weight; from below
# it rises by (1 - s - slope) / 2, so that with s = 0.95 the flow crosses instead of sliding.
@pytest.mark.parametrize(("second", "slides"), [(0.4, 1), (0.7, 1), (0.95, 0)])
def test_leaky_neurons_slide_while_both_sides_push(second, slides):
    objective = sliding_objective(lambda p, x: jax.nn.leaky_relu(x @ p.T, 0.1))
    gradient = jax.jit(objective.gradient)
    above, below = (gradient(jnp.array([[w, second]]))[0, 0] for w in (1e-9, -1e-9))
    assert above > 0
    assert (below < 0) == bool(slides)
    for first in (-1e-4, 0.0, 1e-4):
        observable = tw.observables.SlidingPairs(step_size=1e-3)
        assert observable(objective, jnp.array([[first, second]])) == slides


def test_unequal_pushes_ask_for_more_steps():
    """At the end of the flow there is hardly a pull from below: (1 - s) / 2 against s / 2."""
    y = jnp.array([[0.0, 0.98]])
    few, many = (tw.observables.SlidingPairs(1e-5, steps=n) for n in (12, 200))
    assert few(sliding_objective(), y) == 0
    assert many(sliding_objective(), y) == 1


def test_steps_that_are_too_large_hop_over_kinks_on_which_nothing_slides():
    """A valley of sharpness 100 with its bottom at 0.01, a hundredth away from the kink."""
    objective = tw.Objective(
        lambda p, x: jnp.stack([10 * p[0] + 0 * x[:, 0], jax.nn.relu(1e-3 * p[0] * x[:, 0])], 1),
        tw.losses.squared_error,
        [[1.0]],
        [[0.1, 0.0]],
    )
    params = jnp.array([0.03])
    assert tw.observables.SlidingPairs(1e-3)(objective, params) == 0
    assert tw.observables.SlidingPairs(9e-3)(objective, params) == 0
    assert tw.observables.SlidingPairs(2.1e-2)(objective, params) == 1


def test_sliding_pairs_keeps_single_precision():
    observable = tw.observables.SlidingPairs(jnp.asarray(1e-3))
    objective = sliding_objective()
    objective = tw.Objective(
        neurons,
        objective.loss,
        objective.inputs.astype(jnp.float32),
        objective.targets.astype(jnp.float32),
        reduction=tw.objectives.MicroBatches(1),
    )
    assert observable(objective, jnp.array([[0.0, 0.5]], jnp.float32)) == 1


def test_networks_without_kinks_are_refused(run):
    for observable in (tw.observables.ActivationFlips(), tw.observables.SlidingPairs(1e-3)):
        with pytest.raises(ValueError, match="objective: the network shows no kinks"):
            tw.observe(run, kinks=observable)


@pytest.mark.parametrize("step_size", [0.0, -1.0, np.nan, np.inf])
def test_bad_step_sizes(step_size):
    with pytest.raises(ValueError, match="step_size"):
        tw.observables.SlidingPairs(step_size)


@pytest.mark.parametrize("steps", [0, -3, 2, 2.5, True, "many"])
def test_bad_numbers_of_steps(steps):
    with pytest.raises(ValueError, match="steps"):
        tw.observables.SlidingPairs(1e-3, steps=steps)
