"""What is said of certificates and of rates, and how good the news is called."""

import json

import numpy as np
import pytest

import thalweg as tw
from thalweg.study.results import read_results
from thalweg.study.stages.certificates import bounded
from thalweg.study.store import Store

TIMES = np.arange(5.0)
PROVED, SAMPLED = [["curvature", "closed form"]], [["curvature", "sampled"]]


@pytest.fixture
def said(tmp_path):
    """What is said of a bound beside distances of 0.002 to a flow that travels 1."""

    def of(bound, grounds=PROVED, distance=0.002, rows=5):
        identity = dict.fromkeys(("data_digest", "initial_parameters_digest"), "")
        attributes = {"spec": "", "folder": ".", "versions": "{}", **identity}
        store = Store.create(tmp_path / "out", attributes, 0)
        groups = {
            "optimizers/gd": ({}, {"label": "gradient descent", "step_size": 0.1}),
            "comparisons/gd": (
                {
                    "distance": np.r_[0, np.full(rows - 1, distance)],
                    "distance_error": np.full(rows, 1e-6),
                    "moved": np.linspace(0, 1, rows),
                },
                {},
            ),
            "certificates/gd": (
                {"bound": np.asarray(bound)},
                {"limit": "A limit.", "hypotheses": json.dumps(grounds)},
            ),
        }
        for path, (columns, more) in groups.items():
            times = TIMES[:rows] if path == "comparisons/gd" else TIMES
            store.allocate(path, {"time": times}, dict.fromkeys(columns, ()), "float64", more)
            store.write_columns(path, columns)
        results = read_results(store)
        parts = (results.of(stage)["gd"] for stage in ("optimizers", "certificates", "comparisons"))
        return bounded(*parts)

    return of


def test_a_bound_up_to_the_end_holds(said):
    sentence = said([0, 0.1, 0.2, 0.3, 0.4])
    assert sentence.level == "good"
    assert "up to t = 4.00, by 0.400 there (proved), where 0.00200 was measured." in sentence.text
    assert "After" not in sentence.text


def test_a_bound_that_was_sampled_is_a_note(said):
    sentence = said([0, 0.1, 0.2, 0.3, 0.4], PROVED + SAMPLED)
    assert sentence.level == "notice"
    assert "(sampled, so not proved)" in sentence.text


@pytest.mark.parametrize("later", [1.5, np.inf, np.nan])
def test_a_bound_that_ends_is_a_note(said, later):
    """However small the distances are."""
    sentence = said([0, 0.1, 0.479, later, later])
    assert sentence.level == "notice"
    assert "up to t = 2.00, by 0.479 there (proved), where 0.00200 was" in sentence.text
    assert "After that, the bound is more than the flow travels. A limit." in sentence.text
    assert sentence.numbers == {"bound": 0.479, "time": 2.0, "measured": 0.002}


def test_a_bound_that_never_says_anything_is_a_note(said):
    sentence = said([0, 3.0, np.inf, np.inf, np.inf])
    assert sentence.level == "notice"
    assert "its certificate says nothing" in sentence.text
    assert "more than the 1.00 that the flow travels" in sentence.text
    assert "After" not in sentence.text


def test_a_bound_below_what_was_measured_is_told(said):
    sentence = said([0, 0.1, 0.2, 0.3, 0.4], distance=0.15)
    assert sentence.level == "warning"
    assert "does not hold: more was measured" in sentence.text


def test_a_flow_that_ended_early_leaves_the_bound(said):
    sentence = said([0, 0.1, 0.2, 0.3, 0.4], rows=3)
    assert "by 0.400 there (proved)." in sentence.text


TIME = np.linspace(0, 100, 400)


@pytest.mark.parametrize(
    ("times", "loss", "judged", "says"),
    [
        (TIME[:10], np.exp(-TIME[:10]), False, "could not be judged: too few saved times"),
        (TIME, np.ones(400), False, "could not be judged: the loss fell by"),
        (TIME, np.exp(-TIME / 50) / (1 + TIME), False, "could not be judged: both laws fit"),
        (TIME, 1 / (1 + np.exp((TIME - 60) / 2)), True, "neither linear nor sublinear: the better"),
        (TIME, np.exp(-0.1 * TIME), True, "linear: loss"),
    ],
)
def test_only_what_was_judged_is_called_neither(times, loss, judged, says):
    found = tw.kernels._rate.rate_of(times, loss, 0.0, None)
    assert found.judged == judged
    assert str(found).startswith(says)


def test_a_study_with_few_times_does_not_judge_rates(finished):
    page = (finished / "report.html").read_text()
    assert "could not be judged: too few saved times" in page
    assert "neither linear" not in page
