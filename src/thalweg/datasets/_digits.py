"""The handwritten digits that scikit-learn brings along."""

from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from .._section import Count
from ._dataset import Dataset, check_count
from ._section import DataSection, DataShape

# Of all of them.
_SAMPLES, _PIXELS, _CLASSES = 1797, 64, 10


def digits(samples: int | None = None) -> Dataset:
    """The first of 1,797 handwritten digits of 8 x 8 pixels, as 64 numbers in [0, 1] each.

    Needs no network: the data come with scikit-learn (UCI, Alpaydin and Kaynak 1998).

    **Raises:** ValueError for a number of samples that there is not.
    """
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    pixels, labels = np.asarray(data["data"]), np.asarray(data["target"])
    count = check_count(samples, len(pixels))
    return Dataset(
        jnp.asarray(pixels[:count] / 16.0, float), jnp.asarray(labels[:count]), "digits", _CLASSES
    )


class DigitsSection(DataSection):
    """`kind = "digits"`: scikit-learn's 8 x 8 digits; no download."""

    kind: Literal["digits"] = "digits"
    samples: Count | None = None
    standardise: bool = False

    def shape(self, folder: Path) -> DataShape:
        return DataShape(check_count(self.samples, _SAMPLES), (_PIXELS,), _CLASSES, _CLASSES)

    def load(self, folder: Path, key: PRNGKeyArray) -> Dataset:
        found = digits(self.samples)
        return found.standardised() if self.standardise else found
