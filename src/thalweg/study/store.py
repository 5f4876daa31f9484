"""What a study leaves on disk: one zarr store, written row by row, safe against sudden death.

The store is a zarr v3 hierarchy that `xarray.open_datatree(path, engine="zarr")` reads. Arrays have
their full length from the start, NaN where nothing was computed yet. After every saved time a
stage writes its row, and then may publish a checkpoint: the state to go on from, as plain bytes of
plain arrays, in the one of two slots that is not in use, and last of all an attribute that names
the slot. zarr replaces files atomically, so that at any moment the attribute names a complete
checkpoint, with complete rows before it. Every file has a digest, which is compared when the file
is read (see `_digests`). Nothing stored is ever executed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import zarr
from jaxtyping import PyTree

from ._digests import (
    ARRAYS,
    COMPRESSED,
    DIGEST,
    METADATA,
    PLAIN,
    Damage,
    agree,
    attributes_of,
    chunk_files,
    faulty_chunk,
    file_digest,
    parsed,
    seal,
    sealed,
)
from ._errors import StoreError
from ._states import from_bytes, to_bytes

FORMAT = 2
STORE_NAME = "study.zarr"
_CHECKPOINTS = "checkpoints"
# The attribute of the whole study that lists its groups.
_GROUPS = "groups"


class Store:
    """The store of one study, in `directory / "study.zarr"`."""

    def __init__(self, directory: Path):
        self.directory = directory
        self._path = directory / STORE_NAME
        self._mode: Any = "r+" if os.access(self._path, os.W_OK) else "r"

    @staticmethod
    def create(directory: str | Path, attributes: Mapping[str, Any], planned_bytes: int) -> "Store":
        """Make a new store.

        **Raises:** StoreError when the directory holds results already, cannot be written, or has
        too little room for what is planned.
        """
        directory = Path(directory)
        path = directory / STORE_NAME
        if path.exists():
            raise StoreError(
                "holds results already; go on with `thalweg resume`, or choose another directory.",
                directory,
            )
        try:
            directory.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(directory).free
            if free < 1.2 * planned_bytes + 2**20:
                raise StoreError(
                    f"has {free / 2**20:.0f} MiB free, but the results will take about"
                    f" {planned_bytes / 2**20:.0f} MiB.",
                    directory,
                )
            # Complete before it is visible under its name, so that a store never lacks its spec.
            draft = directory / f".{STORE_NAME}.{os.getpid()}"
            first = {"thalweg_format": FORMAT, **attributes, _GROUPS: "[]"}
            try:
                zarr.create_group(draft, attributes=sealed(first))
                draft.rename(path)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        except OSError as error:
            raise StoreError(f"cannot be written ({error.strerror}).", directory) from error
        return Store.open(directory)

    @staticmethod
    def open(directory: str | Path) -> "Store":
        """Open a store that is there, and compare all its metadata with their digests.

        **Raises:** StoreError when there is none, or it is damaged, foreign or of another version.
        """
        directory = Path(directory)
        path = directory / STORE_NAME
        if not directory.exists():
            raise StoreError("there is no such directory.", directory)
        if not path.is_dir():
            raise StoreError(f"holds no {STORE_NAME}: not the directory of a study.", directory)
        store = Store(directory)
        with store._told(METADATA):
            _, found = parsed(path)
        version = found.get("thalweg_format")
        if version is None and DIGEST not in found:
            raise StoreError("was not written by thalweg (no attribute thalweg_format).", path)
        if version == 1 and DIGEST not in found:
            raise StoreError(
                "has format 1, of which damage cannot be told; this version reads format"
                f" {FORMAT}. Report or resume it with the version of thalweg that it names, or"
                " carry the study out again. xarray reads its arrays.",
                path,
            )
        attributes = store.attributes
        if version != FORMAT:
            raise StoreError(f"has format {version}; this version reads format {FORMAT}.", path)
        for needed in ("spec", "folder", "data_digest", "initial_parameters_digest", "versions"):
            if needed not in attributes:
                raise StoreError(f"damaged: the attribute {needed!r} is missing.", path)
        for group in json.loads(attributes[_GROUPS]):
            for name, digest in store._arrays(group).items():
                with store._told(f"{group}/{name}/{METADATA}"):
                    agree(store._path / group / name / METADATA, digest)
        return store

    def sweep(self) -> None:
        """Remove what a sudden death left of files that were being written.

        Only for a process that holds the `Lock`: another one's files would be under way.
        """
        for path in self._path.rglob("*.partial"):
            path.unlink(missing_ok=True)

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the whole study: spec, seed, dtype, versions, verdict."""
        return self.attributes_of("")

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
            raise StoreError(f"damaged: {path} has no attribute {name!r}.", self.directory)
        return attributes[name]

    def has(self, path: str) -> bool:
        """Whether a group is there, complete or not."""
        return (self._path / path / METADATA).is_file()

    def members(self, path: str) -> list[str]:
        """The names of the groups in a group, in order of their `position`; none without it."""
        listed = (PurePosixPath(group) for group in json.loads(self.attributes[_GROUPS]))
        names = [group.name for group in listed if group.parent == PurePosixPath(path)]
        place = {name: self.attributes_of(f"{path}/{name}").get("position", 0) for name in names}
        return sorted(names, key=lambda name: (place[name], name))

    def columns(self, path: str) -> list[str]:
        """The names of a group's arrays, coordinates first."""
        return list(self._arrays(path))

    def check(self, path: str, rows: int | None = None) -> None:
        """Refuse a group that lacks rows which were computed: its first so many, or all.

        Every row computed is in a file of its own or in one with others, whatever its numbers;
        without the file, it would be read as NaN.

        **Raises:** StoreError.
        """
        attributes = self.attributes_of(path)
        known = attributes.get("rows") if rows is None else rows
        for name in self.columns(path):
            array = self._array(path, name)
            needed = array.shape[0] if attributes.get("complete") else 0
            if known is not None:
                needed = int(known)
            for key in chunk_files(array, needed):
                if not (self._path / path / name / key).is_file():
                    raise StoreError(
                        f"damaged: {path}/{name} lacks stored rows: {path}/{name}/{key} is missing.",
                        self.directory,
                    )

    def require(self, path: str) -> None:
        """Make a group, and those that it is in, unless they are there."""
        where = PurePosixPath(path)
        for part in [*reversed(where.parents), where][1:]:
            if not self.has(str(part)):
                with self._writing(str(part)):
                    zarr.create_group(self._path, path=str(part), attributes=sealed({}))
            listed = json.loads(self.attributes[_GROUPS])
            # Checkpoints come and go.
            if part.parts[0] != _CHECKPOINTS and str(part) not in listed:
                self.annotate("", {_GROUPS: json.dumps([*listed, str(part)])})

    def allocate(
        self,
        path: str,
        coordinates: Mapping[str, np.ndarray],
        columns: Mapping[str, tuple[tuple[str, int], ...]],
        dtype: Any,
        attributes: Mapping[str, Any],
    ) -> None:
        """Make a group with a row for every saved time, unless it has a checkpoint to go on from.

        `coordinates` are arrays over the rows, "time" among them; `columns` map a name to its
        further dimensions, as `(name, size)` pairs, beyond time.
        """
        if self._published(path) is not None:
            return
        self.require(path)
        self.annotate(path, {ARRAYS: "{}"})
        group = self._group(path)
        rows = len(coordinates["time"])
        # A lone zero is a chunk too, and so is one of NaN: its file tells it from one that is gone.
        made: dict[str, Any] = {
            "compressors": COMPRESSED,
            "config": {"write_empty_chunks": True},
            "overwrite": True,
        }
        with self._writing(path):
            for name, values in coordinates.items():
                group.create_array(
                    name,
                    shape=values.shape,
                    dtype=values.dtype,
                    dimension_names=["time"],
                    **made,
                )[:] = values
            for name, extra in columns.items():
                sizes = tuple(size for _, size in extra)
                group.create_array(
                    name,
                    shape=(rows, *sizes),
                    # A long row is a file of its own; a column of numbers is one file.
                    chunks=(1 if np.prod(sizes, initial=1) > 64 else rows, *sizes),
                    dtype=dtype,
                    fill_value=np.nan,
                    dimension_names=["time", *(d for d, _ in extra)],
                    **made,
                )
        digests = {
            name: file_digest(self._path / path / name / METADATA)
            for name in (*coordinates, *columns)
        }
        self.annotate(path, {**attributes, ARRAYS: json.dumps(digests)})

    def write_row(self, path: str, index: int, row: Mapping[str, Any]) -> None:
        """Fill one row of the columns named."""
        for name, value in row.items():
            self._write(path, name, index, value)

    def write_columns(self, path: str, columns: Mapping[str, Any]) -> None:
        """Fill whole columns."""
        for name, values in columns.items():
            self._write(path, name, slice(None), values)

    def read(self, path: str, name: str) -> np.ndarray:
        """A whole array.

        **Raises:** StoreError when it is missing or cannot be read.
        """
        array = self._array(path, name)
        try:
            return np.asarray(array[...])
        except Exception as error:
            raise self._damage(path, name, array, error) from error

    def dimensions(self, path: str, name: str) -> tuple[str, ...]:
        """The names of an array's dimensions, time first."""
        return tuple(self._array(path, name).metadata.dimension_names)  # pyright: ignore

    def annotate(self, path: str, attributes: Mapping[str, Any]) -> None:
        """Add attributes to a group; `""` is the whole study."""
        group = self._group(path)
        with self._writing(path):
            seal(group, attributes)

    def complete(self, path: str) -> bool:
        """Whether a stage was brought to its end.

        **Raises:** StoreError when it was, but its rows are not there.
        """
        if not self.has(path) or not self.attributes_of(path).get("complete"):
            return False
        self.check(path)
        return True

    def save_checkpoint(self, path: str, state: PyTree, index: int) -> None:
        """Publish the state from which row `index` will be computed."""
        where = f"{_CHECKPOINTS}/{path}"
        self.require(where)
        group = self._group(where)
        slot = f"slot{1 - int(group.attrs.get('slot', 1))}"  # pyright: ignore[reportArgumentType]
        data, signature = to_bytes(state)
        with self._writing(where):
            # What is in the slot is of no more use; that it can be read is not known.
            group.create_array(
                slot,
                shape=data.shape,
                chunks=(max(1, data.size),),
                dtype="u1",
                dimension_names=["byte"],
                compressors=PLAIN,
                config={"write_empty_chunks": True},
                overwrite=True,
            )[:] = data
        self.annotate(
            where,
            {
                "slot": int(slot[-1]),
                "index": index,
                "signature": signature,
                "sha256": hashlib.sha256(data.tobytes()).hexdigest(),
                ARRAYS: json.dumps({slot: file_digest(self._path / where / slot / METADATA)}),
            },
        )

    def load_checkpoint(self, path: str, template: PyTree) -> tuple[PyTree, int] | None:
        """The state published last and its row, or `None` before the first.

        `template` is a state of the same run; it lends its structure.

        **Raises:** StoreError for a checkpoint of another structure: another version of the library
        or a changed spec.
        """
        slot, where = self._published(path), f"{_CHECKPOINTS}/{path}"
        if slot is None:
            return None
        _, signature = to_bytes(template)
        if self.attribute(where, "signature") != signature:
            raise StoreError(
                f"the checkpoint of {path} has another structure than this version computes"
                " with; resume it with the versions that the store names.",
                self.directory,
            )
        data = self.read(where, slot)
        if hashlib.sha256(data.tobytes()).hexdigest() != self.attribute(where, "sha256"):
            raise StoreError(f"damaged: the checkpoint of {path} ({where}/{slot}).", self.directory)
        return from_bytes(data, template), int(self.attribute(where, "index"))

    def discard_checkpoint(self, path: str) -> None:
        """Remove the state of a run that is complete, and will not be gone on with."""
        shutil.rmtree(self._path / _CHECKPOINTS / path, ignore_errors=True)

    def _published(self, path: str) -> str | None:
        """The slot of a stage's checkpoint, if it has one."""
        where = f"{_CHECKPOINTS}/{path}"
        slot = self.attributes_of(where).get("slot") if self.has(where) else None
        return None if slot is None else f"slot{slot}"

    def _arrays(self, path: str) -> dict[str, str]:
        """The arrays of a group, with the digests of their metadata."""
        return json.loads(self.attributes_of(path).get(ARRAYS, "{}"))

    def _group(self, path: str) -> zarr.Group:
        self.attributes_of(path)
        return zarr.open_group(self._path, path=path, mode=self._mode)

    def _array(self, path: str, name: str) -> zarr.Array:
        """An array of which the metadata are as they were written."""
        digest = self._arrays(path).get(name)
        if digest is None:
            raise StoreError(f"damaged: {path}/{name} is missing.", self.directory)
        with self._told(f"{path}/{name}/{METADATA}"):
            agree(self._path / path / name / METADATA, digest)
        return zarr.open_array(self._path, path=f"{path}/{name}", mode=self._mode)

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
        where = "/".join(filter(None, (path, name, faulty_chunk(array))))
        return StoreError(f"damaged: {where} cannot be read ({error}).", self.directory)

    @contextmanager
    def _told(self, file: str) -> Iterator[None]:
        """Damage is told with the name of the file."""
        try:
            yield
        except Damage as error:
            raise StoreError(f"damaged: {file} {error}.", self.directory) from error
        except OSError as error:
            raise StoreError(
                f"{file} cannot be read ({error.strerror}).", self.directory
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
