"""Results on disk, as plain numbers with labels."""

from pathlib import Path
from typing import Any

import xarray as xr

from .._checks import check_instance
from ._result import AbstractResult


def save(result: AbstractResult, path: str | Path) -> Path:
    """Write a result to a new zarr store, and return its path.

        tw.save(flow, "flow.zarr")
        tw.load("flow.zarr")["loss"]

    What is written is `result.to_xarray()`: numbers, names and units, and no code.

    **Raises:** TypeError for something else than a result; FileExistsError for a path that exists.
    """
    check_instance(result, AbstractResult, "result", "a result of thalweg")
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"path: {path} exists already; choose another one.")
    data = result.to_xarray()
    # Attributes of zarr are JSON, in which there is no None.
    data.attrs = {name: "" if value is None else value for name, value in data.attrs.items()}
    data.to_zarr(path, consolidated=False)
    return path


def load(path: str | Path) -> xr.Dataset:
    """Read what `save` wrote: a labelled data set in memory.

    **Raises:** FileNotFoundError where there is no such store.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path: {path} does not exist.")
    opened: Any = xr.open_zarr(path, consolidated=False)
    with opened:
        return opened.load()
