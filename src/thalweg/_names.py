"""Looking up a name, and saying which one was probably meant."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")


def nearest(name: str, valid: Iterable[str]) -> str:
    """`; did you mean 'tanh'?`, or nothing if no valid name is near."""
    matches = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def look_up(name: str, table: Mapping[str, Value], field: str) -> Value:
    """The entry of that name.

    **Raises:** ValueError that lists the valid names and the nearest one.
    """
    if name not in table:
        valid = ", ".join(table)
        raise ValueError(f"{field}: unknown name {name!r}{nearest(name, table)} (valid: {valid})")
    return table[name]
