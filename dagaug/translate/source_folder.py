"""Source folder of a translation: listing its images, reading them as patches, restoring their size."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dagaug.data.dataset_records import IMAGE_SUFFIXES, is_image_name
from dagaug.data.image_files import Skipped, decode, decode_rgba, decode_with_alpha
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
        opacity: opacity of the patch (255: opaque); None if the file has none.
    """

    name: Path
    patch: UInt8[np.ndarray, "S S 3"]
    height: int
    width: int
    region: Region
    opacity: UInt8[np.ndarray, "S S"] | None = None

    @property
    def transparent(self) -> bool:
        """Whether pixels of the patch are not opaque."""
        return self.opacity is not None and int(self.opacity.min()) < 255


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
            image, opacity = decode_with_alpha(self.source / name)
        except ImageError as error:
            return Skipped(error.path, error.reason)
        height, width = image.shape[:2]
        region = region_of(height, width, fit=self.framing.fit)
        if region.pixels()[2] ** 2 > 4 * MAX_PIXELS:
            return Skipped(self.source / name, f"{width} × {height} pixels are too far from a square")
        size = self.framing.size
        seen = None if opacity is None else cut(np.dstack([opacity] * 3), region, size)[..., 0]
        return SourceImage(name, cut(image, region, size), height, width, region, seen)

    def restore_size(self, image: SourceImage, patch: UInt8[np.ndarray, "S S 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """A translated patch in the size of its source image, RGB.

        With ``letterbox`` the result fills the image. With ``crop`` it is pasted into the source image.

        Raises:
            ImageError: the source image has become unreadable or was replaced.
        """
        if self.framing.fit == "letterbox":
            return self._pasted(np.zeros((image.height, image.width, 3), np.uint8), image, patch)
        return self._pasted(self._again(image, decode), image, patch)

    def with_opacity(
        self, image: SourceImage, patch: UInt8[np.ndarray, "S S 3"], *, keep_size: bool
    ) -> UInt8[np.ndarray, "H W 4"]:
        """A translated patch with the opacity of its source image, RGBA; with ``keep_size`` as :meth:`restore_size`.

        Raises:
            ImageError: the source image has become unreadable or was replaced.
        """
        if not keep_size:
            assert image.opacity is not None
            return np.dstack([patch, image.opacity])
        rgba = self._again(image, decode_rgba)
        return np.dstack([self._pasted(np.ascontiguousarray(rgba[..., :3]), image, patch), rgba[..., 3]])

    def _again(self, image: SourceImage, read: Callable[[Path], np.ndarray]) -> np.ndarray:
        """Read an image again rather than keep it: images may be large, and a batch holds many."""
        whole = read(self.source / image.name)
        if whole.shape[:2] != (image.height, image.width):
            raise ImageError(self.source / image.name, "was replaced while it was translated")
        return whole

    def _pasted(
        self, whole: UInt8[np.ndarray, "H W 3"], image: SourceImage, patch: UInt8[np.ndarray, "S S 3"]
    ) -> UInt8[np.ndarray, "H W 3"]:
        return paste(whole, patch, np.ones(patch.shape[:2], np.float32), image.region)
