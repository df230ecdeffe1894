"""Reader of the images in /images/data, which is stored in one file or is virtual (in shards)."""

from __future__ import annotations

import bisect
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int64, Integer, UInt8

from dagaug.hdf5.raw_dataset_bytes import ByteReader, VirtualSource, read_layout
from dagaug.hdf5.schema import IMAGE_DATA, SCHEMA, SHARD_FORMAT, VERSION
from dagaug.runtime.errors import StoreError

__all__ = ["ImageReader", "LinkedShards"]

_SHARD_NAME = re.compile(r"[^/\0]+\.shards-[0-9a-f]{16}/index-[0-9]{5,12}\.h5")
_GAP_BYTES = 16_384  # reading a gap of this size costs less than a second system call
_READ_BYTES = 1 << 26


class LinkedShards:
    """The bytes of a virtual /images/data, read from its shards.

    Args:
        path: the file with the virtual dataset.
        sources: the shards, in the order of their first byte.

    Raises:
        StoreError: a shard has a name that the specification forbids.
    """

    def __init__(self, path: Path, sources: Sequence[VirtualSource]) -> None:
        for source in sources:
            if not _SHARD_NAME.fullmatch(source.file):
                raise StoreError(f"{path}: /{IMAGE_DATA} links to {source.file[:80]!r}, not to a shard; refused")
        self.path = path
        self._sources, self._firsts = sources, [source.first for source in sources]
        self._opened: dict[str, tuple[ByteReader, int]] = {}

    def read(self, start: int, count: int) -> UInt8[np.ndarray, " count"]:
        """``count`` bytes from ``start`` on, writable."""
        result = np.empty(count, np.uint8)
        at, end = start, start + count
        number = bisect.bisect_right(self._firsts, start) - 1
        while at < end:
            source = self._sources[number]
            stop = min(end, source.last)
            shared, begin = self._open(source)
            reader = shared.unopened_copy()  # threads must not share an open shard, which is closed below
            try:
                result[at - start : stop - start] = reader.read(begin + at - source.first, stop - at)
            finally:
                reader.close()
            at, number = stop, number + 1
        return result

    def _open(self, source: VirtualSource) -> tuple[ByteReader, int]:
        """The reader of a shard, checked at the first call, and the position of /images/data in it."""
        if source.file not in self._opened:
            path = self.path.parent / source.file
            try:
                links = stat.S_ISLNK(path.lstat().st_mode) or stat.S_ISLNK(path.parent.lstat().st_mode)
            except OSError as error:
                raise StoreError(
                    f"{path}: cannot be read ({error.strerror}); keep it beside {self.path.name}"
                ) from error
            if links:
                raise StoreError(f"{path}: is a symbolic link; refused")
            reader = ByteReader(path)
            reader.close()
            attributes, extents = read_layout(
                path, {"format": str, "version": int}, {IMAGE_DATA: SCHEMA[IMAGE_DATA]}, reader.size
            )
            if attributes != {"format": SHARD_FORMAT, "version": VERSION}:
                raise StoreError(f"{path}: not a shard that this version of dagaug can read")
            if extents[IMAGE_DATA].shape != (source.last - source.first,):
                raise StoreError(f"{path}: not the shard that {self.path.name} was made from")
            self._opened[source.file] = (reader, extents[IMAGE_DATA].start)
        return self._opened[source.file]


class ImageReader:
    """Reads and decodes the images of one validated file. Safe in threads and after a fork; can be pickled.

    Args:
        source: the file, or the shards of a virtual dataset.
        start: position of /images/data in ``source``.
        height, width: size of each image in pixels.
        offset: first byte of each image in /images/data, and the end of the last.
        encoding: "jpeg", "png" or "raw".
    """

    def __init__(
        self,
        source: ByteReader | LinkedShards,
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
        """Stored bytes in the order of ``rows``, writable. Neighbours in the file are read with one system call."""
        result: list[np.ndarray | None] = [None] * len(rows)
        asked = np.asarray(rows, np.int64)
        first, last = self._offset[asked].tolist(), self._offset[asked + 1].tolist()
        for places in self._neighbours(np.argsort(asked, kind="stable").tolist(), first, last):
            start, end = first[places[0]], last[places[-1]]
            piece = self._source.read(self._start + start, end - start)
            before = -1
            for place in places:
                part = piece[first[place] - start : last[place] - start]
                # A repeated image gets separate memory, because callers may write to it.
                result[place] = part.copy() if first[place] == before else part
                before = first[place]
        return [part for part in result if part is not None]

    @staticmethod
    def _neighbours(order: Sequence[int], first: Sequence[int], last: Sequence[int]) -> Iterator[list[int]]:
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
        """Decoded images, uint8 RGB, in the order of ``rows``.

        Args:
            rows: rows of the images.
            decode: makes an RGB image of the stored bytes; None for the decoder of the file's encoding.

        Raises:
            StoreError: an image cannot be read or decoded.
        """
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
        # The image header is checked before decoding, because a small file may declare a huge image.
        if _size_in_header(data.data, self._encoding) == (height, width):
            try:
                image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            except cv2.error:
                image = None
            if image is not None and image.shape == (height, width, 3):
                return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
        raise StoreError(
            f"{self._source.path}: /images/data: image {row} is not a {self._encoding} of {width} × {height} pixels"
        )


def _size_in_header(data: memoryview, encoding: str) -> tuple[int, int] | None:
    """Height and width in the header of a PNG or JPEG; None if the header or a PNG chunk is invalid."""
    if encoding == "png":
        size = int.from_bytes(data[20:24]), int.from_bytes(data[16:20])
        if data[:8] != b"\x89PNG\r\n\x1a\n" or data[8:16] != b"\0\0\0\rIHDR":
            return None
        at = 8
        # Decoders allocate the length that a chunk declares. dagaug never writes animations.
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
