"""What the report needs from a store, read once through plain xarray."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .._errors import StoreError
from ..store import STORE_NAME, Store

_KINDS = ("flows", "optimizers", "comparisons", "curvature", "laws", "certificates", "kernel")


@dataclass(frozen=True)
class Member:
    """One group of the store: its name, its attributes, and the rows that were computed."""

    name: str
    data: xr.Dataset

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self.data.attrs)

    @property
    def label(self) -> str:
        """The name for people; its own name where several share a label."""
        return str(self.data.attrs.get("display", self.data.attrs.get("label", self.name)))

    def column(self, name: str) -> np.ndarray | None:
        """A variable as an array; `None` if it is not there."""
        return np.asarray(self.data[name]) if name in self.data.variables else None

    def numbers(self, name: str) -> list[float]:
        """A variable of one number a row."""
        column = self.column(name)
        return [] if column is None else [float(v) for v in column]


@dataclass(frozen=True)
class Results:
    """A store, ready to be reported."""

    attributes: dict[str, Any]
    flows: list[Member]
    optimizers: list[Member]
    comparisons: dict[str, Member]
    curvature: dict[str, Member]
    laws: dict[str, Member]
    certificates: dict[str, Member]
    kernel: dict[str, Member]

    @property
    def verdict(self) -> list[dict[str, Any]]:
        """The findings, as `verdict` wrote them; empty for a study that is not finished."""
        return _json(self.attributes.get("verdict", "[]"), "verdict")

    @property
    def versions(self) -> dict[str, str]:
        """Packages and their versions."""
        return _json(self.attributes.get("versions", "{}"), "versions")


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise StoreError(f"damaged: the attribute {name!r} ({error}).", Path(STORE_NAME)) from error


def read_results(directory: Path) -> Results:
    """Everything but the parameters.

    **Raises:** StoreError for a store that is missing, foreign or damaged.
    """
    with warnings.catch_warnings():
        # A killed process leaves files that are none of the store's; a running one has them.
        warnings.filterwarnings("ignore", message=".* not recognized as a component of a Zarr")
        return _read(directory)


def _read(directory: Path) -> Results:
    store = Store.open(directory)
    for kind in _KINDS:
        for name in store.group(kind).group_keys() if store.has(kind) else ():
            store.check(f"{kind}/{name}")
    try:
        with xr.open_datatree(
            directory / STORE_NAME, engine="zarr", drop_variables=["params"], consolidated=False
        ) as tree:
            flows, optimizers, *others = (_members(tree, kind) for kind in _KINDS)
    except Exception as error:
        raise StoreError(f"damaged: {error}", store.directory) from error
    named = zip(_KINDS[2:], others, strict=True)
    return Results(
        attributes=store.attributes,
        flows=_displayed(flows),
        optimizers=_displayed(optimizers),
        **{kind: {m.name: m for m in of_kind} for kind, of_kind in named},
    )


def _members(tree: xr.DataTree, kind: str) -> list[Member]:
    if kind not in tree.children:
        return []
    children = tree[kind].children  # pyright: ignore[reportAttributeAccessIssue]
    members = [_computed(name, node.to_dataset().load()) for name, node in children.items()]
    return sorted(members, key=lambda m: (m.attributes.get("position", 0), m.name))


def _computed(name: str, data: xr.Dataset) -> Member:
    """Without the rows that were planned but never reached."""
    rows = data.attrs.get("rows")
    return Member(name, data if rows is None else data.isel(time=slice(0, int(rows))))


def _displayed(members: list[Member]) -> list[Member]:
    """Give members that share a label a display name that tells them apart."""
    labels = [m.attributes.get("label", m.name) for m in members]
    for member, label in zip(members, labels, strict=True):
        shared = labels.count(label) > 1
        member.data.attrs["display"] = f"{label} ({member.name})" if shared else label
    return members
