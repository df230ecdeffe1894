"""Loading of image files as square patches, with unreadable files skipped and listed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from dagaug.data.image_files import WHITE, Skipped, decode
from dagaug.data.regions import Box, Fit, Region, cut, region_of
from dagaug.runtime.errors import DataError, ImageError, UsageError
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["Loaded", "load"]


_NAMED_SKIPS = 10


@dataclass(frozen=True)
class Loaded:
    """What :func:`load` could read.

    Attributes:
        images: the cut images, in the order of their paths.
        kept: for each of them its row in the paths that were asked for.
        regions: for each of them the square that was cut.
        skipped: the files that could not be read.
    """

    images: UInt8[np.ndarray, "N S S 3"]
    kept: Int64[np.ndarray, " N"]
    regions: tuple[Region, ...]
    skipped: tuple[Skipped, ...]


# Many images


def load(
    paths: Sequence[Path],
    *,
    size: int,
    boxes: Sequence[Box | None] | None = None,
    margin: float = 0.15,
    fit: Fit = "letterbox",
    background: tuple[int, int, int] = WHITE,
    workers: int | None = None,
    strict: bool = False,
    progress: Progress = SILENT,
) -> Loaded:
    """Decode many files, cut each to its region and resize it, in threads; the order is that of the paths.

    Args:
        paths: the files.
        size: side of the results, in pixels.
        boxes: where the objects are, one for each path; see :func:`region_of` for these and the next two.
        margin: free space round a box.
        fit: how images without a box become square.
        background: RGB colour under transparent pixels.
        workers: threads; one per processor, at most 8, by default.
        strict: raise the first unreadable file rather than skip and list it.
        progress: is told of each image, and why one is skipped.

    Raises:
        ImageError: a file cannot be read, with ``strict``.
        DataError: no file at all can be read.
    """
    if size < 1:
        raise UsageError(f"--size {size}: give at least 1")
    if boxes is not None and len(boxes) != len(paths):
        raise ValueError(f"{len(boxes)} boxes for {len(paths)} paths; give one, or None, for each")

    def read(row: int) -> tuple[UInt8[np.ndarray, "S S 3"], Region]:
        image = decode(paths[row], background=background)
        box = None if boxes is None else boxes[row]
        region = region_of(*image.shape[:2], box=box, margin=margin, fit=fit)
        return cut(image, region, size), region

    images = np.empty((len(paths), size, size, 3), np.uint8)
    kept: list[int] = []
    regions: list[Region] = []
    skipped: list[Skipped] = []
    workers = workers or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool, progress.task("Reading", len(paths), "images") as task:
        pending: deque[Future[tuple[np.ndarray, Region]]] = deque()
        rows: Iterator[int] = iter(range(len(paths)))
        try:
            for row in range(len(paths)):
                # Only a few images a thread wait, so that an early slow one holds up no more than these.
                while len(pending) < 4 * workers and (following := next(rows, None)) is not None:
                    pending.append(pool.submit(read, following))
                try:
                    images[len(kept)], region = pending.popleft().result()
                    kept.append(row)
                    regions.append(region)
                except ImageError as error:
                    if strict:
                        raise
                    skipped.append(Skipped(error.path, error.reason))
                    if len(skipped) <= _NAMED_SKIPS:
                        progress.say(f"{error}; skipped, {len(skipped)} of {len(paths)} so far")
                task.advance()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if len(skipped) > _NAMED_SKIPS:
        progress.say(f"{len(skipped)} of {len(paths)} images skipped; {_NAMED_SKIPS} are named above")
    if skipped and not kept:
        raise DataError(f"none of {len(paths)} images can be read; the first: {paths[0]}: {skipped[0].reason}")
    return Loaded(images[: len(kept)], np.array(kept, np.int64), tuple(regions), tuple(skipped))
