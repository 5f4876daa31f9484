"""Where in a TOML text a field stands.

`tomllib` parses but does not tell positions. Table headers and the keys at the start of lines are
enough to point a reader to the place.
"""

import re
from collections.abc import Mapping

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_\-]+|\"[^\"]*\"|'[^']*')((?:\s*\.\s*[A-Za-z0-9_\-]+)*)\s*=")

Path = tuple[str | int, ...]


def positions(text: str) -> dict[Path, int]:
    """Line numbers, from 1, of every table and every key."""
    found: dict[Path, int] = {}
    counts: dict[str, int] = {}
    table: Path = ()
    for number, line in enumerate(text.splitlines(), start=1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header:
            names = tuple(part.strip().strip("\"'") for part in header[2].split("."))
            table = names
            if header[1] == "[[":
                index = counts[header[2]] = counts.get(header[2], -1) + 1
                table = (*names, index)
                found.setdefault(names, number)
            found.setdefault(table, number)
        elif key:
            rest = tuple(part.strip() for part in key[2].split(".")[1:])
            found.setdefault((*table, key[1].strip("\"'"), *rest), number)
    return found


def line_of(known: Mapping[Path, int], path: Path) -> int | None:
    """The line of a field, or of the innermost table that would hold it, by its `positions`."""
    while path:
        if path in known:
            return known[path]
        path = path[:-1]
    return None
