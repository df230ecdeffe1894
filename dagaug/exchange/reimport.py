"""An export, made into the HDF5 file that it came from: the way back of :mod:`dagaug.export`.

Nothing that was exported is lost: of a whole export, the file is the same byte for byte. Images that were deleted from
the folder meanwhile are left out, and so an export is a way to choose by hand; images that were changed are refused,
since what the file says of them would no longer be true.
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
from dagaug.exchange.manifest import MANIFEST, Manifest, read_manifest, select_images
from dagaug.hdf5.layout import ByteReader, ByteWriter, create_file
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import ATTRIBUTES, FORMAT, MAX_PIXELS, SCHEMA, VERSION, digest
from dagaug.runtime.errors import DataError, ImageError, OutputExistsError, StoreError
from dagaug.runtime.files import atomic_replace, explain_write_errors, locked
from dagaug.runtime.progress import SILENT, Progress
from dagaug.runtime.signals import Interrupted, Stop, stop_on_signals

__all__ = ["REMOVED", "Imported", "reimport"]

REMOVED = "removed from the export"
"""The verdict of candidates whose images were deleted from the folder."""

_OPEN = 64  # files that are kept open, for tars


@dataclass(frozen=True)
class Imported:
    """A file that was made from an export.

    Attributes:
        out: the HDF5 file.
        real, synthetic: images of each kind.
        removed: images that were exported and are no longer there.
        seconds: time it took.
    """

    out: Path
    real: int
    synthetic: int
    removed: int
    seconds: float

    @property
    def images(self) -> int:
        """All images of the file."""
        return self.real + self.synthetic


def reimport(
    folder: Path, out: Path, *, overwrite: bool = False, strict: bool = False, progress: Progress = SILENT
) -> Imported:
    """Make the HDF5 file again that a folder was exported from.

    Args:
        folder: an export of any form.
        out: the file to write; its parents are made.
        overwrite: replace a file that is there.
        strict: an image that was deleted from the folder is an error.
        progress: is told of each image.

    Raises:
        StoreError: the folder is no export, or ``out`` cannot be written.
        DataError: an image was changed since the export, or none is left; with ``strict``, one is missing.
        OutputExistsError, LockedError: ``out`` is there already, or being written.
        Interrupted: stopped by a signal; nothing is left behind.
    """
    started = time.monotonic()
    manifest = read_manifest(folder)
    there = _there(folder, manifest)
    if not there.all() and strict:
        name = os.fsdecode(manifest.columns["images/path"][int(np.argmin(there))])
        raise DataError(f"{folder / name}: was exported and is no longer there; without --strict it is left out")
    if not there.any():
        raise DataError(f"{folder}: none of its {len(manifest)} images is there any more; export again")
    columns = manifest.columns if there.all() else _without(manifest, there)
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
    return Imported(out, images - synthetic, synthetic, len(there) - images, time.monotonic() - started)


def _refuse_existing(out: Path, target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise OutputExistsError(f"{out}: is a folder; name a file with --out")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{out} exists; --overwrite replaces it")


def _there(folder: Path, manifest: Manifest) -> Bool[np.ndarray, " N"]:
    """Which images' files are in the folder; of tars, only whether the tar is."""
    paths = SafePaths(folder)
    where = str(folder / MANIFEST)
    names, file_of = np.unique(manifest.columns["images/path"], return_inverse=True)
    found = np.array([(folder / paths.checked(os.fsdecode(name), where)).is_file() for name in names.tolist()], bool)
    return found[file_of]


def _without(manifest: Manifest, there: Bool[np.ndarray, " N"]) -> dict[str, np.ndarray]:
    """The columns without the images that are gone, and a verdict for the candidates that these were."""
    columns = select_images(manifest.columns, there)
    gone = (manifest.columns["candidates/image"] >= 0) & (columns["candidates/image"] < 0)
    if gone.any():
        names = columns["verdicts"].tolist()
        if REMOVED.encode() not in names:
            names.append(REMOVED.encode())
        verdict = columns["candidates/verdict"].copy()
        verdict[gone] = names.index(REMOVED.encode())
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
    """ByteReader of each image in the HDF5 file, bounded before anything is made of that size."""
    columns = manifest.columns
    size, height, width = (columns[f"images/{name}"].astype(np.int64) for name in ("size", "height", "width"))
    if size.min() < 1 or height.min() < 1 or width.min() < 1 or (height * width).max() > MAX_PIXELS:
        raise StoreError(f"{folder / MANIFEST}: /images/size, height or width is out of range")
    return height * width * 3 if manifest.attributes["encoding"] == "raw" else size


def _images(folder: Path, columns: dict[str, np.ndarray], raw: bool) -> Iterator[UInt8[np.ndarray, " _"]]:
    """Each image's bytes as they are to be stored, checked against what was exported."""
    opened: dict[bytes, ByteReader] = {}
    names = zip(*(columns[f"images/{name}"].tolist() for name in ("path", "start", "size")), strict=True)
    try:
        for row, (name, start, size) in enumerate(names):
            path = folder / os.fsdecode(name)
            if name not in opened:
                if len(opened) >= _OPEN:
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
    return DataError(f"{path}: was changed since it was exported; export again, or delete the file to leave it out")
