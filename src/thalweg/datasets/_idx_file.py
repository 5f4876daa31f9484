"""One file in the IDX format: a header with a shape, then so many unsigned bytes, and no more."""

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

_UNSIGNED_BYTE = 0x08
_OTHER_TYPES = {
    0x09: "signed bytes",
    0x0B: "16-bit integers",
    0x0C: "32-bit integers",
    0x0D: "32-bit floats",
    0x0E: "64-bit floats",
}
# What a byte of deflate can stand for at most: 258 bytes take two bits (RFC 1951).
_MOST_INFLATED = 1032
# Bytes that are read at once.
_PIECE = 2**20


@dataclass(frozen=True)
class IdxFile:
    """An IDX file of unsigned bytes, of which only the header was read.

    `shape` is what the header says; a file of this size can hold it. A gzipped file is never
    inflated further than that, whatever it holds.
    """

    path: Path
    shape: tuple[int, ...]

    @staticmethod
    def open(path: Path, dimensions: int) -> "IdxFile":
        """Read the header.

        **Raises:** ValueError for a file that is not IDX, has another type or number of dimensions,
        or cannot hold what its header says.
        """
        length = 4 + 4 * dimensions
        with _opened(path) as file:
            header = _read(file, length, path)
        _check_kind(header[:4], dimensions, path)
        if len(header) < length:
            raise ValueError(f"{path}: cut short: {len(header)} bytes, its header alone has more.")
        shape = tuple(int(n) for n in np.frombuffer(header, ">u4", dimensions, offset=4))
        found = IdxFile(path, shape)
        found._check_size(path.stat().st_size)
        return found

    @property
    def length(self) -> int:
        """The bytes of header and content."""
        return 4 + 4 * len(self.shape) + math.prod(self.shape)

    def rows(self, every: int, count: int) -> np.ndarray:
        """Rows 0, every, 2 every, ...: so many of them, `count`.

        Everything up to the end that the header says is read, since damage anywhere in a gzipped
        file shows only there; in memory are the rows that are asked for.

        **Raises:** ValueError for a file that is damaged, or goes on after this end.
        """
        total, row = self.shape[0], math.prod(self.shape[1:])
        # Beyond the last row all steps are alike, and NumPy takes no larger numbers.
        every = min(every, total)
        taken = np.empty((count, row), np.uint8)
        at_once = max(1, _PIECE // row)
        with _opened(self.path) as file:
            _read(file, self.length - total * row, self.path)
            for first in range(0, total, at_once):
                wanted = min(at_once, total - first) * row
                data = _read(file, wanted, self.path)
                if len(data) < wanted:
                    raise self._cut_short(self.length - (total - first) * row + len(data))
                offset = -first % every
                start = (first + offset) // every
                chosen = np.frombuffer(data, np.uint8).reshape(-1, row)[offset::every]
                taken[start : start + len(chosen)] = chosen[: max(count - start, 0)]
            if _read(file, 1, self.path):
                raise self._too_long()
        return taken.reshape(count, *self.shape[1:])

    def _check_size(self, size: int) -> None:
        if self.path.suffix != ".gz":
            if size < self.length:
                raise self._cut_short(size)
            if size > self.length:
                raise self._too_long()
        elif self.length > _MOST_INFLATED * size:
            raise ValueError(
                f"{self.path}: cut short or damaged: its header says {self.length:,} bytes (shape"
                f" {self.shape}), more than a gzip file of {size:,} bytes can hold."
            )

    def _cut_short(self, size: int) -> ValueError:
        return ValueError(
            f"{self.path}: cut short: {size:,} bytes, but its header says {self.length:,} (shape"
            f" {self.shape})."
        )

    def _too_long(self) -> ValueError:
        return ValueError(
            f"{self.path}: goes on after the {self.length:,} bytes that its header says (shape"
            f" {self.shape})."
        )


def _check_kind(magic: bytes, dimensions: int, path: Path) -> None:
    wanted = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if magic == wanted:
        return
    if len(magic) < 4 or magic[:2] != b"\0\0":
        found = f"it starts with {magic!r}" if magic else "it is empty"
    elif magic[2] != _UNSIGNED_BYTE:
        kind = _OTHER_TYPES.get(magic[2], "unknown")
        found = f"the code of its type is 0x{magic[2]:02x} ({kind}) instead of 0x08"
    else:
        found = f"it has {magic[3]}"
    raise ValueError(
        f"{path}: not an IDX file of unsigned bytes with {dimensions} dimension(s): {found}."
    )


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _read(file: BinaryIO | gzip.GzipFile, size: int, path: Path) -> bytes:
    """So many bytes, fewer at the end of the file."""
    try:
        return file.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: a damaged gzip file ({error}).") from error
