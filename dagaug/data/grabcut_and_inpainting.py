"""Foreground masks from bounding boxes by GrabCut, and backgrounds by inpainting.

No network and no training are needed. :mod:`dagaug.data.mask_refinement` sharpens masks that a network predicts.

GrabCut [Rother, Kolmogorov, Blake: "GrabCut", SIGGRAPH 2004] segments the object, initialised with its bounding box or,
without a box, with the whole image without its border. The masks have errors, but a network trained on many of them
averages these out. Inpainting [Telea: "An image inpainting technique based on the fast marching method", Journal of
Graphics Tools 2004] fills the place of the object, and so makes a background for morphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from dagaug.runtime.disk_cache import cache_key, cache_of
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.prefetch import map_ahead
from dagaug.runtime.streamed_array import ImageArray, StreamedArray
from dagaug.runtime.versions import library_versions

__all__ = ["PatchBox", "backgrounds", "cut_out", "fill_background", "grabcut", "grabcut_masks"]

PatchBox = tuple[float, float, float, float]
"""x, y, width and height of a bounding box, as fractions of the side of a square patch."""

_WORKING_SIDE = (
    128  # GrabCut loses thin parts at 64 pixels: IoU 0.69, and 0.77 if 64-pixel aircraft are enlarged to 128
)
_ITERATIONS = 4
_VERSION = 1  # of the masks that a cache keeps


def grabcut(image: UInt8[np.ndarray, "H W 3"], box: PatchBox | None) -> Float[np.ndarray, "H W"]:
    """Segment the object in one image.

    Args:
        image: RGB.
        box: outside of it, everything is background; None means the image without a border of 6%.

    Returns:
        The mask in [0, 1], 1 on the object; the ellipse in the box if GrabCut finds no object.
    """
    height, width = image.shape[:2]
    scale = max(_WORKING_SIDE / max(height, width), 1.0)
    big = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    rows, columns = big.shape[:2]
    x, y, w, h = box or (0.06, 0.06, 0.88, 0.88)
    x0, x1 = (
        int(np.clip(round(x * columns), 1, columns - 3)),
        int(np.clip(round((x + w) * columns), 3, columns - 1)),
    )
    y0, y1 = int(np.clip(round(y * rows), 1, rows - 3)), int(np.clip(round((y + h) * rows), 3, rows - 1))
    x1, y1 = max(x1, x0 + 2), max(y1, y0 + 2)
    trimap = np.full((rows, columns), cv2.GC_BGD, np.uint8)
    trimap[y0:y1, x0:x1] = cv2.GC_PR_FGD
    ellipse = np.zeros((rows, columns), np.uint8)
    centre, axes = ((x0 + x1) // 2, (y0 + y1) // 2), ((x1 - x0) // 2, (y1 - y0) // 2)
    cv2.ellipse(ellipse, centre, axes, 0, 0, 360, 1, -1)
    found = ellipse
    try:
        cv2.setRNGSeed(0)
        cv2.grabCut(big, trimap, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), _ITERATIONS, cv2.GC_INIT_WITH_MASK)
        mask = ((trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)).astype(np.uint8)
        if mask.sum() > 0.02 * ellipse.sum():
            found = _largest_part(mask)
    except cv2.error:
        pass  # the image has fewer colours than GrabCut's mixture has components; the ellipse is kept
    return cv2.resize(found.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)


def _largest_part(mask: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Keep connected components of at least a tenth of the area of the largest one."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count <= 2:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    keep = np.flatnonzero(areas >= 0.1 * areas.max()) + 1
    return np.isin(labels, keep).astype(np.uint8)


def fill_background(
    image: UInt8[np.ndarray, "H W 3"], mask: Float[np.ndarray, "H W"], *, reach: int | None = None
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    """Replace the object by inpainting from its surroundings, inside the dilated mask.

    Args:
        image: RGB.
        mask: of the object, in [0, 1].
        reach: pixels that the mask is dilated by; None: a sixteenth of the height, for masks that are unsure.

    Returns:
        The image without its object, and the mask of the inpainted pixels (0 or 255).
    """
    if reach is None:
        reach = max(image.shape[0] // 16, 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    hole = cv2.dilate((mask > 0.25).astype(np.uint8), kernel)
    if hole.all():
        return np.broadcast_to(image.mean((0, 1)).astype(np.uint8), image.shape).copy(), 255 * hole
    return cv2.inpaint(image, hole, 3, cv2.INPAINT_TELEA), 255 * hole


def cut_out(
    patches: UInt8[np.ndarray, "B S S 3"] | Float[np.ndarray, "B S S 3"],
    masks: Float[np.ndarray, "B S S"],
    behind: UInt8[np.ndarray, "B S S 3"],
    holes: UInt8[np.ndarray, "B S S"],
) -> tuple[UInt8[np.ndarray, "B S S 3"], UInt8[np.ndarray, "B S S"]]:
    """Paste objects, unchanged and at the same place, on the backgrounds of other images.

    Args:
        patches: RGB images with the objects, in [0, 255].
        masks: of the objects, in [0, 1].
        behind, holes: background images and inpainted pixels, as :func:`fill_background` returns them.

    Returns:
        The images, and how much each pixel differs from the image that gave the background (255: wholly).
    """
    alpha = masks.astype(np.float32)[..., None]
    pasted = np.rint(alpha * patches + (1 - alpha) * behind).astype(np.uint8)
    return pasted, np.maximum(np.rint(255 * masks).astype(np.uint8), holes)


def grabcut_masks(
    images: ImageArray,
    boxes: Sequence[PatchBox | None],
    *,
    given: Sequence[UInt8[np.ndarray, "S S"] | None] | None = None,
    execution: Execution = Execution(),
) -> StreamedArray:
    """Masks of many images by :func:`grabcut`, uint8 N × S × S in [0, 255].

    Args:
        images: RGB.
        boxes: the bounding box of each object, or None.
        given: masks that are known, in [0, 255]; None for those to be found.
        execution: its progress counts the images, its cache keeps the masks found, its memory holds the result.
    """
    known = [None] * len(images) if given is None else given
    cache, versions = cache_of(execution), library_versions("opencv-python", "numpy")

    def one(index: int) -> np.ndarray:
        mask = known[index]
        if mask is not None:
            return mask
        key = "" if cache is None else cache_key("grabcut", _VERSION, versions, images[index], boxes[index])
        kept = None if cache is None else cache.read(key)
        if kept is not None:
            return kept["mask"]
        found = np.round(255 * grabcut(images[index], boxes[index])).astype(np.uint8)
        if cache is not None:
            cache.write(key, {"mask": found})
        return found

    return _map_images(one, images.shape[:3], "Segmenting objects", execution)


def backgrounds(
    images: ImageArray, masks: UInt8[np.ndarray, "N S S"] | StreamedArray, *, execution: Execution = Execution()
) -> StreamedArray:
    """Many images without their objects, by :func:`fill_background`; N × S × S × 3.

    Args:
        images: RGB.
        masks: of the objects, in [0, 255].
        execution: its progress counts the images, its cache holds backgrounds.
    """

    def one(index: int) -> np.ndarray:
        return fill_background(images[index], masks[index].astype(np.float32) / 255)[0]

    return _map_images(one, images.shape, "Inpainting backgrounds", execution)


def _map_images(
    one: Callable[[int], np.ndarray], shape: tuple[int, ...], name: str, execution: Execution
) -> StreamedArray:
    threads, done = execution.threads, StreamedArray(shape[0], shape[1:], execution=execution)
    with (
        ThreadPoolExecutor(threads) as pool,
        execution.progress.task(name, shape[0], "images") as task,
        closing(map_ahead(one, range(shape[0]), pool, ahead=4 * threads)) as results,
    ):
        for row, result in enumerate(results):
            done.write(row, result[None])
            task.advance()
    return done
