"""The sections of a study, read one by one; what is wrong with them is told in sentences."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from .._names import nearest
from .._section import OneOf, Section, kinds
from ._consistency import Sections
from ._errors import FieldError
from .spec import RunSection, Spec

Path = tuple[str | int, ...]

# What pydantic calls a value that is no table.
_NO_TABLE = ("model_type", "model_attributes_type", "dict_type", "dataclass_type")
_LONGEST = 60


def read_sections(raw: dict[str, Any]) -> tuple[Sections, list[FieldError]]:
    """Every section that can be read, and every mistake in any of them."""
    parts: dict[Path, Any] = {}
    wrong: set[Path] = set()
    valid = list(Spec.model_fields)
    errors = [_unknown((name,), valid) for name in raw if name not in valid]
    meant = {_meant(str(error.path[-1]), valid) for error in errors}
    for name, field in Spec.model_fields.items():
        if name not in raw:
            if not field.is_required():
                parts[(name,)] = field.get_default()
            elif name not in meant:
                errors.append(FieldError((name,), "is missing"))
            continue
        kind, value = Annotated[field.annotation, field], raw[name]
        if name == "optimizers" and isinstance(value, list) and value:
            for i, run in enumerate(value):
                _read((name, i), run, RunSection, parts, wrong, errors)
        else:
            _read((name,), value, kind, parts, wrong, errors)
    return Sections(parts, frozenset(wrong)), errors


def _read(path: Path, value: Any, kind: Any, parts: Any, wrong: Any, errors: Any) -> None:
    """Read one section; without the keys that are wrong, if there are any."""
    found = _validated(value, kind)
    if not isinstance(found, list):
        parts[path] = found
        return
    told = _explained(path, value, found)
    errors.extend(told)
    members = _members(path, value)
    whole = any(error.path == path for error in told)
    if whole or not isinstance(value, dict) or len(members) > 1:
        return
    keys = {error.path[len(path)] for error in told}
    valid = _valid_keys(path, value)
    keys |= {meant for key in keys - set(valid) if (meant := _meant(str(key), valid))}
    parts[path] = members[0].model_construct(
        **{key: item for key, item in value.items() if key not in keys}
    )
    wrong.update((*path, key) for key in keys)


def _validated(value: Any, kind: Any) -> Any:
    """What was read, or a list of pydantic's errors."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        return error.errors(include_url=False)


def _explained(path: Path, value: Any, found: list[Any]) -> list[FieldError]:
    """One error for each mistake: an unknown name often explains why another one is missing."""
    errors = [_explain(path, error, value) for error in found]
    unknown = [str(e["loc"][-1]) for e in found if e["type"] == "extra_forbidden"]
    valid = _valid_keys(path, value) if unknown else []
    meant = {(*path, _meant(name, valid)) for name in unknown}
    return [
        error
        for error, given in zip(errors, found, strict=True)
        if given["type"] not in ("missing", "union_tag_not_found") or error.path not in meant
    ]


def _explain(section: Path, error: Any, raw: Any) -> FieldError:
    """The path of a mistake in the file, and a sentence about it."""
    inner, value = _path_in_file(error["loc"], raw)
    path, kind = (*section, *inner), error["type"]
    if kind == "missing":
        return FieldError(path, "is missing")
    if kind == "extra_forbidden":
        return _unknown(path, _valid_keys(section, raw))
    if kind == "union_tag_not_found":
        return FieldError((*path, "kind"), "is missing")
    if kind == "union_tag_invalid":
        given = error["ctx"]["tag"]
        valid = re.findall(r"'([^']*)'", error["ctx"]["expected_tags"])
        return FieldError((*path, "kind"), f"unknown kind {_shown(given)}{_or(given, valid)}")
    if kind == "literal_error":
        valid = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return FieldError(path, f"unknown value {_shown(value)}{_or(str(value), valid)}")
    if kind == "string_pattern_mismatch":
        message = f"should be made of letters, digits, '_' and '-', got {_shown(value)}"
        return FieldError(path, message)
    if path == ("optimizers",) and kind == "list_type":
        return FieldError(path, "each optimizer is a table of its own, [[optimizers]]")
    if kind in _NO_TABLE and not isinstance(value, dict):
        name = "[[optimizers]]" if path[0] == "optimizers" else f"[{'.'.join(map(str, path))}]"
        return FieldError(path, f"should be a table, {name}, got {_shown(value)}")
    message = error["msg"][0].lower() + error["msg"][1:]
    return FieldError(path, f"{message.replace('input should', 'should')}, got {_shown(value)}")


def _unknown(path: Path, valid: list[str]) -> FieldError:
    return FieldError(path, f"unknown name{_or(str(path[-1]), valid)}")


def _or(name: str, valid: list[str]) -> str:
    return f"{nearest(name, valid)} (valid: {', '.join(valid)})"


def _meant(name: str, valid: Any) -> str | None:
    """The valid name that an unknown one was probably meant to be."""
    found = re.search(r"'(.*)'", nearest(name, list(valid)))
    return found[1] if found else None


def _shown(value: Any) -> str:
    """A value as TOML knows it, cut short."""
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 4] + " ..."


def _path_in_file(location: tuple, raw: Any) -> tuple[Path, Any]:
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


def _valid_keys(section: Path, value: Any) -> list[str]:
    """The keys that a section may have."""
    return sorted({key for member in _members(section, value) for key in member.model_fields})


def _members(section: Path, value: Any) -> list[type[Section]]:
    """The classes that a section may be read as: one, if its kind is known."""
    field = Spec.model_fields[str(section[0])]
    members = _classes(field.annotation, field.metadata)
    if isinstance(value, dict) and "kind" in value and len(members) > 1:
        chosen = [m for m in members if value["kind"] in kinds(m)]
        return chosen or members
    return members


def _classes(annotation: Any, metadata: Sequence[Any] = ()) -> list[type[Section]]:
    """The sections in a type: itself, one of a package's, or those in it."""
    for mark in metadata:
        if isinstance(mark, OneOf):
            return mark.classes(annotation)
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, Section) else []
    inner, *more = get_args(annotation) or (None,)
    if get_origin(annotation) is Annotated:
        return _classes(inner, more)
    return [c for part in (inner, *more) for c in _classes(part)]
