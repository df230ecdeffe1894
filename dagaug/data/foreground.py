"""Where the object is and what lies behind it, before anything is learned.

Labels say what an image shows, not where. GrabCut [Rother, Kolmogorov, Blake: "GrabCut", SIGGRAPH 2004], started
from the bounding box (or from the whole image but its border where there is none), gives a first mask; it is right
more often than not, and the network that learns from it averages its errors away. Telea's inpainting then fills the
place of the object, so that a morph has a background to stand on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from dagaug.runtime.progress import SILENT, Progress

__all__ = ["PatchBox", "backgrounds", "cut_out", "fill_background", "grabcut", "grabcut_masks"]

_WORKING_SIDE = 128  # GrabCut at 64 px loses thin parts: IoU .69 against .77 on 64-px aircraft enlarged to 128


_ITERATIONS = 4

PatchBox = tuple[float, float, float, float]
"""x, y, width, height as fractions of the square image's side, in [0, 1]."""


def grabcut(image: UInt8[np.ndarray, "H W 3"], box: PatchBox | None) -> Float[np.ndarray, "H W"]:
    """Segment the object of one image.

    Args:
        image: RGB.
        box: where the object certainly ends, in fractions of the side; without one, a border of 6%.

    Returns:
        The mask in [0, 1], 1 on the object. Where GrabCut finds nothing (one flat colour), the ellipse in the box.
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
        pass  # fewer colours than GrabCut's mixture has components: the ellipse stands
    return cv2.resize(found.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)


def _largest_part(mask: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Drop specks: keep connected parts of at least a tenth of the largest one's area."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count <= 2:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    keep = np.flatnonzero(areas >= 0.1 * areas.max()) + 1
    return np.isin(labels, keep).astype(np.uint8)


def fill_background(
    image: UInt8[np.ndarray, "H W 3"], mask: Float[np.ndarray, "H W"]
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    """Paint the object over with its surroundings (Telea's inpainting inside the widened mask).

    Returns:
        The image without its object, and where it was painted over (255).
    """
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
    """Put objects as they are, where they are, on other images' backgrounds.

    Args:
        patches: images in [0, 255].
        masks: of their objects, in [0, 1].
        behind, holes: other images without their objects, by :func:`fill_background`.

    Returns:
        The images, and where they differ from those that gave the backgrounds (255 wholly).
    """
    alpha = masks.astype(np.float32)[..., None]
    pasted = np.rint(alpha * patches + (1 - alpha) * behind).astype(np.uint8)
    return pasted, np.maximum(np.rint(255 * masks).astype(np.uint8), holes)


def grabcut_masks(
    images: UInt8[np.ndarray, "N S S 3"],
    boxes: Sequence[PatchBox | None],
    *,
    workers: int = 2,
    progress: Progress = SILENT,
) -> UInt8[np.ndarray, "N S S"]:
    """Masks of many images by :func:`grabcut`, 255 on the object."""

    def one(index: int) -> np.ndarray:
        return np.round(255 * grabcut(images[index], boxes[index])).astype(np.uint8)

    return _over_images(one, len(images), "Finding the objects", workers, progress)


def backgrounds(
    images: UInt8[np.ndarray, "N S S 3"],
    masks: UInt8[np.ndarray, "N S S"],
    *,
    workers: int = 2,
    progress: Progress = SILENT,
) -> UInt8[np.ndarray, "N S S 3"]:
    """Each image without its object, by :func:`fill_background`."""

    def one(index: int) -> np.ndarray:
        return fill_background(images[index], masks[index].astype(np.float32) / 255)[0]

    return _over_images(one, len(images), "Filling the backgrounds", workers, progress)


def _over_images(
    one: Callable[[int], np.ndarray], count: int, name: str, workers: int, progress: Progress
) -> np.ndarray:
    done = []
    with ThreadPoolExecutor(max(workers, 1)) as pool, progress.task(name, count, "images") as task:
        for result in pool.map(one, range(count)):
            done.append(result)
            task.advance()
    return np.stack(done)
