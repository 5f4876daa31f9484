"""What following the flow of a real network costs: the numbers that the documentation quotes.

The problem is that of `benchmarks/flow_work_precision.py`; takes about a minute.
"""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import thalweg as tw

pytestmark = pytest.mark.slow


def problem(loss, seed):
    data = tw.datasets.digits(500).standardised().one_hot()
    network = tw.networks.fully_connected([64, 64, 64, 10], key=jr.key(seed))
    return tw.Objective(tw.networks.apply, loss, data.inputs, data.targets), network


def end(trajectory):
    return np.concatenate([np.asarray(x[-1]).ravel() for x in jax.tree.leaves(trajectory.params)])


def follow(objective, network, rtol, solver=None):
    return tw.integrate(
        tw.GradientFlow(),
        objective,
        network,
        save_at=[1000.0],
        rtol=rtol,
        atol=rtol / 10,
        solver=solver,
    )


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("rtol", "gradients", "error", "gain"),
    [
        (1e-4, 1500, 2e-3, 10),
        (1.6e-5, 1500, 2e-3, 10),
        (1e-5, 2300, 1e-5, 8),
        (1e-7, 4000, 1e-6, 5),
    ],
)
def test_stiff_flow_of_squared_error(seed, rtol, gradients, error, gain):
    objective, network = problem(tw.losses.squared_error, seed)
    flow = follow(objective, network, rtol)
    reference = follow(objective, network, 1e-9, diffrax.Tsit5())
    start = np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(network)])
    moved = np.linalg.norm(end(reference) - start)
    true_error = np.linalg.norm(end(flow) - end(reference))
    assert flow.stats.gradients <= gradients
    assert flow.stats.error_gradients <= flow.stats.gradients
    assert true_error / moved <= error
    assert true_error <= flow.error[-1]
    assert reference.stats.gradients > gain * flow.stats.gradients


@pytest.mark.parametrize("rtol", [1e-4, 1e-6])
def test_flow_of_cross_entropy_costs_no_more_than_tsit5(rtol):
    objective, network = problem(tw.losses.cross_entropy, 0)
    flow = follow(objective, network, rtol)
    classical = follow(objective, network, rtol, diffrax.Tsit5())
    reference = end(follow(objective, network, 1e-10, diffrax.Dopri8()))
    ours, theirs = (np.linalg.norm(end(t) - reference) for t in (flow, classical))
    assert flow.stats.gradients <= 1.3 * classical.stats.gradients
    assert ours <= 1.01 * theirs
    assert jnp.all(flow.error >= ours)
