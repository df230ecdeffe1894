"""Reading of encoded images from one file or from linked shards."""

from __future__ import annotations

import bisect
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int64, Integer, UInt8

from dagaug.hdf5.layout import ByteReader, VirtualSource, read_layout
from dagaug.hdf5.schema import IMAGE_DATA, SCHEMA, SHARD_FORMAT, VERSION
from dagaug.runtime.errors import StoreError

__all__ = ["ImageReader", "LinkedShards"]


_SHARD_NAME = re.compile(r"[^/\0]+\.shards-[0-9a-f]{16}/index-[0-9]{5,12}\.h5")


_GAP_BYTES = 16_384  # reading over a gap this small costs less than another system call


_READ_BYTES = 1 << 26


class LinkedShards:
    """The bytes of a virtual /images/data, read from the shards that hold them."""

    def __init__(self, path: Path, pieces: Sequence[VirtualSource]) -> None:
        for piece in pieces:
            if not _SHARD_NAME.fullmatch(piece.file):
                raise StoreError(f"{path}: /{IMAGE_DATA} is a link to {piece.file[:80]!r}; such files are refused")
        self.path = path
        self._pieces, self._firsts = pieces, [piece.first for piece in pieces]
        self._opened: dict[str, tuple[ByteReader, int]] = {}

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

    def _open(self, piece: VirtualSource) -> tuple[ByteReader, int]:
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
            source = ByteReader(path)
            source.close()
            attributes, extents = read_layout(
                path, {"format": str, "version": int}, {IMAGE_DATA: SCHEMA[IMAGE_DATA]}, source.size
            )
            if attributes != {"format": SHARD_FORMAT, "version": VERSION}:
                raise StoreError(f"{path}: not a shard of this version of dagaug")
            if extents[IMAGE_DATA].shape != (piece.last - piece.first,):
                raise StoreError(f"{path}: is not the shard that {self.path.name} was made from")
            self._opened[piece.file] = (source, extents[IMAGE_DATA].start)
        return self._opened[piece.file]


class ImageReader:
    """Reads and decodes images of one validated file; safe in threads and after a fork, and pickles."""

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
