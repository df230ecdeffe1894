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

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Literal

import numpy as np

from dagaug.errors import LockedError, OutputExistsError, StoreError
from dagaug.flatfile import Bytes, Piece, Writer, create, read_layout
from dagaug.progress import SILENT, Progress
from dagaug.store import (
    FORMAT,
    SCHEMA,
    SHARD_FORMAT,
    VERSION,
    Candidates,
    Header,
    Images,
    Store,
    digest,
    linked,
)

__all__ = [
    "SHARD_FORMAT",
    "SHARD_SCHEMA",
    "Merge",
    "Run",
    "ShardContent",
    "begun",
    "difference",
    "finished_shards",
    "merge",
    "open_run",
    "parts_of",
    "settle",
    "write_shard",
]

Merge = Literal["copy", "virtual"]
"""One file with everything in it, or one whose images stay in the shards, in a folder beside it."""

SHARD_SCHEMA = {name: kind for name, kind in SCHEMA.items() if name.startswith(("images/", "candidates/", "content_"))}
"""The datasets of a shard: those of the file that are about images and candidates."""

_COUNTED = ("images/label", "candidates/source", "images/data")
_SHARD_ATTRIBUTES: dict[str, type] = {"format": str, "version": int, "index": int}
_MANIFEST_VERSION = 1
_MERGED = "merged.json"


@dataclass(frozen=True)
class ShardContent:
    """What one shard holds.

    Attributes:
        encoded: each image's bytes, encoded as the header will say.
        images: as many rows; ``candidate`` counts from this shard's first candidate, -1 for none.
        candidates: ``image`` counts from this shard's first image, -1 for none.
    """

    encoded: Sequence[bytes]
    images: Images
    candidates: Candidates = field(default_factory=Candidates.none)


def parts_of(target: Path | str) -> Path:
    """The folder that holds the shards of ``target`` while it is not whole."""
    target = Path(target)
    return target.with_name(target.name + ".parts")


def _shard_path(parts: Path, index: int) -> Path:
    return parts / f"index-{index:05d}.h5"


def finished_shards(parts: Path) -> frozenset[int]:
    """Indices of the shards that are there; shards that are damaged in their structure are not."""
    found = set()
    for path in parts.glob("index-*.h5"):
        number = path.stem.removeprefix("index-")
        if number.isdecimal() and path == _shard_path(parts, int(number)):
            with suppress(StoreError):
                _Shard(path, int(number))
                found.add(int(number))
    return frozenset(found)


def write_shard(parts: Path, index: int, content: ShardContent) -> Path:
    """Write one shard and rename it into place; a shard that was there is replaced.

    Raises:
        StoreError: the disk is full or the folder cannot be written; shards that are there stay.
        ValueError: columns and images differ in number, an image is empty, or a value does not fit its type.
    """
    arrays = _shard_arrays(content)
    path = _shard_path(parts, index)
    # Two processes may make one shard, if one was taken for dead; none writes into the other's.
    own = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    with _written(path, f"finished shards are kept in {parts}", own) as temporary:
        attributes: dict[str, str | int] = {"format": SHARD_FORMAT, "version": VERSION, "index": index}
        extents = create(temporary, attributes, {name: (a.dtype, a.shape) for name, a in arrays.items()})
        hashes = {name: hashlib.sha256(array.data).digest() for name, array in arrays.items()}
        arrays["content_sha256"] = np.frombuffer(digest(attributes, hashes, extents), np.uint8)
        with Writer(temporary) as writer:
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
                raise ValueError(f"{name} has shape {array.shape} where {count} rows belong")
            given[name] = array
    if not linked(content.images, content.candidates):
        raise ValueError("images.candidate and candidates.image of the shard disagree")
    return {name: _as_stored(name, given[name]) for name in SHARD_SCHEMA}


def _as_stored(name: str, array: np.ndarray) -> np.ndarray:
    """``array`` in the type that the schema gives it; integers that do not fit are refused, not wrapped."""
    dtype = np.dtype(SCHEMA[name][0])
    if dtype.kind in "iu" and array.size:
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise ValueError(f"{name} has values that {dtype.name} cannot hold")
    return np.ascontiguousarray(array, dtype)


def merge(
    parts: Path, target: Path, header: Header, count: int, *, how: Merge = "copy", progress: Progress = SILENT
) -> None:
    """Put shards 0 to ``count`` - 1 together under the target's name; the shards stay.

    With ``virtual`` the images are not copied: the shards get second names in ``TARGET.shards-HASH/``, a folder that
    the target reads them from. Such folders of a target that is replaced go.

    Raises:
        StoreError: a shard is missing or damaged (it is then removed, so that the same command makes it
            anew), the disk is full, a name is not text, or the header does not fit the shards.
        ValueError: options are not what JSON can hold.
    """
    with _written(target, f"finished shards are kept in {parts}", parts / "merged.tmp") as temporary:
        folder = _shared(target, parts, count) if how == "virtual" else None
        _merge(temporary, parts, count, header, folder, progress)
        with Store(temporary) as merged:
            content = merged.column("content_sha256").tobytes().hex()
        _note(parts, {"content_sha256": content, "folder": folder.name if folder else None, **_identity_in(parts)})
    _remove_others(target, folder.name if folder else None)


def _remove_others(target: Path, folder: str | None) -> None:
    """Remove the folders of shards that belonged to what had the target's name before."""
    for old in target.parent.glob(f"{glob.escape(target.name)}.shards-*"):
        if old.name != folder:
            _remove_shared(old)


def _each(parts: Path, count: int) -> Iterator[_Shard]:
    return (_Shard(_shard_path(parts, index), index) for index in range(count))


def _shared(target: Path, parts: Path, count: int) -> Path:
    """Give the shards second names in a folder that stays beside the target."""
    whole = hashlib.sha256()
    for shard in _each(parts, count):
        whole.update(shard.content_sha256())
    folder = target.with_name(f"{target.name}.shards-{whole.hexdigest()[:16]}")
    folder.mkdir(exist_ok=True)
    for shard in _each(parts, count):
        name = folder / shard.path.name
        name.unlink(missing_ok=True)
        try:
            os.link(shard.path, name)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK):
                raise
            shutil.copyfile(shard.path, name)
    _sync_folder(folder)
    return folder


def _remove_shared(folder: Path) -> None:
    with suppress(OSError):  # nothing refers to it any more
        if not folder.is_symlink():
            for path in folder.glob("index-*.h5"):
                path.unlink()
            folder.rmdir()


def _merge(path: Path, parts: Path, count: int, header: Header, folder: Path | None, progress: Progress) -> None:
    """Write the whole file; with ``folder`` its images are those of the shards there."""
    attributes = _attributes(header)
    tables = _header_arrays(header)
    rows = dict.fromkeys(_COUNTED, 0)
    pieces = []
    for shard in _each(parts, count):
        first = rows["images/data"]
        rows = {name: rows[name] + shard.rows(name) for name in _COUNTED}
        if folder is not None and shard.rows("images/data"):
            pieces.append(Piece(first, rows["images/data"], f"{folder.name}/{shard.path.name}"))
    layout = {name: _merged_shape(name, tables, rows) for name in SCHEMA}
    extents = create(path, attributes, layout, {"images/data": pieces} if pieces else None)
    hashes = {name: hashlib.sha256() for name in SCHEMA}
    at = {name: extent.start for name, extent in extents.items()}
    with Writer(path) as writer, progress.task("Merging", count, "shards") as task:

        def append(name: str, array: np.ndarray) -> None:
            array = np.ascontiguousarray(array)
            if name != "images/data":
                hashes[name].update(array.data)
            elif pieces:
                return
            writer.write(at[name], array)
            at[name] += array.nbytes

        for name, table in tables.items():
            append(name, table)
        shift = {"images/candidate": 0, "candidates/image": 0, "images/offset": 0}
        append("images/offset", np.zeros(1, "<i8"))
        for shard in _each(parts, count):
            for name, array in shard.checked():
                if name in shift:
                    array = np.where(array >= 0, array + shift[name], array)
                append(name, array[1:] if name == "images/offset" else array)
            shift["images/candidate"] += shard.rows("candidates/source")
            shift["candidates/image"] += shard.rows("images/label")
            shift["images/offset"] += shard.rows("images/data")
            task.advance()
        digests = {name: whole.digest() for name, whole in hashes.items()}
        append("content_sha256", np.frombuffer(digest(attributes, digests, extents), np.uint8))


def _merged_shape(
    name: str, tables: Mapping[str, np.ndarray], rows: Mapping[str, int]
) -> tuple[np.dtype, tuple[int, ...]]:
    if name in tables:
        return tables[name].dtype, tables[name].shape
    kind, dims = SCHEMA[name]
    if name == "content_sha256":
        return np.dtype(kind), (32,)
    length, *more = dims.split()
    counted = next(other for other in _COUNTED if SCHEMA[other][1] == length.partition("+")[0])
    return np.dtype(kind), (rows[counted] + length.endswith("+1"), *map(int, more))


def _attributes(header: Header) -> dict[str, str | int]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "encoding": header.encoding,
        "quality": header.quality,
        "checkpoint_sha256": header.checkpoint_sha256,
        "seed": header.seed,
        "created_by": header.created_by,
    }


def _header_arrays(header: Header) -> dict[str, np.ndarray]:
    options = json.dumps(dict(header.options), sort_keys=True, allow_nan=False)
    return {
        "options": _texts("options", (options,)).reshape(()),
        "classes": _texts("classes", header.classes),
        "files": _texts("files", header.files),
        "files_label": _as_stored("files_label", header.files_label),
        "files_split": _as_stored("files_split", header.files_split),
        "variants": _texts("variants", header.variants),
        "verdicts": _texts("verdicts", header.verdicts),
        "skipped/path": _texts("skipped/path", [path for path, _ in header.skipped]),
        "skipped/reason": _texts("skipped/reason", [reason for _, reason in header.skipped]),
    }


def _texts(name: str, texts: Sequence[str]) -> np.ndarray:
    encoded = []
    for text in texts:
        if "\0" in text:
            raise StoreError(f"{name}: {text[:80]!r} holds a NUL character; rename it")
        try:
            encoded.append(text.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError as error:
            raise StoreError(f"{name}: {text[:80]!r} is not Unicode text; rename it") from error
    return np.array(encoded, f"S{max([1, *map(len, encoded)])}")


class _Shard:
    """A finished shard. Raises StoreError when its structure is not a shard's."""

    def __init__(self, path: Path, index: int) -> None:
        self.path = path
        self._bytes = Bytes(path)
        self._attributes, self._extents = read_layout(path, _SHARD_ATTRIBUTES, SHARD_SCHEMA, self._bytes.size)
        self._bytes.close()
        if self._attributes != {"format": SHARD_FORMAT, "version": VERSION, "index": index}:
            raise StoreError(f"{path}: not shard {index} of this version of dagaug")

    def rows(self, name: str) -> int:
        return self._extents[name].shape[0]

    def column(self, name: str) -> np.ndarray:
        try:
            return self._bytes.array(self._extents[name])
        finally:
            self._bytes.close()

    def content_sha256(self) -> bytes:
        try:
            return self._bytes.array(self._extents["content_sha256"]).tobytes()
        finally:
            self._bytes.close()

    def checked(self) -> Iterator[tuple[str, np.ndarray]]:
        """All columns and the data, after their hashes were checked."""
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
            raise StoreError(f"{self.path}: was damaged and is removed; run the same command again to redo it")
        del arrays["content_sha256"]
        yield from arrays.items()


@contextmanager
def _written(path: Path, kept: str, temporary: Path | None = None) -> Iterator[Path]:
    """Give a name to write under; what was written there gets the name ``path`` if nothing goes wrong."""
    temporary = temporary or path.with_name(path.name + ".tmp")
    with _telling(path, kept):
        try:
            yield temporary
            temporary.replace(path)
            _sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


@contextmanager
def _telling(path: Path, kept: str) -> Iterator[None]:
    """Turn what goes wrong in writing ``path`` into one line; ``kept`` says what is not lost."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise _write_error(path, kept, error) from error


def _write_error(path: Path, kept: str, error: OSError | RuntimeError) -> StoreError:
    number = error.errno if isinstance(error, OSError) else None
    # HDF5 gives the number only within its text.
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error) or "errno = 28," in str(error):
        return StoreError(f"{path}: the disk is full; {kept}; free some space and run the same command again")
    reason = os.strerror(number) if number else str(error).partition("\n")[0]
    return StoreError(f"{path}: cannot be written ({reason}); {kept}; run the same command again when it can")


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Run:
    """One run's folder of shards, locked; made by :func:`open_run`, used in a ``with`` block."""

    def __init__(self, target: Path, parts: Path, lock: IO[str]) -> None:
        self.target, self.parts, self._lock = target, parts, lock
        self.finished = finished_shards(parts)
        """Indices of the shards that are there, also from earlier calls."""

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: object = None, *exception: object) -> None:
        if kind is not None and not self.finished:  # nothing is lost, and other options do not meet this run's manifest
            self._remove()
        self.close()

    def close(self) -> None:
        """Give the lock back; shards stay."""
        self._lock.close()

    def count(self, index: int) -> int:
        """Number of images in a finished shard."""
        return _Shard(_shard_path(self.parts, index), index).rows("images/label")

    def column(self, index: int, name: str) -> np.ndarray:
        """One dataset of a finished shard, by its name in :data:`SHARD_SCHEMA`."""
        return _Shard(_shard_path(self.parts, index), index).column(name)

    def forget(self, indices: Iterable[int]) -> None:
        """Remove shards, so that they are made again.

        Raises:
            StoreError: the folder cannot be written.
        """
        for index in indices:
            path = _shard_path(self.parts, index)
            with _telling(path, "nothing was changed"):
                path.unlink(missing_ok=True)
            self.finished -= {index}

    def depend(self, indices: Iterable[int], on: str) -> None:
        """Say what else the content of these shards depends on; those that were made with something else are removed.

        Raises:
            StoreError: the folder cannot be written.
        """
        note = self.parts / "depends.txt"
        with _telling(note, "nothing was changed"):
            if note.exists() and note.read_text(encoding="utf-8", errors="replace") == on:
                return
            note.unlink(missing_ok=True)
        self.forget(indices)
        with _written(note, "nothing was changed") as temporary:
            temporary.write_text(on, encoding="utf-8")

    def write(self, index: int, content: ShardContent) -> None:
        """Write one shard; see :func:`write_shard`."""
        write_shard(self.parts, index, content)
        self.finished |= {index}

    def found(self, index: int) -> None:
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


def begun(target: Path | str) -> Mapping[str, object]:
    """The identity of the unfinished run that writes ``target``; empty if there is none."""
    identity = _manifest(parts_of(target) / "manifest.json")
    return identity if isinstance(identity, dict) else {}


def settle(target: Path | str) -> Mapping[str, object] | None:
    """Clear away what a run left that was killed after its target got its name.

    Returns:
        The identity of that run; None where there was none. An unfinished run stays, also one that is to replace
        a target that is there.

    Raises:
        LockedError: another run is writing to the target.
    """
    target = Path(target)
    parts = parts_of(target)
    if not target.exists() or not (parts.is_dir() and _left_over(target, parts)):
        return None
    with suppress(OSError), _locked(target, parts):  # what cannot be removed does no harm
        # Looked at again, now that nobody can be writing.
        note = _read_json(parts / _MERGED)
        if _left_over(target, parts):
            folder, identity = note.get("folder"), note.get("identity")
            if note:
                _remove_others(target, folder if isinstance(folder, str) else None)
            _remove(parts)
            return identity if isinstance(identity, dict) else None
    return None


def _left_over(target: Path, parts: Path) -> bool:
    """Whether the target is what this folder's shards made, or the folder was being removed."""
    note = _read_json(parts / _MERGED)
    if not note:
        return not (parts / "manifest.json").exists()
    try:
        with Store(target) as store:
            return bool(note.get("content_sha256") == store.column("content_sha256").tobytes().hex())
    except StoreError:
        return False


def _note(parts: Path, content: Mapping[str, object]) -> None:
    """Write down what is about to get the target's name."""
    with _written(parts / _MERGED, "nothing was changed") as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())


def _identity_in(parts: Path) -> dict[str, object]:
    manifest = _read_json(parts / "manifest.json")
    return {"identity": manifest["identity"]} if "identity" in manifest else {}


def _read_json(path: Path) -> dict[str, object]:
    """A file's JSON object; an empty one where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def open_run(target: Path | str, identity: Mapping[str, object], *, overwrite: bool = False) -> Run:
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
    parts = parts_of(target)
    if target.is_dir():
        raise StoreError(f"{target}: is a folder; name a file")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target} exists; --overwrite replaces it")
    try:
        lock = _locked(target, parts)  # first: whoever is writing now may be about to finish
        try:
            _claim(target, parts, json.loads(json.dumps(dict(identity))), overwrite)
            return Run(target, parts, lock)
        except BaseException:
            lock.close()
            raise
    except OSError as error:
        raise StoreError(
            f"{error.filename or parts}: cannot be written ({error.strerror}); write elsewhere: --out FILE"
        ) from error


def _locked(target: Path, parts: Path) -> IO[str]:
    """Take the lock of a run's folder, making both. The lock goes when the process does, however it ends."""
    while True:
        parts.mkdir(parents=True, exist_ok=True)
        try:
            lock = (parts / "lock").open("a+", encoding="utf-8")
        except FileNotFoundError:
            continue  # the run before was just removing the folder
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                holder = lock.read(200).strip() or "unknown"
                raise LockedError(
                    f"{target}: another run is writing to it ({holder}); wait for it or choose another --out"
                ) from error
            # Locked but removed meanwhile, with its folder, by the run that held it: try again.
            if _same_file(lock, parts / "lock"):
                lock.truncate(0)
                lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
                lock.flush()
                return lock
        except BaseException:
            lock.close()
            raise
        lock.close()


def _same_file(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _claim(target: Path, parts: Path, identity: dict[str, object], overwrite: bool) -> None:
    """Compare the run's identity with the manifest that is there, or write one."""
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target} exists; --overwrite replaces it")
    manifest = parts / "manifest.json"
    if manifest.exists():
        differs = difference(_manifest(manifest), identity)
        if differs is None:
            return
        if not overwrite:
            raise OutputExistsError(
                f"{parts} holds an unfinished run with {differs}; "
                "finish it with the options and files it began with, or --overwrite begins anew"
            )
    _clear(parts)
    with _written(manifest, "nothing was begun") as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump({"version": _MANIFEST_VERSION, "identity": identity}, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())


def _clear(parts: Path) -> None:
    """Remove what a run wrote into its folder, but for the lock, and nothing else."""
    # The manifest goes first: without it, what a kill leaves here is known to be rubbish.
    (parts / "manifest.json").unlink(missing_ok=True)
    for pattern in ("index-*.h5", "*.tmp", "depends.txt", _MERGED):
        for path in parts.glob(pattern):
            path.unlink()


def _remove(parts: Path) -> None:
    _clear(parts)
    (parts / "lock").unlink()
    parts.rmdir()


def _manifest(path: Path) -> object:
    content = _read_json(path)
    return content.get("identity") if content.get("version") == _MANIFEST_VERSION else None


def difference(before: object, now: object, name: str = "") -> str | None:
    """The first option in which two identities differ, with both values, for the user; None if they are equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            differs = difference(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
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
