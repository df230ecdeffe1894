"""A cache of arrays on disk, which commands share: masks, frozen features, and what is fitted to them.

An entry is named by a hash of everything that it was computed from, so it never becomes outdated, only unused. It is
one file: the SHA-256 of the rest, then the arrays as safetensors. It is written under another name and renamed, so
several processes may use one cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
import safetensors.numpy

from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.files import atomic_replace
from dagaug.runtime.output_marks import mark_output
from dagaug.runtime.progress import SILENT

__all__ = ["CACHE_BYTES", "DiskCache", "cache_key", "cache_of", "with_cache"]

CACHE_BYTES = 4_000_000_000
"""Size in bytes from which the entries that were used least recently are removed."""

_KEPT_SHARE = 0.8  # of the size, after a removal
_LEAST_FREE = 1_000_000_000  # bytes that the disk must have left; results need them more
_STALE_SECONDS = 86_400.0  # age from which a temporary file is that of a killed process
_DIGEST = hashlib.sha256().digest_size


def cache_key(*parts: object) -> str:
    """SHA-256 of values, in hexadecimal: arrays by type, shape and content, bytes as they are, all else as JSON."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            head, content = f"array {part.dtype.str} {part.shape}", np.ascontiguousarray(part).tobytes()
        elif isinstance(part, bytes):
            head, content = f"bytes {len(part)}", part
        else:
            content = json.dumps(part, sort_keys=True).encode()
            head = f"json {len(content)}"
        digest.update(head.encode() + b"\n" + content)
    return digest.hexdigest()


class DiskCache:
    """Arrays by their keys, in a folder that is made at the first entry.

    What cannot be read or written is computed anew; ``say`` gets one line for it. A cache that travels to another
    process is silent there.

    Args:
        folder: the folder; dagaug takes no images from it.
        say: receives messages.
        limit: size in bytes; beyond it, the entries that were used least recently are removed. Entries that this
            object has read or written stay.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = SILENT.say, *, limit: int = CACHE_BYTES) -> None:
        self.folder, self.limit = folder.absolute(), limit
        self._say, self._lock = say, Lock()
        self._size: int | None = None
        self._used: set[str] = set()
        self._closed = False

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder, "limit": self.limit}

    def __setstate__(self, state: dict[str, object]) -> None:
        folder, limit = state["folder"], state["limit"]
        assert isinstance(folder, Path)
        assert isinstance(limit, int)
        self.__init__(folder, limit=limit)  # type: ignore[misc]

    def read(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays of an entry; None if there is none. A damaged entry is removed, with a message."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._close(f"{path}: cannot be read ({error.strerror})")
            return None
        if hashlib.sha256(memoryview(content)[_DIGEST:]).digest() != content[:_DIGEST]:
            self._say(f"{path}: damaged; computed anew")
            with suppress(OSError):
                path.unlink()
            return None
        self._used.add(key)
        with suppress(OSError):
            os.utime(path)
        return safetensors.numpy.load(content[_DIGEST:])

    def write(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Store an entry, if the cache has room for it and can be written."""
        content = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        size = _DIGEST + len(content)
        with self._lock:
            if self._closed or not self._has_room(size):
                return
            path = self._path(key)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                mark_output(self.folder, "cache")
                temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
                with atomic_replace(path, temporary, durable=False):
                    temporary.write_bytes(hashlib.sha256(content).digest() + content)
            except OSError as error:
                self._close(f"{self.folder}: cannot be written ({error.strerror or error})")
                return
            self._used.add(key)
            self._size = (self._size or 0) + size

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:]

    def _close(self, reason: str) -> None:
        """Store nothing from now on."""
        if not self._closed:
            self._say(f"{reason}; masks and features are computed anew by each command")
        self._closed = True

    def _has_room(self, size: int) -> bool:
        """Whether an entry may be added, after the removal of others if need be."""
        if self._size is None:
            self._size = sum(status.st_size for _, status in self._files())
        if self._size + size > self.limit:
            self._remove_unused(size)
        if self._size + size > self.limit:
            self._close(f"{self.folder}: holds {self._size / 1e9:.1f} GB, its limit, for this data set alone")
            return False
        nearest = next(folder for folder in (self.folder, *self.folder.parents) if folder.is_dir())
        if shutil.disk_usage(nearest).free < _LEAST_FREE + size:
            self._close(f"{self.folder}: less than {_LEAST_FREE / 1e9:.0f} GB of its disk are free")
            return False
        return True

    def _remove_unused(self, size: int) -> None:
        """Remove the entries that were used least recently, but none that this object used."""
        files = sorted(self._files(), key=lambda item: item[1].st_mtime)
        total = sum(status.st_size for _, status in files)
        before, wanted = total, _KEPT_SHARE * self.limit - size
        for path, status in files:
            if path.suffix == ".tmp" and time.time() - status.st_mtime < _STALE_SECONDS:
                continue
            if total > wanted and path.parent.name + path.name not in self._used:
                with suppress(OSError):
                    path.unlink()
                    total -= status.st_size
        if total < before:
            self._say(f"{self.folder}: {(before - total) / 1e9:.1f} GB that were used least recently are removed")
        self._size = total

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob("??/*"):
            with suppress(OSError):  # another process has just removed it
                yield path, path.stat()


def cache_of(execution: Execution) -> DiskCache | None:
    """The cache that commands use, the same object in each call, so that it says everything once."""
    return None if execution.cache is None else _opened(execution.cache.absolute(), execution.progress.say)


@lru_cache(8)
def _opened(folder: Path, say: Callable[[str], None]) -> DiskCache:
    return DiskCache(folder, say)


@contextmanager
def with_cache(execution: Execution) -> Iterator[Execution]:
    """The same with a cache during the block if there is none, for work that needs an entry more than once."""
    if execution.cache is not None:
        yield execution
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield replace(execution, cache=Path(folder))
