"""Images that are kept as encoded bytes and decoded when they are needed, and images of two sets in one."""

from __future__ import annotations

import os
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from dagaug.data.image_files import decode_bytes
from dagaug.data.square_crops import letterboxed
from dagaug.runtime.streamed_array import ImageArray

__all__ = ["ChosenImages", "EncodedImages"]


class EncodedImages:
    """Encoded images in an unnamed temporary file; reads the letterboxed image of a row, in any thread.

    Args:
        size: side of the images that are read, in pixels.
        folder: where to make the file.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, size: int, folder: Path) -> None:
        self._size, self._ends = size, [0]
        with tempfile.TemporaryFile(dir=folder) as file:
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def append(self, data: bytes) -> None:
        """Add an image, the content of a JPEG or PNG file.

        Raises:
            OSError: the disk is full.
        """
        left = memoryview(data)
        while left:
            left = left[os.pwrite(self._descriptor, left, self._ends[-1] + len(data) - len(left)) :]
        self._ends.append(self._ends[-1] + len(data))

    def __call__(self, row: int) -> UInt8[np.ndarray, "S S 3"]:
        """The letterboxed image of a row."""
        first, last = self._ends[row : row + 2]
        data = os.pread(self._descriptor, last - first, first)
        return letterboxed(decode_bytes(data, "image of a control"), self._size)


@dataclass(frozen=True)
class ChosenImages:
    """Reads rows of ``first`` or, where ``from_second`` is True, the same rows of ``second``."""

    first: ImageArray
    second: ImageArray
    from_second: Bool[np.ndarray, " N"]

    def __call__(self, row: int) -> UInt8[np.ndarray, "S S 3"]:
        """The image of a row."""
        return (self.second if self.from_second[row] else self.first)[row]
