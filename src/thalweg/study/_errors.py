"""Mistakes in a study, told so that they can be mended."""

from pathlib import Path


class SpecError(ValueError):
    """A mistake in a study's TOML: which line, which field, what would be valid."""

    def __init__(self, message: str, source: str, line: int | None = None):
        where = source if line is None else f"{source}:{line}"
        super().__init__(f"{where}: {message}")
        self.line = line


class FieldError(ValueError):
    """A mistake with the path of the field that it is about; `Declaration` knows the line."""

    def __init__(self, path: tuple[str | int, ...], message: str):
        super().__init__(message)
        self.path = path


class StoreError(ValueError):
    """A store that is damaged, foreign, in use, or cannot be written. Nothing was deleted."""

    def __init__(self, message: str, path: Path):
        super().__init__(f"{path}: {message}")
        self.path = path
