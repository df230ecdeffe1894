"""Compositing of generated patches into the whole images that their backgrounds come from."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from dagaug.augment.morph_plan import ORIENTATION_OF, ORIENTATIONS
from dagaug.data.dataset_records import Dataset
from dagaug.data.image_files import decode
from dagaug.data.object_patches import Patches
from dagaug.data.square_crops import Region, paste, paste_mask
from dagaug.hdf5.provenance import OutputFrame
from dagaug.runtime.errors import DataError, ImageError

__all__ = ["Compositor", "OutputFrame"]

_CACHED_IMAGES = 128


class Compositor:
    """Blends patches into the images that their backgrounds come from. Keeps the last images decoded.

    Args:
        dataset: gives the image files.
        patches: the patches of those images.
        frame: ``whole`` blends, ``crop`` returns patches unchanged.
    """

    def __init__(self, dataset: Dataset, patches: Patches, frame: OutputFrame) -> None:
        self._dataset, self._patches, self._frame = dataset, patches, frame
        self._read = lru_cache(_CACHED_IMAGES)(_decode)

    def composite(
        self, patch: UInt8[np.ndarray, "S S 3"], cover: UInt8[np.ndarray, "S S"], background_row: int, variant: int
    ) -> UInt8[np.ndarray, "H W 3"]:
        """The image to store for a patch.

        Args:
            patch: RGB.
            cover: opacity of the patch over the background image's own patch, 0 to 255.
            background_row: the image that gives the background, an index into the patches.
            variant: index into :data:`~dagaug.augment.morph_plan.VARIANTS`.

        Raises:
            DataError: the background image has become unreadable.
        """
        if self._frame == "crop":
            return patch
        image, region = self._background(background_row, variant)
        return paste(image, patch, cover.astype(np.float32) / 255, region)

    def object_mask(
        self, opacity: UInt8[np.ndarray, "S S"], background_row: int, variant: int
    ) -> Bool[np.ndarray, "H W"]:
        """Where the image that :meth:`composite` returns shows the patch's object, at least half opaque.

        Args:
            opacity: of the object in the patch, 0 to 255.
            background_row, variant: as for :meth:`composite`.

        Raises:
            DataError: the background image has become unreadable.
        """
        if self._frame == "crop":
            return opacity > 127
        image, region = self._background(background_row, variant)
        return paste_mask(image.shape[0], image.shape[1], opacity, region) > 127

    def _background(self, row: int, variant: int) -> tuple[UInt8[np.ndarray, "H W 3"], Region]:
        """The background image, mirrored if the variant is, and the region of its patch."""
        image = self._read(self._dataset.file(self._patches.samples[row]))
        region = self._patches.regions[row]
        if ORIENTATIONS[ORIENTATION_OF[variant]] == "mirrored":
            image = np.ascontiguousarray(image[:, ::-1])
            left, top, side = region.pixels()
            region = Region(float(image.shape[1] - left - side), float(top), float(side))
        return image, region


def _decode(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    try:
        return decode(path)
    except ImageError as error:
        raise DataError(f"{error}; it was readable when this run began; restore it and run again") from error
