"""Manifest of an export: the content of the HDF5 file that image files cannot hold, in ``.dagaug-export``.

It is an HDF5 file with the datasets of :mod:`dagaug.hdf5.schema`, read as strictly, except /images/data and
/images/offset. In their place it has these datasets (N images):

============================== ========= ====================================================
name                           type      content
============================== ========= ====================================================
/images/path                   utf8 [N]  file with the image, relative to the export's folder
/images/start, /images/size    int64 [N] position and number of the bytes of the image in it
============================== ========= ====================================================

/images/sha256 is the hash of the bytes in the exported HDF5 file; for raw images, these are the RGB pixels. If the file
has the group /objects, the manifest has it, too, without /objects/sha256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from dagaug.hdf5.raw_dataset_bytes import UTF8, ByteReader, ByteWriter, create_file, read_layout
from dagaug.hdf5.schema import ATTRIBUTES, ENCODINGS, OBJECTS_SCHEMA, SCHEMA, VERSION, digest
from dagaug.runtime.errors import StoreError

__all__ = ["MANIFEST", "MANIFEST_FORMAT", "Columns", "Manifest", "read_manifest", "select_images", "write_manifest"]

MANIFEST = ".dagaug-export"
"""Name of the manifest in an export's folder."""

MANIFEST_FORMAT = "dagaug-export"
"""The attribute ``format`` of a manifest."""

Columns = dict[str, np.ndarray]
"""Datasets, by their names in the specification without the leading slash."""

_SCHEMA = {
    name: kind for name, kind in SCHEMA.items() if name not in ("images/data", "images/offset", "content_sha256")
}
_SCHEMA |= {
    "images/path": (UTF8, "N"),
    "images/start": ("<i8", "N"),
    "images/size": ("<i8", "N"),
    "content_sha256": ("|u1", "32"),
}


class Manifest:
    """A manifest that was read.

    Attributes:
        attributes: attributes of the exported HDF5 file, without format and version.
        columns: its datasets without the bytes and offsets of images, and the locations of the images.
        sha256: hash of the manifest's content in hexadecimal.
    """

    def __init__(self, attributes: Mapping[str, str | int], columns: Columns, sha256: str) -> None:
        self.attributes, self.columns, self.sha256 = dict(attributes), columns, sha256

    def __len__(self) -> int:
        return len(self.columns["images/label"])


def select_images(columns: Columns, chosen: Bool[np.ndarray, " N"]) -> Columns:
    """The columns with the chosen images only. All candidates stay; their rows of images are renumbered."""
    rows = np.where(chosen, np.cumsum(chosen) - 1, -1)
    result = {name: array[chosen] if name.startswith("images/") else array for name, array in columns.items()}
    if "objects/box" in columns:
        lengths = np.diff(columns["objects/mask_offset"])
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[chosen])])
        result["objects/box"] = columns["objects/box"][chosen]
        result["objects/mask_offset"] = ends.astype("<i8")
        result["objects/mask"] = columns["objects/mask"][np.repeat(chosen, lengths)]
    image = columns["candidates/image"]
    result["candidates/image"] = np.where(image >= 0, rows[image], -1).astype("<i8")
    return result


def write_manifest(folder: Path, attributes: Mapping[str, str | int], columns: Columns) -> None:
    """Write the manifest of an export.

    Args:
        folder: the export's folder.
        attributes: attributes of the HDF5 file.
        columns: all datasets of the manifest except its hash.
    """
    path = folder / MANIFEST
    stored = {**attributes, "format": MANIFEST_FORMAT, "version": VERSION}
    names = [name for name in _SCHEMA if name != "content_sha256"]
    names += [name for name in OBJECTS_SCHEMA if name in columns]
    arrays = {name: np.asarray(columns[name], order="C") for name in names}
    layout = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    extents = create_file(path, stored, layout | {"content_sha256": (np.dtype("u1"), (32,))})
    arrays["content_sha256"] = np.frombuffer(digest(stored, _hashes(arrays), extents), np.uint8)
    with ByteWriter(path) as writer:
        for name, array in arrays.items():
            writer.write(extents[name].start, array)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an export.

    Raises:
        StoreError: there is no manifest, or it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise StoreError(f"{folder}: not an export (no {MANIFEST} in it); make one with dagaug export")
    source = ByteReader(path)
    try:
        attributes, extents = read_layout(path, ATTRIBUTES, _SCHEMA, source.size, optional=OBJECTS_SCHEMA)
        if (attributes["format"], attributes["version"]) != (MANIFEST_FORMAT, VERSION):
            raise StoreError(f"{path}: written by another version of dagaug")
        if attributes["encoding"] not in ENCODINGS:
            raise StoreError(f"{path}: unknown encoding {attributes['encoding']!r}")
        columns = {name: source.array(extent) for name, extent in extents.items()}
    finally:
        source.close()
    stamp = columns.pop("content_sha256").tobytes()
    if digest(attributes, _hashes(columns), extents) != stamp:
        raise StoreError(f"{path}: was changed or damaged; export again")
    if "objects/box" in columns:
        offset, total = columns["objects/mask_offset"], len(columns["objects/mask"])
        if offset[0] != 0 or offset[-1] != total or (np.diff(offset) < 0).any():
            raise StoreError(f"{path}: /objects/mask_offset does not go from 0 to {total} without decreasing")
    images, candidates, files = (len(columns[name]) for name in ("images/label", "candidates/image", "files"))
    for name, count in (("images/candidate", candidates), ("candidates/image", images), ("images/source", files)):
        rows = columns[name]
        if len(rows) and (rows.min() < -1 or rows.max() >= count):
            raise StoreError(f"{path}: /{name} has values outside -1 to {count - 1}")
    del attributes["format"], attributes["version"]
    return Manifest(attributes, columns, stamp.hex())


def _hashes(columns: Columns) -> dict[str, bytes]:
    return {name: hashlib.sha256(np.ascontiguousarray(array).data).digest() for name, array in columns.items()}
