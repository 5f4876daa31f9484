"""What a study leaves on disk: one zarr store, written row by row, safe against sudden death.

The store is a zarr v3 hierarchy that `xarray.open_datatree(path, engine="zarr")` reads. Arrays have
their full length from the start, NaN where nothing was computed yet. After every saved time a
stage writes its row, and then may publish a checkpoint: the state to go on from, as plain bytes of
plain arrays, in the one of two slots that is not in use, and last of all an attribute that names
the slot. zarr replaces files atomically, so that at any moment the attribute names a complete
checkpoint, with complete rows before it. Nothing stored is ever executed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import zarr
from jaxtyping import PyTree

from ._errors import StoreError

FORMAT = 1
STORE_NAME = "study.zarr"
_LOCK_NAME = "running.lock"


class Store:
    """The store of one study, in `directory / "study.zarr"`."""

    def __init__(self, directory: Path, root: zarr.Group):
        self.directory = directory
        self.root = root

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
            probe = directory / ".probe"
            probe.write_bytes(b"thalweg")
            probe.unlink()
        except OSError as error:
            raise StoreError(f"cannot be written ({error.strerror}).", directory) from error
        free = shutil.disk_usage(directory).free
        if free < 1.2 * planned_bytes + 2**20:
            raise StoreError(
                f"has {free / 2**20:.0f} MiB free, but the results will take about"
                f" {planned_bytes / 2**20:.0f} MiB.",
                directory,
            )
        # Complete before it is visible under its name, so that a store never lacks its spec.
        draft = directory / f".{STORE_NAME}.{os.getpid()}"
        zarr.create_group(draft, attributes={"thalweg_format": FORMAT, **attributes})
        draft.rename(path)
        return Store.open(directory)

    @staticmethod
    def open(directory: str | Path) -> "Store":
        """Open a store that is there.

        **Raises:** StoreError when there is none, or it is damaged, foreign or of another version.
        """
        directory = Path(directory)
        path = directory / STORE_NAME
        if not directory.exists():
            raise StoreError("there is no such directory.", directory)
        if not path.is_dir():
            raise StoreError(f"holds no {STORE_NAME}: not the directory of a study.", directory)
        try:
            root = zarr.open_group(path, mode="r+" if os.access(path, os.W_OK) else "r")
        except Exception as error:
            raise StoreError(f"cannot be read as zarr: damaged ({error}).", path) from error
        version = root.attrs.get("thalweg_format")
        if version is None:
            raise StoreError("was not written by thalweg (no attribute thalweg_format).", path)
        if version != FORMAT:
            raise StoreError(f"has format {version}; this version reads format {FORMAT}.", path)
        for needed in ("spec", "folder", "data_digest", "initial_parameters_digest", "versions"):
            if needed not in root.attrs:
                raise StoreError(f"damaged: the attribute {needed!r} is missing.", path)
        return Store(directory, root)

    def sweep(self) -> None:
        """Remove what a sudden death left of files that were being written.

        Only for a process that holds the `Lock`: another one's files would be under way.
        """
        for path in (self.directory / STORE_NAME).rglob("*.partial"):
            path.unlink(missing_ok=True)

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the whole study: spec, seed, dtype, versions, verdict."""
        return dict(self.root.attrs)

    def attribute(self, path: str, name: str) -> Any:
        """An attribute of a group.

        **Raises:** StoreError when it is not there.
        """
        attributes = self.group(path).attrs
        if name not in attributes:
            raise StoreError(f"damaged: {path} has no attribute {name!r}.", self.directory)
        return attributes[name]

    def check(self, path: str) -> None:
        """Refuse a group that lacks rows which were computed.

        Every row computed is in a file of its own or in one with others, whatever its numbers;
        without the file, it would be read as NaN.

        **Raises:** StoreError.
        """
        group = self.group(path)
        rows = int(group.attrs.get("rows", -1))  # pyright: ignore[reportArgumentType]
        done = bool(group.attrs.get("complete"))
        for name, array in group.arrays():
            needed = array.nchunks if done else 0
            if rows >= 0:
                longest = -(-rows // array.chunks[0]) if array.ndim else 1
                needed = longest * int(np.prod(array.cdata_shape[1:], initial=1))
            if array.nchunks_initialized < needed:
                raise StoreError(f"damaged: {path}/{name} lacks stored rows.", self.directory)

    def has(self, path: str) -> bool:
        """Whether a group is there, complete or not."""
        return path in self.root

    def group(self, path: str) -> zarr.Group:
        """A group that is there.

        **Raises:** StoreError when it is not.
        """
        try:
            group = self.root[path]
        except KeyError:
            raise StoreError(f"damaged: {path} is missing.", self.directory) from None
        except Exception as error:
            raise StoreError(f"damaged: {path} ({error}).", self.directory) from error
        assert isinstance(group, zarr.Group)
        return group

    def allocate(
        self,
        path: str,
        coordinates: Mapping[str, np.ndarray],
        columns: Mapping[str, tuple[tuple[str, int], ...]],
        dtype: Any,
        attributes: Mapping[str, Any],
    ) -> None:
        """Make a group with a row for every saved time, unless it is there already.

        `coordinates` are arrays over the rows, "time" among them; `columns` map a name to its
        further dimensions, as `(name, size)` pairs, beyond time.

        **Raises:** StoreError when the group is gone though a checkpoint counts its rows.
        """
        if self.has(path) and self.group(path).attrs.get("allocated"):
            return
        if self.has(f"checkpoints/{path}") and "slot" in self.group(f"checkpoints/{path}").attrs:
            raise StoreError(f"damaged: {path} is missing, but was computed.", self.directory)
        group = self.root.require_group(path)
        rows = len(coordinates["time"])
        for name, values in coordinates.items():
            array = group.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                dimension_names=["time"],
                # A lone zero is a chunk, too.
                config={"write_empty_chunks": True},
                overwrite=True,
            )
            array[:] = values
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
                # A chunk of NaN is a result too, and its file tells it from one that is gone.
                config={"write_empty_chunks": True},
                overwrite=True,
            )
        group.update_attributes({**attributes, "allocated": True})

    def write_row(self, path: str, index: int, row: Mapping[str, Any]) -> None:
        """Fill one row of the columns named."""
        group = self.group(path)
        for name, value in row.items():
            array = group[name]
            assert isinstance(array, zarr.Array)
            array[index] = np.asarray(value)

    def write_columns(self, path: str, columns: Mapping[str, Any]) -> None:
        """Fill whole columns."""
        group = self.group(path)
        for name, values in columns.items():
            array = group[name]
            assert isinstance(array, zarr.Array)
            array[:] = np.asarray(values)

    def read(self, path: str, name: str) -> np.ndarray:
        """A whole array.

        **Raises:** StoreError when it is missing or cannot be read.
        """
        try:
            return np.asarray(self.group(path)[name][...])  # pyright: ignore
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(f"damaged: {path}/{name} ({error}).", self.directory) from error

    def annotate(self, path: str, attributes: Mapping[str, Any]) -> None:
        """Add attributes to a group; `""` is the whole study."""
        (self.group(path) if path else self.root).update_attributes(dict(attributes))

    def complete(self, path: str) -> bool:
        """Whether a stage was brought to its end.

        **Raises:** StoreError when it was, but its rows are not there.
        """
        if not self.has(path) or not self.group(path).attrs.get("complete"):
            return False
        self.check(path)
        return True

    def save_checkpoint(self, path: str, state: PyTree, index: int) -> None:
        """Publish the state from which row `index` will be computed."""
        group = self.root.require_group(f"checkpoints/{path}")
        slot = 1 - int(group.attrs.get("slot", 1))  # pyright: ignore[reportArgumentType]
        data, signature = _to_bytes(state)
        name = f"slot{slot}"
        if name not in group or group[name].shape != data.shape:  # pyright: ignore
            group.create_array(
                name,
                shape=data.shape,
                chunks=(max(1, data.size),),
                dtype="u1",
                dimension_names=["byte"],
                compressors=None,
                overwrite=True,
            )
        group[name][:] = data  # pyright: ignore
        digest = hashlib.sha256(data.tobytes()).hexdigest()
        # In one write: `attrs.update` would make one for each.
        group.update_attributes(
            {"slot": slot, "index": index, "signature": signature, "sha256": digest}
        )

    def load_checkpoint(self, path: str, template: PyTree) -> tuple[PyTree, int] | None:
        """The state published last and its row, or `None` before the first.

        `template` is a state of the same run; it lends its structure.

        **Raises:** StoreError for a checkpoint of another structure: another version of the library
        or a changed spec.
        """
        where = f"checkpoints/{path}"
        if not self.has(where) or "slot" not in self.group(where).attrs:
            return None
        group = self.group(where)
        _, signature = _to_bytes(template)
        if self.attribute(where, "signature") != signature:
            raise StoreError(
                f"the checkpoint of {path} has another structure than this version computes"
                " with; resume it with the versions that the store names.",
                self.directory,
            )
        data = self.read(where, f"slot{group.attrs['slot']}")
        if hashlib.sha256(data.tobytes()).hexdigest() != self.attribute(where, "sha256"):
            raise StoreError(f"damaged: the checkpoint of {path}.", self.directory)
        return _from_bytes(data, template), int(self.attribute(where, "index"))

    def discard_checkpoint(self, path: str) -> None:
        """Remove the state of a run that is complete, and will not be gone on with."""
        if f"checkpoints/{path}" in self.root:
            del self.root[f"checkpoints/{path}"]


class Lock:
    """Keeps a second process from writing to the same directory; a dead process's lock is void."""

    def __init__(self, directory: str | Path):
        self._path = Path(directory) / _LOCK_NAME

    def __enter__(self) -> "Lock":
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if (owner := self._owner()) is not None:
                raise StoreError(f"process {owner} is at work here.", self._path.parent)
            self._path.write_text(json.dumps({"pid": os.getpid()}))
        except OSError as error:
            raise StoreError(f"cannot be written ({error.strerror}).", self._path.parent) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)

    def _owner(self) -> int | None:
        try:
            pid = int(json.loads(self._path.read_text())["pid"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        if pid == os.getpid():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return pid


def _to_bytes(state: PyTree) -> tuple[np.ndarray, str]:
    """All leaves' bytes in a row, and the description of their types and shapes."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
    parts = [np.frombuffer(np.ascontiguousarray(leaf).tobytes(), np.uint8) for leaf in leaves]
    data = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
    signature = ";".join(f"{leaf.dtype.str}{list(leaf.shape)}" for leaf in leaves)
    return data, signature


def _from_bytes(data: np.ndarray, template: PyTree) -> PyTree:
    leaves, structure = jax.tree.flatten(template)
    restored, offset = [], 0
    for leaf in leaves:
        like = np.asarray(leaf)
        raw = data[offset : offset + like.nbytes]
        offset += like.nbytes
        value = np.frombuffer(raw.tobytes(), like.dtype).reshape(like.shape)
        restored.append(jnp.asarray(value) if eqx.is_array(leaf) else value)
    return jax.tree.unflatten(structure, restored)
