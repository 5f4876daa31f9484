"""Mistakes in a study, told so that they can be mended."""

from pathlib import Path


class SpecError(ValueError):
    """A mistake in a study's TOML: which line, which field, what would be valid."""

    def __init__(self, message: str, source: str, line: int | None = None):
        where = source if line is None else f"{source}:{line}"
        super().__init__(f"{where}: {message}")
        self.line = line


class StoreError(ValueError):
    """A store that is damaged, foreign, in use, or cannot be written. Nothing was deleted."""

    def __init__(self, message: str, path: Path):
        super().__init__(f"{path}: {message}")
        self.path = path
