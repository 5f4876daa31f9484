"""Reading a study's TOML file; all its mistakes are told, with line, field and valid names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from ._consistency import Sections, inconsistencies
from ._errors import FieldError, Mistake, SpecError, written
from ._lines import line_of, positions
from ._misfits import misfits
from ._sections import read_sections
from ._toml import key_of, parsed, read_text, without_impossible
from .spec import Spec


@dataclass(frozen=True)
class Declaration:
    """A study as it was declared: parsed, as written, under which name, and in which folder.

    Relative paths in a study start from `folder`.
    """

    spec: Spec
    text: str
    source: str
    folder: Path

    def mistakes(self, errors: Sequence[FieldError]) -> SpecError:
        """Mistakes that were found while building what the study declares, with their lines."""
        return _told(errors, self.text, self.source)


def declared(spec: Spec, folder: Path | None = None) -> Declaration:
    """A study that was declared in Python, with the TOML text that declares the same.

    Relative paths in it start from `folder`, by default the current one.
    """
    text = tomli_w.dumps(spec.model_dump(exclude_none=True))
    return Declaration(spec, text, "study", folder or Path.cwd())


def load_spec(path: str | Path) -> Declaration:
    """Read a study from a TOML file, and look whether the data are there and fit.

    **Raises:** SpecError for a file that cannot be read, or with all mistakes in it.
    """
    path = Path(path)
    folder = path.resolve().parent
    return _declared(read_text(path), str(path), folder, lambda known: misfits(known, folder))


def parse_spec(text: str, source: str = "study", folder: Path | None = None) -> Declaration:
    """Read a study from TOML text. `source` names it in error messages.

    Relative paths in it start from `folder`, by default the current one. Data are not looked at.

    **Raises:** SpecError with the line and the field of every mistake.
    """
    return _declared(text, source, folder or Path.cwd(), lambda _: [])


def _declared(
    text: str, source: str, folder: Path, look: Callable[[Sections], list[FieldError]]
) -> Declaration:
    raw, errors = without_impossible(parsed(text, source))
    taken_out = {key_of(error.path) for error in errors}
    sections, found = read_sections(raw)
    sections = Sections(sections.parts, sections.wrong | taken_out)
    # What was taken out is not missing.
    errors += [error for error in found if error.path not in taken_out]
    errors += inconsistencies(sections)
    errors += look(sections)
    if errors:
        raise _told(errors, text, source)
    return Declaration(Spec.model_validate(raw), text, source, folder)


def _told(errors: Sequence[FieldError], text: str, source: str) -> SpecError:
    known = positions(text)
    mistakes = [Mistake(f"{written(e.path)}: {e}", line_of(known, e.path)) for e in errors]
    # Those without a line come last.
    mistakes.sort(key=lambda mistake: (mistake.line is None, mistake.line))
    first, *more = mistakes
    return SpecError(first.message, source, first.line, more=more)
