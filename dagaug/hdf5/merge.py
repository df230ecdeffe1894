"""Merge of finished shards into one HDF5 file."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np

from dagaug.hdf5.raw_dataset_bytes import ByteWriter, VirtualSource, create_file
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import (
    FORMAT,
    OBJECTS_HASH,
    OBJECTS_SCHEMA,
    SCHEMA,
    VERSION,
    Header,
    digest,
    objects_digest,
)
from dagaug.hdf5.shards import ROW_COUNTS, ShardFile, shard_path, to_stored_type, write_durably
from dagaug.runtime.errors import StoreError
from dagaug.runtime.files import sync_folder
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["MERGED", "Merge", "merge", "read_json", "remove_old_shard_copies"]

Merge = Literal["copy", "virtual"]
"""``copy``: one file with all data. ``virtual``: images stay in the shards, in a folder beside the file."""

_OFFSETS = {"images/offset": "images/data", "objects/mask_offset": "objects/mask"}
"""Datasets of positions, and the datasets that they are positions in."""

MERGED = "merged.json"
"""Written to the shard folder just before the merged file gets its name; identifies a finished merge."""


def merge(
    parts: Path, target: Path, header: Header, count: int, *, how: Merge = "copy", progress: Progress = SILENT
) -> None:
    """Merge the shards 0 to ``count`` - 1 into ``target``, atomically. The shards stay in ``parts``.

    With ``virtual``, images are not copied. The shards are linked (or copied) to the folder ``TARGET.shards-HASH``, and
    the target refers to them. Folders of this kind that belong to an earlier target are removed.

    Args:
        parts: the folder with the shards.
        target: the file to write; replaced if it exists.
        header: attributes, options and tables.
        count: number of shards.
        how: whether images are copied.
        progress: reports the merged shards.

    Raises:
        StoreError: a shard is missing or damaged (it is then removed, so that the same command makes it again), the
            disk is full, a name is not Unicode text, or the header does not fit the shards.
        ValueError: JSON cannot hold the options.
    """
    with write_durably(target, f"finished shards are kept in {parts}", parts / "merged.tmp") as temporary:
        folder = _link_shards(target, parts, count) if how == "virtual" else None
        _merge(temporary, parts, count, header, folder, progress)
        with Store(temporary) as merged:
            content = merged.column("content_sha256").tobytes().hex()
        _write_note(
            parts, {"content_sha256": content, "folder": folder.name if folder else None, **_identity_in(parts)}
        )
    remove_old_shard_copies(target, folder.name if folder else None)


def remove_old_shard_copies(target: Path, folder: str | None) -> None:
    """Remove the folders ``TARGET.shards-*`` of earlier files, except the one named ``folder``."""
    for old in target.parent.glob(f"{glob.escape(target.name)}.shards-*"):
        if old.name != folder:
            _remove_folder(old)


def _shards(parts: Path, count: int) -> Iterator[ShardFile]:
    return (ShardFile(shard_path(parts, index), index) for index in range(count))


def _link_shards(target: Path, parts: Path, count: int) -> Path:
    """Hard-link the shards to a folder beside the target; where that is impossible, copy them."""
    whole = hashlib.sha256()
    for shard in _shards(parts, count):
        whole.update(shard.content_sha256())
    folder = target.with_name(f"{target.name}.shards-{whole.hexdigest()[:16]}")
    folder.mkdir(exist_ok=True)
    for shard in _shards(parts, count):
        name = folder / shard.path.name
        name.unlink(missing_ok=True)
        try:
            os.link(shard.path, name)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK):
                raise
            shutil.copyfile(shard.path, name)
    sync_folder(folder)
    return folder


def _remove_folder(folder: Path) -> None:
    with suppress(OSError):  # the folder is not used any more, so it may stay
        if not folder.is_symlink():
            for path in folder.glob("index-*.h5"):
                path.unlink()
            folder.rmdir()


def _merge(path: Path, parts: Path, count: int, header: Header, folder: Path | None, progress: Progress) -> None:
    """Write the merged file; with ``folder``, /images/data refers to the shards there."""
    attributes = _attributes(header)
    tables = _header_arrays(header)
    objects = _have_objects(parts, count)
    schema = SCHEMA | OBJECTS_SCHEMA | OBJECTS_HASH if objects else SCHEMA
    counted = (*ROW_COUNTS, "objects/mask") if objects else ROW_COUNTS
    offsets = {name: data for name, data in _OFFSETS.items() if name in schema}
    rows = dict.fromkeys(counted, 0)
    sources = []
    for shard in _shards(parts, count):
        first = rows["images/data"]
        rows = {name: rows[name] + shard.rows(name) for name in counted}
        if folder is not None and shard.rows("images/data"):
            sources.append(VirtualSource(first, rows["images/data"], f"{folder.name}/{shard.path.name}"))
    layout = {name: _merged_shape(name, schema, tables, rows) for name in schema}
    extents = create_file(path, attributes, layout, {"images/data": sources} if sources else None)
    hashes = {name: hashlib.sha256() for name in schema}
    at = {name: extent.start for name, extent in extents.items()}
    with ByteWriter(path) as writer, progress.task("Merging", count, "shards") as task:

        def append(name: str, array: np.ndarray) -> None:
            array = np.ascontiguousarray(array)
            if name != "images/data":
                hashes[name].update(array.data)
            elif sources:
                return
            writer.write(at[name], array)
            at[name] += array.nbytes

        for name, table in tables.items():
            append(name, table)
        shift = {"images/candidate": 0, "candidates/image": 0, **dict.fromkeys(offsets, 0)}
        for name in offsets:
            append(name, np.zeros(1, "<i8"))
        for shard in _shards(parts, count):
            for name, array in shard.checked():
                if name in shift:
                    array = np.where(array >= 0, array + shift[name], array)
                append(name, array[1:] if name in offsets else array)
            shift["images/candidate"] += shard.rows("candidates/source")
            shift["candidates/image"] += shard.rows("images/label")
            for name, data in offsets.items():
                shift[name] += shard.rows(data)
            task.advance()
        digests = {name: total.digest() for name, total in hashes.items()}
        content = digest(attributes, digests, {name: extents[name] for name in SCHEMA})
        append("content_sha256", np.frombuffer(content, np.uint8))
        if objects:
            append("objects/sha256", np.frombuffer(objects_digest(content, digests, extents), np.uint8))


def _have_objects(parts: Path, count: int) -> bool:
    """Whether the shards say where the objects are.

    Raises:
        StoreError: only some of them do.
    """
    have = [shard.has_objects for shard in _shards(parts, count)]
    if any(have) and not all(have):
        raise StoreError(f"{shard_path(parts, have.index(False))}: lacks /objects, which other shards have; remove it")
    return all(have) and bool(have)


def _merged_shape(
    name: str, schema: Mapping[str, tuple[str, str]], tables: Mapping[str, np.ndarray], rows: Mapping[str, int]
) -> tuple[np.dtype, tuple[int, ...]]:
    if name in tables:
        return tables[name].dtype, tables[name].shape
    kind, dims = schema[name]
    length, *more = dims.split()
    if length.isdigit():
        return np.dtype(kind), (int(length),)
    counted = next(other for other in rows if schema[other][1] == length.partition("+")[0])
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
        "files_label": to_stored_type("files_label", header.files_label),
        "files_split": to_stored_type("files_split", header.files_split),
        "variants": _texts("variants", header.variants),
        "verdicts": _texts("verdicts", header.verdicts),
        "skipped/path": _texts("skipped/path", [path for path, _ in header.skipped]),
        "skipped/reason": _texts("skipped/reason", [reason for _, reason in header.skipped]),
    }


def _texts(name: str, texts: Sequence[str]) -> np.ndarray:
    encoded = []
    for text in texts:
        if "\0" in text:
            raise StoreError(f"{name}: {text[:80]!r} contains a NUL character; rename it")
        try:
            encoded.append(text.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError as error:
            raise StoreError(f"{name}: {text[:80]!r} is not Unicode text; rename it") from error
    return np.array(encoded, f"S{max([1, *map(len, encoded)])}")


def _write_note(parts: Path, content: Mapping[str, object]) -> None:
    """Record which content is about to get the target's name."""
    with (
        write_durably(parts / MERGED, "nothing was changed") as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        json.dump(content, file)


def _identity_in(parts: Path) -> dict[str, object]:
    manifest = read_json(parts / "manifest.json")
    return {"identity": manifest["identity"]} if "identity" in manifest else {}


def read_json(path: Path) -> dict[str, object]:
    """The JSON object in a file; empty if there is no file or no JSON object in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
