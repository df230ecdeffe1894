"""Picture of the parts that a flow finds: in the reference, in the source, and where they truly are."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from jaxtyping import UInt8

from dagaug.metrics.flow_pck import FoundParts

__all__ = ["draw_found_parts"]

_SIDE = 256  # of an image, in pixels
_DOT, _RING = 4, 7  # radii in pixels


def draw_found_parts(found: FoundParts, count: int = 6) -> UInt8[np.ndarray, "H W 3"]:
    """Draw some pairs: references above, sources below.

    A part has one colour. Dots are the parts of the reference, and where the flow finds them in the source; rings are
    the true places in the source; a line joins both.

    Args:
        found: the parts.
        count: number of pairs.
    """
    columns = []
    for pair in range(min(count, len(found.pairs))):
        source, reference = found.pairs[pair]
        above, below = (_enlarged(found.patches.images[row]) for row in (reference, source))
        for part in np.flatnonzero(found.common[pair]):
            colour = _colour(int(part), found.positions.shape[1])
            start, end, truth = (
                _pixel(point)
                for point in (
                    found.positions[reference, part],
                    found.ends[pair, part],
                    found.positions[source, part],
                )
            )
            cv2.circle(above, start, _DOT, colour, -1, cv2.LINE_AA)
            cv2.line(below, end, truth, colour, 1, cv2.LINE_AA)
            cv2.circle(below, end, _DOT, colour, -1, cv2.LINE_AA)
            cv2.circle(below, truth, _RING, colour, 1, cv2.LINE_AA)
        columns.append(np.concatenate([above, below]))
    return np.concatenate(columns, axis=1)


def _enlarged(image: UInt8[np.ndarray, "S S 3"]) -> UInt8[np.ndarray, "H W 3"]:
    return cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)


def _pixel(point: np.ndarray) -> tuple[int, int]:
    x, y = (np.clip(point, 0, 1) * (_SIDE - 1)).round().astype(int).tolist()
    return x, y


def _colour(part: int, parts: int) -> tuple[int, int, int]:
    red, green, blue = (round(255 * value) for value in colorsys.hsv_to_rgb(part / parts, 1, 1))
    return red, green, blue
