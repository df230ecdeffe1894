"""Given masks of objects: finding their files, reading them as patches, refusing those that are surely wrong.

Any segmenter may have written them; :func:`dagaug.data.grabcut_and_inpainting.grabcut_masks` estimates the others. A
mask is an image file of which the values above half of the range are the object; the masks of some published data sets
have other values (:func:`dagaug.data.image_files.decode_mask`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import SupportsIndex, overload

import cv2
import numpy as np
from jaxtyping import Bool, Int64, UInt8

from dagaug.data.dataset_records import Dataset, MaskValues, Sample, is_image_name
from dagaug.data.grabcut_and_inpainting import PatchBox
from dagaug.data.image_files import decode_mask
from dagaug.data.mask_refinement import inside_box
from dagaug.data.square_crops import Region, cut_mask
from dagaug.runtime.errors import DataError, ImageError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache
from dagaug.runtime.prefetch import map_ahead
from dagaug.runtime.streamed_array import StreamedArray

__all__ = [
    "GivenMasks",
    "PatchMask",
    "find_masks",
    "hash_masks",
    "mask_fault",
    "mask_faults",
    "read_masks",
    "read_whole_mask",
    "take_masks",
]

PatchMask = UInt8[np.ndarray, "S S"]
"""Mask of the object in a patch: 255 on the object, 0 beside it, grey at its edge."""

# Conservative: a mask beyond these is of no use, whatever the images show.
_EMPTY, _FULL = 0.001, 0.98  # least and largest share of the patch
_IN_BOX = 0.05  # least share of the object that lies in its box
_LARGEST_PIECE = 0.1  # least share of the largest connected piece, after gaps of _GAP of the side are closed
_GAP = 1 / 32
_ASPECT = 0.02  # largest relative difference of the ratio of sides, besides rounding to whole pixels


class GivenMasks(Sequence["PatchMask | None"]):
    """The given mask of each patch, or None. The masks are streamed; a slice is a list of them.

    Args:
        masks: of N patches of S pixels, N × S × S, in [0, 255]; anything where none is given.
        given: where one is given.
    """

    def __init__(self, masks: StreamedArray, given: Bool[np.ndarray, " N"]) -> None:
        self._masks, self._given = masks, given

    def __len__(self) -> int:
        return len(self._given)

    @overload
    def __getitem__(self, index: SupportsIndex) -> PatchMask | None: ...

    @overload
    def __getitem__(self, index: slice) -> list[PatchMask | None]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> PatchMask | list[PatchMask | None] | None:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        return self._masks[index] if self._given[index] else None

    def take(self, rows: Int64[np.ndarray, " M"]) -> GivenMasks:
        """Those of some patches."""
        return GivenMasks(self._masks.take(rows), self._given[rows])

    def with_cache(self, cache: ImageCache) -> GivenMasks:
        """The same masks, read again and kept in another cache."""
        return GivenMasks(self._masks.with_cache(cache), self._given)


def take_masks(masks: Sequence[PatchMask | None], rows: Int64[np.ndarray, " M"]) -> Sequence[PatchMask | None]:
    """The masks of some patches; those of a streamed sequence are still streamed."""
    return masks.take(rows) if isinstance(masks, GivenMasks) else [masks[row] for row in rows]


# Finding


def find_masks(dataset: Dataset, folder: Path) -> Dataset:
    """The data set with the masks in a folder instead of its own.

    A mask has the name of its image, with any ending of an image file. It lies under the image's relative path, or
    under the end of it, down to the file name alone, if no other image has the same. Images may lack a mask.

    Raises:
        UsageError: the folder does not exist.
        DataError: no mask fits an image, or one fits several, or an image has several.
    """
    if not folder.is_dir():
        raise UsageError("no such folder of masks", option="masks", value=folder)
    found: dict[PurePath, Path] = {}
    twice: dict[PurePath, Path] = {}
    for path in sorted(folder.rglob("*")):
        if is_image_name(path.name):
            key = path.relative_to(folder).with_suffix("")
            (twice if key in found else found)[key] = path
    tails = Counter(tail for sample in dataset.samples for tail in _tails(sample.path))
    samples = [
        replace(sample, mask=_mask_of(sample, found, twice, tails), mask_values="upper half")
        for sample in dataset.samples
    ]
    if not any(sample.mask for sample in samples):
        first = dataset.samples[0].path
        raise DataError(
            f"{folder}: holds no mask of the images of {dataset.root}; {first} needs {first.with_suffix('.png')} there"
        )
    return replace(dataset, samples=tuple(samples), masks=folder)


def _tails(path: PurePath) -> Iterator[PurePath]:
    """The path without its ending, then without its first folder, and so on."""
    parts = path.with_suffix("").parts
    for first in range(len(parts)):
        yield PurePath(*parts[first:])


def _mask_of(
    sample: Sample, found: dict[PurePath, Path], twice: dict[PurePath, Path], tails: Counter[PurePath]
) -> Path | None:
    for tail in _tails(sample.path):
        if tail not in found:
            continue
        if tail in twice:
            raise DataError(f"{found[tail]}: {twice[tail].name} lies beside it; keep one mask of each image")
        if tails[tail] > 1:
            raise DataError(
                f"{found[tail]}: {tails[tail]} images have this name; put the masks into the same folders as the images"
            )
        return found[tail]
    return None


def hash_masks(samples: Sequence[Sample]) -> str:
    """SHA-256 of the content of the samples' masks, in hexadecimal; empty if none of them has a mask."""
    if not any(sample.mask for sample in samples):
        return ""
    digest = hashlib.sha256()
    for sample in samples:
        try:
            content = b"" if sample.mask is None else hashlib.sha256(sample.mask.read_bytes()).digest()
        except OSError:  # read_masks lists it
            content = b"unreadable"
        name = sample.path.as_posix().encode("utf-8", "surrogateescape")
        digest.update(hashlib.sha256(name).digest() + hashlib.sha256(content).digest())
        if sample.mask_values != "upper half":
            digest.update(sample.mask_values.encode())
    return digest.hexdigest()


# Reading


def read_masks(
    samples: Sequence[Sample],
    sizes: Sequence[tuple[int, int]],
    regions: Sequence[Region],
    boxes: Sequence[PatchBox | None],
    size: int,
    *,
    execution: Execution = Execution(),
) -> tuple[GivenMasks, dict[int, str]]:
    """The masks of patches.

    Args:
        samples: one for each patch.
        sizes: height and width of each whole image, upright.
        regions: region of each patch in its whole image; outside the image is no object.
        boxes: of the objects in the patches, or None.
        size: side of the patches in pixels.
        execution: its threads read the files, its progress counts them, its cache holds masks.

    Returns:
        the masks; and for those that cannot be used the reason, a file and what is wrong with it, by the patch's index.
    """

    again = _MaskFiles(tuple(samples), tuple(sizes), tuple(regions), size)

    def read(row: int) -> PatchMask | str | None:
        if samples[row].mask is None:
            return None
        mask = again.read(row)
        if isinstance(mask, str):
            return mask
        fault = mask_fault(mask, boxes[row])
        return f"{samples[row].mask}: {fault}" if fault else mask

    threads, progress = execution.threads, execution.progress
    masks = StreamedArray(len(samples), (size, size), again, execution=execution)
    given, wrong = np.zeros(len(samples), bool), {}
    with (
        ThreadPoolExecutor(threads) as pool,
        progress.task("Reading masks", len(samples), "images") as task,
        closing(map_ahead(read, range(len(samples)), pool, ahead=4 * threads)) as results,
    ):
        for row, result in enumerate(results):
            if isinstance(result, str):
                wrong[row] = result
            elif result is not None:
                masks.write(row, result[None])
                given[row] = True
            task.advance()
    return GivenMasks(masks, given), wrong


@dataclass(frozen=True)
class _MaskFiles:
    """Reads the masks of patches.

    Attributes:
        samples: one for each patch.
        sizes: height and width of each whole image, upright.
        regions: region of each patch in its whole image.
        size: side of the patches in pixels.
    """

    samples: tuple[Sample, ...]
    sizes: tuple[tuple[int, int], ...]
    regions: tuple[Region, ...]
    size: int

    def read(self, row: int) -> PatchMask | str:
        """The mask of a patch, or its file and what is wrong with it."""
        path = self.samples[row].mask
        assert path is not None
        whole = read_whole_mask(path, self.sizes[row], self.samples[row].mask_values)
        return whole if isinstance(whole, str) else cut_mask(whole, self.regions[row], self.size)

    def __call__(self, row: int) -> PatchMask:
        """A mask that was read before."""
        mask = self.read(row)
        if isinstance(mask, str):
            raise DataError(f"{mask}; it was usable when this run began; restore it and run again")
        return mask


def read_whole_mask(
    path: Path, size: tuple[int, int], values: MaskValues = "upper half"
) -> UInt8[np.ndarray, "H W"] | str:
    """The mask of a whole image (255 on the object, 0 beside it, grey at its edge), or its file and what is wrong.

    Args:
        path: the file of the mask.
        size: height and width of the image, upright.
        values: what the values of the file say; see :func:`dagaug.data.image_files.decode_mask`.
    """
    try:
        whole = _fitted(decode_mask(path, values), size)
    except ImageError as error:
        return f"{path}: {error.reason}"
    return f"{path}: {whole}" if isinstance(whole, str) else whole


def _fitted(mask: np.ndarray, size: tuple[int, int]) -> UInt8[np.ndarray, "H W"] | str:
    """The mask, 255 on the object, at the size of its image, or what is wrong with its size.

    Segmenters may work on a smaller copy of an image, so a mask of the same aspect ratio is resized.
    """
    (height, width), (rows, columns) = size, mask.shape
    white = mask.astype(np.uint8) * 255
    if (rows, columns) == (height, width):
        return white
    rounding = abs(columns - width * rows / height) <= 1 or abs(rows - height * columns / width) <= 1
    if not rounding or abs(columns * height / (rows * width) - 1) > _ASPECT:
        return f"is {columns} × {rows} pixels, but its image, upright, is {width} × {height}"
    method = cv2.INTER_AREA if rows > height else cv2.INTER_LINEAR
    return cv2.resize(white, (width, height), interpolation=method)


def mask_fault(mask: PatchMask, box: PatchBox | None) -> str:
    """Why the mask of a patch is surely wrong; empty if it may be right.

    It is wrong if it covers less than 0.1% or more than 98% of the patch, if less than 5% of it lies in the box, or if
    its largest connected piece has less than a tenth of its area.
    """
    solid = mask > 127
    share = float(solid.mean())
    if share < _EMPTY:
        return "is empty where the image's patch is; values above half of the range are the object"
    if share > _FULL:
        return "covers the whole patch"
    if (solid & inside_box(len(mask), box)).sum() < _IN_BOX * solid.sum():
        return "lies outside the object's box"
    reach = max(round(len(mask) * _GAP / 2), 1)
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    closed = cv2.morphologyEx(solid.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    count, _, pieces, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    areas = pieces[1:, cv2.CC_STAT_AREA]
    if areas.max() < _LARGEST_PIECE * areas.sum():
        return f"is torn into {count - 1} pieces"
    return ""


def mask_faults(masks: Iterable[PatchMask], boxes: Iterable[PatchBox | None], subject: str) -> dict[int, str]:
    """Why masks of patches are surely wrong (:func:`mask_fault`), by their rows; the others are left out.

    Args:
        masks: in [0, 255].
        boxes: of the objects.
        subject: of the sentences: ``the estimated mask``.
    """
    faults = (mask_fault(mask, box) for mask, box in zip(masks, boxes, strict=True))
    return {row: f"{subject} {fault}" for row, fault in enumerate(faults) if fault}
