"""Import of an export: restores the HDF5 file that :mod:`dagaug.exchange.export` wrote to a folder.

A complete export gives the same file, byte for byte. Images that were deleted from the folder are left out, so images
can be selected by hand. Images that were changed are refused, because the file's statements about them would be wrong.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from dagaug.data.image_files import decode_bytes
from dagaug.data.safe_paths import SafePaths
from dagaug.exchange.non_image_content import MANIFEST, Manifest, read_manifest, select_images
from dagaug.hdf5.raw_dataset_bytes import ByteReader, ByteWriter, create_file
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import ATTRIBUTES, FORMAT, MAX_PIXELS, SCHEMA, VERSION, digest
from dagaug.runtime.errors import DataError, ImageError, OutputExistsError, StoreError
from dagaug.runtime.files import atomic_replace, explain_write_errors, locked
from dagaug.runtime.progress import SILENT, Progress
from dagaug.runtime.signals import Interrupted, Stop, stop_on_signals

__all__ = ["REMOVED", "Imported", "reimport"]

REMOVED = "removed from the export"
"""Verdict of candidates whose images were deleted from the folder."""

_OPEN_FILES = 64  # kept open, because a tar has many images


@dataclass(frozen=True)
class Imported:
    """An HDF5 file that was restored from an export.

    Attributes:
        out: the HDF5 file.
        real, synthetic: numbers of real and synthetic images.
        removed: number of exported images that are missing in the folder.
        seconds: duration.
    """

    out: Path
    real: int
    synthetic: int
    removed: int
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
        strict: raise an error if an exported image is missing; otherwise it is left out.
        progress: reports the imported images.

    Raises:
        StoreError: the folder is not an export, or ``out`` cannot be written.
        DataError: an image was changed since the export, all images are missing, or (``strict``) one is missing.
        OutputExistsError: ``out`` exists.
        LockedError: another process writes to ``out``.
        Interrupted: stopped by a signal; nothing was imported.
    """
    started = time.monotonic()
    manifest = read_manifest(folder)
    present = _present(folder, manifest)
    if not present.all() and strict:
        name = os.fsdecode(manifest.columns["images/path"][int(np.argmin(present))])
        raise DataError(f"{folder / name}: exported image not found; export again", remedies={"strict": False})
    if not present.any():
        raise DataError(f"{folder}: all {len(manifest)} exported images are missing; export again")
    columns = manifest.columns if present.all() else _with_present(manifest, present)
    target = Path(os.path.realpath(out))
    with explain_write_errors(out, "nothing was imported"):
        _refuse_existing(out, target, overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent / f".{target.name}.dagaug-lock", out), stop_on_signals() as stop:
            _refuse_existing(out, target, overwrite)
            with atomic_replace(target, target.with_name(f".{target.name}.dagaug-import")) as temporary:
                _write(temporary, folder, Manifest(manifest.attributes, columns, manifest.sha256), stop, progress)
    synthetic = int(columns["images/synthetic"].sum())
    images = len(columns["images/label"])
    return Imported(out, images - synthetic, synthetic, len(present) - images, time.monotonic() - started)


def _refuse_existing(out: Path, target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise OutputExistsError(f"{out} is a folder, but the import is a file", remedies={"out": None})
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{out} exists", remedies={"overwrite": True, "out": None})


def _present(folder: Path, manifest: Manifest) -> Bool[np.ndarray, " N"]:
    """For each image, whether its file (or tar) is in the folder."""
    paths = SafePaths(folder)
    where = str(folder / MANIFEST)
    names, file_of = np.unique(manifest.columns["images/path"], return_inverse=True)
    found = np.array([(folder / paths.checked(os.fsdecode(name), where)).is_file() for name in names.tolist()], bool)
    return found[file_of]


def _with_present(manifest: Manifest, present: Bool[np.ndarray, " N"]) -> dict[str, np.ndarray]:
    """The columns without the missing images; their candidates get the verdict :data:`REMOVED`."""
    columns = select_images(manifest.columns, present)
    missing = (manifest.columns["candidates/image"] >= 0) & (columns["candidates/image"] < 0)
    if missing.any():
        names = columns["verdicts"].tolist()
        if REMOVED.encode() not in names:
            names.append(REMOVED.encode())
        verdict = columns["candidates/verdict"].copy()
        verdict[missing] = names.index(REMOVED.encode())
        columns |= {"verdicts": np.array(names), "candidates/verdict": verdict}
    return columns


def _write(path: Path, folder: Path, manifest: Manifest, stop: Stop, progress: Progress) -> None:
    columns = manifest.columns
    raw = manifest.attributes["encoding"] == "raw"
    lengths = _lengths(folder, manifest)
    columns["images/offset"] = np.concatenate([np.zeros(1, "<i8"), np.cumsum(lengths)]).astype("<i8")
    attributes = {name: manifest.attributes.get(name, 0) for name in ATTRIBUTES}
    attributes |= {"format": FORMAT, "version": VERSION}
    shapes = {name: (columns[name].dtype, columns[name].shape) for name in SCHEMA if name in columns}
    shapes |= {"images/data": (np.dtype("u1"), (int(lengths.sum()),)), "content_sha256": (np.dtype("u1"), (32,))}
    extents = create_file(path, attributes, {name: shapes[name] for name in SCHEMA})
    hashes = {}
    with ByteWriter(path) as writer, progress.task("Importing", len(lengths), "images") as task:
        at = extents["images/data"].start
        for data in _images(folder, columns, raw):
            writer.write(at, data)
            at += len(data)
            task.advance()
            if stop.requested:
                raise Interrupted("stopped; nothing was imported; run the same command again")
        for name in SCHEMA:
            if name in columns:
                array = np.ascontiguousarray(columns[name])
                hashes[name] = hashlib.sha256(array.data).digest()
                writer.write(extents[name].start, array)
        stamp = np.frombuffer(digest(attributes, hashes, extents), np.uint8)
        writer.write(extents["content_sha256"].start, stamp)
    with Store(path):
        pass


def _lengths(folder: Path, manifest: Manifest) -> Int64[np.ndarray, " N"]:
    """Number of bytes of each image in the HDF5 file, checked before memory of that size is allocated."""
    columns = manifest.columns
    size, height, width = (columns[f"images/{name}"].astype(np.int64) for name in ("size", "height", "width"))
    if size.min() < 1 or height.min() < 1 or width.min() < 1 or (height * width).max() > MAX_PIXELS:
        raise StoreError(f"{folder / MANIFEST}: /images/size, height or width is out of range")
    return height * width * 3 if manifest.attributes["encoding"] == "raw" else size


def _images(folder: Path, columns: dict[str, np.ndarray], raw: bool) -> Iterator[UInt8[np.ndarray, " _"]]:
    """Bytes of each image as the HDF5 file stores them, after a check of the hash."""
    opened: dict[bytes, ByteReader] = {}
    names = zip(*(columns[f"images/{name}"].tolist() for name in ("path", "start", "size")), strict=True)
    try:
        for row, (name, start, size) in enumerate(names):
            path = folder / os.fsdecode(name)
            if name not in opened:
                if len(opened) >= _OPEN_FILES:
                    opened.pop(next(iter(opened))).close()
                opened[name] = ByteReader(path)
            source = opened[name]
            if start < 0 or start + size > source.size:
                raise _changed(path)
            data = source.read(start, size)
            if raw:
                data = _pixels(data, path, int(columns["images/height"][row]), int(columns["images/width"][row]))
            if hashlib.sha256(data.data).digest()[:16] != columns["images/sha256"][row].tobytes():
                raise _changed(path)
            yield data
    finally:
        for source in opened.values():
            source.close()


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
