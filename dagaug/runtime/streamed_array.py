"""Arrays whose rows are read when they are needed: images that need not fit into memory.

The first rows are kept in memory, as many as the command's :class:`~dagaug.runtime.image_cache.ImageCache` has room
for; the others in an unnamed temporary file. No row is ever replaced by another: trainings read every image once before
any twice, and a cache of the last ones read would never hold the next. Files are read by position rather than
memory-mapped, so that a process holds only the rows it works on.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Integer, UInt8

from dagaug.runtime.errors import DataError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache, Lease, scratch_folder
from dagaug.runtime.prefetch import map_ahead
from dagaug.runtime.progress import Task

__all__ = ["ImageArray", "StreamedArray", "batches", "hash_rows", "select"]

_DISK_SHARE = 0.5  # of what is free, for rows that can be read again
_HASH_BATCH = 64


class _RowFile:
    """An unnamed temporary file of rows of one type, read and written by position. Safe in threads.

    Args:
        shape: of a row.
        dtype: of its values.
        folder: where to make the file.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, folder: Path) -> None:
        self.shape, self.dtype = shape, dtype
        self._bytes = int(np.prod(shape)) * dtype.itemsize
        with tempfile.TemporaryFile(dir=folder) as file:
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def write(self, row: int, values: np.ndarray) -> None:
        """Write a row.

        Raises:
            OSError: the disk is full.
        """
        data, at = memoryview(np.ascontiguousarray(values).tobytes()), row * self._bytes
        while data:
            written = os.pwrite(self._descriptor, data, at)
            data, at = data[written:], at + written

    def read(self, row: int) -> np.ndarray:
        """A row that was written.

        Raises:
            OSError: the file is shorter, or cannot be read.
        """
        data = os.pread(self._descriptor, self._bytes, row * self._bytes)
        if len(data) < self._bytes:
            raise OSError(errno.EIO, "a temporary file is incomplete")
        return np.frombuffer(data, self.dtype).reshape(self.shape)


class _Rows:
    """The rows of an array, and of its views, that were read; arguments as of :class:`StreamedArray`."""

    def __init__(
        self,
        count: int,
        shape: tuple[int, ...],
        dtype: np.dtype,
        read: Callable[[int], np.ndarray] | None,
        cache: ImageCache,
        threads: int,
    ) -> None:
        self.count, self.shape, self.dtype, self.read = count, shape, dtype, read
        self.cache, self.threads = cache, threads
        self._begin()

    def _begin(self) -> None:
        self.kept = np.zeros(self.count, bool)
        self.hashes, self.hashed = np.zeros(self.count, np.int64), np.zeros(self.count, bool)
        self._bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        lease = Lease(self.cache, self.count, self._bytes)
        weakref.finalize(self, lease.release)
        self._lease, self._lock = lease, threading.Lock()
        self._memory: np.ndarray | None = None
        self._file: _RowFile | None = None
        self._end = self.count  # of the rows that are kept
        self._pool: ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        names = ("count", "shape", "dtype", "read", "cache", "threads")
        if self.read is None:
            raise TypeError("an array of computed rows cannot be pickled")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @property
    def memory(self) -> np.ndarray:
        """The rows in memory; the memory is reserved at the first use, so that sets that are read first get it."""
        if self._memory is None:
            with self._lock:
                if self._memory is None:
                    self._memory = np.empty((self._lease.take(), *self.shape), self.dtype)
        return self._memory

    def put(self, row: int, values: np.ndarray) -> None:
        """Keep a row.

        Raises:
            DataError: there is no room for it, and it cannot be read again.
        """
        if row >= self._end:
            return
        if row < len(self.memory):
            self._memory[row] = values  # type: ignore[index]
        else:
            try:
                self._opened().write(row - len(self.memory), values)
            except OSError as error:
                if self.read is None:
                    raise DataError(
                        f"{scratch_folder()}: no room for {self.count * self._bytes / 1e9:.1f} GB of temporary images "
                        f"({error.strerror}); set TMPDIR to a folder on a larger disk"
                    ) from error
                self._end = min(self._end, row)  # this one and those after it are read again
                return
        self.kept[row] = True

    def _opened(self) -> _RowFile:
        with self._lock:
            if self._file is None:
                folder = scratch_folder()
                self._file = _RowFile(self.shape, self.dtype, folder)
                if self.read is not None:
                    room = int(_DISK_SHARE * shutil.disk_usage(folder).free) // max(self._bytes, 1)
                    self._end = min(self._end, len(self.memory) + room)
        return self._file

    def fill(self, row: int, out: np.ndarray) -> None:
        """Copy a row to ``out``; read it if it is not kept."""
        if not self.kept[row]:
            if self.read is None:
                raise RuntimeError(f"row {row} of {self.count} was not computed")
            out[...] = self.read(row)
            self.put(row, out)
        elif row < len(self.memory):
            out[...] = self.memory[row]
        else:
            out[...] = self._opened().read(row - len(self.memory))

    def take(self, rows: Int64[np.ndarray, " B"]) -> np.ndarray:
        """Copies of some rows; those that are not kept are read in threads."""
        if not len(rows):
            return np.empty((0, *self.shape), self.dtype)
        kept = self.kept[rows]
        if kept.all() and rows.max() < len(self.memory):
            return self.memory[rows]
        out = np.empty((len(rows), *self.shape), self.dtype)
        missing = np.flatnonzero(~kept).tolist()
        if self.threads > 1 and len(missing) > 1:
            list(self._workers().map(lambda place: self.fill(int(rows[place]), out[place]), missing))
            left: Sequence[int] = np.flatnonzero(kept).tolist()
        else:
            left = range(len(rows))
        for place in left:
            self.fill(int(rows[place]), out[place])
        return out

    def _workers(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, "dagaug reader")
        return self._pool


class StreamedArray:
    """N arrays of one shape and type that are read, or were computed, one by one; indexed as a NumPy array.

    Indexing returns copies of the chosen rows in memory, :meth:`take` another streamed array. Safe in threads. An array
    that is read can be pickled; the copy reads for itself.

    Args:
        count: N.
        shape: of a row, for example (S, S, 3) for RGB images of S pixels.
        read: reads a row, in any thread; the same in every call. None if all rows are written by :meth:`write`.
        dtype: of the values.
        execution: its cache holds rows, and its threads read them.
    """

    def __init__(
        self,
        count: int,
        shape: tuple[int, ...],
        read: Callable[[int], np.ndarray] | None = None,
        *,
        dtype: type[np.generic] = np.uint8,
        execution: Execution = Execution(),
    ) -> None:
        self._rows = _Rows(count, shape, np.dtype(dtype), read, execution.memory, execution.threads)
        self._chosen: Int64[np.ndarray, " N"] = np.arange(count)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows together."""
        return len(self._chosen), *self._rows.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self._rows.dtype

    @property
    def cache(self) -> ImageCache:
        """Gives the memory for the rows that are kept."""
        return self._rows.cache

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[np.ndarray]:
        for row in range(len(self)):
            yield self[row]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Rows in memory; further indices of a tuple are those within the rows."""
        first, *rest = index if isinstance(index, tuple) else (index,)
        rows = self._chosen[first]
        if rest:
            return self._get(rows)[(*([slice(None)] if np.ndim(rows) else []), *rest)]
        return self._get(rows)

    def _get(self, rows: Any) -> np.ndarray:
        if np.ndim(rows):
            return self._rows.take(rows)
        out = np.empty(self._rows.shape, self.dtype)
        self._rows.fill(int(rows), out)
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All rows at once, in memory."""
        del copy  # it is always one
        return self[:] if dtype is None else self[:].astype(dtype)

    def write(self, first: int, values: np.ndarray) -> None:
        """Set the rows from ``first`` on.

        Raises:
            DataError: there is no room for them in memory, nor on the disk.
        """
        for place, row in enumerate(self._chosen[first : first + len(values)].tolist()):
            self._rows.put(row, values[place])

    def take(self, rows: slice | Integer[np.ndarray, " M"] | Bool[np.ndarray, " N"]) -> StreamedArray:
        """An array of some rows, which are read when they are needed; what is read counts for both arrays."""
        part = StreamedArray.__new__(StreamedArray)
        part._rows, part._chosen = self._rows, self._chosen[rows]
        return part

    def with_cache(self, cache: ImageCache) -> StreamedArray:
        """The same array, which reads its rows again and keeps them in another cache."""
        rows, other = self._rows, StreamedArray.__new__(StreamedArray)
        other._rows = _Rows(rows.count, rows.shape, rows.dtype, rows.read, cache, rows.threads)
        other._chosen = self._chosen
        return other

    def hashes(self, task: Task | None = None) -> Int64[np.ndarray, " N"]:
        """64-bit BLAKE2b hash of each row's bytes; reads each row at most once for all calls.

        Args:
            task: is advanced by the number of rows.
        """
        rows = self._rows
        for start in range(0, len(self), _HASH_BATCH):
            chosen = self._chosen[start : start + _HASH_BATCH]
            new = np.unique(chosen[~rows.hashed[chosen]])
            rows.hashes[new] = hash_rows(rows.take(new))
            rows.hashed[new] = True
            if task is not None:
                task.advance(len(chosen))
        return rows.hashes[self._chosen]


ImageArray = UInt8[np.ndarray, "_ _ _ 3"] | StreamedArray
"""RGB images N × H × W × 3: in memory, or streamed."""


def hash_rows(rows: np.ndarray) -> Int64[np.ndarray, " N"]:
    """64-bit BLAKE2b hash of each row's bytes."""
    digests = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)


def select(rows: Any, chosen: Integer[np.ndarray, " M"] | Bool[np.ndarray, " N"]) -> Any:
    """Some rows of an array; those of a streamed array are still streamed."""
    return rows.take(chosen) if isinstance(rows, StreamedArray) else rows[chosen]


def batches(images: ImageArray, size: int) -> Iterator[UInt8[np.ndarray, "_ _ _ 3"]]:
    """Consecutive images, ``size`` at a time; the next ones of a streamed array are read meanwhile."""
    parts = [slice(start, start + size) for start in range(0, len(images), size)]
    if isinstance(images, np.ndarray):
        yield from (images[part] for part in parts)
        return
    with ThreadPoolExecutor(1) as reader, closing(map_ahead(images.__getitem__, parts, reader, ahead=1)) as found:
        yield from found
