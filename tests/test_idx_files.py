"""IDX files that are damaged, that lie about their size, or that hold more than they say."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from thalweg import datasets
from thalweg.datasets._idx_file import IdxFile

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def header(*shape, kind=8, dimensions=None):
    sizes = struct.pack(">" + "I" * len(shape), *shape)
    return bytes([0, 0, kind, dimensions or len(shape)]) + sizes


def idx_bytes(array):
    return header(*array.shape) + array.astype(np.uint8).tobytes()


RNG = np.random.default_rng(0)
PIXELS, CLASSES = RNG.integers(0, 256, (9, 5, 4)), RNG.integers(0, 10, 9)


@pytest.fixture
def write(tmp_path):
    """Write a folder of images and labels, given as arrays or as bytes."""

    def written(images=PIXELS, labels=CLASSES, *, compress=False):
        for name, content in ((IMAGES, images), (LABELS, labels)):
            data = content if isinstance(content, bytes) else idx_bytes(content)
            path = tmp_path / (name + ".gz" if compress else name)
            path.write_bytes(gzip.compress(data) if compress else data)
        return tmp_path

    return written


@pytest.fixture
def inflated(monkeypatch):
    """How many bytes were inflated."""
    total = [0]
    original = gzip._GzipReader.read  # pyright: ignore[reportAttributeAccessIssue]

    def read(self, size=-1):
        data = original(self, size)
        total[0] += len(data)
        return data

    monkeypatch.setattr(gzip._GzipReader, "read", read)  # pyright: ignore
    return total


def peak_of(function):
    """The most bytes that Python and NumPy held while it ran, and what it raised."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="idx") as caught:
            function()
        return tracemalloc.get_traced_memory()[1], str(caught.value)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_gzip_bomb_is_inflated_no_further_than_its_header_says(write, inflated, name):
    bomb = bytes(16 * 2**20)
    content = PIXELS if name == IMAGES else CLASSES
    folder = write(**{"images" if name == IMAGES else "labels": idx_bytes(content) + bomb})
    for plain in (IMAGES, LABELS):
        (folder / f"{plain}.gz").write_bytes(gzip.compress((folder / plain).read_bytes(), 9))
        (folder / plain).unlink()
    peak, message = peak_of(lambda: datasets.idx(folder))
    assert f"{name}.gz: goes on after the" in message
    # Four openings, each of which inflates a buffer's worth at most beyond what it needs.
    assert inflated[0] < 4 * 2**17
    assert peak < 2**20


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("shape", [(2**31, 2**31, 2**31), (2**32 - 1, 1, 1), (9, 2**32 - 1, 28)])
def test_a_header_that_lies_is_refused_before_anything_is_allocated(write, shape, compress):
    folder = write(header(*shape) + bytes(1000), compress=compress)
    peak, message = peak_of(lambda: datasets.idx(folder))
    assert IMAGES in message
    assert "cut short" in message
    assert str(shape) in message
    assert peak < 2**20


def test_only_what_is_taken_is_kept(tmp_path):
    """10 MB of images, of which two are taken, and labels that count the classes of all."""
    images = np.zeros((1000, 100, 100))
    images[999] = 7
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(idx_bytes(images), 1))
    (tmp_path / LABELS).write_bytes(idx_bytes(np.arange(1000) % 13))
    tracemalloc.start()
    try:
        data = datasets.idx(tmp_path, every=999, samples=2, normalise=None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20
    assert data.classes == 13
    np.testing.assert_array_equal(data.inputs, images[[0, 999]] / 255)


def test_selections_are_those_of_the_whole_file(write, monkeypatch):
    """Also where the file is read in pieces that the step does not divide."""
    folder = write(compress=True)
    for size in (1, 20, 60, 10**6):
        monkeypatch.setattr("thalweg.datasets._idx_file._PIECE", size)
        for every in (1, 2, 3, 4, 9, 10, 10**18):
            whole = PIXELS[:: min(every, 9)] / 255
            for samples in (1, len(whole)):
                data = datasets.idx(folder, every=every, samples=samples, normalise=None)
                np.testing.assert_array_equal(data.inputs, whole[:samples])
                np.testing.assert_array_equal(data.targets, CLASSES[:: min(every, 9)][:samples])


WHOLE = idx_bytes(PIXELS)
DAMAGE = [
    ({"images": WHOLE[:-1]}, IMAGES, "cut short: 195 bytes, but its header says 196"),
    ({"images": WHOLE[:9]}, IMAGES, "cut short"),
    ({"images": WHOLE + b"\0"}, IMAGES, "goes on after the 196 bytes"),
    ({"labels": idx_bytes(CLASSES)[:-1]}, LABELS, "cut short"),
    ({"labels": idx_bytes(CLASSES) + b"\0"}, LABELS, "goes on after the 17 bytes"),
    ({"images": b"\x89PNG" + WHOLE[4:]}, IMAGES, r"not an IDX file .*starts with b'\\x89PNG'"),
    ({"images": b""}, IMAGES, "not an IDX file .*is empty"),
    ({"images": header(9, 5, 4, kind=0x0D) + bytes(720)}, IMAGES, r"0x0d \(32-bit floats\)"),
    ({"images": header(9, 5, 4, kind=0x0C) + bytes(720)}, IMAGES, r"0x0c \(32-bit integers\)"),
    ({"images": header(9, 5, 4, kind=0x01) + bytes(180)}, IMAGES, r"0x01 \(unknown\)"),
    ({"images": idx_bytes(CLASSES)}, IMAGES, r"3 dimension\(s\): it has 1"),
    ({"images": idx_bytes(PIXELS[..., None])}, IMAGES, r"3 dimension\(s\): it has 4"),
    ({"labels": WHOLE}, LABELS, r"1 dimension\(s\): it has 3"),
    ({"images": header(9, 0, 4)}, IMAGES, "images of 0 x 4 pixels are empty"),
    ({"images": header(9, 5, 0)}, IMAGES, "images of 5 x 0 pixels are empty"),
    ({"images": header(9, 2**32 - 1, 0)}, IMAGES, "are empty"),
    ({"images": header(0, 5, 4), "labels": header(0)}, IMAGES, "holds no images"),
    ({"labels": idx_bytes(CLASSES[:7])}, LABELS, "9 images, but 7 labels"),
    ({"labels": header(0)}, LABELS, "9 images, but 0 labels"),
]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(("content", "name", "message"), DAMAGE)
def test_damage_is_told_with_the_file(write, content, name, message, compress):
    folder = write(**content, compress=compress)
    with pytest.raises(ValueError, match=message) as caught:
        datasets.idx(folder)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_cut_and_every_changed_byte_of_a_gzipped_file_is_told(write):
    """But for bytes of gzip's header that mean nothing, and then the images are the right ones."""
    path = write(compress=True) / f"{IMAGES}.gz"
    whole = path.read_bytes()

    def told(content):
        path.write_bytes(content)
        try:
            first = IdxFile.open(path, 3).rows(1, 1)
        except ValueError as error:
            return IMAGES in str(error)
        np.testing.assert_array_equal(first, PIXELS[:1])
        return False

    assert all(told(whole[:end]) for end in range(len(whole)))
    changed = [
        whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :]
        for place in range(len(whole))
    ]
    assert sum(map(told, changed)) > len(whole) - 10


def test_a_file_of_several_gzip_members(write):
    folder = write(compress=True)
    path = folder / f"{IMAGES}.gz"
    path.write_bytes(gzip.compress(WHOLE[:50]) + gzip.compress(WHOLE[50:]))
    np.testing.assert_array_equal(datasets.idx(folder, normalise=None).inputs, PIXELS / 255)
    path.write_bytes(gzip.compress(WHOLE) + b"more")
    with pytest.raises(ValueError, match="damaged gzip file"):
        datasets.idx(folder)
