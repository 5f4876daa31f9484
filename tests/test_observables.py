"""Observables against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw

from . import problems


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
