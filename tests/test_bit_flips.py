"""One bit of a store is another: that is told with the file, or changes nothing that is shown.

`benchmarks/bit_flips.py` does the same many times, and with interrupted studies.
"""

import contextlib
import random
import shutil

import numpy as np
import pytest
import xarray as xr

from thalweg.study import StoreError
from thalweg.study.report._render import render
from thalweg.study.results import read_results
from thalweg.study.store import Store

ATTRIBUTES = {
    "spec": "é", "folder": ".", "versions": "{}", "data_digest": "", "rtol": 1e-5, "flag": True,
    "initial_parameters_digest": "", "steps": 1000, "nothing": None, "status": float("nan"),
}  # fmt: skip


@contextlib.contextmanager
def flipped(file, place):
    """One bit of a file, and back again."""
    before = file.read_bytes()
    data = bytearray(before)
    data[place // 8] ^= 1 << place % 8
    file.write_bytes(data)
    yield
    file.write_bytes(before)


def shown(directory):
    """Everything that is in a store, as text."""
    store = Store.open(directory)
    parts = [(path, store.attributes_of(path), store.columns(path)) for path in store.groups()]
    read = [(p, n, store.read(p, n).tolist()) for p, _, names in parts for n in names]
    return repr((store.attributes, parts, read))


def reported(directory):
    return render(read_results(Store.open(directory)))


def damage(read, directory, expected):
    """What is said of it; `None` where all is read as expected."""
    try:
        found = read(directory)
    except StoreError as error:
        return str(error)
    assert found == expected
    return None


@pytest.mark.parametrize("file", ["zarr.json", "a/zarr.json", "a/b/zarr.json", "a/b/x/zarr.json"])
def test_bits_of_metadata(tmp_path, file):
    store = Store.create(tmp_path / "out", ATTRIBUTES, 0)
    values = np.linspace(0, 1, 4)
    store.allocate("a/b", {"time": values}, {"x": (("place", 2),)}, "float64", {"label": "x"})
    store.write_columns("a/b", {"x": np.outer(values, [1, 2])})
    expected, path = shown(tmp_path / "out"), tmp_path / "out" / "study.zarr" / file
    told, places = 0, range(0, 8 * path.stat().st_size, 41)
    for place in places:
        with flipped(path, place):
            message = damage(shown, tmp_path / "out", expected)
        said = f"damaged: study.zarr/{file} "
        assert said in (message or said)
        told += message is not None
    assert told > 0.8 * len(places)


def test_bits_of_rows(tmp_path):
    """Whole rows of numbers, and files that are cut short."""
    store = Store.create(tmp_path / "out", ATTRIBUTES, 0)
    values = np.linspace(0, 1, 4)
    store.allocate("a", {"time": values}, {"x": (("place", 100),)}, "float64", {"rows": 4})
    store.write_columns("a", {"x": np.outer(values, np.arange(100))})
    for file in ("time/c/0", "x/c/0/0", "x/c/3/0"):
        path = tmp_path / "out" / "study.zarr" / "a" / file
        message = rf"damaged: study.zarr/a/{file} does not agree with its checksum\.$"
        for place in range(0, 8 * path.stat().st_size, 23):
            with flipped(path, place), pytest.raises(StoreError, match=message):
                shown(tmp_path / "out")
        whole = path.read_bytes()
        for length in range(0, len(whole), 9):
            path.write_bytes(whole[:length])
            with pytest.raises(StoreError, match=message):
                shown(tmp_path / "out")
        path.write_bytes(whole)
    root = tmp_path / "out" / "study.zarr"
    with (
        flipped(root / "a" / "time" / "c" / "0", 40),
        pytest.raises(Exception, match="checksum"),
    ):
        xr.open_dataset(root, group="a", engine="zarr", consolidated=False).load()


def test_bits_of_a_study(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    expected, rng = reported(tmp_path / "copy"), random.Random(1)
    root = tmp_path / "copy" / "study.zarr"
    files = [file for file in sorted(root.rglob("*")) if file.is_file()]
    told = 0
    for file in rng.sample(files, 16):
        with flipped(file, rng.randrange(8 * file.stat().st_size)):
            message = damage(reported, tmp_path / "copy", expected)
        name = str(file.relative_to(root))
        assert name in (message or name)
        told += message is not None
    assert told >= 5
