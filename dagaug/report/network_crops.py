"""Network inputs: the square crops of an HDF5 file's images that the networks saw.

The crop depends on the framing of the training and on the bounding box, which only the data folder has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int64, UInt8

from dagaug.augment.stored_morph_backgrounds import backgrounds_of
from dagaug.data.dataset_records import Box, Dataset
from dagaug.data.object_patches import Framing
from dagaug.data.square_crops import Region, cut, region_of
from dagaug.hdf5.reader import Store
from dagaug.report.morph_images import ImageRef, MorphTable, OriginalImages

__all__ = ["NetworkInput", "NetworkInputs"]


@dataclass(frozen=True)
class NetworkInput:
    """Square crop of an image, as a network sees it.

    Attributes:
        pixels: of the crop.
        region: position of the crop in the image.
        size: height and width of the image.
    """

    pixels: UInt8[np.ndarray, "S S 3"]
    region: Region
    size: tuple[int, int]


class NetworkInputs:
    """Crops the images of a file.

    Args:
        store: the file.
        originals: its sources and references.
        framing: framing of the training.
        dataset: the data that the file was made from; without it, no bounding boxes are used.
    """

    def __init__(self, store: Store, originals: OriginalImages, framing: Framing, dataset: Dataset | None) -> None:
        self._store, self._originals, self._framing, self._dataset = store, originals, framing, dataset
        self._cropped = store.header.provenance.frame == "crop"

    def of(self, shown: ImageRef) -> NetworkInput | None:
        """The network input of an image; None if the image is not available."""
        if shown.kind == "result":
            return self._of_result(shown.number)
        mirrored = shown.kind == "mirrored"
        image = self._originals.picture(shown.number, mirrored=mirrored)
        return None if image is None else self._cut(image, shown.number, mirrored)

    def _of_result(self, row: int) -> NetworkInput:
        image = self._store.image(row)
        if self._cropped:
            height, width = image.shape[:2]
            region = Region(0.0, 0.0, float(max(height, width)))
            return NetworkInput(cut(image, region, self._framing.size), region, (height, width))
        # A morph was pasted into its background image at that image's own crop.
        return self._cut(image, int(self._backgrounds[row]), row in self._mirrored)

    def _cut(self, image: UInt8[np.ndarray, "H W 3"], file: int, mirrored: bool) -> NetworkInput:
        height, width = image.shape[:2]
        framing = self._framing
        box = self._boxes.get(self._store.header.files[file]) if framing.crop == "box" and file >= 0 else None
        region = region_of(height, width, box=box, margin=framing.margin, fit=framing.fit)
        if mirrored:
            left, top, side = region.pixels()
            region = Region(float(width - left - side), float(top), float(side))
        return NetworkInput(cut(image, region, framing.size), region, (height, width))

    @cached_property
    def _backgrounds(self) -> Int64[np.ndarray, " N"]:
        return backgrounds_of(self._store)

    @cached_property
    def _mirrored(self) -> frozenset[int]:
        """Rows of the morphs in the pose of a mirrored reference."""
        morphs = MorphTable.of(self._store)
        return frozenset(morphs.row[morphs.mirrored].tolist())

    @cached_property
    def _boxes(self) -> dict[str, Box | None]:
        return {} if self._dataset is None else {one.path.as_posix(): one.box for one in self._dataset.samples}
