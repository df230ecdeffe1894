"""The HDF5 file that ``dagaug augment`` writes: its specification, its reader and a data set to train on.

The words MUST and MAY are meant as in RFC 2119. N is the number of images, M of candidates, F of files, C
of classes, B the sum of all images' bytes. ``utf8`` is a fixed-length, NUL-padded UTF-8 string type; bytes
of file names that are not UTF-8 stand as they are. All numbers are little-endian.

The file MUST have an HDF5 superblock of version 2 or 3 at its first byte, with which everything that
describes it has a checksum (h5py: ``libver="v108"``). It MUST have these attributes at its root:
``format`` (utf8) = "dagaug"; ``version`` (int64) = 1; ``encoding`` (utf8) = "jpeg", "png" or "raw";
``quality`` (int64), that of JPEG, otherwise 0; ``checkpoint_sha256`` (utf8); ``seed`` (int64);
``created_by`` (utf8), the writer's name and version.

It MUST have these datasets, each contiguous, without filters, stored in this file, reached by hard links (but
/images/data MAY be virtual, see below):

=================================== ============ ============================================================
name                                type         holds
=================================== ============ ============================================================
/options                            utf8 scalar  the resolved options, a JSON object
/classes                            utf8 [C]     class names; a label is a row here
/files                              utf8 [F]     image files, relative to the data folder, "/" between folders
/files_label, /files_split          int32, uint8 [F]  label and split of each file
/variants, /verdicts                utf8         names of the variants of a reference and of the verdicts
/skipped/path, /skipped/reason      utf8         files that could not be used
/images/data                        uint8 [B]    all images' bytes one after the other
/images/offset                      int64 [N+1]  image i is data[offset[i]:offset[i+1]]; from 0 to B,
                                                 strictly increasing
/images/height, width               int32 [N]    pixels; at most 100 million an image
/images/label                       int32 [N]    class that the image is to be learned as
/images/split                       uint8 [N]    0 train, 1 test
/images/synthetic                   bool [N]     false: an image of the data set, true: a morph
/images/source, reference           int64 [N]    rows in /files; a real image is its own source; the
                                                 reference is -1 if there is none
/images/variant                     uint8 [N]    row in /variants; 0 for real images
/images/confidence                  float32 [N]  the classifier's p(label); NaN for real images
/images/predicted                   int32 [N]    the classifier's first choice; -1 for real images
/images/candidate                   int64 [N]    row in /candidates; -1 for real images
/images/sha256                      uint8 [N,16] the first 16 bytes of the SHA-256 of the image's bytes
/candidates/source, reference, variant, label, predicted, confidence   as for images, each [M]
/candidates/verdict                 uint8 [M]    row in /verdicts
/candidates/image                   int64 [M]    row in /images, -1 if it was not kept
/content_sha256                     uint8 [32]   of attributes and of all other datasets but /images/data,
                                                 which /images/sha256 stands for (:func:`digest`)
=================================== ============ ============================================================

With encoding "raw" an image is height × width × 3 bytes of RGB; otherwise a JPEG or PNG file whose EXIF
rotation MUST be ignored.

/images/data MAY be an HDF5 virtual dataset: the datasets /images/data of shards, whole and one behind the other, in
files that MUST be named "NAME.shards-HASH/index-NUMBER.h5" relative to the folder of this file (NAME without "/",
HASH of 16 hexadecimal digits). Such a file is then to be kept with that folder. Readers MUST refuse other virtual
datasets, other sources, and shards that are reached by symbolic links.

A file MAY hold further attributes, groups and datasets; readers MUST ignore them.
Readers MUST refuse another version. Nothing in the file is a time, so that equal runs give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dagaug.hdf5.image_reader import ImageReader, LinkedShards
from dagaug.hdf5.layout import ByteReader, VirtualExtent, explain_read_errors, read_layout
from dagaug.hdf5.schema import (
    ATTRIBUTES,
    ENCODINGS,
    FORMAT,
    IMAGE_DATA,
    MAX_PIXELS,
    SCHEMA,
    VERSION,
    Candidates,
    Header,
    Images,
    digest,
)
from dagaug.runtime.errors import StoreError

__all__ = ["Store", "checked_row"]


_BLOCK_ROWS = 1 << 18


_HASH_BYTES = 1 << 22


def _strings(array: np.ndarray) -> tuple[str, ...]:
    return tuple(text.decode("utf-8", "surrogateescape") for text in array.tolist())


def checked_row(row: int, count: int) -> int:
    if not -count <= row < count:
        raise IndexError(f"image {row} of {count}")
    return int(row) % count


class Store:
    """An HDF5 file, validated when opened and open until closed; use it in a ``with`` block.

    Only h5py's view of where things lie is used; the bytes are read by position, so that a store may be
    shared by threads, pickled, and used after a fork.

    Raises:
        StoreError: when opened, naming the file and the dataset that breaks the specification.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._bytes = ByteReader(self.path)
        attributes, _ = read_layout(self.path, {"format": str, "version": int}, {}, self._bytes.size)
        if attributes["format"] != FORMAT:
            raise StoreError(f"{self.path}: its format is {attributes['format']!r}, not {FORMAT!r}")
        if attributes["version"] != VERSION:
            raise StoreError(
                f"{self.path}: version {attributes['version']} of the format is unknown to this dagaug, "
                f"which reads version {VERSION}; install a newer one"
            )
        self.attributes, self._extents = read_layout(
            self.path, ATTRIBUTES, SCHEMA, self._bytes.size, virtual=frozenset({IMAGE_DATA})
        )
        self._validate()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back; it is opened anew if something is read afterwards."""
        self._bytes.close()

    def __len__(self) -> int:
        """Number of images."""
        return self._length("images/label")

    def column(self, name: str) -> np.ndarray:
        """One dataset by its name in the specification, without the leading slash; strings as bytes."""
        return self._bytes.array(self._extents[name])

    @cached_property
    def header(self) -> Header:
        """Tables and options."""
        paths, reasons = _strings(self.column("skipped/path")), _strings(self.column("skipped/reason"))
        encoding = self.attributes["encoding"]
        return Header(
            classes=self.classes,
            files=_strings(self.column("files")),
            files_label=self.column("files_label"),
            files_split=self.column("files_split"),
            encoding="jpeg" if encoding == "jpeg" else "png" if encoding == "png" else "raw",
            quality=int(self.attributes["quality"]),
            variants=_strings(self.column("variants")),
            verdicts=_strings(self.column("verdicts")),
            options=self._options(),
            checkpoint_sha256=str(self.attributes["checkpoint_sha256"]),
            seed=int(self.attributes["seed"]),
            created_by=str(self.attributes["created_by"]),
            skipped=tuple(zip(paths, reasons, strict=True)),
        )

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names, by label."""
        return _strings(self.column("classes"))

    @cached_property
    def images(self) -> Images:
        """The table of images."""
        return Images(**{field.name: self.column(f"images/{field.name}") for field in fields(Images)})

    @cached_property
    def candidates(self) -> Candidates:
        """The table of candidates."""
        columns = {field.name: self.column(f"candidates/{field.name}") for field in fields(Candidates)}
        return Candidates(**columns)

    def encoded(self, row: int) -> bytes:
        """The stored bytes of one image.

        Raises:
            IndexError: no such row.
        """
        return self.image_reader.encoded([checked_row(row, len(self))])[0].tobytes()

    def image(self, row: int) -> UInt8[np.ndarray, "H W 3"]:
        """One image, decoded: RGB.

        Raises:
            IndexError: no such row.
            StoreError: the image cannot be decoded.
        """
        return self.image_reader.decoded([checked_row(row, len(self))])[0]

    def read(self, rows: Sequence[int]) -> list[UInt8[np.ndarray, "_ _ 3"]]:
        """Many images, decoded, in the order of ``rows``; read in the order in which they lie in the file."""
        return self.image_reader.decoded([checked_row(row, len(self)) for row in rows])

    @cached_property
    def image_reader(self) -> ImageReader:
        """The reader of images that :meth:`read` and :class:`AugmentedDataset` use."""
        data = self._extents[IMAGE_DATA]
        return ImageReader(
            LinkedShards(self.path, data.pieces) if isinstance(data, VirtualExtent) else self._bytes,
            start=data.start,
            offset=self.column("images/offset"),
            height=self.column("images/height"),
            width=self.column("images/width"),
            encoding=str(self.attributes["encoding"]),
        )

    def hashes(self) -> dict[str, bytes]:
        """SHA-256 of the bytes of every dataset that :func:`digest` covers."""
        result = {}
        for name in self._extents:
            if name not in ("images/data", "content_sha256"):
                whole = hashlib.sha256()
                extent = self._extents[name]
                for first in range(0, extent.nbytes, _HASH_BYTES):
                    count = min(_HASH_BYTES, extent.nbytes - first)
                    whole.update(self._bytes.read(extent.start + first, count).data)
                result[name] = whole.digest()
        return result

    def content_sha256(self) -> bytes:
        """SHA-256 of the content as :func:`digest` defines it, computed from what lies in the file now."""
        return digest(self.attributes, self.hashes(), self._extents)

    def _length(self, name: str) -> int:
        return self._extents[name].shape[0]

    def _blocks(self, name: str) -> Iterator[np.ndarray]:
        """A column in pieces, so that memory does not grow with the file."""
        extent = self._extents[name]
        for first in range(0, extent.shape[0], _BLOCK_ROWS):
            yield self._bytes.array(extent.rows(first, min(first + _BLOCK_ROWS, extent.shape[0])))

    def _options(self) -> Mapping[str, object]:
        text = self.column("options").tobytes().rstrip(b"\0")
        with explain_read_errors(self.path, "/options is not JSON"):
            options = json.loads(text)
        if not isinstance(options, dict):
            raise StoreError(f"{self.path}: /options is not a JSON object")
        return options

    def _validate(self) -> None:
        """Check what types and shapes do not say: ranges of every index, order of offsets, sizes."""
        if self.attributes["encoding"] not in ENCODINGS:
            raise StoreError(f"{self.path}: unknown encoding {self.attributes['encoding']!r}")
        self._options()
        if isinstance(self._extents[IMAGE_DATA], VirtualExtent):
            _ = self.image_reader  # sees what its shards are called
        files, classes, images = self._length("files"), self._length("classes"), self._length("images/label")
        variants, verdicts = max(self._length("variants"), 1), self._length("verdicts")
        candidates = self._length("candidates/source")
        for name, low, high in (
            ("files_label", 0, classes),
            ("files_split", 0, 2),
            ("images/height", 1, MAX_PIXELS),
            ("images/width", 1, MAX_PIXELS),
            ("images/label", 0, classes),
            ("images/split", 0, 2),
            ("images/source", 0, files),
            ("images/reference", -1, files),
            ("images/variant", 0, variants),
            ("images/predicted", -1, classes),
            ("images/candidate", -1, candidates),
            ("candidates/source", 0, files),
            ("candidates/reference", -1, files),
            ("candidates/variant", 0, variants),
            ("candidates/label", 0, classes),
            ("candidates/predicted", -1, classes),
            ("candidates/verdict", 0, verdicts),
            ("candidates/image", -1, images),
        ):
            for block in self._blocks(name):
                if block.min() < low or block.max() >= high:
                    raise StoreError(f"{self.path}: /{name} has values outside {low} to {high - 1}")
        self._validate_sizes()

    def _validate_sizes(self) -> None:
        raw = self.attributes["encoding"] == "raw"
        offset, height, width = (self._extents[f"images/{name}"] for name in ("offset", "height", "width"))
        total, expected = self._extents["images/data"].shape[0], 0
        for first in range(0, len(self), _BLOCK_ROWS):
            last = min(first + _BLOCK_ROWS, len(self))
            starts = self._bytes.array(offset.rows(first, last + 1))
            # Values are bounded first, so that no difference overflows.
            if starts.min() < 0 or starts.max() > total or not (np.diff(starts) > 0).all():
                raise StoreError(f"{self.path}: /images/offset does not increase from 0 to {total}")
            if starts[0] != expected:
                raise StoreError(f"{self.path}: /images/offset does not begin with 0")
            expected = starts[-1]
            pixels = self._bytes.array(height.rows(first, last)).astype(np.int64)
            pixels *= self._bytes.array(width.rows(first, last))
            if pixels.max() > MAX_PIXELS:
                raise StoreError(f"{self.path}: /images/height and width exceed {MAX_PIXELS:,} pixels")
            if raw and not np.array_equal(np.diff(starts), pixels * 3):
                raise StoreError(f"{self.path}: /images/offset does not fit height × width × 3 of raw images")
        if self._bytes.array(offset.rows(len(self), len(self) + 1)) != total or expected != total:
            raise StoreError(f"{self.path}: /images/offset does not end at the {total} bytes of /images/data")
