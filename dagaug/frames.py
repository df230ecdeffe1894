"""The whole images that patches are put back into, so that background and surroundings stay the reference's."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from dagaug.datasets import Dataset
from dagaug.errors import DataError, ImageError
from dagaug.images import Region, decode, paste
from dagaug.patches import Patches
from dagaug.planning import VARIANTS

__all__ = ["Frame", "Frames"]

Frame = Literal["whole", "crop"]
"""What is stored of a morph: the reference's whole image with the morph in it, or the patch."""

_FRAMES = 128  # whole images that are kept decoded


class Frames:
    """Puts patches where their references' patches came from.

    Args:
        dataset: where the files are.
        patches: of the references; rows of :meth:`put` are rows of it.
        frame: ``whole`` or ``crop``.
        read: how a file becomes RGB pixels.
    """

    def __init__(
        self,
        dataset: Dataset,
        patches: Patches,
        frame: Frame,
        *,
        read: Callable[[Path], UInt8[np.ndarray, "H W 3"]] = decode,
    ) -> None:
        self._dataset, self._patches, self._frame = dataset, patches, frame
        self._read = lru_cache(_FRAMES)(read)

    def put(
        self, patch: UInt8[np.ndarray, "S S 3"], cover: UInt8[np.ndarray, "S S"], reference: int, variant: int
    ) -> UInt8[np.ndarray, "H W 3"]:
        """A patch as it is stored: itself, or the reference's whole image with the patch blended in.

        Args:
            patch: what was made.
            cover: where it differs from the reference, 255 wholly.
            reference: row of the reference.
            variant: row in :data:`~dagaug.planning.VARIANTS`.

        Raises:
            DataError: the reference's file has become unreadable.
        """
        if self._frame == "crop":
            return patch
        path = self._dataset.file(self._patches.samples[reference])
        try:
            frame = self._read(path)
        except ImageError as error:
            raise DataError(f"{error}; it was readable when this run began; restore it and run again") from error
        region = self._patches.regions[reference]
        if VARIANTS[variant] == "mirror":
            frame = np.ascontiguousarray(frame[:, ::-1])
            left, top, side = region.pixels()
            region = Region(float(frame.shape[1] - left - side), float(top), float(side))
        return paste(frame, patch, cover.astype(np.float32) / 255, region)
