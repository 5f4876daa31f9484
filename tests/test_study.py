"""A study from its file to its store and report, and back from sudden death."""

import contextlib
import json
import os
import time
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr
import zarr
import zarr.storage._local

import thalweg as tw
from thalweg.study import StoreError, _checkpoints, resume, run_study
from thalweg.study._lock import Lock
from thalweg.study.build import build
from thalweg.study.declare import parse_spec
from thalweg.study.store import Store

from .studies import PAIR, TINY, assert_same_numbers, farthest, stored_numbers, write_spec


def test_the_store_is_plain_xarray(finished):
    tree = xr.open_datatree(finished / "study.zarr", engine="zarr", consolidated=False)
    assert tree.attrs["thalweg_format"] == 2
    assert tree.attrs["spec"] == TINY
    assert tree.attrs["dtype"] == "float64"
    assert set(json.loads(tree.attrs["versions"])) >= {"thalweg", "jax", "diffrax", "python"}
    flow, run = tree["flows/gradient_flow"], tree["optimizers/gradient_descent"]
    np.testing.assert_allclose(flow["time"], [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(run["step"], [0, 5, 10, 15, 20])
    assert flow.attrs["status_kind"] == "completed"
    layout = json.loads(tree.attrs["parameter_layout"])
    assert sum(int(np.prod(part["shape"])) for part in layout) == flow.sizes["parameter"]
    for group in ("flows/nesterov_flow", "comparisons/heavy_ball", "curvature/nesterov"):
        for name, variable in tree[group].data_vars.items():
            if name != "relative":
                assert np.all(np.isfinite(variable)), (group, name)
    tree.close()


def test_the_stored_numbers_are_those_of_the_library(finished):
    plan = build(parse_spec(TINY))
    tree = xr.open_datatree(finished / "study.zarr", engine="zarr", consolidated=False)
    times = np.linspace(0, 1, 5)
    flow = tw.integrate(tw.GradientFlow(), plan.objective, plan.params, save_at=times, rtol=1e-5)
    np.testing.assert_array_equal(tree["flows/gradient_flow/loss"], flow.loss)
    np.testing.assert_array_equal(tree["flows/gradient_flow/error"], flow.error)
    run = tw.descend(tw.GradientDescent(0.05), plan.objective, plan.params, 20, save_every=5)
    gap = tw.compare(run, flow)
    np.testing.assert_array_equal(tree["comparisons/gradient_descent/distance"], gap.distance)
    hessian = tw.extreme_eigenvalues(plan.objective, jax.tree.map(lambda x: x[-1], run.params))
    stored = tree["curvature/gradient_descent"].isel(time=-1)
    assert abs(stored["largest"] - hessian.value[0]) <= (
        stored["largest_residual"] + hessian.residual[0]
    )
    tree.close()


def test_predictions_and_certificates_are_those_of_the_library(finished):
    plan = build(parse_spec(TINY))
    tree = xr.open_datatree(finished / "study.zarr", engine="zarr", consolidated=False)
    times = np.linspace(0, 1, 5)
    for run in plan.runs:
        law = tw.predicted_distance(
            run.optimizer,
            plan.objective,
            plan.params,
            save_at=run.save_steps * run.optimizer.time_per_step,
            rtol=1e-5,
        )
        stored = tree[f"comparisons/{run.name}"]
        np.testing.assert_allclose(stored["predicted"], law.distance, rtol=1e-12)
        np.testing.assert_allclose(stored["predicted_error"], law.error, rtol=1e-12)
    descent = tw.descend(tw.GradientDescent(0.05), plan.objective, plan.params, 20)
    useful = farthest(descent, np.arange(0, 21, 5))
    found = tw.certify_run(plan.objective, descent, looks=8, useful=useful)
    stored = tree["certificates/gradient_descent"]
    np.testing.assert_allclose(stored["time"], times)
    np.testing.assert_allclose(stored["bound"], found.bound[::5], rtol=1e-12)
    assert stored.attrs["limit"] == found.limit
    assert not stored.attrs["proved"]
    assert "heavy_ball" not in tree["certificates"].children
    tree.close()


def test_verdict_of_a_calm_study(finished):
    sentences = json.loads(stored_numbers(finished)[2])
    text = " ".join(sentence["text"] for sentence in sentences)
    assert "Gradient descent with step 0.05" in text
    assert "stays within" in text or "leaves its flow" in text
    assert "sharpness × step" in text
    assert "the first-order law predicts a distance of" in text
    assert "The gradient flow itself is known to within" in text
    for sentence in sentences:
        assert sentence["numbers"]
        assert "nan" not in sentence["text"]


class SuddenDeath(BaseException):
    """Not an Exception: nothing may catch it and tidy up."""


def writes_of(monkeypatch, limit=None):
    """Count the files that zarr writes; die at the `limit`-th, before or amid it."""
    original, count = zarr.storage._local._put, [0]

    def put(*args, **kwargs):
        count[0] += 1
        if limit is not None and count[0] >= limit:
            raise SuddenDeath
        return original(*args, **kwargs)

    monkeypatch.setattr(zarr.storage._local, "_put", put)
    return count


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The directory of a finished study of every kind of stage, with few of each."""
    folder = tmp_path_factory.mktemp("pair")
    run_study(write_spec(folder, PAIR), folder / "out")
    return folder / "out"


@pytest.mark.parametrize(
    ("share", "deaths"), [(np.inf, 4), (0.0, 2)], ids=["every row", "the first"]
)
def test_death_at_any_write_loses_nothing(pair, tmp_path, monkeypatch, share, deaths):
    """With a checkpoint for every row, and with those of first rows alone."""
    monkeypatch.setattr(_checkpoints, "_SHARE", share)
    spec = write_spec(tmp_path, PAIR)
    with monkeypatch.context() as patch:
        count = writes_of(patch)
        run_study(spec, tmp_path / "whole")
        total = count[0]
    assert_same_numbers(pair, tmp_path / "whole")
    for n, limit in enumerate(np.linspace(2, total, deaths).astype(int)):
        out = tmp_path / f"cut-{n}"
        with monkeypatch.context() as patch:
            writes_of(patch, int(limit))
            with pytest.raises(SuddenDeath):
                run_study(spec, out)
        # Dead a second time, a little later, then brought to the end.
        with monkeypatch.context() as patch:
            writes_of(patch, 7)
            with contextlib.suppress(SuddenDeath):
                resume(out)
        resume(out)
        assert_same_numbers(pair, out)


def test_checkpoints_take_little_of_the_time(monkeypatch):
    """On a clock that rows and checkpoints move by a second and by ten."""
    now, written = [0.0], []

    def save(path, state, index):
        written.append(index)
        now[0] += 10

    store: Any = SimpleNamespace(save_checkpoint=save)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    checkpoints = _checkpoints.Checkpoints(store, "run")
    for index in range(1, 1001):
        now[0] += 1
        checkpoints.offer(None, index)
    # One in the beginning, then one whenever all of them were a twentieth of the time.
    assert written[:2] == [1, 190]
    assert 0.04 < 10 * len(written) / now[0] <= 0.05 + 10 / now[0]


def test_resuming_a_finished_study_changes_nothing(finished):
    before = stored_numbers(finished)[0]
    resume(finished)
    for path, values in stored_numbers(finished)[0].items():
        np.testing.assert_array_equal(values, before[path])


def test_results_are_not_overwritten(finished, tmp_path):
    with pytest.raises(StoreError, match="holds results already"):
        run_study(write_spec(tmp_path, TINY), finished)


def test_one_process_at_a_time(finished):
    message = f"process {os.getpid()} on .* is at work here since"
    with Lock(finished), pytest.raises(StoreError, match=message):
        resume(finished)
    assert not (finished / "running.lock").exists()


def test_a_diverging_run_is_reported(diverged):
    tree = xr.open_datatree(diverged / "study.zarr", engine="zarr", consolidated=False)
    assert tree["optimizers/too-large"].attrs["status_kind"] == "diverged"
    assert tree["optimizers/small"].attrs["status_kind"] == "completed"
    assert list(tree["certificates"].children) == ["small"]
    assert list(tree["flows"].children) == ["gradient_flow"]
    tree.close()
    text = (diverged / "report.html").read_text()
    assert "diverged at step" in text
    assert "<script>" not in text


def test_directories_that_do_not_do(tmp_path):
    with pytest.raises(StoreError, match=r"holds no study\.zarr"):
        resume(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        run_study(write_spec(tmp_path, TINY), tmp_path / "file" / "out")
    with pytest.raises(StoreError, match="MiB free"):
        Store.create(tmp_path / "large", {}, 10**18)
    assert not (tmp_path / "large" / "study.zarr").exists()


def test_a_disk_that_fills_up(pair, tmp_path, monkeypatch):
    spec = write_spec(tmp_path, PAIR)
    original, count = zarr.storage._local._put, [0]

    def put(*args, **kwargs):
        count[0] += 1
        if count[0] > 60:
            raise OSError(28, "No space left on device")
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(zarr.storage._local, "_put", put)
        with pytest.raises(StoreError, match=r"No space left on device.*thalweg resume .*out"):
            run_study(spec, tmp_path / "out")
    resume(tmp_path / "out")
    assert_same_numbers(pair, tmp_path / "out")


def test_float64_needs_its_mode(monkeypatch):
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(ValueError, match="64-bit mode"):
            build(parse_spec(TINY))
        build(parse_spec(TINY.replace("seed = 3", 'dtype = "float32"')))
    finally:
        jax.config.update("jax_enable_x64", True)
