"""What predictions leave open: kernels from series, targets of any shape, runs of no length."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import thalweg as tw
from thalweg.networks import Activation

RNG = np.random.default_rng(5)
INPUTS, TARGETS = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 2))
SQUARED = tw.Objective(tw.networks.apply, tw.losses.squared_error, INPUTS, TARGETS)
LABELLED = tw.Objective(
    tw.networks.apply, tw.losses.cross_entropy, INPUTS, RNG.integers(0, 2, size=6)
)
# As a series, of which the kink makes a slow one.
RELU = Activation("hidden", lambda x: jnp.where(x > 0, x, 0.0))
EXACT = tw.kernels.fully_connected(3, activation="relu", bias_std=0.3)
SERIES = tw.kernels.fully_connected(3, activation=RELU, bias_std=0.3)


def gaps(objective, dynamics, at, **options):
    """How far means are from those of the exact kernel, and what error is reported."""
    exact, series = (
        tw.kernels.predicted_ensemble(dynamics, objective, network, at, **options)
        for network in (EXACT, SERIES)
    )
    gap = np.linalg.norm((series.outputs - exact.outputs).reshape(len(at), -1), axis=1)
    return gap, exact.error, series.error


@pytest.mark.parametrize(
    "dynamics", [tw.GradientFlow(), tw.HeavyBallFlow(0.3), tw.HeavyBall(0.5, 0.8)], ids=repr
)
def test_a_kernel_from_a_series_is_in_the_error(dynamics):
    gap, exact, series = gaps(SQUARED, dynamics, [0, 1, 10, 100])
    assert exact is None
    assert np.all(gap <= series + 1e-13)
    assert np.all(series[1:] < 300 * gap[1:])
    assert gap[2] > 1e-3


def test_a_series_without_a_kink_is_exact():
    smooth = tw.kernels.fully_connected(2, activation="tanh")
    found = tw.kernels.predicted_ensemble(tw.GradientFlow(), SQUARED, smooth, [0.0, 1.0])
    assert found.error is None


def test_a_kernel_from_a_series_is_in_the_error_of_draws():
    options = {"draws": 2, "key": jr.key(0), "outputs": 2}
    gap, exact, series = gaps(LABELLED, tw.GradientDescent(0.5), [0, 1, 10], **options)
    # Both are drawn from the same key, and the prior is a little off as well.
    assert np.all(gap[1:] - gap[0] <= (series - exact)[1:])
    assert np.all((series - exact)[1:] > 1e-6)


def test_targets_without_an_axis_of_outputs():
    """An ensemble takes them where real networks of that kind have predictions like that."""
    column = SQUARED.targets[:, :1]
    rows, numbers = (
        tw.Objective(tw.networks.apply, tw.losses.squared_error, INPUTS, targets)
        for targets in (column, column[:, 0])
    )
    wide = tw.networks.fully_connected([3, 4, 1], key=jr.key(0))
    theory = tw.networks.two_layer(3, 6, key=jr.key(0))
    optimizer, at = tw.GradientDescent(0.1), [0, 3]
    limits = tw.kernels.fully_connected(2, activation="relu"), tw.kernels.two_layer(3)
    for network, limit, other in ((wide, limits[0], numbers), (theory, limits[1], rows)):
        with pytest.raises(ValueError, match="targets: shape"):
            tw.predicted_run(optimizer, other, network, at)
        with pytest.raises(ValueError, match="targets: shape"):
            tw.kernels.predicted_ensemble(optimizer, other, limit, at)
    finite = tw.predicted_run(optimizer, numbers, theory, at)
    infinite = tw.kernels.predicted_ensemble(optimizer, numbers, limits[1], at)
    assert finite.outputs.shape == infinite.outputs.shape == infinite.variance.shape == (2, 6)


def test_a_run_of_no_length():
    """The last time may be zero, whatever the loss."""
    network = tw.networks.fully_connected([3, 4, 2], key=jr.key(0))
    start = tw.networks.apply(network, INPUTS)
    for objective, dynamics in (
        (SQUARED, tw.GradientFlow()),
        (LABELLED, tw.GradientFlow()),
        (LABELLED, tw.HeavyBall(0.1, 0.5)),
    ):
        found = tw.predicted_run(dynamics, objective, network, [0])
        np.testing.assert_allclose(found.outputs[0], start, atol=1e-14)
        np.testing.assert_allclose(found.loss, [objective.value(network)], rtol=1e-12)
        assert found.status.kind == "completed"
        assert (found.steps is None) == isinstance(dynamics, tw.Flow)
