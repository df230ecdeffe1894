"""Records that all export formats share: an image to export, the place of its bytes, the plan, and image files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from dagaug.data.image_files import encode_mask_file
from dagaug.hdf5.object_masks import decode_mask
from dagaug.runtime.safe_names import safe_names, unique_name

__all__ = ["SHARD_IMAGES", "ExportPlan", "ExportedImage", "ImageFiles", "ImageLocation"]

SHARD_IMAGES = 1000
"""Default number of images in a tar."""

# A class folder with one of these names would be read as a split, or there is a file of that name.
_RESERVED = frozenset(
    (
        "train", "training", "test", "val", "valid", "validation", "eval", "evaluation",
        "provenance.csv", "metadata.csv", "classes.txt", "readme.md",
    )
)  # fmt: skip


@dataclass(frozen=True)
class ExportedImage:
    """One image, as all writers get it.

    Attributes:
        row: number among the exported images, in the order of the HDF5 file.
        data: bytes of a JPEG or PNG file.
        suffix: ``.jpg`` or ``.png``.
        height, width: size in pixels.
        label: index of the class.
        split: ``train`` or ``test``.
        synthetic: true for a morph, false for a real image.
        stem: readable, safe file name without suffix; not always unique.
        source, reference: image files of the data set; the reference of a real image is empty.
        variant: variant of the reference; empty for a real image.
        confidence: p(label) of the classifier, in [0, 1]; None for a real image.
        predicted: index of the classifier's top-1 class; None for a real image.
        box: x, y, width and height of the object's box in pixels; None if it is unknown.
        encoded_mask: the object's mask (:mod:`dagaug.hdf5.object_masks`); empty if it is unknown.
    """

    row: int
    data: bytes
    suffix: str
    height: int
    width: int
    label: int
    split: str
    synthetic: bool
    stem: str
    source: str
    reference: str
    variant: str
    confidence: float | None
    predicted: int | None
    box: tuple[float, float, float, float] | None = None
    encoded_mask: bytes = b""

    def mask(self) -> Bool[np.ndarray, "H W"]:
        """The object's mask, true on the object; only if it is known."""
        return decode_mask(self.encoded_mask, self.height, self.width)


@dataclass(frozen=True)
class ImageLocation:
    """Location of the bytes of one image.

    Attributes:
        row: number of the image among the exported images.
        file: file relative to the export's folder, "/" between folders.
        start, size: position and number of the bytes in this file.
    """

    row: int
    file: str
    start: int
    size: int


@dataclass(frozen=True)
class ExportPlan:
    """Settings of an export, known before the first image.

    Attributes:
        folder: empty folder to write to.
        classes: names of the classes; a label is an index.
        both: whether images of both splits are exported.
        shard_images: number of images in one tar.
        masks: whether the objects' masks are written, too.
    """

    folder: Path
    classes: Sequence[str]
    both: bool
    shard_images: int = SHARD_IMAGES
    masks: bool = False

    @cached_property
    def folders(self) -> list[str]:
        """Unique, safe folder name of each class."""
        return safe_names(self.classes, _RESERVED)

    @cached_property
    def labels(self) -> list[str]:
        """Name of each class in tables: its own if unique and printable, otherwise the folder name."""
        counts = Counter(self.classes)
        pairs = zip(self.classes, self.folders, strict=True)
        return [
            name if name and name.isprintable() and name == name.strip() and counts[name] == 1 else folder
            for name, folder in pairs
        ]


class ImageFiles:
    """Writes image files and masks, creates their folders, and numbers files with equal names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: dict[str, dict[str, int]] = {}

    def write(self, parent: str, image: ExportedImage, *, mask_parent: str | None = None) -> ImageLocation:
        """Write an image to the folder ``parent`` and its mask, if it is known, under the same name to ``mask_parent``.

        Names in a folder of masks are unique, also if it has the masks of several folders of images.
        """
        taken = self._taken.setdefault(parent if mask_parent is None else mask_parent, {})
        stem = unique_name(image.stem, taken)
        path = f"{parent}/{stem}{image.suffix}"
        self._write(path, image.data)
        if mask_parent is not None and image.encoded_mask:
            self._write(f"{mask_parent}/{stem}.png", encode_mask_file(image.mask()))
        return ImageLocation(image.row, path, 0, len(image.data))

    def _write(self, path: str, data: bytes) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(data)
