"""What every result can do: print, draw and label itself."""

import abc
import html
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
import xarray as xr
from jaxtyping import PyTree


class AbstractResult(eqx.Module):
    """Anything that a public function returns to be looked at.

    `print(result)` shows its numbers with their errors, a notebook the same in a frame;
    `result.plot()` draws it, and `result.to_xarray()` makes a labelled data set of it, which
    `tw.save(result, path)` writes to disk.
    """

    @abc.abstractmethod
    def lines(self) -> list[str]:
        """What it says, line by line: numbers with their errors."""

    @abc.abstractmethod
    def to_xarray(self) -> xr.Dataset:
        """The numbers with names, coordinates and units."""

    @abc.abstractmethod
    def plot(self, ax: Any = None) -> Any:
        """Draw it into matplotlib axes, new ones by default, and return them."""

    def __str__(self) -> str:
        first, *others = self.lines()
        return "\n".join([first, *(f"  {line}" for line in others)])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def labelled(
    name: str, value: PyTree, dimensions: Sequence[str], attributes: Mapping[str, Any] | None = None
) -> dict[str, tuple]:
    """The arrays of a PyTree as variables of a data set.

    A single array has the name given, and each of several has its place in the PyTree added. The
    leading axes have the `dimensions`; further ones are numbered.
    """
    variables = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        place = name + jax.tree_util.keystr(path).replace("/", "|")
        array = np.asarray(leaf)
        extra = [f"{place}_axis_{i}" for i in range(array.ndim - len(dimensions))]
        variables[place] = ([*dimensions, *extra], array, dict(attributes or {}))
    return variables
