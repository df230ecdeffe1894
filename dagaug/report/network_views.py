"""The squares that the networks saw of an HDF5 file's images, cut out again of the whole images.

Which square it was follows from the training's framing and the image's bounding box, which only the data folder has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int64, UInt8

from dagaug.augment.provenance import backgrounds_of
from dagaug.data.dataset import Box, Dataset
from dagaug.data.patches import Framing
from dagaug.data.regions import Region, cut, region_of
from dagaug.hdf5.reader import Store
from dagaug.report.pictures import Morphs, Originals, Shown

__all__ = ["Square", "Squares"]


@dataclass(frozen=True)
class Square:
    """What a network sees of a picture.

    Attributes:
        pixels: of the square.
        region: where it lies in the picture.
        size: height and width of the picture.
    """

    pixels: UInt8[np.ndarray, "S S 3"]
    region: Region
    size: tuple[int, int]


class Squares:
    """Cuts squares out of the pictures of a file.

    Args:
        store: the file.
        originals: its sources and references.
        framing: of the training.
        dataset: the data that the file was made from; without it boxes are taken not to be there.
    """

    def __init__(self, store: Store, originals: Originals, framing: Framing, dataset: Dataset | None) -> None:
        self._store, self._originals, self._framing, self._dataset = store, originals, framing, dataset
        self._cropped = store.header.provenance.frame == "crop"

    def of(self, shown: Shown) -> Square | None:
        """The square of a picture; None if the picture is not to be had."""
        if shown.kind == "result":
            return self._of_result(shown.number)
        mirrored = shown.kind == "mirrored"
        image = self._originals.picture(shown.number, mirrored=mirrored)
        return None if image is None else self._cut(image, shown.number, mirrored)

    def _of_result(self, row: int) -> Square:
        image = self._store.image(row)
        if self._cropped:
            height, width = image.shape[:2]
            region = Region(0.0, 0.0, float(max(height, width)))
            return Square(cut(image, region, self._framing.size), region, (height, width))
        # A morph lies in a whole image where that image's own square lay.
        return self._cut(image, int(self._backgrounds[row]), row in self._mirrored)

    def _cut(self, image: UInt8[np.ndarray, "H W 3"], file: int, mirrored: bool) -> Square:
        height, width = image.shape[:2]
        framing = self._framing
        box = self._boxes.get(self._store.header.files[file]) if framing.crop == "box" and file >= 0 else None
        region = region_of(height, width, box=box, margin=framing.margin, fit=framing.fit)
        if mirrored:
            left, top, side = region.pixels()
            region = Region(float(width - left - side), float(top), float(side))
        return Square(cut(image, region, framing.size), region, (height, width))

    @cached_property
    def _backgrounds(self) -> Int64[np.ndarray, " N"]:
        return backgrounds_of(self._store)

    @cached_property
    def _mirrored(self) -> frozenset[int]:
        """Rows of the morphs whose pose is that of a reference's mirror image."""
        morphs = Morphs.of(self._store)
        return frozenset(morphs.row[morphs.mirrored].tolist())

    @cached_property
    def _boxes(self) -> dict[str, Box | None]:
        return {} if self._dataset is None else {one.path.as_posix(): one.box for one in self._dataset.samples}
