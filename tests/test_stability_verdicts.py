"""Verdicts on stability: those of predictions, of rates, and of roots in mpmath, are the same."""

import mpmath
import numpy as np
import optax
import pytest

import thalweg as tw
from thalweg.kernels._prediction import Clock

STEP = 0.1
EDGES = [0.5, 1 - 1e-3, 1 - 1e-6, 1 - 1e-12, 1.0, 1 + 1e-12, 1 + 1e-6, 1.001, 1.5]
HORIZONS = [[0, 1], [0, 3], [0, 1000]]
MOMENTA = [0.0, 0.5, 0.9, 0.999, 1 - 1e-6]
OPTIMIZERS = [
    tw.GradientDescent(STEP),
    *(tw.HeavyBall(STEP, m) for m in MOMENTA),
    *(tw.NesterovConstant(STEP, m) for m in MOMENTA),
    tw.HigherMomentum(STEP, 0.4, 0.3),
    tw.HigherMomentum(STEP, 0.9, 0.0999),
]


def largest_root(optimizer, curvature):
    """The largest modulus of the roots on a mode, from the methods' definitions."""
    with mpmath.workdps(60):
        m, h = mpmath.mpf, mpmath.mpf(optimizer.step_size) * mpmath.mpf(curvature)
        if isinstance(optimizer, tw.GradientDescent):
            polynomial = [1, h - 1]
        elif isinstance(optimizer, tw.HeavyBall):
            polynomial = [1, h - 1 - m(optimizer.momentum), m(optimizer.momentum)]
        elif isinstance(optimizer, tw.NesterovConstant):
            b = m(optimizer.momentum)
            polynomial = [1, -(1 + b) * (1 - h), b * (1 - h)]
        else:
            a, b = m(optimizer.first), m(optimizer.second)
            polynomial = [1, h - 1 - a, a - b, b]
        roots = mpmath.polyroots(polynomial[::-1], maxsteps=500, extraprec=400, asc=True)
        return max(abs(root) for root in roots)


def verdict(optimizer, curvature, at):
    clock, spectrum = Clock.of(optimizer, at), np.array([0.01 * curvature, curvature])
    return clock.status(spectrum, clock.responses(spectrum))


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_at_and_around_the_limit(optimizer):
    for factor in EDGES:
        curvature = factor * optimizer.stability_limit(0) / STEP
        root = largest_root(optimizer, curvature)
        rate = tw.predicted_rate(optimizer, [0.01 * curvature, curvature])
        told = [verdict(optimizer, curvature, at) for at in HORIZONS]
        if factor == 1:
            # Which side of it a product of two numbers lies on is rounding.
            assert rate.kind == "none"
            assert all(status.ok and "goes on for ever" in status.message for status in told)
            continue
        assert (root > 1) == (factor > 1)
        assert (rate.kind == "diverges") == (root > 1)
        assert all((status.kind == "diverged") == (root > 1) for status in told)
        if root > 1:
            assert rate.factor == pytest.approx(float(root**2), rel=1e-9)


def test_rising_momentum_is_judged_at_the_last_step():
    """The limit falls as momentum rises: what counts are steps that are made."""
    optimizer = tw.Nesterov(STEP)
    for last in (1, 2, 7, 40):
        limit = optimizer.stability_limit(last - 1) / STEP
        assert verdict(optimizer, 0.999 * limit, [0, last]).kind == "completed"
        assert verdict(optimizer, 1.001 * limit, [0, last]).kind == "diverged"
    assert verdict(tw.GradientDescent(STEP), 30.0, [0]).kind == "diverged"


def test_optax_is_judged_alike():
    """By its last step, though nothing has grown yet; an overshoot alone is none."""
    theirs = tw.Optax(optax.sgd(STEP, momentum=0.999))
    limit = tw.HeavyBall(STEP, 0.999).stability_limit(0) / STEP
    for factor, kind in ((0.999, "completed"), (1.001, "diverged")):
        for at in ([0, 1], [0, 1000]):
            status = verdict(theirs, factor * limit, at)
            assert status.kind == kind
    assert "grows by 1.0" in status.message
    assert "has grown" in verdict(theirs, 0.999999999 * limit, [0, 1, 999]).message
    # Steps that change have no law to go by but what they led to.
    rising = tw.Optax(optax.sgd(lambda k: 2.5 + 2.5e-4 * k))
    assert "has grown" in verdict(rising, 1.0, [0, 1, 100]).message
    assert verdict(rising, 0.5, [0, 1, 100]).kind == "completed"


@pytest.mark.parametrize("product", [1e-12, 1e-6, 1e-2])
def test_roots_that_nearly_agree(product):
    """Around critical damping, where a formula with a difference of squares has half the digits."""
    for momentum in ((1 - product**0.5) ** 2 * (1 + d * product**0.5) for d in (-1e-6, 0, 1e-6)):
        for optimizer in (tw.HeavyBall(STEP, momentum), tw.NesterovConstant(STEP, momentum)):
            curvature = product / STEP
            found = float(optimizer.multiplier(curvature, 0))
            exact = largest_root(optimizer, curvature)
            assert 1 - found == pytest.approx(float(1 - exact), rel=1e-4)
            assert tw.predicted_rate(optimizer, [curvature]).kind == "linear"
