"""A zarr hierarchy of which every file has a digest, and every fault is told with its file."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import zarr

from ._digests import (
    ARRAYS,
    METADATA,
    Damage,
    agree,
    attributes_of,
    check_chunk,
    faulty_chunk,
    seal,
    sealed,
)
from ._errors import StoreError

# The attribute of the root that lists the groups.
GROUPS = "groups"
# A lone zero is a chunk too, and so is one of NaN: its file tells it from one that is gone.
WRITTEN: Any = {"write_empty_chunks": True}


class Hierarchy:
    """Groups with attributes, and arrays in them, in a directory.

    The root lists the groups, but for those below `unlisted`, which come and go. Error messages
    begin with `directory`, the study's, and give files by their paths from there.
    """

    def __init__(self, directory: Path, root: Path, unlisted: str):
        self.directory = directory
        self._path = root
        self._unlisted = unlisted
        self._mode: Any = "r+" if os.access(root, os.W_OK) else "r"
        # Those opened so far. Metadata of arrays do not change.
        self._opened: dict[tuple[str, str], zarr.Array] = {}

    def attributes_of(self, path: str) -> dict[str, Any]:
        """The attributes of a group; `""` is the whole study.

        **Raises:** StoreError when the group is missing or damaged.
        """
        with self._told(str(PurePosixPath(path, METADATA))):
            return attributes_of(self._path / path)

    def attribute(self, path: str, name: str) -> Any:
        """An attribute of a group.

        **Raises:** StoreError when it is not there.
        """
        attributes = self.attributes_of(path)
        if name not in attributes:
            group = self._from_directory(path)
            raise StoreError(f"damaged: {group} has no attribute {name!r}.", self.directory)
        return attributes[name]

    def has(self, path: str) -> bool:
        """Whether a group is there, complete or not."""
        return (self._path / path / METADATA).is_file()

    def columns(self, path: str) -> list[str]:
        """The names of a group's arrays, coordinates first."""
        return list(self._arrays(path))

    def dimensions(self, path: str, name: str) -> tuple[str, ...]:
        """The names of an array's dimensions, time first."""
        return tuple(self._array(path, name).metadata.dimension_names)  # pyright: ignore

    def read(self, path: str, name: str) -> np.ndarray:
        """A whole array.

        **Raises:** StoreError when it is missing or cannot be read.
        """
        array = self._array(path, name)
        try:
            return np.asarray(array[...])
        except Exception as error:
            raise self._damage(path, name, array, error) from error

    def write_row(self, path: str, index: int, row: Mapping[str, Any]) -> None:
        """Fill one row of the columns named."""
        for name, value in row.items():
            self._write(path, name, index, value)

    def write_columns(self, path: str, columns: Mapping[str, Any]) -> None:
        """Fill whole columns."""
        for name, values in columns.items():
            self._write(path, name, slice(None), values)

    def annotate(self, path: str, attributes: Mapping[str, Any]) -> None:
        """Add attributes to a group; `""` is the whole study."""
        group = self._group(path)
        with self._writing(path):
            seal(group, attributes)

    def require(self, path: str) -> None:
        """Make a group, and those that it is in, unless they are there."""
        where = PurePosixPath(path)
        for part in [*reversed(where.parents), where][1:]:
            if not self.has(str(part)):
                with self._writing(str(part)):
                    zarr.create_group(self._path, path=str(part), attributes=sealed({}))
            if part.parts[0] != self._unlisted and str(part) not in (listed := self.groups()):
                self.annotate("", {GROUPS: json.dumps([*listed, str(part)])})

    def groups(self) -> list[str]:
        """The paths of all groups that are listed."""
        return json.loads(self.attribute("", GROUPS))

    def compare(self) -> None:
        """Compare all metadata with their digests.

        **Raises:** StoreError, with the name of the first that does not agree.
        """
        for group in self.groups():
            for name, digest in self._arrays(group).items():
                self._agree(group, name, digest)

    def _arrays(self, path: str) -> dict[str, str]:
        """The arrays of a group, with the digests of their metadata."""
        return json.loads(self.attributes_of(path).get(ARRAYS, "{}"))

    def _agree(self, path: str, name: str, digest: str) -> None:
        file = f"{path}/{name}/{METADATA}"
        with self._told(file):
            agree(self._path / file, digest)

    def _group(self, path: str) -> zarr.Group:
        self.attributes_of(path)
        return zarr.open_group(self._path, path=path, mode=self._mode)

    def _array(self, path: str, name: str) -> zarr.Array:
        """An array of which the metadata are as they were written."""
        if (path, name) in self._opened:
            return self._opened[path, name]
        digest = self._arrays(path).get(name)
        if digest is None:
            where = self._from_directory(path, name)
            raise StoreError(f"damaged: {where} is missing.", self.directory)
        self._agree(path, name, digest)
        array = zarr.open_array(self._path, path=f"{path}/{name}", mode=self._mode)
        self._opened[path, name] = array.with_config(WRITTEN)
        return self._opened[path, name]

    def _write(self, path: str, name: str, rows: int | slice, values: Any) -> None:
        array = self._array(path, name)
        try:
            with self._writing(f"{path}/{name}"):
                array[rows] = np.asarray(values)
        except StoreError:
            raise
        except Exception as error:
            # Other rows of the same chunk are read first.
            raise self._damage(path, name, array, error) from error

    def _damage(self, path: str, name: str, array: zarr.Array, error: Exception) -> StoreError:
        """What to say of an array that cannot be read."""
        chunk = faulty_chunk(array)
        where = self._from_directory(path, name, chunk or "")
        said = f"cannot be read ({error})"
        if chunk is not None:
            try:
                check_chunk(self._path / path / name / chunk)
            except Damage as damage:
                said = str(damage)
        return StoreError(f"damaged: {where} {said}.", self.directory)

    def _from_directory(self, *parts: str) -> str:
        """The path of a part of the store, from the study's directory."""
        return str(PurePosixPath(self._path.name, *parts))

    @contextmanager
    def _told(self, file: str) -> Iterator[None]:
        """Damage is told with the name of the file."""
        try:
            yield
        except Damage as error:
            where = self._from_directory(file)
            raise StoreError(f"damaged: {where} {error}.", self.directory) from error
        except OSError as error:
            where = self._from_directory(file)
            raise StoreError(
                f"{where} cannot be read ({error.strerror}).", self.directory
            ) from error

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """What cannot be written is told, with what can be done then."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{what or 'the store'} cannot be written ({error.strerror}). What was written"
                " before is kept: when there is room, go on with `thalweg resume"
                f" {self.directory}`.",
                self.directory,
            ) from error
