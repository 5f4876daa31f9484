"""Reading a study's TOML file; its mistakes are told with line, field and nearest valid name."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from .._names import nearest
from ._errors import FieldError, SpecError
from ._lines import line_of
from .spec import Section, Spec


@dataclass(frozen=True)
class Declaration:
    """A study as it was declared: parsed, as written, under which name, and in which folder.

    Relative paths in a study start from `folder`.
    """

    spec: Spec
    text: str
    source: str
    folder: Path

    def mistake(self, error: FieldError) -> SpecError:
        """A mistake that was found while building what the study declares, with its line."""
        message = f"{_written(error.path)}: {error}"
        return SpecError(message, self.source, line_of(self.text, error.path))


def load_spec(path: str | Path) -> Declaration:
    """Read a study from a TOML file.

    **Raises:** SpecError for a file that cannot be read or a mistake in it.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError("there is no such file", str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot be read ({error})", str(path)) from error
    return parse_spec(text, str(path), path.resolve().parent)


def parse_spec(text: str, source: str = "study", folder: Path | None = None) -> Declaration:
    """Read a study from TOML text. `source` names it in error messages.

    Relative paths in it start from `folder`, by default the current one.

    **Raises:** SpecError with the line and the field of the first mistake.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(match[1]) if match else None
        message = re.sub(r" \(at .*\)", "", str(error))
        if message == "Cannot overwrite a value":
            message = "this name stands twice (several optimizers are written [[optimizers]])"
        raise SpecError(f"not valid TOML: {message}", source, line) from None
    try:
        spec = Spec.model_validate(raw)
    except ValidationError as error:
        path, message = _explain(_telling(error.errors()), raw)
        field = _written(path)
        raise SpecError(f"{field}: {message}", source, line_of(text, path)) from None
    return Declaration(spec, text, source, folder or Path.cwd())


def _telling(errors: list[Any]) -> Any:
    """The mistake to tell: an unknown name often explains why another one is missing."""
    return next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])


def _written(path: tuple[str | int, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "study"


def _explain(error: Any, raw: dict) -> tuple[tuple[str | int, ...], str]:
    """The path of a mistake in the file, and a sentence about it."""
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        return cause.path, str(cause)
    path, value = _path_in_file(error["loc"], raw)
    kind = error["type"]
    if kind == "missing":
        return path, "is missing"
    if kind == "extra_forbidden":
        valid = _valid_keys(path[:-1], raw)
        return path, f"unknown name{nearest(str(path[-1]), valid)} (valid: {', '.join(valid)})"
    if kind == "union_tag_not_found":
        return (*path, "kind"), "is missing"
    if kind == "union_tag_invalid":
        given = error["ctx"]["tag"]
        valid = re.findall(r"'([^']*)'", error["ctx"]["expected_tags"])
        hint = f"unknown kind {given!r}{nearest(given, valid)} (valid: {', '.join(valid)})"
        return (*path, "kind"), hint
    if kind == "literal_error":
        valid = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        hint = nearest(str(value), valid)
        return path, f"unknown value {value!r}{hint} (valid: {', '.join(valid)})"
    if kind == "string_pattern_mismatch":
        return path, f"should be made of letters, digits, '_' and '-', got {value!r}"
    message = error["msg"][0].lower() + error["msg"][1:]
    return path, f"{message.replace('input should', 'should')}, got {value!r}"


def _path_in_file(location: tuple, raw: Any) -> tuple[tuple[str | int, ...], Any]:
    """Drop the names of union members, which pydantic mixes into the path."""
    path: list[str | int] = []
    value: Any = raw
    for i, part in enumerate(location):
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if in_list or (isinstance(value, dict) and part in value):
            value = value[part]
        elif i < len(location) - 1 or isinstance(part, int):
            continue
        else:
            value = None
        path.append(part)
    return tuple(path), value


def _valid_keys(path: tuple[str | int, ...], raw: dict) -> list[str]:
    """The keys that the table at `path` may have."""
    if not path:
        return list(Spec.model_fields)
    annotation: Any = Spec.model_fields[str(path[0])].annotation
    members = [m for m in _classes(annotation) if issubclass(m, Section)]
    value: Any = raw
    for part in path:
        value = value[part]
    if isinstance(value, dict) and "kind" in value and len(members) > 1:
        chosen = [
            m for m in members if value["kind"] in get_args(m.model_fields["kind"].annotation)
        ]
        members = chosen or members
    return sorted({key for m in members for key in m.model_fields})


def _classes(annotation: Any) -> list[type]:
    if isinstance(annotation, type):
        return [annotation]
    return [c for part in get_args(annotation) for c in _classes(part)]
