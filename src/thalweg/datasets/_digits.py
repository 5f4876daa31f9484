"""The handwritten digits that scikit-learn brings along."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ._dataset import Dataset, check_count

# Of all of them.
_SAMPLES, _PIXELS, _CLASSES = 1797, 64, 10


def digits_sizes(samples: int | None) -> tuple[int, tuple[int, ...], int]:
    """What `digits` would return: samples, the shape of one, and classes.

    **Raises:** as `digits` does.
    """
    return check_count(samples, _SAMPLES), (_PIXELS,), _CLASSES


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
