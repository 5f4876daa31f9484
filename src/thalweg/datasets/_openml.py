"""Data sets of openml.org, by name."""

from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import PRNGKeyArray

from .._section import Count
from ._dataset import Dataset, check_count
from ._section import DataSection


def openml(name: str, *, version: int | str = "active", samples: int | None = None) -> Dataset:
    """The first samples of a data set of openml.org. Needs to be online (once: scikit-learn keeps a
    copy).

    Features must be numbers; a target of categories becomes labels 0, 1, ... in sorted order.

    **Raises:** ConnectionError when the site cannot be reached; ValueError for an unknown name,
    features that are missing or not numbers, or a data set without one target.
    """
    from sklearn.datasets import fetch_openml

    try:
        data: Any = fetch_openml(name, version=version, as_frame=False)  # pyright: ignore
    except (OSError, HTTPException) as error:
        raise ConnectionError(
            f"openml.org cannot be reached for the data set {name!r} ({error}). Without a"
            " connection, use `digits` or a folder of IDX files."
        ) from error
    features, target = data["data"], data["target"]
    if scipy.sparse.issparse(features):
        features = features.toarray()
    try:
        inputs = np.asarray(features, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"openml {name!r}: has features that are not numbers.") from error
    if target is None or np.ndim(target) != 1:
        raise ValueError(f"openml {name!r}: has no single target to learn.")
    count = check_count(samples, len(inputs))
    if not np.isfinite(inputs[:count]).all():
        raise ValueError(f"openml {name!r}: has features that are missing or infinite.")
    inputs, target = jnp.asarray(inputs[:count], float), np.asarray(target)
    if np.issubdtype(target.dtype, np.floating):
        return Dataset(inputs, jnp.asarray(target[:count, None], float), name)
    categories, labels = np.unique(target, return_inverse=True)
    return Dataset(inputs, jnp.asarray(labels[:count]), name, len(categories))


class OpenMLSection(DataSection):
    """`kind = "openml"`: a data set of openml.org by name; needs to be online."""

    kind: Literal["openml"] = "openml"
    name: str
    version: Count | None = None
    samples: Count | None = None
    standardise: bool = True

    def load(self, folder: Path, key: PRNGKeyArray) -> Dataset:
        found = openml(self.name, version=self.version or "active", samples=self.samples)
        return found.standardised() if self.standardise else found
