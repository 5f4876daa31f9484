"""Data against what is in the files."""

import gzip
import struct
from http.client import IncompleteRead
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.sparse

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


def test_constant_features_become_zero():
    # The mean of equal numbers is not exactly that number, and the deviation then not exactly 0.
    background = (0 - 0.1307) / 0.3081
    inputs = np.stack([np.full(1000, background), np.arange(1000.0)], axis=1)
    assert inputs[:, 0].std() > 0
    data = tw.datasets.Dataset(jnp.asarray(inputs), jnp.zeros((1000, 1)), "background")
    standard = np.asarray(data.standardised().inputs)
    np.testing.assert_array_equal(standard[:, 0], 0)
    expected = (inputs[:, 1] - 499.5) / inputs[:, 1].std()
    np.testing.assert_allclose(standard[:, 1], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("targets", "classes", "message"),
    [
        (np.zeros(4), None, r"targets: expected shape \(samples, outputs\)"),
        (np.zeros((3, 1)), None, r"targets: .*got \(3, 1\)"),
        (np.zeros((4, 1), int), 2, r"targets: expected shape \(samples,\)"),
        (np.array([0, 1, 2, 1]), 2, r"labels run from 0 to 2, .* 2 classes"),
        (np.array([0, 1, -1, 1]), 2, r"labels run from -1 to 1"),
    ],
)
def test_datasets_that_do_not_fit(targets, classes, message):
    with pytest.raises(ValueError, match=message):
        tw.datasets.Dataset(jnp.ones((4, 2)), jnp.asarray(targets), "mine", classes)


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
    for wrong in ((0.0, 0.0), (np.nan, 1.0), (0.1,), 0.5):
        with pytest.raises(ValueError, match="normalise"):
            tw.datasets.idx(path, normalise=wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="split"):
        tw.datasets.idx(path, split="validation")  # pyright: ignore[reportArgumentType]
    with pytest.raises(FileNotFoundError, match="t10k-images"):
        tw.datasets.idx(path, split="test")
    with pytest.raises(FileNotFoundError, match="folder"):
        tw.datasets.idx(path / "nowhere")


def test_damaged_idx_files(folder):
    path, images, labels = folder
    name = path / "train-images-idx3-ubyte"
    write(name, images, cut=3)
    with pytest.raises(ValueError, match="cut short"):
        tw.datasets.idx(path)
    # A picture, the magic number of a file of labels, one of 32-bit integers, and an empty file.
    for magic in (b"GIF8", b"\0\0\x08\x01", b"\0\0\x0c\x03"):
        write(name, images, magic=magic)
        with pytest.raises(ValueError, match="not an IDX file"):
            tw.datasets.idx(path)
    name.write_bytes(b"")
    with pytest.raises(ValueError, match="not an IDX file"):
        tw.datasets.idx(path)
    header = struct.pack(">BBBBIII", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 28)
    name.write_bytes(header + bytes(28))
    with pytest.raises(ValueError, match="cut short"):
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


def test_idx_test_split_and_more_than_ten_classes(tmp_path):
    images, labels = np.zeros((4, 2, 2)), np.array([3, 1, 26, 0])
    write(tmp_path / "t10k-images.idx3-ubyte.gz", images, opener=gzip.open)
    write(tmp_path / "t10k-labels-idx1-ubyte", labels)
    data = tw.datasets.idx(tmp_path, split="test", every=3, normalise=None)
    np.testing.assert_array_equal(data.targets, [3, 0])
    assert data.classes == 27, "the classes of the file, whatever was selected"


@pytest.mark.skipif(not SHARED.is_dir(), reason="real MNIST files are not beside the repository")
@pytest.mark.parametrize(("name", "count"), [("mnist-first-600", 600), ("mnist-every-50th", 1000)])
def test_real_digits(name, count):
    data = tw.datasets.idx(SHARED / name)
    assert data.inputs.shape == (count, 28, 28)
    assert sorted(set(np.asarray(data.targets).tolist())) == list(range(10))
    assert abs(float(data.inputs.mean())) < 0.05
    assert float(data.inputs.std()) == pytest.approx(1, abs=0.05)


@pytest.fixture
def openml(monkeypatch):
    """Stands in for the site: `openml(data, target)` is what it answers."""
    import sklearn.datasets

    def answer(data=None, target=None, error=None):
        def fetch(name, version, as_frame):
            if error is not None:
                raise error
            return {"data": data, "target": target}

        monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)

    return answer


def test_openml_classes_and_numbers(openml):
    pixels = np.arange(6).reshape(3, 2)
    openml(pixels, np.array(["b", "a", "b"], dtype=object))
    data = tw.datasets.openml("letters", samples=2)
    np.testing.assert_array_equal(data.targets, [1, 0])
    np.testing.assert_array_equal(data.inputs, pixels[:2])
    assert data.inputs.dtype == jnp.float64
    assert data.classes == 2
    openml(scipy.sparse.csr_matrix(pixels), np.array([0.5, 1.5, 2.5]))
    data = tw.datasets.openml("prices")
    np.testing.assert_array_equal(data.inputs, pixels)
    np.testing.assert_array_equal(data.targets, [[0.5], [1.5], [2.5]])
    assert data.classes is None


@pytest.mark.parametrize("error", [OSError("no route to host"), IncompleteRead(b"")])
def test_openml_offline(openml, error):
    openml(error=error)
    with pytest.raises(ConnectionError, match=r"'mnist_784'.*digits"):
        tw.datasets.openml("mnist_784")


@pytest.mark.parametrize(
    ("data", "target", "message"),
    [
        (np.array([["x"]]), np.array([0.5]), "not numbers"),
        (np.array([[np.nan]]), np.array([0.5]), "missing"),
        (np.array([[1.0]]), None, "no single target"),
        (np.array([[1.0]]), np.array([[0.5, 1.0]]), "no single target"),
    ],
)
def test_openml_data_that_do_not_serve(openml, data, target, message):
    openml(data, target)
    with pytest.raises(ValueError, match=f"'odd'.*{message}"):
        tw.datasets.openml("odd")


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
    for field in ("samples", "features", "hidden", "outputs"):
        sizes = {"samples": 4, "features": 3, "hidden": 2, "outputs": 1, field: 0}
        with pytest.raises(ValueError, match=field):
            tw.datasets.gaussian_teacher(**sizes, key=jr.key(0))  # pyright: ignore


def test_gaussian_teacher_is_a_network():
    """Targets follow from the teacher alone: no noise, and a teacher of one's own."""
    teacher = tw.networks.fully_connected([3, 4, 2], activation="erf", key=jr.key(7))
    data = tw.datasets.gaussian_teacher(5, 3, teacher=teacher, key=jr.key(0))
    expected = tw.networks.apply(teacher, data.inputs)
    np.testing.assert_allclose(data.targets, expected, rtol=1e-12)
    default = tw.datasets.gaussian_teacher(500, 3, hidden=1, activation="relu", key=jr.key(0))
    # One ReLU unit: zero on half of the space, one linear function on the other half.
    active = np.asarray(default.targets[:, 0]) != 0
    assert 0.4 < active.mean() < 0.6
    residual = np.linalg.lstsq(default.inputs[active], default.targets[active])[1]
    assert residual.sum() < 1e-20
