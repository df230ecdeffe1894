"""Shards: parts of an HDF5 file that is not finished yet, each in a separate file.

A shard is an HDF5 file with the datasets of :data:`SHARD_SCHEMA` and, if the objects of its images are known, those of
:data:`dagaug.hdf5.schema.OBJECTS_SCHEMA`. Its rows of candidates and images count from 0; the
merge adds the numbers of rows of the shards before it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from dagaug.hdf5.object_masks import Objects
from dagaug.hdf5.raw_dataset_bytes import ByteReader, ByteWriter, create_file, read_layout
from dagaug.hdf5.schema import (
    OBJECTS_SCHEMA,
    SCHEMA,
    SHARD_FORMAT,
    VERSION,
    Candidates,
    Images,
    digest,
    links_agree,
)
from dagaug.runtime.errors import StoreError
from dagaug.runtime.files import atomic_replace

__all__ = [
    "ROW_COUNTS",
    "SHARD_SCHEMA",
    "ShardContent",
    "ShardFile",
    "explain_hdf5_write_errors",
    "finished_shards",
    "parts_folder",
    "shard_path",
    "to_stored_type",
    "write_durably",
    "write_shard",
]

SHARD_SCHEMA = {name: kind for name, kind in SCHEMA.items() if name.startswith(("images/", "candidates/", "content_"))}
"""The datasets of a shard: the tables of images and candidates."""

ROW_COUNTS = ("images/label", "candidates/source", "images/data")
"""Datasets whose lengths are the numbers of images, candidates and bytes."""


_SHARD_ATTRIBUTES: dict[str, type] = {"format": str, "version": int, "index": int}


@dataclass(frozen=True)
class ShardContent:
    """Content of one shard.

    Attributes:
        encoded: bytes of each image, in the encoding of the header.
        images: one row for each image; ``candidate`` is a row of ``candidates``, -1 for none.
        candidates: the candidates, kept or not; ``image`` is a row of ``images``, -1 for none.
        objects: the objects of the images; None if nothing is known. The shards of one file all have them, or none has.
    """

    encoded: Sequence[bytes]
    images: Images
    candidates: Candidates = field(default_factory=Candidates.none)
    objects: Objects | None = None


def parts_folder(target: Path | str) -> Path:
    """The folder with the shards of ``target`` until it is finished: ``TARGET.parts``."""
    target = Path(target)
    return target.with_name(target.name + ".parts")


def shard_path(parts: Path, index: int) -> Path:
    """The file of a shard in the folder ``parts``."""
    return parts / f"index-{index:05d}.h5"


def finished_shards(parts: Path) -> frozenset[int]:
    """Indices of the shards in a folder, without those whose structure is damaged."""
    found = set()
    for path in parts.glob("index-*.h5"):
        number = path.stem.removeprefix("index-")
        if number.isdecimal() and path == shard_path(parts, int(number)):
            with suppress(StoreError):
                ShardFile(path, int(number))
                found.add(int(number))
    return frozenset(found)


def write_shard(parts: Path, index: int, content: ShardContent) -> Path:
    """Write one shard atomically; it replaces an existing one.

    Args:
        parts: the folder.
        index: number of the shard.
        content: images and candidates.

    Returns:
        The shard's file.

    Raises:
        StoreError: the disk is full or the folder cannot be written; other shards are kept.
        ValueError: columns and images differ in number, an image is empty, or a value does not fit its type.
    """
    arrays = _shard_arrays(content)
    path = shard_path(parts, index)
    # Two processes may write the same shard if Ray took one for dead; each uses a separate temporary file.
    own = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    with write_durably(path, f"finished shards are kept in {parts}", own) as temporary:
        attributes: dict[str, str | int] = {"format": SHARD_FORMAT, "version": VERSION, "index": index}
        extents = create_file(temporary, attributes, {name: (a.dtype, a.shape) for name, a in arrays.items()})
        hashes = {name: hashlib.sha256(array.data).digest() for name, array in arrays.items()}
        arrays["content_sha256"] = np.frombuffer(digest(attributes, hashes, extents), np.uint8)
        with ByteWriter(temporary) as writer:
            for name, array in arrays.items():
                writer.write(extents[name].start, array)
    return path


def _shard_arrays(content: ShardContent) -> dict[str, np.ndarray]:
    """The shard's columns by name, in the schema's order and types."""
    lengths = np.array([len(data) for data in content.encoded], np.int64)
    if len(lengths) and not lengths.all():
        raise ValueError(f"image {int(np.argmin(lengths))} of the shard has no bytes")
    sha256 = b"".join(hashlib.sha256(data).digest()[:16] for data in content.encoded)
    given: dict[str, np.ndarray] = {
        "images/data": np.frombuffer(b"".join(content.encoded), np.uint8),
        "images/offset": np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)]),
        "images/sha256": np.frombuffer(sha256, np.uint8).reshape(-1, 16),
        "content_sha256": np.zeros(32, np.uint8),
    }
    tables: tuple[tuple[str, Images | Candidates, int], ...] = (
        ("images", content.images, len(content.encoded)),
        ("candidates", content.candidates, len(content.candidates)),
    )
    for table, columns, count in tables:
        for column in fields(columns):
            name, array = f"{table}/{column.name}", np.asarray(getattr(columns, column.name))
            if array.shape != (count,):
                raise ValueError(f"{name} has shape {array.shape} instead of ({count},)")
            given[name] = array
    if not links_agree(content.images, content.candidates):
        raise ValueError("images.candidate and candidates.image of the shard disagree")
    arrays = {name: to_stored_type(name, given[name]) for name in SHARD_SCHEMA}
    return arrays if content.objects is None else arrays | _object_arrays(content.objects, len(content.encoded))


def _object_arrays(objects: Objects, count: int) -> dict[str, np.ndarray]:
    if objects.box.shape != (count, 4) or len(objects.masks) != count:
        raise ValueError(f"{len(objects.box)} boxes and {len(objects.masks)} masks for {count} images")
    ends = np.cumsum([len(mask) for mask in objects.masks], dtype=np.int64)
    return {
        "objects/box": np.ascontiguousarray(objects.box, "<f4"),
        "objects/mask_offset": np.concatenate([np.zeros(1, np.int64), ends]).astype("<i8"),
        "objects/mask": np.frombuffer(b"".join(objects.masks), np.uint8),
    }


def to_stored_type(name: str, array: np.ndarray) -> np.ndarray:
    """``array`` in the type of the schema, contiguous.

    Raises:
        ValueError: an integer does not fit the type.
    """
    dtype = np.dtype(SCHEMA[name][0])
    if dtype.kind in "iu" and array.size:
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise ValueError(f"{name} has values that {dtype.name} cannot hold")
    return np.ascontiguousarray(array, dtype)


class ShardFile:
    """A finished shard.

    Args:
        path: its file.
        index: its number.

    Raises:
        StoreError: the file is not this shard, or its structure is damaged.
    """

    def __init__(self, path: Path, index: int) -> None:
        self.path = path
        self._bytes = ByteReader(path)
        self._attributes, self._extents = read_layout(
            path, _SHARD_ATTRIBUTES, SHARD_SCHEMA, self._bytes.size, optional=OBJECTS_SCHEMA
        )
        self._bytes.close()
        if self._attributes != {"format": SHARD_FORMAT, "version": VERSION, "index": index}:
            raise StoreError(f"{path}: not shard {index}, or of another version of dagaug")

    @property
    def has_objects(self) -> bool:
        """Whether it has the group /objects."""
        return set(self._extents) >= set(OBJECTS_SCHEMA)

    def rows(self, name: str) -> int:
        """Number of rows of a dataset."""
        return self._extents[name].shape[0]

    def column(self, name: str) -> np.ndarray:
        """One dataset."""
        try:
            return self._bytes.array(self._extents[name])
        finally:
            self._bytes.close()

    def content_sha256(self) -> bytes:
        """The stored hash of the shard's content."""
        return self.column("content_sha256").tobytes()

    def checked(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name and content of all datasets except the hash, after a check of all hashes.

        Raises:
            StoreError: a hash differs; the shard is then removed, so that the next call makes it again.
        """
        try:
            arrays = {name: self._bytes.array(extent) for name, extent in self._extents.items()}
        finally:
            self._bytes.close()
        hashes = {name: hashlib.sha256(array.data).digest() for name, array in arrays.items()}
        whole = digest(self._attributes, hashes, self._extents) == arrays["content_sha256"].tobytes()
        data, offset = arrays["images/data"].data, arrays["images/offset"].tolist()
        if not whole or any(
            hashlib.sha256(data[first:last]).digest()[:16] != sha256.tobytes()
            for first, last, sha256 in zip(offset, offset[1:], arrays["images/sha256"], strict=False)
        ):
            self.path.unlink(missing_ok=True)
            raise StoreError(f"{self.path}: was damaged and has been removed; run the same command to make it again")
        del arrays["content_sha256"]
        yield from arrays.items()


@contextmanager
def write_durably(path: Path, kept: str, temporary: Path | None = None) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path; after the block, its file replaces ``path``.

    Args:
        path: the final name.
        kept: what is kept after an error, for the message.
        temporary: the temporary path; by default ``path`` with the suffix ``.tmp``.

    Raises:
        StoreError: the disk is full, or the file cannot be written.
    """
    temporary = temporary or path.with_name(path.name + ".tmp")
    with explain_hdf5_write_errors(path, kept), atomic_replace(path, temporary):
        yield temporary


@contextmanager
def explain_hdf5_write_errors(path: Path, kept: str) -> Iterator[None]:
    """Raise a :class:`StoreError` in one line for every write error in the block, also for those of the HDF5 library.

    Args:
        path: the file, for the message.
        kept: what is kept after the error, for the message.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise _write_error(path, kept, error) from error


def _write_error(path: Path, kept: str, error: OSError | RuntimeError) -> StoreError:
    number = error.errno if isinstance(error, OSError) else None
    # The HDF5 library states the error number only in its message.
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error) or "errno = 28," in str(error):
        return StoreError(f"{path}: the disk is full; {kept}; free some space and run the same command again")
    reason = os.strerror(number) if number else str(error).partition("\n")[0]
    return StoreError(f"{path}: cannot be written ({reason}); {kept}; make it writable and run the same command again")
