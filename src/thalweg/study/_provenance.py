"""Where numbers come from: versions, machine, date, and digests of arrays."""

import hashlib
import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

_PACKAGES = ("thalweg", "jax", "jaxlib", "diffrax", "equinox", "numpy", "scipy", "zarr", "xarray")


def provenance() -> dict[str, str]:
    """Attributes for a store."""
    return {
        "versions": json.dumps(
            {"python": platform.python_version(), **{p: version(p) for p in _PACKAGES}}
        ),
        "machine": f"{platform.machine()}, {jax.default_backend()}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def digest(*arrays: Any) -> str:
    """By which arrays are known again: types, shapes and bits."""
    found = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()
