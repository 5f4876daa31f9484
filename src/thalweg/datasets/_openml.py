"""Data sets of openml.org, by name."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ._dataset import Dataset, check_count


def openml(name: str, *, version: int | str = "active", samples: int | None = None) -> Dataset:
    """A classification or regression data set of openml.org. Needs to be online (once: scikit-learn
    keeps a copy).

    Features must be numbers; a target of categories becomes labels 0, 1, ... in sorted order.

    **Raises:** ConnectionError when the site cannot be reached; ValueError for an unknown name, or
    features that are not numbers.
    """
    from sklearn.datasets import fetch_openml

    try:
        data: Any = fetch_openml(name, version=version, as_frame=False)  # pyright: ignore
    except OSError as error:
        raise ConnectionError(
            f"openml.org cannot be reached for the data set {name!r} ({error}). Without a"
            " connection, use `digits` or a folder of IDX files."
        ) from error
    try:
        inputs = np.asarray(data["data"], float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"openml {name!r}: has features that are not numbers.") from error
    count = check_count(samples, len(inputs))
    target = np.asarray(data["target"])
    if np.issubdtype(target.dtype, np.floating):
        return Dataset(jnp.asarray(inputs[:count]), jnp.asarray(target[:count, None]), name)
    categories, labels = np.unique(target, return_inverse=True)
    return Dataset(jnp.asarray(inputs[:count]), jnp.asarray(labels[:count]), name, len(categories))
