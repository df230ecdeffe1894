"""Colours of all plots, on the page and on paper, that people with any colour vision tell apart.

After Okabe and Ito (2008), darkened or lightened until each stands out from its ground (contrast 3:1 and more). A thing
keeps its colour in every plot; nothing is told by colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

__all__ = ["ARMS", "GAIN", "HARM", "PALETTE", "apart", "arm_places"]

PALETTE: tuple[tuple[str, str], ...] = (
    ("#6b6b66", "#a9a9a2"),
    ("#008a65", "#2fc79b"),
    ("#0072b2", "#5bb0ea"),
    ("#5d4fa2", "#a99cf0"),
    ("#b87400", "#e69f00"),
    ("#c44e00", "#f0803c"),
    ("#b0568a", "#de93bd"),
    ("#6f6500", "#d9cc3c"),
    ("#3d8f8f", "#7fd0d0"),
)
"""Each on a light and on a dark ground."""

ARMS: dict[str, int] = {
    "real": 0, "strong": 1, "real+dagaug": 2, "strong+dagaug": 3, "cutout": 4, "cutwarp": 5, "random": 6,
    "cutout+dagaug": 7,
}  # fmt: skip
"""Places in :data:`PALETTE` of the arms of a score."""

GAIN, HARM = PALETTE[2], PALETTE[5]


def arm_places(names: Sequence[str]) -> dict[str, int]:
    """The place in :data:`PALETTE` of each arm; others than :data:`ARMS` take those that are left, in turn."""
    free = [place for place in range(len(PALETTE)) if place not in ARMS.values()]
    free += [place for place in ARMS.values() if place not in {ARMS.get(name) for name in names}]
    others = [name for name in names if name not in ARMS]
    turn = {name: free[number % len(free)] for number, name in enumerate(others)}
    return {name: ARMS[name] if name in ARMS else turn[name] for name in names}


def apart(centres: Float[np.ndarray, "N 2"], places: Sequence[int]) -> list[int]:
    """A colour of ``places`` for each group of points, so that groups of one colour lie far apart."""
    found: list[int] = []
    for row, centre in enumerate(centres):
        distances = np.linalg.norm(centres[:row] - centre, axis=1).tolist()
        nearest = {place: min((d for d, had in zip(distances, found, strict=True) if had == place), default=np.inf)
                   for place in places}  # fmt: skip
        found.append(max(places, key=lambda place: nearest[place]))
    return found
