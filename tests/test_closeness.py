"""Comparisons against distances computed by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import thalweg as tw

from . import problems


def flat(params, i):
    return np.concatenate([np.asarray(x[i]).ravel() for x in jax.tree.leaves(params)])


@pytest.fixture(scope="module")
def pair():
    objective, params = problems.small_objective()
    run = tw.descend(tw.GradientDescent(0.05), objective, params, 80, save_every=20)
    flow = tw.integrate(tw.GradientFlow(), objective, params, save_at=run.times, rtol=1e-5)
    return objective, params, run, flow


def test_distances(pair):
    objective, _, run, flow = pair
    gap = tw.compare(run, flow)
    np.testing.assert_allclose(gap.times, run.times)
    for i in range(len(run.times)):
        a, b = flat(run.params, i), flat(flow.params, i)
        assert gap.distance[i] == pytest.approx(np.linalg.norm(a - b), rel=1e-12, abs=1e-15)
        assert gap.moved[i] == pytest.approx(np.linalg.norm(b - flat(flow.params, 0)), rel=1e-12)
        assert gap.error[i] == flow.error[i]
        here = jax.tree.map(lambda x, i=i: x[i], run.params)
        there = jax.tree.map(lambda x, i=i: x[i], flow.params)
        apart = np.asarray(objective.predictions(here) - objective.predictions(there))
        rms = np.sqrt((apart**2).sum(axis=1).mean())
        assert gap.prediction_distance[i] == pytest.approx(rms, rel=1e-10, abs=1e-14)
        assert gap.loss_difference[i] == pytest.approx(
            float(objective.value(here) - objective.value(there)), abs=1e-14
        )
    np.testing.assert_allclose(gap.relative, gap.distance / gap.moved.max())


def test_error_bars_cover_what_a_better_flow_shows(pair):
    objective, params, run, flow = pair
    better = tw.integrate(tw.GradientFlow(), objective, params, save_at=run.times, rtol=1e-11)
    rough, fine = tw.compare(run, flow), tw.compare(run, better)
    assert np.all(np.abs(rough.distance - fine.distance) <= rough.error)
    assert np.all(np.abs(rough.loss_difference - fine.loss_difference) <= rough.loss_error + 1e-15)
    shift = np.abs(rough.prediction_distance - fine.prediction_distance)
    assert np.all(shift <= rough.prediction_error + 1e-15)
    assert rough.prediction_error[-1] < 1e-2


def test_cross_entropy_with_integer_labels():
    inputs, _ = problems.small_data()
    labels = np.arange(12) % 2
    objective = tw.Objective(problems.tanh_network, tw.losses.cross_entropy, inputs, labels)
    params = problems.random_weights((3, 5, 2))
    run = tw.descend(tw.GradientDescent(0.1), objective, params, 10, save_every=10)
    flow = tw.integrate(tw.GradientFlow(), objective, params, save_at=run.times, rtol=1e-4)
    gap = tw.compare(run, flow)
    end = jax.tree.map(lambda x: x[-1], flow.params)
    columns = [
        np.asarray(objective.jvp(end, jax.tree.unflatten(jax.tree.structure(end), basis))).ravel()
        for basis in _basis(end)
    ]
    stretch = np.linalg.norm(np.array(columns), 2) / np.sqrt(12)
    assert gap.prediction_error[-1] == pytest.approx(stretch * float(gap.error[-1]), rel=1e-2)
    assert np.all(np.isfinite(gap.loss_error))


def _basis(params):
    """The unit vectors of parameter space, as lists of leaves."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(params)]
    for which, leaf in enumerate(leaves):
        for index in np.ndindex(leaf.shape):
            units = [np.zeros_like(x) for x in leaves]
            units[which][index] = 1.0
            yield [jnp.asarray(u) for u in units]


def test_only_common_times_are_compared(pair):
    objective, params, run, _ = pair
    times = np.union1d(np.asarray(run.times)[1::2], [0.33, 0.77])
    flow = tw.integrate(tw.GradientFlow(), objective, params, save_at=times)
    np.testing.assert_allclose(tw.compare(run, flow).times, np.asarray(run.times)[1::2])
    stranger = tw.integrate(tw.GradientFlow(), objective, params, save_at=[0.123])
    with pytest.raises(ValueError, match=r"save_at=run\.times"):
        tw.compare(run, stranger)


def test_two_flows_add_their_errors(pair):
    objective, params, run, flow = pair
    other = tw.integrate(tw.GradientFlow(), objective, params, save_at=run.times, rtol=1e-4)
    np.testing.assert_allclose(tw.compare(other, flow).error, other.error + flow.error)


def test_structures_must_agree(pair):
    _, _, run, flow = pair
    odd = tw.Trajectory(
        flow.times,
        {"w": jnp.zeros((5, 2))},
        flow.observables,
        flow.error,
        None,
        flow.status,
        flow.stats,
        flow.dynamics,
    )
    with pytest.raises(ValueError, match="structures"):
        tw.compare(run, odd)


def test_shapes_must_agree(pair):
    _, _, run, flow = pair
    odd = dataclasses.replace(
        flow, params=jax.tree.map(lambda x: jnp.sum(x, axis=-1, keepdims=True), flow.params)
    )
    with pytest.raises(ValueError, match="an array has shape"):
        tw.compare(run, odd)


def test_movement_is_counted_from_the_start():
    objective, params = problems.small_objective()
    late, whole = (
        tw.integrate(tw.GradientFlow(), objective, params, save_at=times)
        for times in ([1.0, 4.0], [0.0, 1.0, 4.0])
    )
    run = tw.descend(tw.GradientDescent(0.5), objective, params, 8, save_every=2)
    np.testing.assert_allclose(
        tw.compare(run, late).moved, tw.compare(run, whole).moved[1:], rtol=1e-6
    )


def test_tiny_times_are_not_taken_for_one_another():
    objective, params = problems.small_objective()
    a = tw.integrate(tw.GradientFlow(), objective, params, save_at=[0.0, 1e-6, 1e3])
    b = tw.integrate(tw.GradientFlow(), objective, params, save_at=[0.0, 9e-6, 1e3])
    np.testing.assert_allclose(tw.compare(a, b).times, [0.0, 1e3])
