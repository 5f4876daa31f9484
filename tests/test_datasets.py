"""Data against what is in the files."""

import gzip
import struct
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import thalweg as tw

SHARED = Path(__file__).parents[2] / "shared" / "data"


def test_digits():
    data = tw.datasets.digits()
    assert data.inputs.shape == (1797, 64)
    assert data.inputs.dtype == jnp.float64
    assert float(data.inputs.min()) == 0
    assert float(data.inputs.max()) == 1
    assert data.outputs == 10
    few = tw.datasets.digits(7)
    np.testing.assert_array_equal(few.inputs, data.inputs[:7])
    rows = few.one_hot()
    np.testing.assert_array_equal(jnp.argmax(rows.targets, axis=1), few.targets)
    assert rows.classes is None
    assert rows.outputs == 10
    standard = data.standardised()
    spread = np.asarray(standard.inputs.std(axis=0))
    assert np.all(np.isclose(spread, 1) | (spread == 0))
    assert np.abs(standard.inputs.mean(axis=0)).max() < 1e-12
    for wrong in (0, -3, 2.5, 5000):
        with pytest.raises(ValueError, match="samples"):
            tw.datasets.digits(wrong)  # pyright: ignore[reportArgumentType]


def write(path, array, magic=None, cut=0, opener=open):
    header = magic or struct.pack(">BBBB", 0, 0, 8, array.ndim)
    header += struct.pack(">" + "I" * array.ndim, *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    with opener(path, "wb") as file:
        file.write(data[: len(data) - cut])


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (9, 5, 4)), rng.integers(0, 10, 9)
    write(tmp_path / "train-images-idx3-ubyte", images)
    write(tmp_path / "train-labels-idx1-ubyte.gz", labels, opener=gzip.open)
    return tmp_path, images, labels


def test_idx(folder):
    path, images, labels = folder
    data = tw.datasets.idx(path, normalise=None)
    np.testing.assert_allclose(data.inputs, images / 255)
    np.testing.assert_array_equal(data.targets, labels)
    data = tw.datasets.idx(path, every=4, samples=2)
    np.testing.assert_allclose(data.inputs, (images[[0, 4]] / 255 - 0.1307) / 0.3081)
    np.testing.assert_array_equal(data.targets, labels[[0, 4]])
    with pytest.raises(ValueError, match="samples"):
        tw.datasets.idx(path, every=4, samples=4)
    with pytest.raises(ValueError, match="every"):
        tw.datasets.idx(path, every=0)
    with pytest.raises(ValueError, match="normalise"):
        tw.datasets.idx(path, normalise=(0.0, 0.0))
    with pytest.raises(ValueError, match="split"):
        tw.datasets.idx(path, split="validation")  # pyright: ignore[reportArgumentType]
    with pytest.raises(FileNotFoundError, match="t10k-images"):
        tw.datasets.idx(path, split="test")
    with pytest.raises(FileNotFoundError, match="folder"):
        tw.datasets.idx(path / "nowhere")


def test_damaged_idx_files(folder):
    path, images, labels = folder
    name = path / "train-images-idx3-ubyte"
    for damage, message in (
        ({"cut": 3}, "cut short"),
        ({"magic": b"GIF8"}, "not an IDX file"),
    ):
        write(name, images, **damage)
        with pytest.raises(ValueError, match=message):
            tw.datasets.idx(path)
    write(name, images[:5])
    with pytest.raises(ValueError, match="5 images, but 9 labels"):
        tw.datasets.idx(path)
    write(name, images)
    (path / "train-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8b no")
    with pytest.raises(ValueError, match="gzip"):
        tw.datasets.idx(path)
    write(path / "train-labels-idx1-ubyte.gz", labels[:0], opener=gzip.open)
    write(name, images[:0])
    with pytest.raises(ValueError, match="no images"):
        tw.datasets.idx(path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="real MNIST files are not beside the repository")
@pytest.mark.parametrize(("name", "count"), [("mnist-first-600", 600), ("mnist-every-50th", 1000)])
def test_real_digits(name, count):
    data = tw.datasets.idx(SHARED / name)
    assert data.inputs.shape == (count, 28, 28)
    assert sorted(set(np.asarray(data.targets).tolist())) == list(range(10))
    assert abs(float(data.inputs.mean())) < 0.05
    assert float(data.inputs.std()) == pytest.approx(1, abs=0.05)


def test_openml(monkeypatch):
    import sklearn.datasets

    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", offline)
    with pytest.raises(ConnectionError, match="cannot be reached"):
        tw.datasets.openml("mnist_784")

    def online(name, version, as_frame):
        return {"data": np.arange(6).reshape(3, 2), "target": np.array(["b", "a", "b"])}

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", online)
    data = tw.datasets.openml("letters", samples=2)
    np.testing.assert_array_equal(data.targets, [1, 0])
    assert data.classes == 2

    def words(name, version, as_frame):
        return {"data": np.array([["x"]]), "target": np.array([0.5])}

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", words)
    with pytest.raises(ValueError, match="not numbers"):
        tw.datasets.openml("words")


def test_gaussian_teacher():
    data = tw.datasets.gaussian_teacher(20_000, 5, hidden=3, outputs=2, key=jr.key(0))
    assert data.targets.shape == (20_000, 2)
    assert np.abs(np.cov(data.inputs.T) - np.eye(5)).max() < 0.05
    again = tw.datasets.gaussian_teacher(20_000, 5, hidden=3, outputs=2, noise=0.5, key=jr.key(0))
    np.testing.assert_array_equal(again.inputs, data.inputs)
    assert float((again.targets - data.targets).std()) == pytest.approx(0.5, rel=0.02)
    own = tw.datasets.gaussian_teacher(4, 2, teacher=lambda x: x[0] - x[1], key=jr.key(1))
    np.testing.assert_allclose(own.targets[:, 0], own.inputs[:, 0] - own.inputs[:, 1])
    with pytest.raises(ValueError, match="noise"):
        tw.datasets.gaussian_teacher(4, 2, noise=-1.0, key=jr.key(0))
    with pytest.raises(ValueError, match="features"):
        tw.datasets.gaussian_teacher(4, 0, key=jr.key(0))
