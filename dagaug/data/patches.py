"""The square patches of a data set that networks see: images cropped to their boxes and resized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dagaug.data.dataset import Dataset, Sample
from dagaug.data.foreground import PatchBox
from dagaug.data.image_files import Skipped
from dagaug.data.loading import load
from dagaug.data.square_crops import Region
from dagaug.runtime.errors import UsageError
from dagaug.runtime.execution import Execution

__all__ = ["Framing", "Patches", "read_patches"]


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
        images: the patches, RGB.
        samples: the sample of each patch.
        regions: the region of each patch in its whole image.
        skipped: the files that could not be read, with reasons.
    """

    images: UInt8[np.ndarray, "N S S 3"]
    samples: tuple[Sample, ...]
    regions: tuple[Region, ...]
    skipped: tuple[Skipped, ...]

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


def read_patches(
    dataset: Dataset,
    samples: Sequence[Sample],
    framing: Framing,
    *,
    execution: Execution = Execution(),
) -> Patches:
    """Load the patches of samples; see :func:`dagaug.data.loading.load` for ``execution``.

    Raises:
        DataError: none of the files can be read.
        ImageError: with ``execution.strict``, a file cannot be read.
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
    return Patches(loaded.images, kept, loaded.regions, loaded.skipped)
