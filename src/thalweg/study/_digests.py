"""Digests of the files of a store, so that a damaged one is noticed, and named.

Chunks end with their own checksum, zarr's codec crc32c, which every reader of zarr compares. The
metadata of a group holds a digest of itself, and the digests of its arrays' metadata, which never
change. Every file thus holds its own digest or has it in one that was written after it, and a file
that is replaced atomically never disagrees with another.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

METADATA = "zarr.json"
DIGEST = "digest"
# Attributes of a group: the digests of its arrays' metadata.
ARRAYS = "arrays"
# What becomes of a chunk's bytes.
COMPRESSED, PLAIN = (ZstdCodec(), Crc32cCodec()), (Crc32cCodec(),)


class Damage(ValueError):
    """A file that does not hold what was written to it."""


def file_digest(file: Path) -> str:
    """The digest of a file as it is.

    **Raises:** Damage when it is not there.
    """
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise Damage("is missing, but was written") from None


def agree(file: Path, digest: str) -> None:
    """Compare a file with its digest.

    **Raises:** Damage when it is not there, or another.
    """
    if file_digest(file) != digest:
        raise Damage("does not agree with its digest")


def check_chunk(file: Path) -> None:
    """Compare a chunk's file with the CRC-32C checksum in its last four bytes.

    **Raises:** Damage when it is not there, or another.
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise Damage("is missing, but was written") from None
    if google_crc32c.value(data[:-4]).to_bytes(4, "little") != data[-4:]:
        raise Damage("does not agree with its checksum")


def chunk_files(array: zarr.Array, rows: int) -> Iterator[str]:
    """The files of an array's first rows."""
    first, *others = array.cdata_shape
    for place in np.ndindex(min(first, -(-rows // array.chunks[0])), *others):
        yield array.metadata.encode_chunk_key(place)  # pyright: ignore


def faulty_chunk(array: zarr.Array) -> str | None:
    """The first file of an array that cannot be read."""
    for place in np.ndindex(*array.cdata_shape):
        try:
            array.get_block_selection(place)
        except Exception:
            return array.metadata.encode_chunk_key(place)  # pyright: ignore
    return None


def sealed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """A group's attributes, with their digest."""
    # As they will be read back.
    plain = json.loads(json.dumps({k: v for k, v in attributes.items() if k != DIGEST}))
    return plain | {DIGEST: _digest(plain)}


def seal(group: zarr.Group, attributes: Mapping[str, Any]) -> None:
    """Add attributes to a group, in one write."""
    group.update_attributes(sealed({**group.attrs, **attributes}))


def attributes_of(group: Path) -> dict[str, Any]:
    """The attributes of a sealed group.

    **Raises:** Damage for metadata that do not agree with their digest.
    """
    rest, attributes = parsed(group)
    whole = rest == {"zarr_format": 3, "node_type": "group"}
    if not whole or attributes.get(DIGEST) != _digest(attributes):
        raise Damage("does not agree with its digest")
    return attributes


def parsed(group: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metadata of a group, sealed or not: attributes, and before them all the rest.

    **Raises:** Damage for a file that holds no such thing.
    """
    try:
        found = json.loads((group / METADATA).read_bytes().decode())
        attributes = found.pop("attributes")
        # Of mappings alone.
        return {**found}, {**attributes}
    except FileNotFoundError:
        raise Damage("is missing, but was written") from None
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise Damage(f"does not hold a group's metadata ({error})") from None


def _digest(attributes: Mapping[str, Any]) -> str:
    kept = {k: v for k, v in attributes.items() if k != DIGEST}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
