"""What a store holds, as its stages look at it to say and to draw it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ._cost import Cost
from ._errors import StoreError
from .store import STORE_NAME, Store

# As many as the network has parameters, and not shown.
_LEFT_OUT = "params"


@dataclass(frozen=True, eq=False)
class Member:
    """One part of a stage: its name, its attributes, and the rows that were computed.

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

    def array(self, name: str) -> np.ndarray:
        """A variable as an array; empty if it is not there."""
        return np.asarray(self.data[name]) if name in self.data.variables else np.empty(0)

    def first(self, name: str) -> np.ndarray:
        """The first of several numbers a row."""
        found = self.array(name)
        return found.reshape(len(found), -1)[:, 0] if found.size else found.reshape(-1)

    def numbers(self, name: str) -> list[float]:
        """A variable of one number a row."""
        return [float(v) for v in self.array(name)]


@dataclass(frozen=True)
class Results:
    """A store, ready to be spoken of and drawn.

    `groups` holds, for every stage that has stored anything, its parts by name, in their order;
    `costs` what stages spent on what all their parts share; `seconds` how long parts took, by path,
    where that was noted.
    """

    attributes: dict[str, Any]
    groups: Mapping[str, Mapping[str, Member]]
    costs: Mapping[str, Cost]
    seconds: Mapping[str, float]

    def of(self, stage: str) -> Mapping[str, Member]:
        """The parts of a stage by name; none where nothing is stored."""
        return self.groups.get(stage, {})

    def part(self, stage: str, name: str) -> Member | None:
        """One part of a stage, if it is there and has rows."""
        found = self.of(stage).get(name)
        return found if found is not None and found.numbers("time") else None

    @property
    def flows(self) -> list[Member]:
        """The flows that were followed."""
        return list(self.of("flows").values())

    @property
    def runs(self) -> list[Member]:
        """The runs of optimizers."""
        return list(self.of("optimizers").values())

    def flow_of(self, run: Member) -> Member | None:
        """The flow that a run is compared with."""
        return self.of("flows").get(str(run.attributes.get("flow")))

    @property
    def verdict(self) -> list[dict[str, Any]]:
        """The findings as they were stored; empty for a study that is not finished."""
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


def read_results(store: Store) -> Results:
    """Everything but the parameters.

    **Raises:** StoreError for what is missing or damaged.
    """
    stages = [group for group in store.groups() if "/" not in group]
    groups = {
        stage: {
            name: _member(store, stage, name)
            for name in store.members(stage)
            # Else it is just being made.
            if store.columns(f"{stage}/{name}")
        }
        for stage in stages
    }
    for displayed in ("flows", "optimizers"):
        _display(list(groups.get(displayed, {}).values()))
    costs = {stage: Cost.recorded(store.attributes_of(stage)) for stage in stages}
    return Results(
        attributes=store.attributes,
        groups=groups,
        costs={stage: cost for stage, cost in costs.items() if cost is not None},
        seconds=store.seconds(),
    )


def _member(store: Store, stage: str, name: str) -> Member:
    path = f"{stage}/{name}"
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


def _display(members: list[Member]) -> None:
    """Give members that share a label a display name that tells them apart."""
    labels = [m.attributes.get("label", m.name) for m in members]
    for member, label in zip(members, labels, strict=True):
        shared = labels.count(label) > 1
        member.data.attrs["display"] = f"{label} ({member.name})" if shared else label
