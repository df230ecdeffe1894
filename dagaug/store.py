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

import bisect
import hashlib
import json
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Integer, UInt8

from dagaug.errors import StoreError
from dagaug.flatfile import UTF8, Bytes, Extent, Piece, Virtual, read_layout, telling
from dagaug.progress import SILENT, Progress

__all__ = [
    "ATTRIBUTES",
    "ENCODINGS",
    "FORMAT",
    "MAX_PIXELS",
    "SCHEMA",
    "SHARD_FORMAT",
    "VERSION",
    "AugmentedDataset",
    "Candidates",
    "Header",
    "Images",
    "Pictures",
    "Store",
    "Verified",
    "digest",
    "linked",
    "verify",
]

FORMAT = "dagaug"
SHARD_FORMAT = "dagaug-shard"
VERSION = 1
ENCODINGS = ("jpeg", "png", "raw")
MAX_PIXELS = 100_000_000

ATTRIBUTES: dict[str, type] = {
    "format": str,
    "version": int,
    "encoding": str,
    "quality": int,
    "checkpoint_sha256": str,
    "seed": int,
    "created_by": str,
}
"""Root attributes and their types."""

SCHEMA: dict[str, tuple[str, str]] = {
    "options": (UTF8, ""),
    "classes": (UTF8, "C"),
    "files": (UTF8, "F"),
    "files_label": ("<i4", "F"),
    "files_split": ("|u1", "F"),
    "variants": (UTF8, "V"),
    "verdicts": (UTF8, "R"),
    "skipped/path": (UTF8, "S"),
    "skipped/reason": (UTF8, "S"),
    "images/height": ("<i4", "N"),
    "images/width": ("<i4", "N"),
    "images/label": ("<i4", "N"),
    "images/split": ("|u1", "N"),
    "images/synthetic": ("|b1", "N"),
    "images/source": ("<i8", "N"),
    "images/reference": ("<i8", "N"),
    "images/variant": ("|u1", "N"),
    "images/confidence": ("<f4", "N"),
    "images/predicted": ("<i4", "N"),
    "images/candidate": ("<i8", "N"),
    "candidates/source": ("<i8", "M"),
    "candidates/reference": ("<i8", "M"),
    "candidates/variant": ("|u1", "M"),
    "candidates/label": ("<i4", "M"),
    "candidates/predicted": ("<i4", "M"),
    "candidates/confidence": ("<f4", "M"),
    "candidates/verdict": ("|u1", "M"),
    "candidates/image": ("<i8", "M"),
    "images/sha256": ("|u1", "N 16"),
    "images/offset": ("<i8", "N+1"),
    "images/data": ("|u1", "B"),
    "content_sha256": ("|u1", "32"),
}
"""Datasets in the order in which they are created, with type and shape; equal letters are equal lengths."""

_DATA = "images/data"
_SHARD_NAME = re.compile(r"[^/\0]+\.shards-[0-9a-f]{16}/index-[0-9]{5,12}\.h5")
_BLOCK_ROWS = 1 << 18
_HASH_BYTES = 1 << 22
_GAP_BYTES = 16_384  # reading over a gap this small costs less than another system call
_READ_BYTES = 1 << 26


@dataclass(frozen=True)
class Images:
    """What is known of each image besides its pixels; columns as in the module's specification."""

    height: Integer[np.ndarray, " N"]
    width: Integer[np.ndarray, " N"]
    label: Integer[np.ndarray, " N"]
    split: Integer[np.ndarray, " N"]
    synthetic: Bool[np.ndarray, " N"]
    source: Integer[np.ndarray, " N"]
    reference: Integer[np.ndarray, " N"]
    variant: Integer[np.ndarray, " N"]
    confidence: Float[np.ndarray, " N"]
    predicted: Integer[np.ndarray, " N"]
    candidate: Integer[np.ndarray, " N"]

    @classmethod
    def real(
        cls,
        height: Integer[np.ndarray, " N"],
        width: Integer[np.ndarray, " N"],
        label: Integer[np.ndarray, " N"],
        split: Integer[np.ndarray, " N"],
        source: Integer[np.ndarray, " N"],
    ) -> Images:
        """Images of the data set itself, without reference, candidate or confidence."""
        none = np.full(len(height), -1, np.int64)
        return cls(
            height=height,
            width=width,
            label=label,
            split=split,
            synthetic=np.zeros(len(height), bool),
            source=source,
            reference=none,
            variant=np.zeros(len(height), np.uint8),
            confidence=np.full(len(height), np.nan, np.float32),
            predicted=none.astype(np.int32),
            candidate=none,
        )

    def __len__(self) -> int:
        return len(self.height)


@dataclass(frozen=True)
class Candidates:
    """Every candidate with its verdict, kept or not; columns as in the module's specification."""

    source: Integer[np.ndarray, " M"]
    reference: Integer[np.ndarray, " M"]
    variant: Integer[np.ndarray, " M"]
    label: Integer[np.ndarray, " M"]
    predicted: Integer[np.ndarray, " M"]
    confidence: Float[np.ndarray, " M"]
    verdict: Integer[np.ndarray, " M"]
    image: Integer[np.ndarray, " M"]

    @classmethod
    def none(cls) -> Candidates:
        """No candidates, as among real images."""
        nothing = np.zeros(0, np.int64)
        return cls(nothing, nothing, nothing, nothing, nothing, np.zeros(0, np.float32), nothing, nothing)

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class Header:
    """Everything in the file that is not about one image or candidate.

    Attributes:
        classes: class names; a label is an index here.
        files: image files relative to the data folder; sources and references are indices here.
        files_label: label of each file.
        files_split: 0 train, 1 test.
        encoding: how images are stored.
        quality: of JPEG, 0 for the others.
        variants: names of the variants of a reference.
        verdicts: names of the verdicts of the selection.
        options: the resolved options; what JSON can hold.
        checkpoint_sha256: of the generator's weights, in hexadecimal; empty if there is none.
        seed: the run's seed.
        created_by: the writer's name and version.
        skipped: path and reason of every file that could not be used.
    """

    classes: tuple[str, ...]
    files: tuple[str, ...]
    files_label: Integer[np.ndarray, " F"]
    files_split: Integer[np.ndarray, " F"]
    encoding: Literal["jpeg", "png", "raw"]
    quality: int
    variants: tuple[str, ...]
    verdicts: tuple[str, ...]
    options: Mapping[str, object]
    checkpoint_sha256: str
    seed: int
    created_by: str
    skipped: tuple[tuple[str, str], ...] = ()


def digest(attributes: Mapping[str, str | int], hashes: Mapping[str, bytes], extents: Mapping[str, Extent]) -> bytes:
    """What /content_sha256 holds.

    SHA-256 of a line of JSON for the attributes (an object with sorted keys, ASCII, no spaces), then for each
    dataset in the schema's order, but for /images/data and /content_sha256, of a line "name type shape"
    (numpy's type string, lengths joined by commas) and the SHA-256 of its bytes (``hashes``).
    """
    total = hashlib.sha256()
    total.update(json.dumps(dict(attributes), sort_keys=True, separators=(",", ":")).encode() + b"\n")
    for name, extent in extents.items():
        if name not in ("images/data", "content_sha256"):
            shape = ",".join(map(str, extent.shape))
            total.update(f"{name} {extent.dtype.str} {shape}\n".encode() + hashes[name])
    return total.digest()


def _strings(array: np.ndarray) -> tuple[str, ...]:
    return tuple(text.decode("utf-8", "surrogateescape") for text in array.tolist())


class _Shards:
    """The bytes of a virtual /images/data, read from the shards that hold them."""

    def __init__(self, path: Path, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            if not _SHARD_NAME.fullmatch(piece.file):
                raise StoreError(f"{path}: /{_DATA} is a link to {piece.file[:80]!r}; such files are refused")
        self.path = path
        self._pieces, self._firsts = pieces, [piece.first for piece in pieces]
        self._opened: dict[str, tuple[Bytes, int]] = {}

    def read(self, start: int, count: int) -> UInt8[np.ndarray, " count"]:
        """``count`` bytes from ``start`` on, writable."""
        result = np.empty(count, np.uint8)
        at, end = start, start + count
        number = bisect.bisect_right(self._firsts, start) - 1
        while at < end:
            piece = self._pieces[number]
            upto = min(end, piece.last)
            source, begin = self._open(piece)
            mine = source.twin()
            try:
                result[at - start : upto - start] = mine.read(begin + at - piece.first, upto - at)
            finally:
                mine.close()
            at, number = upto, number + 1
        return result

    def _open(self, piece: Piece) -> tuple[Bytes, int]:
        if piece.file not in self._opened:
            path = self.path.parent / piece.file
            try:
                links = stat.S_ISLNK(path.lstat().st_mode) or stat.S_ISLNK(path.parent.lstat().st_mode)
            except OSError as error:
                raise StoreError(
                    f"{path}: cannot be read ({error.strerror}); keep it beside {self.path.name}"
                ) from error
            if links:
                raise StoreError(f"{path}: is a link to elsewhere; such files are refused")
            source = Bytes(path)
            source.close()
            attributes, extents = read_layout(
                path, {"format": str, "version": int}, {_DATA: SCHEMA[_DATA]}, source.size
            )
            if attributes != {"format": SHARD_FORMAT, "version": VERSION}:
                raise StoreError(f"{path}: not a shard of this version of dagaug")
            if extents[_DATA].shape != (piece.last - piece.first,):
                raise StoreError(f"{path}: is not the shard that {self.path.name} was made from")
            self._opened[piece.file] = (source, extents[_DATA].start)
        return self._opened[piece.file]


class Pictures:
    """Reads and decodes images of one validated file; safe in threads and after a fork, and pickles."""

    def __init__(
        self,
        source: Bytes | _Shards,
        *,
        start: int,
        height: Integer[np.ndarray, " N"],
        width: Integer[np.ndarray, " N"],
        offset: Int64[np.ndarray, " N+1"],
        encoding: str,
    ) -> None:
        self._source, self._start, self._offset = source, start, offset
        self._height, self._width, self._encoding = height, width, encoding

    def encoded(self, rows: Sequence[int]) -> list[UInt8[np.ndarray, " _"]]:
        """Stored bytes in the order of ``rows``, writable; neighbours in the file are read at once."""
        result: list[np.ndarray | None] = [None] * len(rows)
        asked = np.asarray(rows, np.int64)
        first, last = self._offset[asked].tolist(), self._offset[asked + 1].tolist()
        for places in self._runs(np.argsort(asked, kind="stable").tolist(), first, last):
            start, end = first[places[0]], last[places[-1]]
            piece = self._source.read(self._start + start, end - start)
            before = -1
            for place in places:
                part = piece[first[place] - start : last[place] - start]
                # The same image twice in one batch: callers may write into what they get.
                result[place] = part.copy() if first[place] == before else part
                before = first[place]
        return [part for part in result if part is not None]

    @staticmethod
    def _runs(order: Sequence[int], first: Sequence[int], last: Sequence[int]) -> Iterator[list[int]]:
        run: list[int] = []
        for place in order:
            if run and (first[place] - last[run[-1]] > _GAP_BYTES or last[place] - first[run[0]] > _READ_BYTES):
                yield run
                run = []
            run.append(place)
        if run:
            yield run

    def decoded(
        self, rows: Sequence[int], decode: Callable[[bytes], np.ndarray] | None = None
    ) -> list[UInt8[np.ndarray, "_ _ 3"]]:
        """RGB images in the order of ``rows``, by ``decode`` or, without one, as the file's encoding asks."""
        images = []
        for row, data in zip(rows, self.encoded(rows), strict=True):
            height, width = int(self._height[row]), int(self._width[row])
            if decode is not None:
                images.append(decode(data.tobytes()))
            elif self._encoding == "raw":
                images.append(data.reshape(height, width, 3))
            else:
                images.append(self._decode(row, data, height, width))
        return images

    def _decode(self, row: int, data: UInt8[np.ndarray, " _"], height: int, width: int) -> UInt8[np.ndarray, "H W 3"]:
        # The header is compared first: a small file may declare a huge picture.
        if _declared(data.data, self._encoding) == (height, width):
            try:
                image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            except cv2.error:
                image = None
            if image is not None and image.shape == (height, width, 3):
                return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
        raise StoreError(
            f"{self._source.path}: /images/data: image {row} is not a {self._encoding} of {width} × {height} pixels"
        )


def _declared(data: memoryview, encoding: str) -> tuple[int, int] | None:
    """Height and width by the header of a PNG or JPEG; None if there is none, or chunks exceed a PNG."""
    if encoding == "png":
        size = int.from_bytes(data[20:24]), int.from_bytes(data[16:20])
        if data[:8] != b"\x89PNG\r\n\x1a\n" or data[8:16] != b"\0\0\0\rIHDR":
            return None
        at = 8
        # Decoders make room for what a chunk declares; animations are not what was written.
        while at + 12 <= len(data) and data[at + 4 : at + 8] not in (b"acTL", b"fcTL", b"fdAT"):
            if data[at + 4 : at + 8] == b"IEND":
                return size
            at += 12 + int.from_bytes(data[at : at + 4])
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _checked(row: int, count: int) -> int:
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
        self._bytes = Bytes(self.path)
        attributes, _ = read_layout(self.path, {"format": str, "version": int}, {}, self._bytes.size)
        if attributes["format"] != FORMAT:
            raise StoreError(f"{self.path}: its format is {attributes['format']!r}, not {FORMAT!r}")
        if attributes["version"] != VERSION:
            raise StoreError(
                f"{self.path}: version {attributes['version']} of the format is unknown to this dagaug, "
                f"which reads version {VERSION}; install a newer one"
            )
        self.attributes, self._extents = read_layout(
            self.path, ATTRIBUTES, SCHEMA, self._bytes.size, virtual=frozenset({_DATA})
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
        return self.pictures.encoded([_checked(row, len(self))])[0].tobytes()

    def image(self, row: int) -> UInt8[np.ndarray, "H W 3"]:
        """One image, decoded: RGB.

        Raises:
            IndexError: no such row.
            StoreError: the image cannot be decoded.
        """
        return self.pictures.decoded([_checked(row, len(self))])[0]

    def read(self, rows: Sequence[int]) -> list[UInt8[np.ndarray, "_ _ 3"]]:
        """Many images, decoded, in the order of ``rows``; read in the order in which they lie in the file."""
        return self.pictures.decoded([_checked(row, len(self)) for row in rows])

    @cached_property
    def pictures(self) -> Pictures:
        """The reader of images that :meth:`read` and :class:`AugmentedDataset` use."""
        data = self._extents[_DATA]
        return Pictures(
            _Shards(self.path, data.pieces) if isinstance(data, Virtual) else self._bytes,
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
        with telling(self.path, "/options is not JSON"):
            options = json.loads(text)
        if not isinstance(options, dict):
            raise StoreError(f"{self.path}: /options is not a JSON object")
        return options

    def _validate(self) -> None:
        """Check what types and shapes do not say: ranges of every index, order of offsets, sizes."""
        if self.attributes["encoding"] not in ENCODINGS:
            raise StoreError(f"{self.path}: unknown encoding {self.attributes['encoding']!r}")
        self._options()
        if isinstance(self._extents[_DATA], Virtual):
            _ = self.pictures  # sees what its shards are called
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


def linked(images: Images, candidates: Candidates) -> bool:
    """Whether ``images.candidate`` and ``candidates.image`` agree on which candidate became which image."""
    made, kept = np.flatnonzero(images.candidate >= 0), np.flatnonzero(candidates.image >= 0)
    if len(made) != len(kept) or candidates.image.max(initial=-1) >= len(images):
        return False
    return bool((images.candidate[candidates.image[kept]] == kept).all())


@dataclass(frozen=True)
class Verified:
    """What a file that passed :func:`verify` holds.

    Attributes:
        images, synthetic, real: how many images, all of whose hashes fit.
        decoded: how many of them were decoded, too.
        candidates: how many, kept or not.
        classes, files, skipped: lengths of these tables.
        datasets: how many were checked for type, shape and place.
        data_bytes: of all images together.
        content_sha256: that was stored and found, in hexadecimal.
    """

    images: int
    synthetic: int
    real: int
    decoded: int
    candidates: int
    classes: int
    files: int
    skipped: int
    datasets: int
    data_bytes: int
    content_sha256: str


def verify(path: Path | str, *, decode: bool = True, progress: Progress = SILENT) -> Verified:
    """Check everything that a file says of itself.

    That is: the specification, the range of every index, the hash of every image's bytes, (``decode``) that every
    image decodes to the size it declares, that every image and its candidate say the same, and the content's hash.

    Raises:
        StoreError: naming the first dataset, image or candidate that is wrong, by its row.
    """
    with Store(path) as store:
        hashes = store.column("images/sha256")
        with progress.task("Verifying", len(store), "images") as task:
            for first in range(0, len(store), 256):
                rows = range(first, min(first + 256, len(store)))
                for row, data in zip(rows, store.pictures.encoded(rows), strict=True):
                    if hashlib.sha256(data.data).digest()[:16] != hashes[row].tobytes():
                        raise StoreError(f"{path}: /images/data: image {row} is damaged (its hash differs)")
                if decode:
                    store.pictures.decoded(rows)
                task.advance(len(rows))
        _check_agreement(store)
        stored = store.column("content_sha256").tobytes()
        if store.content_sha256() != stored:
            raise StoreError(f"{path}: /content_sha256 does not fit the content; the file was changed or damaged")
        synthetic = int(store.images.synthetic.sum())
        return Verified(
            images=len(store),
            synthetic=synthetic,
            real=len(store) - synthetic,
            decoded=len(store) if decode else 0,
            candidates=len(store.candidates),
            classes=store._length("classes"),
            files=store._length("files"),
            skipped=store._length("skipped/path"),
            datasets=len(SCHEMA),
            data_bytes=store._length("images/data"),
            content_sha256=stored.hex(),
        )


def _check_agreement(store: Store) -> None:
    """See that images and candidates name each other, and say the same of each other."""
    images, candidates = store.images, store.candidates
    if not linked(images, candidates):
        raise StoreError(f"{store.path}: /images/candidate and /candidates/image disagree")
    of_a_morph = (images.reference >= 0) | (images.predicted >= 0) | (images.candidate >= 0)
    for row in np.flatnonzero(~images.synthetic & of_a_morph)[:1]:
        raise StoreError(f"{store.path}: /images: image {row} is real, and has a reference, prediction or candidate")
    made = np.flatnonzero(images.candidate >= 0)
    for name in ("source", "reference", "variant", "label", "predicted", "confidence"):
        ours, theirs = getattr(images, name)[made], getattr(candidates, name)[images.candidate[made]]
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs)) if name == "confidence" else ours == theirs
        for row in made[~same][:1]:
            raise StoreError(
                f"{store.path}: /images/{name}: image {row} and its candidate {images.candidate[row]} differ"
            )


class AugmentedDataset:
    """Images of an HDF5 file and their labels, as a map-style data set for ``torch.utils.data.DataLoader``.

    Items are ``(image, label)``: the image RGB uint8 [H, W, 3], or what ``transform`` makes of it. Opened
    lazily in every process, so it pickles and works with any number of workers; batches are read at once.

    Args:
        path: the file.
        split: "train", "test" or "all".
        real: images of the data set itself.
        synthetic: morphs.
        transform: called with each image.
        decode: turns an image's stored bytes into RGB; by default OpenCV does.
        synthetic_share: the share of morphs that :attr:`weights` aim at; by default all weigh the same.

    Raises:
        StoreError: the file breaks its specification, or an image cannot be decoded.
        ValueError: an unknown split, or a share outside 0 to 1.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        split: str = "train",
        real: bool = True,
        synthetic: bool = True,
        transform: Callable[[np.ndarray], object] | None = None,
        decode: Callable[[bytes], np.ndarray] | None = None,
        synthetic_share: float | None = None,
    ) -> None:
        if split not in ("train", "test", "all"):
            raise ValueError(f"split is {split!r}, not train, test or all")
        if synthetic_share is not None and not 0 <= synthetic_share <= 1:
            raise ValueError(f"synthetic_share is {synthetic_share}, not between 0 and 1")
        self.transform, self._decode, self._share = transform, decode, synthetic_share
        with Store(path) as store:
            self.classes = store.classes
            is_synthetic = store.column("images/synthetic")
            chosen = np.where(is_synthetic, synthetic, real)
            if split != "all":
                chosen &= store.column("images/split") == ("train", "test").index(split)
            self.rows: Int64[np.ndarray, " n"] = np.flatnonzero(chosen)
            self.labels: Int64[np.ndarray, " n"] = store.column("images/label")[self.rows].astype(np.int64)
            self.synthetic: Bool[np.ndarray, " n"] = is_synthetic[self.rows]
            self._pictures = store.pictures

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[object, int]:
        return self.__getitems__([_checked(index, len(self))])[0]

    def __getitems__(self, indices: Iterable[int]) -> list[tuple[object, int]]:
        """A batch, in the order of ``indices``."""
        places = [_checked(index, len(self)) for index in indices]
        images = self._pictures.decoded(self.rows[places].tolist(), self._decode)
        labels = self.labels[places].tolist()
        if self.transform is None:
            return list(zip(images, labels, strict=True))
        return [(self.transform(image), label) for image, label in zip(images, labels, strict=True)]

    @property
    def weights(self) -> Float64[np.ndarray, " n"]:
        """For ``WeightedRandomSampler``: sum 1, morphs together ``synthetic_share`` of it."""
        count, morphs = len(self), int(self.synthetic.sum())
        if self._share is None or morphs in (0, count):
            return np.full(count, 1 / max(count, 1))
        return np.where(self.synthetic, self._share / morphs, (1 - self._share) / (count - morphs))
