"""Source folder of a translation: listing its images, reading them as patches, restoring their size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dagaug.data.dataset_records import IMAGE_SUFFIXES, is_image_name
from dagaug.data.image_files import Skipped, decode
from dagaug.data.image_headers import MAX_PIXELS
from dagaug.data.object_patches import Framing
from dagaug.data.square_crops import Region, cut, paste, region_of
from dagaug.runtime.errors import DataError, ImageError

__all__ = ["SourceFolder", "SourceImage", "count_images", "images_below"]


def images_below(source: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """For each folder below ``source``: its relative path, its image files and its folders, all sorted.

    Hidden files and folders are left out; linked folders are not entered.

    Raises:
        DataError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions") from error

    for parent, folders, files in os.walk(source, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(parent).relative_to(source), sorted(filter(is_image_name, files)), folders


def count_images(source: Path) -> int:
    """Number of images below a folder.

    Raises:
        DataError: the folder does not exist or has no images.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; give a folder of images")
    total = sum(len(names) for _, names, _ in images_below(source))
    if not total:
        raise DataError(f"{source}: no images found ({', '.join(IMAGE_SUFFIXES)})")
    return total


@dataclass(frozen=True)
class SourceImage:
    """An image that was read.

    Attributes:
        name: path relative to the source folder.
        patch: the input of the network, RGB.
        height, width: size of the image in pixels.
        region: area of the image that the patch shows.
    """

    name: Path
    patch: UInt8[np.ndarray, "S S 3"]
    height: int
    width: int
    region: Region


class SourceFolder:
    """Reads images as patches and restores the size of translated patches.

    Args:
        source: the folder.
        framing: patch size and fit of the network.
    """

    def __init__(self, source: Path, framing: Framing) -> None:
        self.source, self.framing = source, framing

    def read(self, name: Path) -> SourceImage | Skipped:
        """Read one image; returns the reason if it cannot be used."""
        try:
            image = decode(self.source / name)
        except ImageError as error:
            return Skipped(error.path, error.reason)
        height, width = image.shape[:2]
        region = region_of(height, width, fit=self.framing.fit)
        if region.pixels()[2] ** 2 > 4 * MAX_PIXELS:
            return Skipped(self.source / name, f"{width} × {height} pixels are too far from a square")
        return SourceImage(name, cut(image, region, self.framing.size), height, width, region)

    def restore_size(self, image: SourceImage, patch: UInt8[np.ndarray, "S S 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """A translated patch in the size of its source image.

        With ``letterbox`` the result fills the image. With ``crop`` it is pasted into the source image.

        Raises:
            ImageError: the source image has become unreadable or was replaced.
        """
        if self.framing.fit == "letterbox":
            whole = np.zeros((image.height, image.width, 3), np.uint8)
        else:
            # Read again rather than kept: images may be large, and a batch holds many.
            whole = decode(self.source / image.name)
            if whole.shape[:2] != (image.height, image.width):
                raise ImageError(self.source / image.name, "was replaced while it was translated")
        return paste(whole, patch, np.ones(patch.shape[:2], np.float32), image.region)
