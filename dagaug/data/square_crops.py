"""Square regions of images: crops around boxes, letterboxing, and pasting back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from dagaug.data.dataset_records import Box
from dagaug.runtime.errors import UsageError

__all__ = ["Fit", "Region", "clipped_box", "cut", "cut_mask", "letterboxed", "paste", "paste_mask", "region_of"]

Fit = Literal["letterbox", "crop"]
"""How a whole image becomes square: padded to its longer side by reflection, or cropped to its shorter one."""


@dataclass(frozen=True)
class Region:
    """A square of an upright image, in pixels; it may reach outside the image."""

    left: float
    top: float
    side: float

    def pixels(self) -> tuple[int, int, int]:
        """Left, top and side, rounded to whole pixels; the side is at least 1."""
        return round(self.left), round(self.top), max(1, round(self.side))


def region_of(
    height: int, width: int, *, box: Box | None = None, margin: float = 0.15, fit: Fit = "letterbox"
) -> Region:
    """The square region of an image that a network sees, in whole pixels.

    Args:
        height, width: of the upright image, in pixels.
        box: bounding box of the object. The region is centred on it and moved into the image as far as possible; its
            side is ``1 + 2 * margin`` times the larger side of the box. A box outside the image is ignored.
        margin: space on each side of the box, as a fraction of its larger side; 0 to 10.
        fit: the region without a box: ``letterbox`` is the square around the whole image, ``crop`` the square in its
            centre.

    Raises:
        UsageError: ``margin`` is out of its range, or ``fit`` is unknown.
    """
    if not 0 <= margin <= 10:
        raise UsageError("give a number from 0 to 10", option="margin", value=margin)
    if fit not in ("letterbox", "crop"):
        raise UsageError("choose letterbox or crop", option="fit", value=fit)
    clipped = None if box is None else clipped_box(box, height, width)
    if clipped is None:
        side = max(height, width) if fit == "letterbox" else min(height, width)
        return Region(float((width - side) // 2), float((height - side) // 2), float(side))
    x, y, box_width, box_height = clipped
    side = max(1, round(max(box_width, box_height) * (1 + 2 * margin)))
    left = _start_of(x + box_width / 2, side, width)
    top = _start_of(y + box_height / 2, side, height)
    return Region(float(left), float(top), float(side))


def clipped_box(box: Box, height: int, width: int) -> Box | None:
    """The part of a box inside the image; None if there is none."""
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(float(width), box[0] + box[2]), min(float(height), box[1] + box[3])
    if not (right > left and bottom > top):
        return None
    return left, top, right - left, bottom - top


def _start_of(centre: float, side: int, length: int) -> int:
    """Start of an interval around ``centre``, moved to lie in [0, length]; if it is longer, both have one centre."""
    if side >= length:
        return (length - side) // 2
    return min(max(0, round(centre - side / 2)), length - side)


def cut(image: UInt8[np.ndarray, "H W 3"], region: Region, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Crop an image to a region and resize it; what lies outside the image is filled by reflection at its border.

    Args:
        image: RGB.
        region: as :func:`region_of` gives it.
        size: side of the result, in pixels.
    """
    return _cut(image, region, size, cv2.BORDER_REFLECT_101, cv2.INTER_CUBIC)


def cut_mask(
    mask: Float32[np.ndarray, "H W"] | UInt8[np.ndarray, "H W"], region: Region, size: int
) -> Float32[np.ndarray, "{size} {size}"] | UInt8[np.ndarray, "{size} {size}"]:
    """Crop a mask, in any range, to a region and resize it to ``size`` pixels a side; outside the image it is 0."""
    if _overlap(region, *mask.shape)[0] == (slice(0, 0), slice(0, 0)):
        return np.zeros((size, size), mask.dtype)
    return _cut(mask, region, size, cv2.BORDER_CONSTANT, cv2.INTER_LINEAR)


def _cut(pixels: np.ndarray, region: Region, size: int, border: int, growing: int) -> np.ndarray:
    """Crop and resize; ``border`` is OpenCV's rule for pixels outside the image, ``growing`` its interpolation."""
    left, top, side = region.pixels()
    height, width = pixels.shape[:2]
    if left >= 0 and top >= 0 and left + side <= width and top + side <= height:
        return _resized(pixels[top : top + side, left : left + side], size, growing)
    # Resized before padding: a strip 100,000 pixels long must not become a square of that side.
    rows = _crop_axis(top, side, height, size)
    columns = _crop_axis(left, side, width, size)
    part = pixels[rows.start : rows.stop, columns.start : columns.stop]
    inner = cv2.resize(part, (columns.length, rows.length), interpolation=cv2.INTER_AREA if size < side else growing)
    below, after = size - rows.before - rows.length, size - columns.before - columns.length
    # Where the border is wider than the image, OpenCV reflects again and again.
    return cv2.copyMakeBorder(inner, rows.before, below, columns.before, after, border, value=0)


def letterboxed(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """The whole image in a square of ``size`` pixels."""
    return cut(image, region_of(*image.shape[:2], box=None, fit="letterbox"), size)


class _AxisCrop(NamedTuple):
    """A crop along one axis: pixels ``start`` to ``stop`` of the image become ``length`` pixels after ``before``."""

    start: int
    stop: int
    before: int
    length: int


def _crop_axis(first: int, side: int, available: int, size: int) -> _AxisCrop:
    """The part of [first, first + side] in [0, available], where the whole interval becomes ``size`` pixels."""
    start = min(max(first, 0), available - 1)
    stop = max(min(first + side, available), start + 1)
    before = min(max(round((start - first) * size / side), 0), size - 1)
    end = min(max(round((stop - first) * size / side), before + 1), size)
    return _AxisCrop(start, stop, before, end - before)


def paste(
    frame: UInt8[np.ndarray, "H W 3"],
    patch: UInt8[np.ndarray, "S S 3"],
    alpha: Float32[np.ndarray, "S S"],
    region: Region,
) -> UInt8[np.ndarray, "H W 3"]:
    """A copy of an image in which a patch is blended into a region; the inverse of :func:`cut`.

    Args:
        frame: the whole image, RGB.
        patch: new content of the region, at any resolution.
        alpha: weight of the patch in [0, 1]; pixels with weight 0 keep their exact value.
        region: the part outside the image is ignored.
    """
    side = region.pixels()[2]
    result = frame.copy()
    inner, outer = _overlap(region, *frame.shape[:2])
    colours = _part_resized(patch, side, inner, cv2.INTER_CUBIC).astype(np.float32)
    weight = np.clip(_part_resized(alpha, side, inner, cv2.INTER_LINEAR), 0, 1)[..., None]
    below = frame[outer].astype(np.float32)
    result[outer] = np.rint(below + weight * (colours - below)).astype(np.uint8)
    return result


def paste_mask(
    height: int, width: int, mask: UInt8[np.ndarray, "S S"], region: Region
) -> UInt8[np.ndarray, "{height} {width}"]:
    """A mask of a region as a mask of the whole image, 0 outside of the region; the inverse of :func:`cut_mask`."""
    result = np.zeros((height, width), np.uint8)
    inner, outer = _overlap(region, height, width)
    result[outer] = _part_resized(mask, region.pixels()[2], inner, cv2.INTER_LINEAR)
    return result


def _part_resized(square: np.ndarray, size: int, part: tuple[slice, slice], growing: int) -> np.ndarray:
    """A part of the square resized to ``size``; if the square grows, only that part is computed."""
    rows, columns = part
    if size <= square.shape[0]:
        return _resized(square, size, growing)[part]
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if not height or not width:
        return np.zeros((height, width, *square.shape[2:]), square.dtype)
    scale = square.shape[0] / size
    back = np.array(
        [
            [scale, 0, (columns.start + 0.5) * scale - 0.5],
            [0, scale, (rows.start + 0.5) * scale - 0.5],
        ]
    )
    flags = growing | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(square, back, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _overlap(region: Region, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The intersection of a region and an image: (rows, columns) in the region, and in the image."""
    left, top, side = region.pixels()
    rows = slice(min(max(0, top), height), min(max(0, top + side), height))
    columns = slice(min(max(0, left), width), min(max(0, left + side), width))
    inner = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    if rows.start == rows.stop or columns.start == columns.stop:
        return (slice(0, 0), slice(0, 0)), (slice(0, 0), slice(0, 0))
    return inner, (rows, columns)


def _resized(square: np.ndarray, size: int, growing: int) -> np.ndarray:
    """Resize a square: area interpolation if it shrinks, the OpenCV interpolation ``growing`` if it grows."""
    if square.shape[0] == size:
        return square.copy()
    method = cv2.INTER_AREA if size < square.shape[0] else growing
    return cv2.resize(square, (size, size), interpolation=method)
