"""Import of an export: restores the HDF5 file that :mod:`dagaug.exchange.export` wrote to a folder.

A complete export gives the same file, byte for byte. The folder can be corrected by hand
(:mod:`dagaug.exchange.folder_changes`): deleted images are left out, images in another class folder get its label, and
new images are taken in as real ones of unknown origin. Images whose content was changed are refused, because the file's
statements about them would be wrong.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from dagaug.data.image_files import Skipped, decode_bytes
from dagaug.exchange.changed_content import change_content
from dagaug.exchange.folder_changes import FolderChanges, find_changes, read_added
from dagaug.exchange.non_image_content import MANIFEST, Columns, Manifest, read_manifest
from dagaug.hdf5.raw_dataset_bytes import ByteReader, ByteWriter, create_file
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import (
    ATTRIBUTES,
    FORMAT,
    MAX_PIXELS,
    OBJECTS_HASH,
    OBJECTS_SCHEMA,
    SCHEMA,
    VERSION,
    digest,
    objects_digest,
)
from dagaug.runtime.errors import DataError, ImageError, OutputExistsError, StoreError
from dagaug.runtime.files import atomic_replace, explain_write_errors, locked
from dagaug.runtime.progress import SILENT, Progress
from dagaug.runtime.signals import Interrupted, Stop, stop_on_signals

__all__ = ["Imported", "reimport"]

_OPEN_FILES = 64  # kept open, because a tar has many images


@dataclass(frozen=True)
class Imported:
    """An HDF5 file that was restored from an export.

    Attributes:
        out: the HDF5 file.
        real, synthetic: numbers of real and synthetic images.
        removed: number of exported images that are missing in the folder, or in the table of a ``csv``.
        relabelled: number of exported images with another class.
        resplit: number of exported images in the other split.
        changed_real: number of real ones of both.
        outdated: number of synthetic images that keep the former class of their relabelled source.
        added: number of new images, which are real ones of unknown origin.
        transparent: number of those with pixels that are not opaque; they are laid over white.
        left_out: files in the folder that are not taken in, with reasons.
        seconds: duration.
    """

    out: Path
    real: int
    synthetic: int
    removed: int
    relabelled: int
    resplit: int
    changed_real: int
    outdated: int
    added: int
    transparent: int
    left_out: tuple[Skipped, ...]
    seconds: float

    @property
    def images(self) -> int:
        """Number of all images."""
        return self.real + self.synthetic


def reimport(
    folder: Path, out: Path, *, overwrite: bool = False, strict: bool = False, progress: Progress = SILENT
) -> Imported:
    """Restore the HDF5 file from its export.

    Args:
        folder: an export in any format.
        out: file to write; missing parent folders are created.
        overwrite: replace an existing file.
        strict: raise an error if an exported image is missing or a file cannot be taken in; otherwise it is left out.
        progress: reports the imported images.

    Raises:
        StoreError: the folder is not an export, or ``out`` cannot be written.
        DataError: the content of an image was changed since the export, all images are missing, the table of a ``csv``
            is malformed, or (``strict``) an image is missing or not taken in.
        OutputExistsError: ``out`` exists.
        LockedError: another process writes to ``out``.
        Interrupted: stopped by a signal; nothing was imported.
    """
    started = time.monotonic()
    manifest = read_manifest(folder)
    changes = find_changes(folder, manifest)
    present = changes.present
    if strict:
        _refuse_left_out(folder, changes)
    if not present.any():
        raise DataError(f"{folder}: all {len(manifest)} exported images are missing; export again")
    changed = change_content(manifest, changes)
    content = Manifest(manifest.attributes, changed.columns, manifest.sha256)
    target = Path(os.path.realpath(out))
    with explain_write_errors(out, "nothing was imported"):
        _refuse_existing(out, target, overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent / f".{target.name}.dagaug-lock", out), stop_on_signals() as stop:
            _refuse_existing(out, target, overwrite)
            with atomic_replace(target, target.with_name(f".{target.name}.dagaug-import")) as temporary:
                _write(temporary, folder, content, len(changes.added), stop, progress)
    synthetic = int(changed.columns["images/synthetic"].sum())
    return Imported(
        out=out,
        real=len(content) - synthetic,
        synthetic=synthetic,
        removed=int((~present).sum()) - changes.refused,
        relabelled=changed.relabelled,
        resplit=changed.resplit,
        changed_real=changed.changed_real,
        outdated=changed.outdated,
        added=len(changes.added),
        transparent=sum(image.transparent for image in changes.added),
        left_out=changes.left_out,
        seconds=time.monotonic() - started,
    )


def _refuse_left_out(folder: Path, changes: FolderChanges) -> None:
    for skip in changes.left_out[:1]:
        raise DataError(f"{skip.path}: {skip.reason}", remedies={"strict": False})
    for row in np.flatnonzero(~changes.present)[:1]:
        raise DataError(
            f"{folder / changes.paths[row]}: exported image not found; export again", remedies={"strict": False}
        )


def _refuse_existing(out: Path, target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise OutputExistsError(f"{out} is a folder, but the import is a file", remedies={"out": None})
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{out} exists", remedies={"overwrite": True, "out": None})


def _write(path: Path, folder: Path, manifest: Manifest, added: int, stop: Stop, progress: Progress) -> None:
    """Write the HDF5 file; the last ``added`` images are new."""
    columns = manifest.columns
    lengths = _lengths(folder, manifest)
    columns["images/offset"] = np.concatenate([np.zeros(1, "<i8"), np.cumsum(lengths)]).astype("<i8")
    attributes = {name: manifest.attributes.get(name, 0) for name in ATTRIBUTES}
    attributes |= {"format": FORMAT, "version": VERSION}
    objects = "objects/box" in columns
    schema = SCHEMA | OBJECTS_SCHEMA | OBJECTS_HASH if objects else SCHEMA
    shapes = {name: (columns[name].dtype, columns[name].shape) for name in schema if name in columns}
    shapes |= {"images/data": (np.dtype("u1"), (int(lengths.sum()),))}
    shapes |= dict.fromkeys(("content_sha256", "objects/sha256"), (np.dtype("u1"), (32,)))
    extents = create_file(path, attributes, {name: shapes[name] for name in schema})
    hashes = {}
    with ByteWriter(path) as writer, progress.task("Importing", len(lengths), "images") as task:
        at = extents["images/data"].start
        for data in _images(folder, manifest, added):
            writer.write(at, data)
            at += len(data)
            task.advance()
            if stop.requested:
                raise Interrupted("stopped; nothing was imported; run the same command again")
        for name in schema:
            if name in columns:
                array = np.ascontiguousarray(columns[name])
                hashes[name] = hashlib.sha256(array.data).digest()
                writer.write(extents[name].start, array)
        content = digest(attributes, hashes, {name: extents[name] for name in SCHEMA})
        writer.write(extents["content_sha256"].start, np.frombuffer(content, np.uint8))
        if objects:
            stamp = np.frombuffer(objects_digest(content, hashes, extents), np.uint8)
            writer.write(extents["objects/sha256"].start, stamp)
    with Store(path):
        pass


def _lengths(folder: Path, manifest: Manifest) -> Int64[np.ndarray, " N"]:
    """Number of bytes of each image in the HDF5 file, checked before memory of that size is allocated."""
    columns = manifest.columns
    size, height, width = (columns[f"images/{name}"].astype(np.int64) for name in ("size", "height", "width"))
    if size.min() < 1 or height.min() < 1 or width.min() < 1 or (height * width).max() > MAX_PIXELS:
        raise StoreError(f"{folder / MANIFEST}: /images/size, height or width is out of range")
    return height * width * 3 if manifest.attributes["encoding"] == "raw" else size


def _images(folder: Path, manifest: Manifest, added: int) -> Iterator[UInt8[np.ndarray, " _"]]:
    """Bytes of each image as the HDF5 file stores them, after a check of the hash."""
    columns, encoding, quality = manifest.columns, str(manifest.attributes["encoding"]), manifest.attributes["quality"]
    first_added = len(manifest) - added
    opened: dict[bytes, ByteReader] = {}
    names = zip(*(columns[f"images/{name}"].tolist() for name in ("path", "start", "size")), strict=True)
    try:
        for row, (name, start, size) in enumerate(names):
            path = folder / os.fsdecode(name)
            if row >= first_added:
                data = np.frombuffer(read_added(path, encoding, int(quality))[0], np.uint8)
                _check_hash(data, columns, row, path)
                yield data
                continue
            if name not in opened:
                if len(opened) >= _OPEN_FILES:
                    opened.pop(next(iter(opened))).close()
                opened[name] = ByteReader(path)
            source = opened[name]
            if start < 0 or start + size > source.size:
                raise _changed(path)
            data = source.read(start, size)
            if encoding == "raw":
                data = _pixels(data, path, int(columns["images/height"][row]), int(columns["images/width"][row]))
            _check_hash(data, columns, row, path)
            yield data
    finally:
        for source in opened.values():
            source.close()


def _check_hash(data: UInt8[np.ndarray, " _"], columns: Columns, row: int, path: Path) -> None:
    if hashlib.sha256(data.data).digest()[:16] != columns["images/sha256"][row].tobytes():
        raise _changed(path)


def _pixels(data: UInt8[np.ndarray, " _"], path: Path, height: int, width: int) -> UInt8[np.ndarray, " _"]:
    try:
        image = decode_bytes(data.tobytes(), path)
    except ImageError as error:
        raise _changed(path) from error
    if image.shape != (height, width, 3):
        raise _changed(path)
    return np.ascontiguousarray(image).reshape(-1)


def _changed(path: Path) -> DataError:
    return DataError(f"{path}: was changed since the export; export again, or delete this file to leave the image out")
