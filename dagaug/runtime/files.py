"""Atomic writes, file locks, and clear messages for write errors."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from dagaug.runtime.errors import LockedError, StoreError

__all__ = [
    "acquire_lock",
    "atomic_replace",
    "explain_write_errors",
    "locked",
    "sync_folder",
    "write_atomically",
]


@contextmanager
def atomic_replace(path: Path, temporary: Path | None = None, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write to; after the block, its file replaces ``path`` in one step.

    If the block raises, the temporary file is removed and ``path`` stays as it was.

    Args:
        path: the final name of the file.
        temporary: where to write until then, in the same folder; a hidden name by default.
        durable: flush the file and its folder to the disk, so that a power cut after the block loses nothing.

    Raises:
        OSError: the file cannot be written.
    """
    if temporary is None:
        # A hash, because the name of ``path`` may already have the greatest length.
        temporary = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.tmp")
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file so that its name always holds either the old content or all of the new; see `atomic_replace`.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_replace(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def sync_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that renames in it survive a power cut."""
    with suppress(OSError):  # some network file systems cannot do this
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def acquire_lock(lock: Path, target: Path) -> IO[str]:
    """Lock ``target`` for this process by locking the file ``lock``; closing the returned file releases the lock.

    The operating system releases the lock when the process ends. The lock file holds the name of the process.
    The folder of ``lock`` is created if it is missing.

    Raises:
        LockedError: another process holds the lock.
        OSError: the lock file cannot be created.
    """
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = lock.open("a+", encoding="utf-8")
        except FileNotFoundError:
            continue  # the previous holder was just removing the folder
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have removed the file after it was opened here; then try again.
            if _is_same_file(file, lock):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
                file.flush()
                return file
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read(200).strip() or "unknown process"
            file.close()
            raise LockedError(
                f"{target}: another run is writing to it ({holder}); wait until it ends, or write elsewhere"
            ) from error
        except BaseException:
            file.close()
            raise
        file.close()


def _is_same_file(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def locked(lock: Path, target: Path) -> Iterator[None]:
    """Hold the lock of :func:`acquire_lock` during the block, then remove the lock file.

    Raises:
        LockedError: another process holds the lock.
        OSError: the lock file cannot be created.
    """
    file = acquire_lock(lock, target)
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink(missing_ok=True)
        file.close()


@contextmanager
def explain_write_errors(path: Path, kept: str) -> Iterator[None]:
    """Raise a :class:`StoreError` in one line for every OSError in the block.

    Args:
        path: named in the message if the OSError names no file.
        kept: what is not lost, for the message: ``finished shards are kept in out.parts``.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"{path}: the disk is full; {kept}; free some space and run the same command again"
            ) from error
        raise StoreError(
            f"{error.filename or path}: cannot be written ({error.strerror or error}); {kept}; "
            "make it writable or write elsewhere"
        ) from error
