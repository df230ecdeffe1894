"""Folders of images and what F makes of them: reading, translating in batches, putting back into the original's size.

What a folder (:mod:`dagaug.translate`) and an HDF5 file (:mod:`dagaug.translatefile`) of translated images share.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from dagaug.compute.devices import split_to_fit
from dagaug.compute.tensors import to_pixels, to_tensor
from dagaug.data.dataset import IMAGE_SUFFIXES
from dagaug.data.image_files import Skipped, decode
from dagaug.data.image_headers import MAX_PIXELS
from dagaug.data.patches import Framing
from dagaug.data.regions import Region, cut, paste, region_of
from dagaug.model.trained_model import TrainedModel
from dagaug.model.translators import PaperTranslator
from dagaug.runtime.errors import CheckpointError, DataError, ImageError

__all__ = ["Cut", "Drawer", "Originals", "count_images", "images_below"]


def images_below(source: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """For each folder, in a stable order: its path below ``source``, its image files and its folders, sorted."""

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions") from error

    for parent, folders, files in os.walk(source, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = [name for name in files if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)]
        yield Path(parent).relative_to(source), sorted(names), folders


def count_images(source: Path) -> int:
    """How many images there are below a folder.

    Raises:
        DataError: none, or no such folder.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; give a folder of images")
    total = sum(len(names) for _, names, _ in images_below(source))
    if not total:
        raise DataError(f"{source}: no images found ({', '.join(IMAGE_SUFFIXES)})")
    return total


class Drawer:
    """F on a device, for patches of bytes.

    Args:
        model: of ``paper`` mode, otherwise CheckpointError is raised.
        device: where it computes.
        batch_size: patches at a time.
    """

    def __init__(self, model: TrainedModel, device: torch.device, batch_size: int) -> None:
        if not isinstance(model.translator, PaperTranslator):
            raise CheckpointError(f"{model.path}: was trained to morph between poses; use dagaug augment")
        self.framing: Framing = model.card.framing
        self.translator, self.device, self.batch_size = model.translator.to(device), device, batch_size

    def __call__(self, patches: UInt8[np.ndarray, "B S S 3"]) -> UInt8[np.ndarray, "B S S 3"]:
        """Translate a batch; if memory runs out, in parts."""

        def translate(start: int, stop: int) -> UInt8[np.ndarray, "P S S 3"]:
            with torch.inference_mode():
                return to_pixels(self.translator(to_tensor(patches[start:stop], self.device)))

        return np.concatenate(split_to_fit(translate, 0, len(patches), self.device))


@dataclass(frozen=True)
class Cut:
    """An image that was read: what the network sees of it, and where that goes back."""

    name: Path
    patch: UInt8[np.ndarray, "S S 3"]
    height: int
    width: int
    region: Region


class Originals:
    """The images of a folder as a network of some framing sees them.

    Args:
        source: the folder that names are relative to.
        framing: of the network.
    """

    def __init__(self, source: Path, framing: Framing) -> None:
        self.source, self.framing = source, framing

    def read(self, name: Path) -> Cut | Skipped:
        """One image, or why it cannot be used."""
        try:
            image = decode(self.source / name)
        except ImageError as error:
            return Skipped(error.path, error.reason)
        height, width = image.shape[:2]
        region = region_of(height, width, fit=self.framing.fit)
        if region.pixels()[2] ** 2 > 4 * MAX_PIXELS:
            return Skipped(self.source / name, f"{width} × {height} pixels are too far from a square")
        return Cut(name, cut(image, region, self.framing.size), height, width, region)

    def put_back(self, item: Cut, image: UInt8[np.ndarray, "S S 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The result in the original's size. Letterboxed, it covers all; otherwise the original stands around it.

        Raises:
            ImageError: the original cannot be read any more, or is another.
        """
        if self.framing.fit == "letterbox":
            frame = np.zeros((item.height, item.width, 3), np.uint8)
        else:
            # Read again rather than kept: originals may be large, and many wait in a batch.
            frame = decode(self.source / item.name)
            if frame.shape[:2] != (item.height, item.width):
                raise ImageError(self.source / item.name, "was replaced while it was translated")
        return paste(frame, image, np.ones(image.shape[:2], np.float32), item.region)
