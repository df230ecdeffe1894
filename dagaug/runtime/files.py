"""Folders of results: one run at a time writes to them, files appear whole, and what goes wrong is one line."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dagaug.runtime.errors import LockedError, StoreError

__all__ = ["locked", "telling_writes", "write_whole"]


@contextmanager
def locked(lock: Path, target: Path) -> Iterator[None]:
    """Hold a lock on ``target`` by the file ``lock``, which goes with it; a process that dies gives it back.

    Raises:
        LockedError: another process holds it.
        OSError: the file cannot be made.
    """
    while True:
        file = lock.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Locked but removed meanwhile, by the run that held it: try again.
            if lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                break
        except BlockingIOError as error:
            file.close()
            raise LockedError(f"{target}: another run is writing to it; wait for it or choose another --out") from error
        except FileNotFoundError:
            pass
        file.close()
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink(missing_ok=True)
        file.close()


@contextmanager
def telling_writes(path: Path, kept: str) -> Iterator[None]:
    """Turn what the operating system says of writing into one line; ``kept`` says what is not lost."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"{path}: the disk is full; {kept}; free some space and run the same command again"
            ) from error
        where = error.filename or path
        raise StoreError(
            f"{where}: cannot be written ({error.strerror or error}); {kept}; choose another --out or make it writable"
        ) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears under its name only when all of it is there.

    Raises:
        OSError: it cannot be written; nothing of it stays.
    """
    # Hidden, and of a length that does not depend on the name's.
    temporary = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
