"""Colours of all plots, on the HTML page and in figures; safe for colour-blind readers.

Based on Okabe and Ito (2008), darkened or lightened to a contrast of at least 3:1 against the background. An arm has
the same colour in every plot. No information is given by colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

__all__ = ["ARMS", "GAIN", "HARM", "PALETTE", "arm_colours", "assign_distinct_colours"]

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
    ("#8a4b2a", "#cf9673"),
    ("#3f6f1f", "#98cc6c"),
    ("#a3264f", "#f08aa8"),
)
"""Each colour for a light and for a dark background."""

ARMS: dict[str, int] = {
    "real": 0, "trivialaugment": 1, "real+dagaug": 2, "dagaug+cutmix": 3, "cutout": 4, "cutwarp": 5, "random": 6,
    "cutout+dagaug": 7, "cutmix": 9, "mixup": 10, "frozen": 11,
}  # fmt: skip
"""Index into :data:`PALETTE` of each arm of a score."""

GAIN, HARM = PALETTE[2], PALETTE[5]


def arm_colours(names: Sequence[str]) -> dict[str, int]:
    """Index into :data:`PALETTE` of each arm. Arms that are not in :data:`ARMS` take the free colours in turn."""
    free = [place for place in range(len(PALETTE)) if place not in ARMS.values()]
    free += [place for place in ARMS.values() if place not in {ARMS.get(name) for name in names}]
    others = [name for name in names if name not in ARMS]
    turn = {name: free[number % len(free)] for number, name in enumerate(others)}
    return {name: ARMS[name] if name in ARMS else turn[name] for name in names}


def assign_distinct_colours(centres: Float[np.ndarray, "N 2"], places: Sequence[int]) -> list[int]:
    """Choose one of the colours ``places`` for each group, so that groups of equal colour have distant centres."""
    found: list[int] = []
    for row, centre in enumerate(centres):
        distances = np.linalg.norm(centres[:row] - centre, axis=1).tolist()
        nearest = {place: min((d for d, had in zip(distances, found, strict=True) if had == place), default=np.inf)
                   for place in places}  # fmt: skip
        found.append(max(places, key=lambda place: nearest[place]))
    return found
