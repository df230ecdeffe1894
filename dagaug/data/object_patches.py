"""The square patches of a data set that networks see: images cropped to their boxes and resized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dagaug.data.dataset_records import Dataset, Sample
from dagaug.data.grabcut_and_inpainting import PatchBox
from dagaug.data.image_files import Skipped
from dagaug.data.mask_files import GivenMasks, PatchMask, read_masks, take_masks
from dagaug.data.patch_loading import load
from dagaug.data.square_crops import Region
from dagaug.runtime.errors import DataError, ImageError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.streamed_array import StreamedArray

__all__ = ["Framing", "Patches", "leave_out", "read_patches"]


class Framing(BaseModel):
    """How an image becomes a square patch, the same in training and augmentation.

    Attributes:
        size: side of a patch in pixels, a multiple of 16.
        crop: ``box`` crops images to their bounding box if they have one; ``none`` uses whole images.
        margin: space around a box, as a fraction of its larger side.
        fit: how whole images become square: ``letterbox`` or ``crop``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(64, ge=32, le=1024, multiple_of=16)
    crop: Literal["box", "none"] = "box"
    margin: float = Field(0.15, ge=0, le=2)
    fit: Literal["letterbox", "crop"] = "letterbox"

    def with_size(self, size: int) -> Framing:
        """The same framing with patches of another size.

        Raises:
            UsageError: the size is out of range or no multiple of 16.
        """
        try:
            return Framing.model_validate({**self.model_dump(), "size": size})
        except ValidationError as error:
            raise UsageError("give a multiple of 16, from 32 to 1024", option="size", value=size) from error


@dataclass(frozen=True)
class Patches:
    """Patches of the samples that could be read.

    Attributes:
        images: the patches, RGB, N × S × S × 3; see :class:`~dagaug.data.patch_loading.Loaded`.
        samples: the sample of each patch.
        regions: the region of each patch in its whole image.
        skipped: the files that could not be read, with reasons.
        masks: the given mask of each patch's object, or None; all None if masks were not read.
        unmasked: the images that were left out because their masks are unusable, with reasons.
        transparent: number of images that were read and have pixels that are not opaque.
    """

    images: StreamedArray
    samples: tuple[Sample, ...]
    regions: tuple[Region, ...]
    skipped: tuple[Skipped, ...]
    masks: Sequence[PatchMask | None]
    unmasked: tuple[Skipped, ...] = ()
    transparent: int = 0

    @property
    def labels(self) -> np.ndarray:
        """The class index of each patch, int64 of shape N."""
        return np.array([sample.label for sample in self.samples], np.int64)

    def boxes(self) -> list[PatchBox | None]:
        """The bounding box of each patch, or None."""
        found: list[PatchBox | None] = []
        for sample, region in zip(self.samples, self.regions, strict=True):
            if sample.box is None:
                found.append(None)
                continue
            left, top, side = region.pixels()
            x, y, width, height = sample.box
            found.append(((x - left) / side, (y - top) / side, width / side, height / side))
        return found

    def divided(self, parts: int) -> Patches:
        """The same patches for each of several processes, which read them again, each with a part of the cache."""
        cache = self.images.cache.divided(parts)
        masks = self.masks.with_cache(cache) if isinstance(self.masks, GivenMasks) else self.masks
        return replace(self, images=self.images.with_cache(cache), masks=masks)

    def without(self, unusable: Mapping[int, Skipped]) -> Patches:
        """The patches without those whose masks are unusable, given by index."""
        if not unusable:
            return self
        rows = np.array([row for row in range(len(self.samples)) if row not in unusable], np.int64)
        return replace(
            self,
            images=self.images.take(rows),
            samples=tuple(self.samples[row] for row in rows),
            regions=tuple(self.regions[row] for row in rows),
            masks=take_masks(self.masks, rows),
            unmasked=(*self.unmasked, *unusable.values()),
        )


def read_patches(
    dataset: Dataset,
    samples: Sequence[Sample],
    framing: Framing,
    *,
    masks: bool = False,
    execution: Execution = Execution(),
) -> Patches:
    """Load the patches of samples.

    Args:
        dataset: gives the folder of the files.
        samples: which ones to load.
        framing: how patches are cut from images.
        masks: whether to read the samples' masks, too. Samples whose masks are unusable are then left out.
        execution: see :func:`dagaug.data.patch_loading.load`.

    Raises:
        DataError: none of the files can be read, or all masks are unusable.
        ImageError: with ``execution.strict``, a file cannot be read or a mask is unusable.
    """
    loaded = load(
        [dataset.file(sample) for sample in samples],
        size=framing.size,
        boxes=[sample.box if framing.crop == "box" else None for sample in samples],
        margin=framing.margin,
        fit=framing.fit,
        execution=execution,
    )
    kept = tuple(samples[row] for row in loaded.kept)
    patches = Patches(
        loaded.images, kept, loaded.regions, loaded.skipped, (None,) * len(kept), transparent=loaded.transparent
    )
    if not masks or not any(sample.mask for sample in kept):
        return patches
    return _with_masks(dataset, patches, loaded.sizes, execution)


def _with_masks(dataset: Dataset, patches: Patches, sizes: Sequence[tuple[int, int]], execution: Execution) -> Patches:
    masks, wrong = read_masks(
        patches.samples, sizes, patches.regions, patches.boxes(), patches.images.shape[1], execution=execution
    )
    return leave_out(dataset, replace(patches, masks=masks), wrong, execution)


def leave_out(dataset: Dataset, patches: Patches, wrong: Mapping[int, str], execution: Execution) -> Patches:
    """The patches without those whose masks are wrong, which is said in one line.

    Args:
        dataset: gives the folder of the files.
        patches: all patches.
        wrong: what is wrong with the mask of a patch, by its index.
        execution: its progress receives the line.

    Raises:
        DataError: no patch is left.
        ImageError: with ``execution.strict``, a mask is wrong.
    """
    unusable = {row: Skipped.for_mask(dataset.file(patches.samples[row]), reason) for row, reason in wrong.items()}
    if not unusable:
        return patches
    first = next(iter(unusable.values()))
    if execution.strict:
        raise ImageError(first.path, first.reason)
    count = f"{len(unusable)} of {len(patches.samples)} images"
    if len(unusable) == len(patches.samples):
        raise DataError(f"{dataset.root}: no image has a usable mask; the first: {first.path}: {first.reason}")
    execution.progress.say(f"{count} have unusable masks and are left out; the first: {first.path}: {first.reason}")
    return patches.without(unusable)
