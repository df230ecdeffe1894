from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dagaug.runtime.errors import LockedError, StoreError
from dagaug.runtime.files import acquire_lock, atomic_replace, explain_write_errors, locked, write_atomically


@pytest.mark.parametrize("durable", [True, False])
def test_a_written_file_replaces_the_old_one_and_nothing_else_is_left(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / ("long" * 60)
    path.write_bytes(b"old")
    write_atomically(path, b"new", durable=durable)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_the_old_file_stays_when_writing_fails(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write() -> None:
        with atomic_replace(path) as temporary:
            temporary.write_bytes(b"half of the n")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_lock_is_refused_and_names_the_holder(tmp_path: Path) -> None:
    lock, target = tmp_path / "sub" / "lock", tmp_path / "out.h5"
    holder = f"out.h5: another run is writing to it .process {os.getpid()} on "
    with locked(lock, target), pytest.raises(LockedError, match=holder):
        acquire_lock(lock, target)
    assert not lock.exists()
    acquire_lock(lock, target).close()


def test_a_lock_on_a_file_that_its_holder_just_removed_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock"
    opened = []
    original = Path.open

    def open_then_lose_it_once(path: Path, *arguments: object, **options: object) -> object:
        file = original(path, *arguments, **options)  # type: ignore[arg-type]
        opened.append(path)
        if len(opened) == 1:
            lock.unlink()
        return file

    monkeypatch.setattr(Path, "open", open_then_lose_it_once)
    with locked(lock, tmp_path / "out"):
        assert len(opened) == 2
        assert lock.exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left"), "out: the disk is full; all is kept; free some space"),
        (
            OSError(errno.EACCES, "Permission denied", "other"),
            r"other: cannot be written \(Permission denied\); all is",
        ),
        (OSError("no number"), r"out: cannot be written \(no number\); all is kept; make it writable"),
    ],
)
def test_write_errors_are_explained_in_one_line(error: OSError, message: str) -> None:
    with pytest.raises(StoreError, match=message), explain_write_errors(Path("out"), "all is kept"):
        raise error
