"""Refinement of the coarse masks that a network predicts: GrabCut places the edge of the object in the image.

:mod:`dagaug.data.grabcut_and_inpainting` makes masks without a network, from bounding boxes alone.
:func:`spread_object` paints the background with the object's colours, so that a warp cannot carry background along.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from dagaug.data.grabcut_and_inpainting import PatchBox

__all__ = ["inside_box", "refine_mask", "spread_object"]

# Chosen on CUB's part points (training images) and ETH-80's masks; examples/experiments.md has the table.
_SLOPE, _SHIFT = 2.0, 0.4  # of the log odds, before GrabCut reads them as probabilities
_SURE, _NEVER = 0.95, 0.03  # probabilities from which a pixel surely is, or is not, the object
_EDGE_SHARE = 0.3  # GrabCut's share in the mask; the enlarged probability has the rest
_LOW, _HIGH = 0.25, 0.55  # below and above, a pixel is wholly background or object: no veil is left beside the object


def refine_mask(
    image: UInt8[np.ndarray, "S S 3"], coarse: Float[np.ndarray, "g g"], box: PatchBox | None = None
) -> Float32[np.ndarray, "S S"]:
    """Let GrabCut draw the edge of a coarse mask (one iteration).

    Args:
        image: RGB.
        coarse: probability of the object in each cell of a grid over the image.
        box: where the object certainly ends; None: anywhere in the image.

    Returns:
        The mask in [0, 1], above 0.5 on the object: the weighted mean of GrabCut's mask and the enlarged
        probability, stretched from 0.25 to 0.55 so that no veil is left beside the object.
    """
    side = len(image)
    odds = np.log(np.clip(coarse, 1e-4, 1 - 1e-4) / np.clip(1 - coarse, 1e-4, 1))
    large = cv2.resize(odds.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    probability = np.where(inside_box(side, box), 1 / (1 + np.exp(-_SLOPE * (large - _SHIFT))), 0).astype(np.float32)
    plan = np.where(probability > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    plan[probability > _SURE] = cv2.GC_FGD
    plan[probability < _NEVER] = cv2.GC_BGD
    if not (plan & 1).any() or (plan & 1).all():
        return _without_veil(probability)
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(image, plan, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 1, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # fewer colours than GrabCut's mixtures have components
        return _without_veil(probability)
    drawn = (plan & 1).astype(np.float32)
    return _without_veil(_EDGE_SHARE * drawn + (1 - _EDGE_SHARE) * probability)


def _without_veil(mask: Float32[np.ndarray, "S S"]) -> Float32[np.ndarray, "S S"]:
    return np.clip((mask - _LOW) / (_HIGH - _LOW), 0, 1)


def inside_box(side: int, box: PatchBox | None) -> Bool[np.ndarray, "S S"]:
    """Pixels of a square image inside a box widened by 1% of the side; all of them without a box."""
    if box is None:
        return np.ones((side, side), bool)
    x, y, width, height = box
    line = (np.arange(side) + 0.5) / side
    across = (line > x - 0.01) & (line < x + width + 0.01)
    down = (line > y - 0.01) & (line < y + height + 0.01)
    return down[:, None] & across[None]


def spread_object(
    image: Float32[np.ndarray, "H W 3"], mask: Float[np.ndarray, "H W"], *, inset: int = 1
) -> Float32[np.ndarray, "H W 3"]:
    """Paint the background with the nearest pixels of the object, so that a warp cannot carry background along.

    Args:
        image: any range.
        mask: in [0, 1].
        inset: width in pixels of the object's edge, mixed with background, that is painted over too.

    Returns:
        The image; unchanged where the mask is empty.
    """
    solid = (mask > 0.5).astype(np.uint8)
    inner = cv2.erode(solid, np.ones((2 * inset + 1, 2 * inset + 1), np.uint8), borderValue=1)
    kept = inner if inner.sum() > 0.3 * solid.sum() else solid  # thin parts vanish when eroded
    if not kept.any():
        return image
    _, labels = cv2.distanceTransformWithLabels(1 - kept, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    rows, columns = np.nonzero(kept)
    owner = np.zeros(labels.max() + 1, np.int64)
    owner[labels[rows, columns]] = np.arange(len(rows))
    nearest = owner[labels]
    return image[rows[nearest], columns[nearest]]
