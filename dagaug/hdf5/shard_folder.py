"""Writing the HDF5 file of :mod:`dagaug.store`: shards beside the target, merged when all are there.

While a run goes on, ``TARGET.parts/`` holds ``manifest.json`` (what makes the run this run), ``lock``, and
the finished shards ``index-00000.h5``, ... Each shard is written under another name, fsynced and renamed,
so that a shard that is there is whole. The target appears, also by a rename, only when it is whole; then
the folder goes. ``merged.json``, written just before that rename, tells a folder that a kill left beside its finished
target from one whose run is yet to replace that target.

A shard is an HDF5 file with the datasets of :data:`SHARD_SCHEMA`, whose rows of candidates and images count
from 0; merging puts shards behind one another in the order of their indices and shifts those rows. HDF5
itself writes only the description of where things lie; the bytes are written by position, so that a full
disk is an ordinary error with nothing half-buffered, and memory grows with one shard, not with the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from dagaug.hdf5.merge import MERGED, Merge, merge, read_json, remove_old_shard_copies
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import Header
from dagaug.hdf5.shards import (
    ShardContent,
    ShardFile,
    explain_hdf5_write_errors,
    finished_shards,
    parts_folder,
    shard_path,
    write_durably,
    write_shard,
)
from dagaug.runtime.errors import OutputExistsError, StoreError
from dagaug.runtime.files import acquire_lock
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["ShardFolder", "first_difference", "open_shard_folder", "remove_leftovers", "unfinished_identity"]


_MANIFEST_VERSION = 1


class ShardFolder:
    """One run's folder of shards, locked; made by :func:`open_shard_folder`, used in a ``with`` block."""

    def __init__(self, target: Path, parts: Path, lock: IO[str]) -> None:
        self.target, self.parts, self._lock = target, parts, lock
        self.finished = finished_shards(parts)
        """Indices of the shards that are there, also from earlier calls."""

    def __enter__(self) -> ShardFolder:
        return self

    def __exit__(self, kind: object = None, *exception: object) -> None:
        if kind is not None and not self.finished:  # nothing is lost, and other options do not meet this run's manifest
            self._remove()
        self.close()

    def close(self) -> None:
        """Give the lock back; shards stay."""
        self._lock.close()

    def image_count(self, index: int) -> int:
        """Number of images in a finished shard."""
        return ShardFile(shard_path(self.parts, index), index).rows("images/label")

    def column(self, index: int, name: str) -> np.ndarray:
        """One dataset of a finished shard, by its name in :data:`SHARD_SCHEMA`."""
        return ShardFile(shard_path(self.parts, index), index).column(name)

    def remove_shards(self, indices: Iterable[int]) -> None:
        """Remove shards, so that they are made again.

        Raises:
            StoreError: the folder cannot be written.
        """
        for index in indices:
            path = shard_path(self.parts, index)
            with explain_hdf5_write_errors(path, "nothing was changed"):
                path.unlink(missing_ok=True)
            self.finished -= {index}

    def require(self, indices: Iterable[int], on: str) -> None:
        """Say what else the content of these shards depends on; those that were made with something else are removed.

        Raises:
            StoreError: the folder cannot be written.
        """
        note = self.parts / "depends.txt"
        with explain_hdf5_write_errors(note, "nothing was changed"):
            if note.exists() and note.read_text(encoding="utf-8", errors="replace") == on:
                return
            note.unlink(missing_ok=True)
        self.remove_shards(indices)
        with write_durably(note, "nothing was changed") as temporary:
            temporary.write_text(on, encoding="utf-8")

    def write(self, index: int, content: ShardContent) -> None:
        """Write one shard; see :func:`write_shard`."""
        write_shard(self.parts, index, content)
        self.finished |= {index}

    def mark_finished(self, index: int) -> None:
        """Another process wrote this shard."""
        self.finished |= {index}

    def merge(self, header: Header, count: int, *, how: Merge = "copy", progress: Progress = SILENT) -> Path:
        """Merge shards 0 to ``count`` - 1 into the target, then remove their folder; see :func:`merge`.

        Returns:
            The target's path.
        """
        merge(self.parts, self.target, header, count, how=how, progress=progress)
        self._remove()
        self.finished = frozenset()
        return self.target

    def _remove(self) -> None:
        with suppress(OSError):  # the target is whole, or nothing was made: what cannot be removed is no reason to fail
            _remove(self.parts)


def unfinished_identity(target: Path | str) -> Mapping[str, object]:
    """The identity of the unfinished run that writes ``target``; empty if there is none."""
    identity = _manifest(parts_folder(target) / "manifest.json")
    return identity if isinstance(identity, dict) else {}


def remove_leftovers(target: Path | str) -> Mapping[str, object] | None:
    """Clear away what a run left that was killed after its target got its name.

    Returns:
        The identity of that run; None where there was none. An unfinished run stays, also one that is to replace
        a target that is there.

    Raises:
        LockedError: another run is writing to the target.
    """
    target = Path(target)
    parts = parts_folder(target)
    if not target.exists() or not (parts.is_dir() and _left_over(target, parts)):
        return None
    with suppress(OSError), acquire_lock(parts / "lock", target):  # what cannot be removed does no harm
        # Looked at again, now that nobody can be writing.
        note = read_json(parts / MERGED)
        if _left_over(target, parts):
            folder, identity = note.get("folder"), note.get("identity")
            if note:
                remove_old_shard_copies(target, folder if isinstance(folder, str) else None)
            _remove(parts)
            return identity if isinstance(identity, dict) else None
    return None


def _left_over(target: Path, parts: Path) -> bool:
    """Whether the target is what this folder's shards made, or the folder was being removed."""
    note = read_json(parts / MERGED)
    if not note:
        return not (parts / "manifest.json").exists()
    try:
        with Store(target) as store:
            return bool(note.get("content_sha256") == store.column("content_sha256").tobytes().hex())
    except StoreError:
        return False


def open_shard_folder(target: Path | str, identity: Mapping[str, object], *, overwrite: bool = False) -> ShardFolder:
    """Begin a run that will write ``target``, or go on with the one that was cut off.

    Args:
        target: the file that the run makes.
        identity: what decides the shards' content (options, checkpoint, seed, ...), as JSON can hold it.
        overwrite: replace a target that is there (it stays until the new one is whole), and throw away an
            unfinished run with another identity. One with the same identity is gone on with.

    Raises:
        OutputExistsError: the target is there, or an unfinished run differs (the option, with both values).
        LockedError: another run is writing to the target.
        StoreError: the folder cannot be written.
    """
    target = Path(target)
    parts = parts_folder(target)
    if target.is_dir():
        raise StoreError(f"{target}: is a folder; name a file")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target} exists; --overwrite replaces it")
    try:
        lock = acquire_lock(parts / "lock", target)  # first: whoever is writing now may be about to finish
        try:
            _claim(target, parts, json.loads(json.dumps(dict(identity))), overwrite)
            return ShardFolder(target, parts, lock)
        except BaseException:
            lock.close()
            raise
    except OSError as error:
        raise StoreError(
            f"{error.filename or parts}: cannot be written ({error.strerror}); write elsewhere: --out FILE"
        ) from error


def _claim(target: Path, parts: Path, identity: dict[str, object], overwrite: bool) -> None:
    """Compare the run's identity with the manifest that is there, or write one."""
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target} exists; --overwrite replaces it")
    manifest = parts / "manifest.json"
    if manifest.exists():
        differs = first_difference(_manifest(manifest), identity)
        if differs is None:
            return
        if not overwrite:
            raise OutputExistsError(
                f"{parts} holds an unfinished run with {differs}; "
                "finish it with the options and files it began with, or --overwrite begins anew"
            )
    _clear(parts)
    with (
        write_durably(manifest, "nothing was begun") as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        json.dump({"version": _MANIFEST_VERSION, "identity": identity}, file, indent=1, sort_keys=True)


def _clear(parts: Path) -> None:
    """Remove what a run wrote into its folder, but for the lock, and nothing else."""
    # The manifest goes first: without it, what a kill leaves here is known to be rubbish.
    (parts / "manifest.json").unlink(missing_ok=True)
    for pattern in ("index-*.h5", "*.tmp", "depends.txt", MERGED):
        for path in parts.glob(pattern):
            path.unlink()


def _remove(parts: Path) -> None:
    _clear(parts)
    (parts / "lock").unlink()
    parts.rmdir()


def _manifest(path: Path) -> object:
    content = read_json(path)
    return content.get("identity") if content.get("version") == _MANIFEST_VERSION else None


def first_difference(before: object, now: object, name: str = "") -> str | None:
    """The first option in which two identities differ, with both values, for the user; None if they are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            differs = first_difference(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
            if differs is not None:
                return differs
        return None
    if before == now:
        return None
    if isinstance(before, list) and isinstance(now, list):
        ours, theirs = ({json.dumps(value) for value in values} for values in (before, now))
        lost = next((value for value in before if json.dumps(value) not in theirs), None)
        new = next((value for value in now if json.dumps(value) not in ours), None)
        if lost is not None:
            return f"{_shown(lost)} among its {name}, which is not there now"
        if new is not None:
            return f"{name} without {_shown(new)}, which is there now"
    if not name:
        return "an unreadable manifest"
    return f"{name} = {_shown(before)}, while this one has {name} = {_shown(now)}"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
