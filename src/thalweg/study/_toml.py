"""From a file to what its TOML says, whatever is in the file."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._errors import FieldError, SpecError

# Bytes of a study, which is a few kilobytes long.
_LARGEST_FILE = 2**18
# Tables and arrays within one another; a study has them three deep.
_DEEPEST = 16
_TOO_DEEP = f"tables or arrays stand more than {_DEEPEST} deep within one another"
# Integers that Python refuses to read, with digits that it would take time to read.
_ENDLESS = re.compile(r"\d(?:_?\d){4299,}")
_QUOTED = re.compile(r"\"\"\"|'''|\"(?:[^\"\\]|\\.)*\"|'[^']*'|#.*")
_PART = r"(?:[A-Za-z0-9_\-]+|\"[^\"\n]*\"|'[^'\n]*')\s*\.\s*"
_DOTTED = re.compile(rf"^\s*\[{{0,2}}\s*(?:{_PART}){{{_DEEPEST}}}")


def read_text(path: Path) -> str:
    """The text of a study's file.

    **Raises:** SpecError for a file that cannot be read, or is far too large to be a study.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise SpecError(f"is larger than {_LARGEST_FILE // 1024} KiB, and no study", str(path))
        return content.decode("utf-8")
    except FileNotFoundError:
        raise SpecError("there is no such file", str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot be read ({error})", str(path)) from error


def parsed(text: str, source: str) -> dict[str, Any]:
    """What the TOML says.

    **Raises:** SpecError with the line, for text that is not TOML or deeply nested.
    """
    # The parser needs the stack for every array within another, and takes time in proportion to the
    # square of a key's length.
    for number, line in enumerate(text.splitlines(), start=1):
        if _DOTTED.match(line):
            raise SpecError(_TOO_DEEP, source, number)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(match[1]) if match else None
        message = re.sub(r" \(at .*\)", "", str(error))
        if message == "Cannot overwrite a value":
            message = "this name stands twice (several optimizers are written [[optimizers]])"
        raise SpecError(f"not valid TOML: {message}", source, line) from None
    except RecursionError:
        raise SpecError(_TOO_DEEP, source, _line_of_nesting(text)) from None
    except ValueError as error:
        place = _ENDLESS.search(text)
        if place is None:
            raise SpecError(f"not valid TOML: {error}", source) from None
        line = text.count("\n", 0, place.start()) + 1
        digits = len(place[0].replace("_", ""))
        raise SpecError(f"an integer of {digits:,} digits; {_INTEGERS}", source, line) from None


_INTEGERS = "integers have 64 bits"


def without_impossible(raw: dict[str, Any]) -> tuple[dict[str, Any], list[FieldError]]:
    """The document without the keys whose values no field can have, and what is wrong with these.

    These are integers of more than 64 bits and deep nesting, which Python, not TOML, has room for.
    """
    errors = [FieldError(path, message) for path, message in _impossible(raw)]
    for error in errors:
        raw = _without(raw, error.path)
    return raw, errors


def key_of(path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The key that a value stands under: `network.widths` of its first entry."""
    return path[: 3 if len(path) > 1 and isinstance(path[1], int) else 2]


def _impossible(raw: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Without recursion, which deep nesting would exhaust."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), raw)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict | list):
            if len(path) > _DEEPEST:
                yield key_of(path), _TOO_DEEP
                continue
            items = value.items() if isinstance(value, dict) else enumerate(value)
            pending += [((*path, key), item) for key, item in items]
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            digits = max(int(value.bit_length() * 0.30103), 1)
            yield path, f"an integer of about {digits:,} digits; {_INTEGERS}"


def _without(raw: Any, path: tuple[str | int, ...]) -> Any:
    """A copy without the value at `path`, or without the array that holds it."""
    first, *rest = path
    if first not in raw:
        return raw
    if not rest or (isinstance(raw[first], list) and not isinstance(raw[first][rest[0]], dict)):
        return {key: value for key, value in raw.items() if key != first}
    if isinstance(raw[first], list):
        items: dict[Any, Any] = dict(enumerate(raw[first]))
        items[rest[0]] = _without(items[rest[0]], tuple(rest[1:]))
        return {**raw, first: list(items.values())}
    return {**raw, first: _without(raw[first], tuple(rest))}


def _line_of_nesting(text: str) -> int | None:
    depth = 0
    for number, line in enumerate(text.splitlines(), start=1):
        for sign in re.sub(r"[^\[\]{}]", "", _QUOTED.sub("", line)):
            depth += 1 if sign in "[{" else -1
            if depth > _DEEPEST:
                return number
    return None
