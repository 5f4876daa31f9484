"""Folders of files in the IDX format of MNIST."""

import gzip
import math
import zlib
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np

from .._checks import check_positive_integer
from ._dataset import Dataset, check_count

_PREFIX = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTE = 0x08


def idx(
    folder: str | Path,
    *,
    samples: int | None = None,
    every: int = 1,
    split: Literal["train", "test"] = "train",
    normalise: tuple[float, float] | None = (0.1307, 0.3081),
) -> Dataset:
    """Images and labels from a folder of IDX files: MNIST, Fashion-MNIST and their relatives.

    **Arguments:**

    - `folder`: holds `train-images-idx3-ubyte` and `train-labels-idx1-ubyte` (for the test split,
        `t10k-...`), plain or gzipped.
    - `samples`, `every`: take images 0, every, 2 every, ..., and of those the first `samples`.
    - `normalise`: mean and standard deviation that are taken off the pixels scaled to [0, 1];
        MNIST's by default. `None` leaves them in [0, 1].

    **Returns:** inputs of shape `(samples, height, width)`, labels of shape `(samples,)`.

    **Raises:** FileNotFoundError for a missing file; ValueError for one that is not in the IDX
    format, cut short, or does not fit the other, and for a selection that is empty.
    """
    if split not in _PREFIX:
        raise ValueError(f"split: expected 'train' or 'test', got {split!r}.")
    check_positive_integer(every, "every")
    mean, deviation = _checked_normalisation(normalise)
    folder = Path(folder)
    images = _read(_find(folder, f"{_PREFIX[split]}-images-idx3-ubyte"), dimensions=3)
    labels = _read(_find(folder, f"{_PREFIX[split]}-labels-idx1-ubyte"), dimensions=1)
    if len(images) != len(labels):
        raise ValueError(f"{folder}: {len(images)} images, but {len(labels)} labels.")
    if len(images) == 0:
        raise ValueError(f"{folder}: the files hold no images.")
    # Counted before the selection, so that the network's outputs do not depend on it. At least 10,
    # the classes of MNIST, because a short file may lack a digit.
    classes = max(10, int(labels.max()) + 1)
    images, labels = images[::every], labels[::every]
    count = check_count(samples, len(images))
    pixels = (images[:count] / 255.0 - mean) / deviation
    return Dataset(
        jnp.asarray(pixels, float), jnp.asarray(labels[:count].astype(int)), folder.name, classes
    )


def _checked_normalisation(normalise: tuple[float, float] | None) -> tuple[float, float]:
    if normalise is None:
        return 0.0, 1.0
    try:
        mean, deviation = (float(number) for number in normalise)
    except (TypeError, ValueError):
        mean = deviation = math.nan
    if not (math.isfinite(mean) and math.isfinite(deviation) and deviation > 0):
        raise ValueError(f"normalise: expected a mean and a positive deviation, got {normalise}.")
    return mean, deviation


def _find(folder: Path, stem: str) -> Path:
    if folder.is_file():
        raise FileNotFoundError(f"folder: {folder} is a file; give the folder that holds it.")
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: there is no folder {folder}.")
    for name in (
        stem,
        stem + ".gz",
        stem.replace("-idx", ".idx"),
        stem.replace("-idx", ".idx") + ".gz",
    ):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"folder: {folder} holds neither {stem} nor {stem}.gz.")


def _read(path: Path, dimensions: int) -> np.ndarray:
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: a damaged gzip file ({error}).") from error
    header = 4 + 4 * dimensions
    if len(data) < header or data[:4] != bytes([0, 0, _UNSIGNED_BYTE, dimensions]):
        raise ValueError(
            f"{path}: not an IDX file of unsigned bytes with {dimensions} dimension(s)."
        )
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", dimensions, offset=4))
    expected = header + math.prod(shape)
    if len(data) != expected:
        raise ValueError(
            f"{path}: {len(data)} bytes, but its header says {expected} (shape {shape}): cut short"
            " or damaged."
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
