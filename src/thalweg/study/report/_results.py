"""What the report needs from a store, read once."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .._cost import Cost
from .._errors import StoreError
from ..store import STORE_NAME, Store

_KINDS = ("flows", "optimizers", "comparisons", "curvature", "laws", "certificates", "kernel")
# As many as the network has parameters, and not shown.
_LEFT_OUT = "params"


@dataclass(frozen=True, eq=False)
class Member:
    """One group of the store: its name, its attributes, and the rows that were computed.

    A member equals itself alone: an optimizer and its law have the same name.
    """

    name: str
    data: xr.Dataset

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self.data.attrs)

    @property
    def label(self) -> str:
        """The name for people; its own name where several share a label."""
        return str(self.data.attrs.get("display", self.data.attrs.get("label", self.name)))

    @property
    def cost(self) -> Cost | None:
        """What it cost, as far as it has come; `None` where nothing is recorded."""
        return Cost.recorded(self.data.attrs)

    @property
    def complete(self) -> bool:
        """Whether it was brought to its end."""
        return bool(self.data.attrs.get("complete"))

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
    made_kernel: Cost | None

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
    store = Store.open(directory)
    flows, optimizers, *others = (
        [
            _member(store, kind, name)
            for name in store.members(kind)
            # Else it is just being made.
            if store.columns(f"{kind}/{name}")
        ]
        for kind in _KINDS
    )
    named = zip(_KINDS[2:], others, strict=True)
    return Results(
        attributes=store.attributes,
        flows=_displayed(flows),
        optimizers=_displayed(optimizers),
        **{kind: {m.name: m for m in of_kind} for kind, of_kind in named},
        made_kernel=Cost.recorded(store.attributes_of("kernel")) if store.has("kernel") else None,
    )


def _member(store: Store, kind: str, name: str) -> Member:
    path = f"{kind}/{name}"
    store.check(path)
    attributes = store.attributes_of(path)
    columns = {
        column: (store.dimensions(path, column), store.read(path, column))
        for column in store.columns(path)
        if column != _LEFT_OUT
    }
    # Without the rows that were planned but never reached.
    rows = {} if "rows" not in attributes else {"time": slice(0, int(attributes["rows"]))}
    return Member(name, xr.Dataset(columns, attrs=attributes).isel(rows))


def _displayed(members: list[Member]) -> list[Member]:
    """Give members that share a label a display name that tells them apart."""
    labels = [m.attributes.get("label", m.name) for m in members]
    for member, label in zip(members, labels, strict=True):
        shared = labels.count(label) > 1
        member.data.attrs["display"] = f"{label} ({member.name})" if shared else label
    return members
