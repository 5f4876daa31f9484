"""The radius of the tube that a certificate is proved in."""

import itertools

import numpy as np
import pytest

import thalweg as tw
from thalweg.closeness import ClosedForm
from thalweg.closeness._certify import _Along, _best, _path_of, _Tube

from .test_certificates import distances, linear_problem

EPSILONS = [0.02, 0.3, 5.0]


@pytest.fixture(scope="module")
def path():
    """Three layers, whose curvature grows with the distance."""
    objective, network = linear_problem(widths=(3, 4, 4, 2), scale=0.8)
    flow = tw.integrate(
        tw.GradientFlow(), objective, network, save_at=np.linspace(0, 1, 11), rtol=1e-8
    )
    return objective, network, flow


def test_a_larger_epsilon_never_asks_for_a_shorter_step(path):
    objective, network, flow = path
    evidence = ClosedForm()
    found = [tw.certify(objective, flow, epsilon=e, evidence=evidence) for e in EPSILONS]
    for near, far in itertools.pairwise(found):
        assert far.step_size >= near.step_size / 1.05
    assert found[0].radius == EPSILONS[0]
    assert "in a tube of radius" not in str(found[0])
    # No tube as wide as that is of use.
    assert found[2].radius < 1
    assert found[2].epsilon == 5.0
    assert f"in a tube of radius {found[2].radius:.3g}" in str(found[2])
    # It does not leave the tube.
    steps = round(found[2].t1 / found[2].step_size)
    _, true, error = distances(objective, network, found[2].step_size, steps)
    assert np.max(true) <= found[2].radius + np.max(error)


def test_no_radius_allows_a_much_longer_step(path):
    objective, _, flow = path
    along = _Along(objective, _path_of(flow), ClosedForm())
    best = _best(along.tube, 5.0, 1.0)
    others = [along.tube(radius).step for radius in np.geomspace(5.0, 5e-3, 20)]
    assert best.step >= max(others) / 1.05
    assert others[0] < best.step / 2, "the widest tube is far from the best"


def test_a_promise_too_wide_for_any_bound_is_kept_in_a_narrower_tube(path):
    objective, _, flow = path
    wide = tw.certify(objective, flow, epsilon=1e150, evidence=ClosedForm())
    near = tw.certify(objective, flow, epsilon=5.0, evidence=ClosedForm())
    assert near.step_size / 1.05 <= wide.step_size <= near.step_size * 1.05
    assert wide.radius < 1


@pytest.mark.parametrize("peak", [1e-9, 0.011, 0.3, 0.8, 0.97, 3.0])
def test_the_search_finds_any_single_peak(peak):
    """The step r / (1 + (r / peak)^4), which is largest at 3^(-1/4) of the peak."""
    radii = []

    def tube(radius):
        radii.append(radius)
        return _Tube(radius, radius / (1 + (radius / peak) ** 4), 0.0, np.zeros(1), np.zeros(1))

    best = _best(tube, 1.0, 1e9)
    highest = min(1.0, 3**-0.25 * peak)
    assert best.step >= highest / (1 + (highest / peak) ** 4) / 1.03
    assert len(radii) == len(set(radii))
    assert max(radii) <= 1.0
    # Half of the radii, and seven around the best.
    assert len(radii) <= 9 - np.log2(min(peak, 1.0))


def test_bounds_that_are_not_finite_end_the_search():
    tubes = []

    def tube(radius):
        tubes.append(radius)
        return _Tube(radius, 0.0, 0.0, np.zeros(1), np.zeros(1))

    assert _best(tube, 1.0, 1.0).step == 0
    assert len(tubes) < 60


def test_the_longest_step_of_all_needs_one_tube():
    tubes = []

    def tube(radius):
        tubes.append(radius)
        return _Tube(radius, 2.0, 2.0, np.zeros(1), np.zeros(1))

    assert _best(tube, 1.0, 2.0).radius == 1.0
    assert len(tubes) == 1
