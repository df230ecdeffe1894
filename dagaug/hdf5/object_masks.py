"""Where the object of each image is: its mask, run-length encoded, and its bounding box.

A mask is stored as the text ``counts`` of COCO's compressed run-length encoding (``maskApi.c`` of
https://github.com/cocodataset/cocoapi, ``rleToString``), so ``pycocotools.mask.decode`` reads it, too. The pixels are
taken column by column; the lengths of the runs alternate between background and object and begin with background. From
the fourth run on, the difference to the run before last is written instead of the length. Each number is split into
groups of 5 bits, the lowest first, in two's complement; a character is 48 + the group, + 32 if another group follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, Integer

from dagaug.hdf5.raw_dataset_bytes import ByteReader
from dagaug.runtime.errors import StoreError

__all__ = ["MaskReader", "Objects", "box_of_mask", "decode_mask", "encode_mask"]

_GROUPS = 7  # of 5 bits, enough for the largest image
_FIRST, _MORE, _SIGN = 48, 32, 16


@dataclass(frozen=True)
class Objects:
    """The objects of images; one row for each image.

    Attributes:
        box: x, y, width and height in pixels of the stored image; NaN where unknown.
        masks: as :func:`encode_mask` gives them; empty where unknown.
    """

    box: Float32[np.ndarray, "N 4"]
    masks: Sequence[bytes]

    @classmethod
    def unknown(cls, count: int) -> Objects:
        """No knowledge about ``count`` images."""
        return cls(np.full((count, 4), np.nan, np.float32), [b""] * count)

    def __len__(self) -> int:
        return len(self.box)


def encode_mask(mask: Bool[np.ndarray, "H W"]) -> bytes:
    """The run-length encoding of a mask, in ASCII; never empty."""
    pixels = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(pixels[1:] != pixels[:-1])
    runs = np.diff(np.concatenate([[0], changes, [mask.size]]))
    numbers = runs.copy()
    numbers[3:] -= runs[1:-2]
    groups = np.zeros((len(numbers), _GROUPS), np.uint8)
    used = np.zeros(groups.shape, bool)
    unfinished = np.ones(len(numbers), bool)
    for place in range(_GROUPS):
        low, numbers = numbers & 31, numbers >> 5
        used[:, place] = unfinished
        unfinished = unfinished & (numbers != np.where(low & _SIGN, -1, 0))
        groups[:, place] = low + _FIRST + _MORE * unfinished
    return groups[used].tobytes()


def decode_mask(data: bytes, height: int, width: int) -> Bool[np.ndarray, "{height} {width}"]:
    """The mask of an image of ``height`` × ``width`` pixels, true on the object.

    Raises:
        ValueError: these bytes are no mask of this size.
    """
    runs = _runs(np.frombuffer(data, np.uint8))
    if not len(runs) or runs.min() < 0 or runs.max() > height * width or runs.sum() != height * width:
        raise ValueError(f"not a mask of {width} × {height} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _runs(codes: np.ndarray) -> Int64[np.ndarray, " R"]:
    """The lengths of the runs, not checked; empty if the text is malformed."""
    values = codes.astype(np.int64) - _FIRST
    last = np.flatnonzero(values < _MORE)
    starts = np.concatenate([[0], last + 1])[:-1]
    malformed = not len(last) or last[-1] != len(values) - 1 or values.min() < 0 or values.max() >= 2 * _MORE
    if malformed or (last - starts).max() >= _GROUPS:
        return np.zeros(0, np.int64)
    place = np.arange(len(values)) - np.repeat(starts, last - starts + 1)
    numbers = np.add.reduceat((values & 31) << (5 * place), starts)
    numbers -= np.where(values[last] & _SIGN, np.int64(1) << (5 * (last - starts + 1)), 0)
    runs = numbers.copy()
    runs[1::2] = np.cumsum(numbers[1::2])
    runs[2::2] = np.cumsum(numbers[2::2])
    return runs


def box_of_mask(mask: Bool[np.ndarray, "H W"]) -> tuple[float, float, float, float] | None:
    """x, y, width and height in pixels of the smallest box around a mask; None if the mask is empty."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(rows):
        return None
    left, top = float(columns[0]), float(rows[0])
    return left, top, float(columns[-1]) + 1 - left, float(rows[-1]) + 1 - top


class MaskReader:
    """Reads the masks of one validated file. Safe in threads and after a fork; can be pickled.

    Args:
        source: the file.
        start: position of the first mask's bytes in it.
        height, width: size of each image in pixels.
        offset: first byte of each mask, and the end of the last.
    """

    def __init__(
        self,
        source: ByteReader,
        *,
        start: int,
        height: Integer[np.ndarray, " N"],
        width: Integer[np.ndarray, " N"],
        offset: Int64[np.ndarray, " N+1"],
    ) -> None:
        self._source, self._start, self._offset = source, start, offset
        self._height, self._width = height, width

    @property
    def known(self) -> Bool[np.ndarray, " N"]:
        """The images whose masks are stored."""
        return np.diff(self._offset) > 0

    def encoded(self, row: int) -> bytes:
        """The bytes of a mask; empty if it is not stored."""
        first, last = int(self._offset[row]), int(self._offset[row + 1])
        return self._source.read(self._start + first, last - first).tobytes()

    def mask(self, row: int) -> Bool[np.ndarray, "H W"] | None:
        """A mask, true on the object, in the size of its image; None if it is not stored.

        Raises:
            StoreError: the mask is damaged.
        """
        data = self.encoded(row)
        if not data:
            return None
        try:
            return decode_mask(data, int(self._height[row]), int(self._width[row]))
        except ValueError as error:
            raise StoreError(f"{self._source.path}: /objects/mask: image {row}: {error}") from error
