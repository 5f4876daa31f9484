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
from collections.abc import Mapping
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
    check_chunk,
    chunk_files,
    file_digest,
    parsed,
    sealed,
)
from ._errors import StoreError
from ._hierarchy import GROUPS, WRITTEN, Hierarchy
from ._states import from_bytes, to_bytes

FORMAT = 2
STORE_NAME = "study.zarr"
_CHECKPOINTS = "checkpoints"
_SECONDS = "seconds"


class Store(Hierarchy):
    """The store of one study, in `directory / "study.zarr"`."""

    def __init__(self, directory: Path):
        super().__init__(directory, directory / STORE_NAME, _CHECKPOINTS)

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
            first = {"thalweg_format": FORMAT, **attributes, GROUPS: "[]"}
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
        store.compare()
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

    def members(self, path: str) -> list[str]:
        """The names of the groups in a group, in order of their `position`; none without it."""
        listed = (PurePosixPath(group) for group in self.groups())
        names = [group.name for group in listed if group.parent == PurePosixPath(path)]
        place = {name: self.attributes_of(f"{path}/{name}").get("position", 0) for name in names}
        return sorted(names, key=lambda name: (place[name], name))

    def check(self, path: str, rows: int | None = None) -> None:
        """Refuse a group in which rows that were computed are missing or damaged.

        `rows`: how many of its first rows to look at; by default all that were computed. Every
        such row is in a file of its own or in one with others, whatever its numbers; without the
        file, it would be read as NaN. Each file is read once and compared with its checksum.

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
                file = f"{path}/{name}/{key}"
                with self._told(file):
                    check_chunk(self._path / file)

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
        made: dict[str, Any] = {"compressors": COMPRESSED, "config": WRITTEN, "overwrite": True}
        with self._writing(path):
            for name, values in coordinates.items():
                array = group.create_array(
                    name,
                    shape=values.shape,
                    dtype=values.dtype,
                    dimension_names=["time"],
                    **made,
                )
                array[:] = values
                self._opened[path, name] = array
            for name, extra in columns.items():
                sizes = tuple(size for _, size in extra)
                self._opened[path, name] = group.create_array(
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

    def add(
        self,
        path: str,
        time: np.ndarray,
        columns: Mapping[str, Any],
        dtype: Any,
        attributes: Mapping[str, Any],
    ) -> None:
        """Store columns of one number a row that were computed as a whole."""
        self.allocate(path, {"time": time}, dict.fromkeys(columns, ()), dtype, attributes)
        self.write_columns(path, columns)
        self.annotate(path, {"complete": True})

    def seconds(self) -> dict[str, float]:
        """How long the parts of stages took, by path, compilation included; for those that tell."""
        return json.loads(self.attributes.get(_SECONDS, "{}"))

    def add_seconds(self, path: str, seconds: float) -> None:
        """Note how long a part took, on top of what it took before it was interrupted.

        With the whole study, since the numbers of a part are the same however long they took.
        """
        known = self.seconds()
        self.annotate("", {_SECONDS: json.dumps(known | {path: known.get(path, 0.0) + seconds})})

    def complete(self, path: str) -> bool:
        """Whether a stage was brought to its end.

        **Raises:** StoreError when it was, but its rows are missing or damaged.
        """
        if not self.has(path) or not self.attributes_of(path).get("complete"):
            return False
        self.check(path)
        return True

    def save_checkpoint(self, path: str, state: PyTree, index: int) -> None:
        """Publish the state from which row `index` will be computed."""
        where = f"{_CHECKPOINTS}/{path}"
        self.require(where)
        slot = f"slot{1 - self.attributes_of(where).get('slot', 1)}"
        data, signature = to_bytes(state)
        array = self._opened.get((where, slot))
        with self._writing(where):
            if array is None or array.shape != data.shape:
                array = self._group(where).create_array(
                    slot,
                    shape=data.shape,
                    chunks=(max(1, data.size),),
                    dtype="u1",
                    dimension_names=["byte"],
                    compressors=PLAIN,
                    config=WRITTEN,
                    overwrite=True,
                )
            array[:] = data
        self._opened[where, slot] = array
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
            file = self._from_directory(where, slot)
            raise StoreError(
                f"damaged: the checkpoint of {path} ({file}) is not the one that was written.",
                self.directory,
            )
        return from_bytes(data, template), int(self.attribute(where, "index"))

    def discard_checkpoint(self, path: str) -> None:
        """Remove the state of a run that is complete, and will not be gone on with."""
        where = f"{_CHECKPOINTS}/{path}"
        shutil.rmtree(self._path / where, ignore_errors=True)
        self._opened = {key: array for key, array in self._opened.items() if key[0] != where}

    def _published(self, path: str) -> str | None:
        """The slot of a stage's checkpoint, if it has one."""
        where = f"{_CHECKPOINTS}/{path}"
        slot = self.attributes_of(where).get("slot") if self.has(where) else None
        return None if slot is None else f"slot{slot}"
