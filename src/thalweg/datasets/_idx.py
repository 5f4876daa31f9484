"""Folders of files in the IDX format of MNIST."""

import math
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from .._checks import check_positive_integer
from .._memory import check_memory
from .._section import Count, Positive
from ._dataset import Dataset, check_count
from ._idx_file import IdxFile
from ._section import DataSection, DataShape

_PREFIX = {"train": "train", "test": "t10k"}


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

    A gzipped file is inflated as far as its header says and one byte more, and of the images only
    those that are taken are kept.

    **Raises:** FileNotFoundError for a missing file; ValueError for one that is not in the IDX
    format, has images with an empty side, is cut short, goes on after what its header says, or
    does not fit the other; for a selection that is empty, or larger than the machine's memory.
    """
    images, labels = _open(folder, split)
    check_positive_integer(every, "every")
    mean, deviation = _checked_normalisation(normalise)
    count = check_count(samples, -(-images.shape[0] // every))
    # Bytes, their floats, and the array that JAX makes of them.
    needed = labels.length + count * math.prod(images.shape[1:]) * (1 + 2 * 8)
    check_memory(needed, "samples", f"{count:,} images of {_sides(images)} pixels")
    named = _labels(labels)
    pixels = images.rows(every, count) / 255.0
    pixels -= mean
    pixels /= deviation
    targets = jnp.asarray(named[::every][:count].astype(int))
    return Dataset(jnp.asarray(pixels, float), targets, Path(folder).name, _classes(named))


class IdxSection(DataSection):
    """`kind = "idx"`: a folder of IDX files (MNIST, Fashion-MNIST)."""

    kind: Literal["idx"] = "idx"
    folder: str
    samples: Count | None = None
    every: Count = 1
    split: Literal["train", "test"] = "train"
    mean: float = 0.1307
    deviation: Positive = 0.3081

    def shape(self, folder: Path) -> DataShape:
        images, labels = _open(folder / self.folder, self.split)
        count = check_count(self.samples, -(-images.shape[0] // self.every))
        classes = _classes(_labels(labels))
        return DataShape(count, images.shape[1:], classes, classes)

    def load(self, folder: Path, key: PRNGKeyArray) -> Dataset:
        return idx(
            folder / self.folder,
            samples=self.samples,
            every=self.every,
            split=self.split,
            normalise=(self.mean, self.deviation),
        )


def _open(folder: str | Path, split: str) -> tuple[IdxFile, IdxFile]:
    """The files of images and of labels, whose headers fit together."""
    if split not in _PREFIX:
        raise ValueError(f"split: expected 'train' or 'test', got {split!r}.")
    folder = Path(folder)
    images = IdxFile.open(_find(folder, f"{_PREFIX[split]}-images-idx3-ubyte"), dimensions=3)
    labels = IdxFile.open(_find(folder, f"{_PREFIX[split]}-labels-idx1-ubyte"), dimensions=1)
    if images.shape[0] == 0:
        raise ValueError(f"{images.path}: holds no images.")
    if 0 in images.shape:
        raise ValueError(f"{images.path}: images of {_sides(images)} pixels are empty.")
    if images.shape[0] != labels.shape[0]:
        raise ValueError(
            f"{folder}: {images.shape[0]} images, but {labels.shape[0]} labels"
            f" ({images.path.name}, {labels.path.name})."
        )
    return images, labels


def _sides(images: IdxFile) -> str:
    return " x ".join(map(str, images.shape[1:]))


def _labels(file: IdxFile) -> np.ndarray:
    return file.rows(1, file.shape[0])


def _classes(labels: np.ndarray) -> int:
    """Counted before the selection, so that the network's outputs do not depend on it.

    At least 10, the classes of MNIST, because a short file may lack a digit.
    """
    return max(10, int(labels.max()) + 1)


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
