"""Folder with the shards of an HDF5 file that is not finished yet: lock, identity, resuming, merge.

``TARGET.parts/`` contains ``manifest.json`` (the identity of the run: all that decides the content of the shards),
``lock`` and the finished shards ``index-00000.h5`` and so on. Each shard is written to a temporary file, flushed to the
disk and renamed, so a shard that exists is complete. The target, too, gets its name only when it is complete; then the
folder is removed. ``merged.json`` is written just before the target gets its name. After a kill, it distinguishes the
leftover folder of a finished target from a run that is going to replace the target.
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
    """The locked folder with the shards of one run. :func:`open_shard_folder` makes it; use it in a ``with`` block.

    Attributes:
        target: the file that the run makes.
        parts: the folder.
        finished: indices of the finished shards, also of those from earlier calls.
    """

    def __init__(self, target: Path, parts: Path, lock: IO[str]) -> None:
        self.target, self.parts, self._lock = target, parts, lock
        self.finished = finished_shards(parts)

    def __enter__(self) -> ShardFolder:
        return self

    def __exit__(self, kind: object = None, *exception: object) -> None:
        if kind is not None and not self.finished:  # so that a call with other options is not refused
            self._remove()
        self.close()

    def close(self) -> None:
        """Release the lock. The shards stay."""
        self._lock.close()

    def image_count(self, index: int) -> int:
        """Number of images in a finished shard.

        Raises:
            StoreError: the shard cannot be read.
        """
        return ShardFile(shard_path(self.parts, index), index).rows("images/label")

    def column(self, index: int, name: str) -> np.ndarray:
        """One dataset of a finished shard, by its name in :data:`dagaug.hdf5.shards.SHARD_SCHEMA`.

        Raises:
            StoreError: the shard cannot be read.
        """
        return ShardFile(shard_path(self.parts, index), index).column(name)

    def has_objects(self, index: int) -> bool:
        """Whether a finished shard says where the objects of its images are.

        Raises:
            StoreError: the shard cannot be read.
        """
        return ShardFile(shard_path(self.parts, index), index).has_objects

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

    def require(self, indices: Iterable[int], key: str) -> None:
        """Remove these shards unless they were made with ``key``, then record ``key``.

        The identity does not contain it, because it is known only later, for example the hash of trained classifiers.

        Args:
            indices: the shards whose content depends on it.
            key: any text.

        Raises:
            StoreError: the folder cannot be written.
        """
        note = self.parts / "depends.txt"
        with explain_hdf5_write_errors(note, "nothing was changed"):
            if note.exists() and note.read_text(encoding="utf-8", errors="replace") == key:
                return
            note.unlink(missing_ok=True)
        self.remove_shards(indices)
        with write_durably(note, "nothing was changed") as temporary:
            temporary.write_text(key, encoding="utf-8")

    def write(self, index: int, content: ShardContent) -> None:
        """Write one shard; see :func:`dagaug.hdf5.shards.write_shard`."""
        write_shard(self.parts, index, content)
        self.finished |= {index}

    def mark_finished(self, index: int) -> None:
        """Record that another process wrote this shard."""
        self.finished |= {index}

    def merge(self, header: Header, count: int, *, how: Merge = "copy", progress: Progress = SILENT) -> Path:
        """Merge shards 0 to ``count`` - 1 into the target, then remove the folder; see :func:`dagaug.hdf5.merge.merge`.

        Returns:
            The target's path.
        """
        merge(self.parts, self.target, header, count, how=how, progress=progress)
        self._remove()
        self.finished = frozenset()
        return self.target

    def _remove(self) -> None:
        with suppress(OSError):  # what stays does no harm: the target is complete, or nothing was made
            _remove(self.parts)


def unfinished_identity(target: Path | str) -> Mapping[str, object]:
    """The identity of the unfinished run that makes ``target``; empty if there is none."""
    identity = _manifest(parts_folder(target) / "manifest.json")
    return identity if isinstance(identity, dict) else {}


def remove_leftovers(target: Path | str) -> Mapping[str, object] | None:
    """Remove the shard folder of a run that was killed after its target got its name.

    The folder of an unfinished run stays, also if that run is going to replace an existing target.

    Args:
        target: the file that the run made.

    Returns:
        The identity of that run; None without this folder.

    Raises:
        LockedError: another run is writing to the target.
    """
    target = Path(target)
    parts = parts_folder(target)
    if not target.exists() or not (parts.is_dir() and _is_leftover(target, parts)):
        return None
    with suppress(OSError), acquire_lock(parts / "lock", target):  # what stays does no harm
        # Checked again with the lock held.
        note = read_json(parts / MERGED)
        if _is_leftover(target, parts):
            folder, identity = note.get("folder"), note.get("identity")
            if note:
                remove_old_shard_copies(target, folder if isinstance(folder, str) else None)
            _remove(parts)
            return identity if isinstance(identity, dict) else None
    return None


def _is_leftover(target: Path, parts: Path) -> bool:
    """Whether this folder's shards are already merged into the target, or the folder was just being removed."""
    note = read_json(parts / MERGED)
    if not note:
        return not (parts / "manifest.json").exists()
    try:
        with Store(target) as store:
            return bool(note.get("content_sha256") == store.column("content_sha256").tobytes().hex())
    except StoreError:
        return False


def open_shard_folder(target: Path | str, identity: Mapping[str, object], *, overwrite: bool = False) -> ShardFolder:
    """Start a run that makes ``target``, or resume an unfinished one.

    Args:
        target: the file to make.
        identity: everything that decides the content of the shards (options, checkpoint, seed, ...), as JSON can hold
            it.
        overwrite: replace an existing target when the new one is complete, and discard an unfinished run with another
            identity. An unfinished run with the same identity is resumed.

    Raises:
        OutputExistsError: the target exists, or there is an unfinished run with another identity; the message names the
            first difference.
        LockedError: another run is writing to the target.
        StoreError: the folder cannot be written.
    """
    target = Path(target)
    parts = parts_folder(target)
    if target.is_dir():
        raise StoreError(f"{target}: is a folder; name a file")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target} exists", remedies={"overwrite": True, "out": None})
    try:
        lock = acquire_lock(parts / "lock", target)  # before the checks: another run may be about to finish
        try:
            _claim(target, parts, json.loads(json.dumps(dict(identity))), overwrite)
            return ShardFolder(target, parts, lock)
        except BaseException:
            lock.close()
            raise
    except OSError as error:
        raise StoreError(
            f"{error.filename or parts}: cannot be written ({error.strerror})", remedies={"out": None}
        ) from error


def _claim(target: Path, parts: Path, identity: dict[str, object], overwrite: bool) -> None:
    """Compare the identity with the existing manifest, or write a manifest."""
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target} exists", remedies={"overwrite": True, "out": None})
    manifest = parts / "manifest.json"
    if manifest.exists():
        differs = first_difference(_manifest(manifest), identity)
        if differs is None:
            return
        if not overwrite:
            raise OutputExistsError(
                f"{parts} has an unfinished run with {differs}; finish it with the options and files of that run",
                remedies={"overwrite": True, "out": None},
            )
    _clear(parts)
    with (
        write_durably(manifest, "nothing was started") as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        json.dump({"version": _MANIFEST_VERSION, "identity": identity}, file, indent=1, sort_keys=True)


def _clear(parts: Path) -> None:
    """Remove everything that a run wrote to its folder, except the lock; other files stay."""
    # The manifest goes first: a folder without a manifest is known to be a leftover.
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
    """The first difference of two identities as text, with both values; None if they are equal.

    Args:
        before: the identity of the unfinished run or the finished file.
        now: the identity of this run.
        name: name of the compared entry; empty for a whole identity.
    """
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
            return f"{_shown(lost)} in its {name}, which this run does not have"
        if new is not None:
            return f"{name} without {_shown(new)}, which this run has"
    if not name:
        return "an unreadable manifest"
    return f"{name} = {_shown(before)}, but this run has {name} = {_shown(now)}"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
