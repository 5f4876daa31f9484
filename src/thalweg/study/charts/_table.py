"""A table of text."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows below a header; the first cell of a row names it."""

    header: list[str]
    rows: list[list[str]]
