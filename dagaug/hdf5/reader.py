"""Reader of the HDF5 file. :mod:`dagaug.hdf5.schema` specifies the format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from dagaug.hdf5.image_reader import ImageReader, LinkedShards
from dagaug.hdf5.object_masks import MaskReader
from dagaug.hdf5.raw_dataset_bytes import ByteReader, VirtualExtent, explain_read_errors, read_layout
from dagaug.hdf5.schema import (
    ATTRIBUTES,
    ENCODINGS,
    FORMAT,
    IMAGE_DATA,
    MAX_PIXELS,
    OBJECTS_HASH,
    OBJECTS_SCHEMA,
    SCHEMA,
    VERSION,
    Candidates,
    Header,
    Images,
    digest,
    objects_digest,
)
from dagaug.runtime.errors import StoreError

__all__ = ["Store", "checked_row"]

_BLOCK_ROWS = 1 << 18
_HASH_BYTES = 1 << 22
_ROUNDING = 1 + 1e-6  # of sums of numbers of 32 bits


def _strings(array: np.ndarray) -> tuple[str, ...]:
    return tuple(text.decode("utf-8", "surrogateescape") for text in array.tolist())


def checked_row(row: int, count: int) -> int:
    """A row in 0 to ``count`` - 1; negative rows count from the end.

    Raises:
        IndexError: the row does not exist.
    """
    if not -count <= row < count:
        raise IndexError(f"image {row} of {count}")
    return int(row) % count


class Store:
    """A validated, open HDF5 file; use it in a ``with`` block.

    h5py only finds out where the datasets are. Their bytes are read by position, so threads can share a store, and it
    can be pickled and used after a fork.

    Args:
        path: the file.

    Raises:
        StoreError: the file cannot be read or breaks the specification; the message names the dataset.
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
                f"which reads version {VERSION}; install a newer dagaug"
            )
        self.attributes, self._extents = read_layout(
            self.path, ATTRIBUTES, SCHEMA, self._bytes.size, virtual=frozenset({IMAGE_DATA}),
            optional=OBJECTS_SCHEMA | OBJECTS_HASH,
        )  # fmt: skip
        self._validate()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. A later read opens it again."""
        self._bytes.close()

    def __len__(self) -> int:
        """Number of images."""
        return self.length("images/label")

    @property
    def is_virtual(self) -> bool:
        """Whether the images are in a folder of shards beside the file."""
        return isinstance(self._extents[IMAGE_DATA], VirtualExtent)

    def column(self, name: str) -> np.ndarray:
        """One dataset, by its name in the specification without the leading slash; strings are bytes."""
        return self._bytes.array(self._extents[name])

    @cached_property
    def header(self) -> Header:
        """Attributes, options and the tables of classes, files, variants, verdicts and skipped files."""
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
        """Class names; a label is an index."""
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
            IndexError: the row does not exist.
        """
        return self.image_reader.encoded([checked_row(row, len(self))])[0].tobytes()

    def image(self, row: int) -> UInt8[np.ndarray, "H W 3"]:
        """One image, decoded: uint8, RGB.

        Raises:
            IndexError: the row does not exist.
            StoreError: the image cannot be decoded.
        """
        return self.image_reader.decoded([checked_row(row, len(self))])[0]

    def read(self, rows: Sequence[int]) -> list[UInt8[np.ndarray, "_ _ 3"]]:
        """Several images, decoded: uint8, RGB, in the order of ``rows``. They are read in the order of the file.

        Raises:
            IndexError: the row does not exist.
            StoreError: an image cannot be decoded.
        """
        return self.image_reader.decoded([checked_row(row, len(self)) for row in rows])

    @cached_property
    def image_reader(self) -> ImageReader:
        """The reader of encoded images; unlike the store, it can be kept after the store is closed."""
        data = self._extents[IMAGE_DATA]
        return ImageReader(
            LinkedShards(self.path, data.sources) if isinstance(data, VirtualExtent) else self._bytes,
            start=data.start,
            offset=self.column("images/offset"),
            height=self.column("images/height"),
            width=self.column("images/width"),
            encoding=str(self.attributes["encoding"]),
        )

    @property
    def has_objects(self) -> bool:
        """Whether the file says where the objects of its images are."""
        return "objects/box" in self._extents

    @cached_property
    def boxes(self) -> Float32[np.ndarray, "N 4"] | None:
        """Box of each image's object: x, y, width, height in its pixels, NaN where unknown; None without /objects."""
        return self.column("objects/box") if self.has_objects else None

    @cached_property
    def mask_reader(self) -> MaskReader | None:
        """The reader of masks, which can be kept after the store is closed; None without /objects."""
        if not self.has_objects:
            return None
        return MaskReader(
            self._bytes,
            start=self._extents["objects/mask"].start,
            offset=self.column("objects/mask_offset"),
            height=self.column("images/height"),
            width=self.column("images/width"),
        )

    def mask(self, row: int) -> Bool[np.ndarray, "H W"] | None:
        """The mask of an image's object, true on the object, in the size of the image; None if it is not stored.

        Raises:
            IndexError: the row does not exist.
            StoreError: the mask is damaged.
        """
        row = checked_row(row, len(self))
        return None if self.mask_reader is None else self.mask_reader.mask(row)

    def hashes(self, names: Iterable[str] = SCHEMA) -> dict[str, bytes]:
        """SHA-256 of the bytes of datasets; by default of every dataset that /content_sha256 covers."""
        result = {}
        for name in names:
            if name not in ("images/data", "content_sha256"):
                whole = hashlib.sha256()
                extent = self._extents[name]
                for first in range(0, extent.nbytes, _HASH_BYTES):
                    count = min(_HASH_BYTES, extent.nbytes - first)
                    whole.update(self._bytes.read(extent.start + first, count).data)
                result[name] = whole.digest()
        return result

    def content_sha256(self) -> bytes:
        """The SHA-256 that /content_sha256 should have, computed from the content of the file."""
        return digest(self.attributes, self.hashes(), {name: self._extents[name] for name in SCHEMA})

    def objects_sha256(self) -> bytes:
        """The SHA-256 that /objects/sha256 should have, computed from the content of the file."""
        return objects_digest(self.column("content_sha256").tobytes(), self.hashes(OBJECTS_SCHEMA), self._extents)

    def length(self, name: str) -> int:
        """Number of rows of a dataset."""
        return self._extents[name].shape[0]

    def _blocks(self, name: str) -> Iterator[np.ndarray]:
        """A column in blocks of rows, so that memory does not grow with the file."""
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
        """Check the encoding, the ranges of all indices, the order of the offsets, and the sizes."""
        if self.attributes["encoding"] not in ENCODINGS:
            raise StoreError(f"{self.path}: unknown encoding {self.attributes['encoding']!r}")
        self._options()
        if self.is_virtual:
            _ = self.image_reader  # checks the names of the shards
        files, classes, images = self.length("files"), self.length("classes"), self.length("images/label")
        variants, verdicts = max(self.length("variants"), 1), self.length("verdicts")
        candidates = self.length("candidates/source")
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
        if self.has_objects:
            self._validate_objects()

    def _validate_sizes(self) -> None:
        raw = self.attributes["encoding"] == "raw"
        offset, height, width = (self._extents[f"images/{name}"] for name in ("offset", "height", "width"))
        total, expected = self._extents["images/data"].shape[0], 0
        for first in range(0, len(self), _BLOCK_ROWS):
            last = min(first + _BLOCK_ROWS, len(self))
            starts = self._bytes.array(offset.rows(first, last + 1))
            # The range is checked first, so that no difference overflows.
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

    def _validate_objects(self) -> None:
        """Check that the offsets of the masks do not decrease, and that each box is inside its image or unknown."""
        offset, total, expected = self._extents["objects/mask_offset"], self.length("objects/mask"), 0
        for first in range(0, len(self) + 1, _BLOCK_ROWS):
            starts = self._bytes.array(offset.rows(first, min(first + _BLOCK_ROWS, len(self)) + 1))
            if starts.min() < 0 or starts.max() > total or (np.diff(starts) < 0).any() or starts[0] != expected:
                raise StoreError(f"{self.path}: /objects/mask_offset does not go from 0 to {total} without decreasing")
            expected = starts[-1]
        if expected != total:
            raise StoreError(f"{self.path}: /objects/mask_offset does not end at the {total} bytes of /objects/mask")
        sizes = zip(self._blocks("images/width"), self._blocks("images/height"), strict=True)
        for (width, height), box in zip(sizes, self._blocks("objects/box"), strict=True):
            left, top, across, down = box.astype(np.float64).T
            inside = (left >= 0) & (top >= 0) & (across > 0) & (down > 0)
            inside &= (left + across <= width * _ROUNDING) & (top + down <= height * _ROUNDING)
            if not (inside | np.isnan(box).all(1)).all():
                raise StoreError(f"{self.path}: /objects/box has boxes that are not inside their images")
