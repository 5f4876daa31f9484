"""Mistakes in a study, told so that they can be mended."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

# So many are told; who made more of them wants to see the first ones first.
_MOST = 100


class Mistake(NamedTuple):
    """One mistake in a study's TOML, and its line where that is known."""

    message: str
    line: int | None


class SpecError(ValueError):
    """Mistakes in a study's TOML, one on each line: which line, which field, what would be valid.

    `mistakes` are all of them in the order of their lines, `line` is that of the first.
    """

    def __init__(
        self, message: str, source: str, line: int | None = None, *, more: Sequence[Mistake] = ()
    ):
        self.mistakes = [Mistake(message, line), *more]
        self.source = source
        self.line = line
        told = [
            f"{source}: {message}" if line is None else f"{source}:{line}: {message}"
            for message, line in self.mistakes[:_MOST]
        ]
        if left := len(self.mistakes) - len(told):
            told.append(f"{source}: {left} more mistakes")
        super().__init__("\n".join(told))

    def __reduce__(self):
        return _remade, (self.mistakes, self.source)


def _remade(mistakes: list[Mistake], source: str) -> SpecError:
    first, *more = mistakes
    return SpecError(first.message, source, first.line, more=more)


class FieldError(ValueError):
    """A mistake with the path of the field that it is about; `Declaration` knows the line."""

    def __init__(self, path: tuple[str | int, ...], message: str):
        super().__init__(message)
        self.path = path

    def __reduce__(self):
        return type(self), (self.path, str(self))


class FieldErrors(ValueError):
    """Several mistakes that were found at once."""

    def __init__(self, errors: Sequence[FieldError]):
        super().__init__("; ".join(f"{written(error.path)}: {error}" for error in errors))
        self.errors = tuple(errors)

    def __reduce__(self):
        return type(self), (self.errors,)


def written(path: tuple[str | int, ...]) -> str:
    """A field as it is spoken of: `optimizers[0].step_size`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "study"


@contextmanager
def mistakes_in(path: tuple[str | int, ...], section: BaseModel) -> Iterator[None]:
    """Give what the library refuses its place in the study: "samples: ..." is `data.samples`."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        named = re.match(r"([a-z_]+)(?:, [a-z_]+)*: (.*)", str(error), re.DOTALL)
        if named and named[1] in type(section).model_fields:
            raise FieldError((*path, named[1]), named[2]) from error
        raise FieldError(path, str(error)) from error


class StoreError(ValueError):
    """A store that is damaged, foreign, in use, or cannot be written. Nothing was deleted."""

    def __init__(self, message: str, path: Path):
        super().__init__(f"{path}: {message}")
        self.message = message
        self.path = path

    def __reduce__(self):
        return type(self), (self.message, self.path)
