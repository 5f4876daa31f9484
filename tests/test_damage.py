"""Damaged, incomplete and foreign stores; data that are not those a study began with."""

import json
import shutil

import numpy as np
import pytest
import zarr

import thalweg as tw
from thalweg.study import SpecError, StoreError, load_spec, parse_spec, resume
from thalweg.study.build import build
from thalweg.study.report import write_report
from thalweg.study.run import run_study
from thalweg.study.store import Store

from .studies import PLAIN, TINY, rewrite_attributes, write_idx, write_spec


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "zarr.json").write_text("{"), "damaged"),
        (lambda path: (path / "zarr.json").unlink(), "damaged"),
        (lambda path: zarr.create_group(path, overwrite=True), "not written by thalweg"),
        (lambda path: rewrite_attributes(path, thalweg_format=99), "format 99"),
        (lambda path: rewrite_attributes(path, "spec"), "'spec' is missing"),
        (lambda path: zarr.open_group(path).attrs.put({"thalweg_format": 1}), "format 1, of which"),
        (
            lambda path: zarr.open_group(path).attrs.put({"thalweg_format": 2}),
            "damaged: study.zarr/zarr.json",
        ),
    ],
)
def test_damaged_stores(tmp_path, damage, message):
    attributes = {
        "spec": TINY, "folder": ".", "versions": "{}",
        "data_digest": "", "initial_parameters_digest": "",
    }  # fmt: skip
    Store.create(tmp_path / "out", attributes, 0)
    damage(tmp_path / "out" / "study.zarr")
    with pytest.raises(StoreError, match=message):
        Store.open(tmp_path / "out")


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of a finished study, to damage."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def chunks(directory, path):
    """The files of an array's chunks."""
    return [p for p in (directory / "study.zarr" / path / "c").rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    "array",
    [
        "flows/gradient_flow/params",
        "flows/gradient_flow/error",
        "optimizers/heavy_ball/loss",
        "optimizers/heavy_ball/time",
        "curvature/nesterov/largest",
        "comparisons/nesterov/distance",
        "laws/gradient_descent/params",
    ],
)
@pytest.mark.parametrize("gone", [True, False])
def test_rows_that_are_gone_or_damaged_are_told(copy, array, gone):
    """In a finished study too, where nobody else would read them."""
    file = chunks(copy, array)[0]
    if gone:
        file.unlink()
    else:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    fault = "is missing, but was written" if gone else "does not agree with its checksum"
    message = rf"damaged: {file.relative_to(copy)} {fault}\.$"
    for command in (resume, write_report):
        with pytest.raises(StoreError, match=message):
            command(copy)


@pytest.mark.parametrize("group", ["flows/gradient_flow", "optimizers/nesterov", "curvature"])
def test_groups_that_are_gone_are_missed(copy, group):
    shutil.rmtree(copy / "study.zarr" / group)
    with pytest.raises(StoreError, match=r"damaged: .*/zarr.json is missing, but was written"):
        resume(copy)


def test_files_cut_short_by_a_sudden_death_are_swept(copy):
    left = [copy / "study.zarr" / group / "x.1.partial" for group in ("", "flows", "curvature")]
    for path in left:
        path.write_bytes(b"torn")
    write_report(copy)
    assert all(path.exists() for path in left), "they may be a running process's"
    resume(copy)
    assert not any(path.exists() for path in left)


def unfinish(directory, path):
    """Let a stage look as if it had been interrupted after its last saved time."""
    root = zarr.open_group(directory / "study.zarr", mode="r+")
    rewrite_attributes(directory / "study.zarr" / path, "complete")
    checkpoint = root[f"checkpoints/{path}"]
    assert isinstance(checkpoint, zarr.Group)
    return checkpoint


def test_a_checkpoint_with_other_bytes_is_refused(copy):
    checkpoint = unfinish(copy, "flows/gradient_flow")
    slot = checkpoint[f"slot{checkpoint.attrs['slot']}"]
    assert isinstance(slot, zarr.Array)
    slot[:] = np.zeros(slot.shape, np.uint8)
    with pytest.raises(StoreError, match=r"damaged: the checkpoint of flows/gradient_flow .*slot"):
        resume(copy)


@pytest.mark.parametrize("attribute", ["index", "sha256", "signature"])
def test_a_checkpoint_without_an_attribute_is_refused(copy, attribute):
    unfinish(copy, "optimizers/heavy_ball")
    rewrite_attributes(copy / "study.zarr" / "checkpoints" / "optimizers" / "heavy_ball", attribute)
    with pytest.raises(StoreError, match=f"damaged: .*has no attribute '{attribute}'"):
        resume(copy)


@pytest.mark.parametrize("attribute", ["verdict", "versions"])
def test_attributes_that_are_no_json(copy, attribute):
    rewrite_attributes(copy / "study.zarr", **{attribute: "{"})
    with pytest.raises(StoreError, match=f"damaged: the attribute '{attribute}'"):
        write_report(copy)


IDX = PLAIN.replace('kind = "digits"', 'kind = "idx"\nfolder = "images"')


def test_a_folder_is_looked_for_beside_the_study(tmp_path, monkeypatch):
    write_idx(tmp_path / "images", seed=0)
    path = write_spec(tmp_path, IDX)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    plan = build(load_spec(path))
    expected = tw.datasets.idx(tmp_path / "images")
    np.testing.assert_array_equal(plan.objective.inputs, expected.inputs)


def test_other_data_are_not_gone_on_with(tmp_path, monkeypatch):
    write_idx(tmp_path / "images", seed=0)
    run_study(write_spec(tmp_path, IDX), tmp_path / "out")
    monkeypatch.chdir("/")
    resume(tmp_path / "out")
    write_idx(tmp_path / "images", seed=1)
    with pytest.raises(StoreError, match="the data are not those that the study began with"):
        resume(tmp_path / "out")
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(SpecError, match=r"data\.folder: there is no folder .*images"):
        resume(tmp_path / "out")


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('kind = "digits"', 'kind = "idx"\nfolder = "none"', 7, r"data\.folder: there is no"),
        ('kind = "digits"', 'kind = "idx"\nfolder = "file"', 7, r"data\.folder: .*is a file"),
        ("samples = 20", "samples = 2000", 7, r"data\.samples: 2000 asked for"),
        ('kind = "fully_connected"\nwidths = [3]', 'kind = "convolutional_strided"', 9, "network"),
        ("[flow]", "[curvature]\nlargest = 50\n[flow]", None, None),
    ],
)
def test_mistakes_that_only_the_data_show(tmp_path, old, new, line, message):
    (tmp_path / "file").write_text("")
    assert old in TINY
    path = write_spec(tmp_path, TINY.replace(old, new))
    if message is None:
        build(load_spec(path))
        return
    with pytest.raises(SpecError, match=message) as caught:
        build(load_spec(path))
    assert caught.value.line == line
    assert str(path) in str(caught.value)


def test_tolerances_suit_the_precision():
    bare = TINY.replace("rtol = 1e-5\n", "")
    assert parse_spec(bare).spec.rtol == 1e-7
    single = bare.replace("seed = 3", 'dtype = "float32"')
    assert parse_spec(single).spec.rtol == 1e-5


def test_the_verdict_is_plain_json(finished):
    sentences = json.loads(Store.open(finished).attributes["verdict"])
    assert all({"text", "level", "numbers", "topic", "short", "run"} <= set(s) for s in sentences)
