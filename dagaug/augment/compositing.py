"""The whole images that patches are put back into, so that their surroundings go on beyond the patch."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from dagaug.augment.plan import VIEW_OF, VIEWS
from dagaug.data.dataset import Dataset
from dagaug.data.image_files import decode
from dagaug.data.patches import Patches
from dagaug.data.regions import Region, paste
from dagaug.runtime.errors import DataError, ImageError

__all__ = ["Frame", "Frames"]

Frame = Literal["whole", "crop"]
"""What is stored of a morph: the whole image that gives its background, with the morph in it, or the patch."""

_FRAMES = 128  # whole images that are kept decoded


class Frames:
    """Puts patches where the patches that gave their backgrounds came from.

    Args:
        dataset: where the files are.
        patches: of those images; rows of :meth:`put` are rows of it.
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
        self, patch: UInt8[np.ndarray, "S S 3"], cover: UInt8[np.ndarray, "S S"], behind: int, variant: int
    ) -> UInt8[np.ndarray, "H W 3"]:
        """A patch as it is stored: itself, or blended into the whole image that its background is from.

        Args:
            patch: what was made.
            cover: where it differs from that image's own patch, 255 wholly.
            behind: row of that image, which is the reference if nothing else was asked for.
            variant: row in :data:`~dagaug.planning.VARIANTS`.

        Raises:
            DataError: that image's file has become unreadable.
        """
        if self._frame == "crop":
            return patch
        path = self._dataset.file(self._patches.samples[behind])
        try:
            frame = self._read(path)
        except ImageError as error:
            raise DataError(f"{error}; it was readable when this run began; restore it and run again") from error
        region = self._patches.regions[behind]
        if VIEWS[VIEW_OF[variant]] == "mirrored":
            frame = np.ascontiguousarray(frame[:, ::-1])
            left, top, side = region.pixels()
            region = Region(float(frame.shape[1] - left - side), float(top), float(side))
        return paste(frame, patch, cover.astype(np.float32) / 255, region)
