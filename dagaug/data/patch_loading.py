"""Loading of many image files as square patches; unreadable files are skipped and listed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from dagaug.data.dataset_records import Box
from dagaug.data.image_files import WHITE, Skipped, decode_with_alpha
from dagaug.data.square_crops import Fit, Region, cut, region_of
from dagaug.runtime.errors import DataError, ImageError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.prefetch import map_ahead
from dagaug.runtime.progress import Progress
from dagaug.runtime.streamed_array import StreamedArray

__all__ = ["Loaded", "load", "say_transparent"]

_NAMED_SKIPS = 10  # printed one by one; the others are only counted


@dataclass(frozen=True)
class Loaded:
    """The patches of the files that could be read.

    Attributes:
        images: RGB patches N × S × S × 3, in the order of the paths; what the cache does not hold is read again.
        kept: the index of each patch's path in the list of paths.
        regions: the region of each patch in its whole image.
        sizes: height and width of each whole image, upright, in pixels.
        skipped: the files that could not be read.
        transparent: number of patches from images with pixels that are not opaque.
    """

    images: StreamedArray
    kept: Int64[np.ndarray, " N"]
    regions: tuple[Region, ...]
    sizes: tuple[tuple[int, int], ...]
    skipped: tuple[Skipped, ...]
    transparent: int = 0


def say_transparent(transparent: int, total: int, progress: Progress) -> None:
    """Say in one line how many of the images have pixels that are not opaque, if there are any."""
    if transparent:
        progress.say(f"{transparent:,} of {total:,} images have transparent pixels, which are laid over white")


def load(
    paths: Sequence[Path],
    *,
    size: int,
    boxes: Sequence[Box | None] | None = None,
    margin: float = 0.15,
    fit: Fit = "letterbox",
    background: tuple[int, int, int] = WHITE,
    execution: Execution = Execution(),
) -> Loaded:
    """Decode image files in threads, crop each to its region, and resize it.

    Args:
        paths: the files.
        size: side of the patches, in pixels.
        boxes: the bounding box of the object, or None, for each path; see :func:`region_of`.
        margin: space around boxes, as a fraction of their larger side.
        fit: how images without a box become square.
        background: RGB colour behind transparent pixels.
        execution: its progress counts the images, and prints the reasons of skipped ones; its cache holds patches.

    Raises:
        ImageError: with ``execution.strict``, a file cannot be read.
        DataError: none of the files can be read.
        UsageError: ``size`` is below 1.
    """
    if size < 1:
        raise UsageError("give at least 1", option="size", value=size)
    if boxes is not None and len(boxes) != len(paths):
        raise ValueError(f"{len(boxes)} boxes for {len(paths)} paths; give one, or None, for each")

    def read(row: int) -> tuple[UInt8[np.ndarray, "S S 3"], Region, tuple[int, int], bool] | ImageError:
        try:
            image, opacity = decode_with_alpha(paths[row], background=background)
        except ImageError as error:
            return error
        box = None if boxes is None else boxes[row]
        region = region_of(*image.shape[:2], box=box, margin=margin, fit=fit)
        transparent = opacity is not None and int(opacity.min()) < 255
        return cut(image, region, size), region, (image.shape[0], image.shape[1]), transparent

    again = _PatchFiles(size, background, [], [])
    images = StreamedArray(len(paths), (size, size, 3), again, execution=execution)
    kept: list[int] = []
    sizes: list[tuple[int, int]] = []
    skipped: list[Skipped] = []
    transparent = 0
    threads, progress = execution.threads, execution.progress
    with ThreadPoolExecutor(threads) as pool, progress.task("Reading", len(paths), "images") as task:
        rows = range(len(paths))
        with closing(map_ahead(read, rows, pool, ahead=4 * threads)) as results:
            for row, result in zip(rows, results, strict=True):
                if isinstance(result, ImageError):
                    if execution.strict:
                        raise result
                    skipped.append(Skipped(result.path, result.reason))
                    if len(skipped) <= _NAMED_SKIPS:
                        progress.say(f"{result}; skipped, {len(skipped)} of {len(paths)} so far")
                else:
                    patch, region, whole, seen_through = result
                    images.write(len(kept), patch[None])
                    again.paths.append(paths[row])
                    again.regions.append(region)
                    transparent += seen_through
                    kept.append(row)
                    sizes.append(whole)
                task.advance()
    if len(skipped) > _NAMED_SKIPS:
        progress.say(f"{len(skipped)} of {len(paths)} images skipped; the first {_NAMED_SKIPS} are named above")
    if skipped and not kept:
        raise DataError(f"none of {len(paths)} images can be read; the first: {paths[0]}: {skipped[0].reason}")
    return Loaded(
        images.take(slice(len(kept))), np.array(kept, np.int64), tuple(again.regions), tuple(sizes), tuple(skipped),
        transparent,
    )  # fmt: skip


@dataclass(frozen=True)
class _PatchFiles:
    """Reads patches again that were read before.

    Attributes:
        size: side of the patches in pixels.
        background: RGB colour behind transparent pixels.
        paths: file of each patch.
        regions: region of each patch in its whole image.
    """

    size: int
    background: tuple[int, int, int]
    paths: list[Path]
    regions: list[Region]

    def __call__(self, row: int) -> UInt8[np.ndarray, "S S 3"]:
        try:
            image, _ = decode_with_alpha(self.paths[row], background=self.background)
        except ImageError as error:
            raise DataError(f"{error}; it was readable when this run began; restore it and run again") from error
        return cut(image, self.regions[row], self.size)
