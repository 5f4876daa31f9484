"""Runs that are gone on with after rows, room or a whole file were lost."""

import contextlib
import errno
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr.storage._local

import thalweg as tw
from thalweg.flows import Integration
from thalweg.optimizers import Descent
from thalweg.study import StoreError, _checkpoints
from thalweg.study.progress import Silent
from thalweg.study.report._page import written
from thalweg.study.resumable import carry_out_run
from thalweg.study.store import Store

ROWS, PATH = 6, "optimizers/run"
IDENTITY = {
    "spec": "", "folder": ".", "versions": "{}", "data_digest": "", "initial_parameters_digest": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def run():
    """Gradient descent on 1000 parameters, so that every row of them is a file of its own."""
    inputs = jax.random.normal(jax.random.key(0), (3, 1000))
    objective = tw.Objective(
        lambda w, x: x @ w[:, None], tw.losses.squared_error, inputs, jnp.ones((3, 1))
    )
    start = jax.random.normal(jax.random.key(1), (1000,))
    return Descent(tw.GradientDescent(1e-4), objective, start, save_steps=np.arange(ROWS) * 2)


class Interrupted(BaseException):
    """Not an Exception: nothing may catch it and tidy up."""


class Until(Silent):
    """Progress that ends after so many rows."""

    def __init__(self, rows):
        self._rows = rows

    @contextlib.contextmanager
    def stage(self, title, total, of=""):
        yield self

    def at(self, done):
        if done == self._rows:
            raise Interrupted


def begun(folder, run, rows=None):
    """A store in which a run has so many rows."""
    store = Store.create(folder, IDENTITY, 0)
    with contextlib.suppress(Interrupted):
        carry_out_run(store, Until(rows), PATH, "run", run, {})
    return Store.open(folder)


def gone_on_with(folder, run):
    store = Store.open(folder)
    carry_out_run(store, Silent(), PATH, "run", run, {})
    return store


def same(a, b):
    assert a.attributes_of(PATH) == b.attributes_of(PATH)
    for name in a.columns(PATH):
        np.testing.assert_array_equal(a.read(PATH, name), b.read(PATH, name))


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    return begun(tmp_path_factory.mktemp("whole") / "out", run)


def lose(file):
    file.unlink()


def tear(file):
    file.write_bytes(file.read_bytes()[:20])


@pytest.fixture
def one_checkpoint(monkeypatch):
    """After the first row, and no other."""
    monkeypatch.setattr(_checkpoints, "_SHARE", 0.0)


@pytest.mark.parametrize("damage", [lose, tear])
@pytest.mark.parametrize("row", [1, 3])
def test_rows_after_the_last_checkpoint_are_computed_again(
    tmp_path, run, whole, one_checkpoint, damage, row
):
    begun(tmp_path / "out", run, rows=4)
    damage(tmp_path / "out" / "study.zarr" / PATH / "params" / "c" / str(row) / "0")
    same(gone_on_with(tmp_path / "out", run), whole)


@pytest.mark.parametrize(
    ("damage", "file", "message"),
    [
        (lose, "params/c/0/0", "is missing, but was written"),
        (lose, "loss/c/0", "is missing, but was written"),
        (tear, "loss/c/0", "does not agree with its checksum"),
    ],
)
def test_rows_before_the_last_checkpoint_are_missed(
    tmp_path, run, one_checkpoint, damage, file, message
):
    begun(tmp_path / "out", run, rows=4)
    damage(tmp_path / "out" / "study.zarr" / PATH / file)
    with pytest.raises(StoreError, match=f"damaged: study.zarr/{PATH}/{file} {message}"):
        gone_on_with(tmp_path / "out", run)


@pytest.mark.parametrize(
    ("damage", "file"), [(tear, "loss/c/0"), (lose, "params/c/0/0"), (tear, "time/c/0")]
)
def test_without_a_checkpoint_all_begins_again(tmp_path, run, whole, monkeypatch, damage, file):
    with monkeypatch.context() as patch:
        patch.setattr(Store, "save_checkpoint", lambda *_: None)
        begun(tmp_path / "out", run, rows=1)
    damage(tmp_path / "out" / "study.zarr" / PATH / file)
    same(gone_on_with(tmp_path / "out", run), whole)


@pytest.mark.parametrize(
    ("number", "count"), [(errno.ENOSPC, 2), (errno.EFBIG, 9), (errno.EDQUOT, 30)]
)
def test_what_cannot_be_written_is_told(tmp_path, run, whole, monkeypatch, count, number):
    original, writes = zarr.storage._local._put, [0]

    def put(*args, **kwargs):
        writes[0] += 1
        if writes[0] > count:
            raise OSError(number, os.strerror(number))
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        store = Store.create(tmp_path / "out", IDENTITY, 0)
        patch.setattr(zarr.storage._local, "_put", put)
        with pytest.raises(StoreError, match=f"{os.strerror(number)}.*go on with `thalweg resume"):
            carry_out_run(store, Silent(), PATH, "run", run, {})
    same(gone_on_with(tmp_path / "out", run), whole)


def test_a_limit_on_the_size_of_files(tmp_path, run, whole):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = Store.create(tmp_path / "out", IDENTITY, 0)
    # Metadata are smaller, rows of 1000 numbers larger.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(
            StoreError, match=f"params cannot be written .{os.strerror(errno.EFBIG)}"
        ):
            carry_out_run(store, Silent(), PATH, "run", run, {})
        with pytest.raises(StoreError, match="ask for the report again"):
            written("x" * 5000, tmp_path / "report.html")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    same(gone_on_with(tmp_path / "out", run), whole)


def test_rows_without_a_number_are_written(tmp_path, run):
    """Those of a run that diverged, in a store that was opened again."""
    store = begun(tmp_path / "out", run, rows=2)
    store.write_row(PATH, 2, {"params": np.full(1000, np.nan)})
    store.check(PATH, 3)
    assert np.isnan(store.read(PATH, "params")[2]).all()


def test_no_room_for_a_new_store(tmp_path, monkeypatch):
    def put(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(zarr.storage._local, "_put", put)
        with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\)"):
            Store.create(tmp_path / "out", IDENTITY, 0)
    assert not list((tmp_path / "out").iterdir())
    Store.create(tmp_path / "out", IDENTITY, 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["flow", "run"])
def test_what_is_kept_is_what_is_stored(tmp_path, dtype, kind):
    """To the bit and the dtype: a stage that is resumed reads what another one had in memory."""
    objective = tw.FunctionObjective(lambda p: jnp.sum(p**2 + p**4))
    start = jnp.linspace(0.1, 1, 5, dtype=dtype)
    if kind == "flow":
        run = Integration(tw.GradientFlow(), objective, start, save_at=np.array([0.0, 0.1, 0.3]))
    else:
        steps = np.arange(3)
        run = Descent(tw.GradientDescent(0.01), objective, start, save_steps=steps)
    store = Store.create(tmp_path / "out", IDENTITY, 0)
    kept = carry_out_run(store, Silent(), PATH, "run", run, {}, keep=True)
    assert kept is not None
    assert set(kept) == set(store.columns(PATH))
    for name, values in kept.items():
        stored = store.read(PATH, name)
        assert values.dtype == stored.dtype, name
        np.testing.assert_array_equal(values, stored, err_msg=name)
