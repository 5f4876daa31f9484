"""Rates: theory against long responses, and verdicts from data against known laws."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import thalweg as tw
from thalweg.kernels._rate import rate_of
from thalweg.results import Stats, Status, Trajectory

SPECTRUM = np.geomspace(1e-3, 1.0, 9)
PARTS = np.random.default_rng(0).normal(size=9)


def losses(dynamics, at, spectrum=SPECTRUM):
    modes = PARTS[-len(spectrum) :, None] * dynamics.response(spectrum[:, None], at)
    return 0.5 * np.sum(modes**2, axis=0)


def trajectory(loss, times):
    return Trajectory(
        times=jnp.asarray(times),
        params=None,
        observables={"loss": jnp.asarray(loss)},
        error=None,
        steps=None,
        status=Status(),
        stats=Stats(),
        dynamics=None,
    )


LINEAR = [
    tw.GradientFlow(),
    tw.HeavyBallFlow(0.03),
    tw.HeavyBallFlow(0.5),
    tw.GradientDescent(0.5),
    tw.HeavyBall(0.5, 0.97),
    tw.HeavyBall(0.5, 0.5),
    tw.NesterovConstant(0.3, 0.9),
    tw.HigherMomentum(0.5, 0.5, 0.3),
]


@pytest.mark.parametrize("dynamics", LINEAR, ids=lambda d: d.name)
def test_linear_rates(dynamics):
    predicted = tw.predicted_rate(dynamics, SPECTRUM)
    assert predicted.kind == "linear"
    assert predicted.crossover == 0
    # Until the loss has fallen by exp(-40).
    last = 40 / predicted.exponent
    if isinstance(dynamics, tw.Flow):
        at = times = np.linspace(0, last, 3000)
    else:
        at = np.unique(np.linspace(0, last / dynamics.time_per_step, 3000).round().astype(int))
        times = at * dynamics.time_per_step
    found = tw.rate(trajectory(losses(dynamics, at), times))
    assert found.kind == "linear"
    assert found.exponent == pytest.approx(predicted.exponent, rel=0.01)
    assert abs(found.exponent - predicted.exponent) < 4 * found.uncertainty + 1e-3 * found.exponent


@pytest.mark.parametrize("damping", [2.0, 3.0, 6.0])
def test_sublinear_rates(damping):
    flow = tw.NesterovFlow(damping)
    predicted = tw.predicted_rate(flow, SPECTRUM)
    assert (predicted.kind, predicted.power) == ("sublinear", damping)
    times = np.linspace(0, 4000, 8000)
    found = tw.rate(trajectory(losses(flow, times), times))
    assert found.kind == "sublinear"
    assert found.exponent == pytest.approx(damping, rel=0.03)
    assert abs(found.exponent - damping) < 4 * found.uncertainty


def test_the_uncertainty_of_an_exponent_that_drifts():
    """It reaches to the exponent at both ends of the window."""
    times = np.linspace(0.0, 400.0, 4000)
    for bend in (-0.02, 0.02):
        # log(loss) is a parabola in log(t), so that the exponent at a time is known.
        logarithm = np.log(np.maximum(times, 1e-3))
        found = tw.rate(trajectory(np.exp(-2 * logarithm - bend * logarithm**2), times))
        assert found.kind == "sublinear"
        ends = [2 + 2 * bend * np.log(t) for t in found.window]
        for end in ends:
            assert abs(end - found.exponent) < (1 + 1e-6) * found.uncertainty
        assert found.uncertainty < abs(ends[1] - ends[0])


def test_the_uncertainty_where_losses_oscillate():
    """An envelope is a little too low before every crest."""
    times, found = np.linspace(0, 100, 4001)[1:], []
    for frequency in np.geomspace(0.5, 15, 12):
        for power in (2.0, 5.0):
            loss = times**-power * np.cos(frequency * times) ** 2
            found.append((power, rate_of(times, loss, 0.0, None)))
    # A few crests within the window are too little for a verdict.
    told = [(power, rate) for power, rate in found if rate.kind != "neither"]
    assert len(told) > len(found) / 2
    for power, rate in told:
        assert rate.kind == "sublinear"
        assert abs(rate.exponent - power) < 2 * rate.uncertainty < 0.2 * power


def test_a_window_far_from_zero():
    times = 1e5 + np.linspace(0, 1, 100)
    found = rate_of(times, np.exp(-3 * (times - 1e5)), 0.0, 1e5)
    assert found.kind == "linear"
    assert found.exponent == pytest.approx(3, rel=1e-9)


def test_no_theory_for_other_losses():
    inputs, labels = np.random.default_rng(0).normal(size=(6, 3)), np.array([0, 1, 1, 0, 1, 0])
    objective = tw.Objective(tw.networks.apply, tw.losses.cross_entropy, inputs, labels)
    network = tw.networks.fully_connected([3, 8, 2], key=jr.key(0))
    predicted = tw.predicted_run(tw.GradientDescent(0.1), objective, network, [0, 10])
    with pytest.raises(ValueError, match="not the squared error"):
        tw.predicted_rate(tw.GradientDescent(0.1), predicted)
    kernels = tw.kernels.fully_connected(2)(inputs)
    with pytest.raises(TypeError, match="got Kernels"):
        tw.predicted_rate(tw.GradientDescent(0.1), kernels)
    assert tw.predicted_rate(tw.GradientDescent(0.1), 2.0).eigenvalue == 2.0


def test_nesterovs_method_is_linear_in_the_end():
    """`(1 - step eigenvalue)^k k^-d`: measured where it was, and where it ends."""
    optimizer, spectrum = tw.Nesterov(0.9, damping=3.0), SPECTRUM[3:]
    predicted = tw.predicted_rate(optimizer, spectrum)
    assert predicted.kind == "linear"
    slowest = spectrum[0] * 0.9
    assert predicted.factor == pytest.approx(1 - slowest, rel=1e-9)
    crossover = predicted.crossover / optimizer.time_per_step
    assert crossover == pytest.approx(3 / slowest, rel=0.01)
    early, late = np.arange(0, round(0.3 * crossover)), np.arange(0, 20 * round(crossover))
    # Where only the slowest mode is left, at short times already.
    alone = 0.5 * optimizer.response(spectrum[:1], early) ** 2
    found = tw.rate(trajectory(alone, early * optimizer.time_per_step), start=0.0)
    assert found.kind != "linear"
    loss = losses(optimizer, late, spectrum)
    found = tw.rate(trajectory(loss, late * optimizer.time_per_step))
    assert found.kind == "linear"
    assert found.exponent == pytest.approx(predicted.exponent, rel=0.15)
    # The ratio that tells the law apart from a power: two late steps, in logarithms.
    pair = np.maximum.accumulate(loss[::-1])[::-1]
    i, j = len(late) // 2, len(late) - 500
    expected = (late[j] - late[i]) * np.log(1 - slowest) - 3 * np.log(late[j] / late[i])
    assert np.log(pair[j] / pair[i]) == pytest.approx(expected, rel=0.02)


def test_what_grows():
    found = tw.predicted_rate(tw.GradientDescent(2.1), SPECTRUM)
    assert found.kind == "diverges"
    assert found.eigenvalue == 1.0
    assert found.factor == pytest.approx(1.21)
    assert "curvature 1 " in str(found)
    still = tw.predicted_rate(tw.GradientFlow(), [0.0, 1e-20, 0.5, 2.0])
    assert (still.still, still.exponent) == (2, 1.0)


def test_best_parameters():
    """No neighbour is better, and the contraction is the one that is known."""
    root = np.sqrt(SPECTRUM[-1] / SPECTRUM[0])
    condition = root**2
    for best, known, others in (
        (tw.kernels.best_gradient_descent(SPECTRUM), (condition - 1) / (condition + 1), "step"),
        (tw.kernels.best_heavy_ball(SPECTRUM), (root - 1) / (root + 1), "step momentum"),
        (
            tw.kernels.best_nesterov(SPECTRUM),
            1 - 2 / np.sqrt(3 * condition + 1),
            "step momentum",
        ),
        (tw.kernels.best_heavy_ball(SPECTRUM, step_size=0.5), 1 - np.sqrt(5e-4), "momentum"),
    ):
        reached = best.multiplier(SPECTRUM, 0).max()
        assert reached == pytest.approx(known, abs=1e-7)
        for factor in (0.98, 1.02):
            form = {k: getattr(best, k) for k in ("step_size", "momentum") if hasattr(best, k)}
            if "step" in others.split():
                changed = type(best)(**form | {"step_size": form["step_size"] * factor})
                assert changed.multiplier(SPECTRUM, 0).max() > reached
            if "momentum" in others.split():
                momentum = 1 - (1 - form["momentum"]) * factor
                changed = type(best)(**form | {"momentum": momentum})
                assert changed.multiplier(SPECTRUM, 0).max() > reached
    with pytest.raises(ValueError, match="below 4"):
        tw.kernels.best_heavy_ball(SPECTRUM, step_size=5.0)


@pytest.mark.parametrize("friction", [0.02, 2 * np.sqrt(1e-3), 0.5])
def test_the_energy_of_heavy_ball(friction):
    """It falls at the exact rate below critical damping, and at least at the bound beyond."""
    flow, step = tw.HeavyBallFlow(friction), 1e-3
    times = np.array([5.0, 20.0, 60.0])
    now, ahead, behind = (
        PARTS[:, None] * flow.response(SPECTRUM[:, None], t)
        for t in (times, times + step, times - step)
    )
    velocity = (ahead - behind) / (2 * step)
    energy = tw.kernels.heavy_ball_energy(friction, SPECTRUM, now.T, velocity.T)
    decay = tw.predicted_rate(flow, SPECTRUM).exponent
    falls = -np.diff(np.log(np.asarray(energy))) / np.diff(times)
    if friction < 0.1:
        np.testing.assert_allclose(falls, friction, rtol=1e-5)
    assert np.all(falls > decay * (1 - 1e-5))


def test_data_that_follow_neither_law():
    times = np.linspace(0, 100, 400)
    for loss, why in (
        (np.ones(400), "fell by a factor of 1 "),
        (1 / (1 + np.exp((times - 60) / 2)), "leaves"),
        (np.exp(-times)[:10], "only"),
    ):
        found = tw.rate(trajectory(loss, times[: len(loss)]))
        assert found.kind == "neither"
        assert why in str(found)
        assert np.isnan(found.exponent)


def test_noise_is_in_the_uncertainty():
    times = np.linspace(0, 100, 400)
    noise = np.random.default_rng(0).normal(size=400)
    found = tw.rate(trajectory(np.exp(-0.1 * times + 0.03 * noise), times))
    assert found.kind == "linear"
    assert abs(found.exponent - 0.1) < 3 * found.uncertainty
    raised = tw.rate(trajectory(0.7 + np.exp(-0.1 * times), times), floor=0.7)
    assert raised.exponent == pytest.approx(0.1, rel=1e-6)


def test_bad_requests():
    with pytest.raises(TypeError, match="no recurrence"):
        tw.predicted_rate(tw.Optax(optax.adam(0.1)), SPECTRUM)
    with pytest.raises(ValueError, match="no positive eigenvalue"):
        tw.predicted_rate(tw.GradientFlow(), [0.0, -1.0])
    with pytest.raises(ValueError, match="finite"):
        tw.predicted_rate(tw.GradientFlow(), [np.nan])
    with pytest.raises(TypeError, match="Trajectory"):
        tw.rate([1.0, 0.5])


def test_what_is_no_spectrum():
    kernel = np.diag([1.0, 2.0, 4.0])
    by_modes = tw.predicted_rate(tw.GradientDescent(0.1), tw.kernels.modes(3 * kernel))
    by_row = tw.predicted_rate(tw.GradientDescent(0.1), [1.0, 2.0, 4.0])
    assert str(by_modes) == str(by_row)
    with pytest.raises(ValueError, match=r"modes\(matrix\)"):
        tw.predicted_rate(tw.GradientDescent(0.1), kernel)
    with pytest.raises(ValueError, match="below zero"):
        tw.predicted_rate(tw.GradientDescent(0.1), [-1.0, 1.0])
    assert tw.predicted_rate(tw.GradientDescent(0.1), [-1e-12, 1.0]).still == 1
    with pytest.raises(TypeError, match="GradientFlow"):
        tw.kernels.best_heavy_ball(tw.GradientFlow())
    with pytest.raises(TypeError, match="tangent"):
        tw.kernels.modes(tw.kernels.fully_connected(2)(np.ones((2, 3))))


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ValueError, match="do not broadcast"):
        tw.Nesterov(0.5).response(np.ones(4), np.arange(3))


@pytest.mark.parametrize("where", [105, 110, 130, 200, 390])
def test_one_rise_does_not_hide_what_follows(where):
    times = np.linspace(0, 100, 400)
    losses = np.exp(-0.1 * times)
    losses[where] *= 1.2
    found = rate_of(times, losses, 0.0, None)
    assert found.kind == "linear"
    assert abs(found.exponent - 0.1) < 2e-3
    assert found.window[1] == 100


@pytest.mark.parametrize(
    ("dynamics", "curvature"),
    [
        (tw.GradientDescent(2.0), 1.0),
        (tw.HeavyBallFlow(0.0), 1.0),
        (tw.HeavyBall(0.1, 0.9), 38.0),
        (tw.NesterovConstant(0.1, 0.5), 15.0),
        (tw.HigherMomentum(0.1, 0.2, 0.3), 18.0),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_what_goes_on_for_ever(dynamics, curvature):
    found = tw.predicted_rate(dynamics, [curvature])
    assert found.kind == "none"
    assert "goes on for ever" in str(found)


def test_a_step_size_too_short_for_a_momentum():
    with pytest.raises(ValueError, match="so short"):
        tw.kernels.best_heavy_ball([1.0, 2.0], step_size=1e-40)


def test_why_saved_times_cannot_be_used():
    """A diverged run has the reason of its status, and every time that is left out has one."""
    objective = tw.Objective(lambda p, x: x @ p, tw.losses.squared_error, np.eye(2), np.zeros(2))
    run = tw.descend(tw.GradientDescent(50.0), objective, jnp.ones(2), 200)
    told = str(tw.rate(run))
    assert f"of {len(run.times)} saved times" in told
    assert f"The run diverged: {run.status.message.rstrip('.')}" in told
    times = np.arange(1.0, 41.0)
    losses = np.exp(-times)
    losses[20:] = np.inf
    losses[15:20] = 0
    told = str(rate_of(times, losses, 0.0, None))
    assert "only 6 of 40 saved times" in told
    assert "9 before the window, 20 where the loss is not finite, 5 where the loss is the" in told
    wild = np.where(times > 30, np.nan, np.exp(-0.1 * times))
    assert rate_of(times, wild, 0.0, None).exponent == pytest.approx(0.1, rel=1e-9)
