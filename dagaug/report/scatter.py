"""Points of a plane in groups, ready to be drawn on a page or on paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float64, Integer, UInt8

from dagaug.data import image_files as imaging
from dagaug.report.palette import PALETTE, apart

__all__ = ["COLUMNS", "Group", "Scatter", "scatter", "tiled"]

COLUMNS = 32
"""Of a sheet of tiles."""

_LETTER, _LINE = 0.0105, 0.024  # width of a letter and height of a line of names, in parts of the side


_LONGEST = 24  # letters; longer names are cut short on a page


_ROUNDS = 200


_QUALITIES = (75, 60, 45, 30)


@dataclass(frozen=True)
class Group:
    """What belongs together: its name, its place in the palette, and where its name stands."""

    number: int
    name: str
    colour: int
    x: float
    y: float


@dataclass(frozen=True)
class Scatter:
    """Points, y downward, and what they are.

    Attributes:
        points: x and y in [0, 1].
        kind: of each, an index into ``kinds``; they are drawn in their order.
        group: of each, an index into ``groups``.
        kinds: names.
        groups: named at the median of their points.
    """

    points: Float64[np.ndarray, "N 2"]
    kind: Integer[np.ndarray, " N"]
    group: Integer[np.ndarray, " N"]
    kinds: tuple[str, ...]
    groups: tuple[Group, ...]


def scatter(
    points: Float64[np.ndarray, "N 2"],
    kind: Integer[np.ndarray, " N"],
    label: Integer[np.ndarray, " N"],
    kinds: Sequence[str],
    names: Sequence[str],
) -> Scatter:
    """Group points by their labels, and colour groups so that those of a colour lie far apart."""
    labels, group = np.unique(label, return_inverse=True)
    middles = np.array([np.median(points[group == place], axis=0) for place in range(len(labels))]).reshape(-1, 2)
    colours = apart(middles, range(1, len(PALETTE)))
    middles = _loosened(middles, [len(names[label]) for label in labels.tolist()])
    groups = tuple(
        Group(place, names[label], colour, round(float(x), 4), round(float(y), 4))
        for place, (label, colour, (x, y)) in enumerate(zip(labels.tolist(), colours, middles, strict=True))
    )
    return Scatter(points, kind, group, tuple(kinds), groups)


def _loosened(places: Float64[np.ndarray, "K 2"], letters: Sequence[int]) -> Float64[np.ndarray, "K 2"]:
    """The same places, moved up and down until names of so many letters stand clear of each other, as far as may be."""
    places = places.copy()
    half = _LETTER / 2 * np.minimum(letters, _LONGEST)
    for _ in range(_ROUNDS):
        moved = False
        for one, other in combinations(range(len(places)), 2):
            apart_x, apart_y = np.abs(places[one] - places[other]).tolist()
            if apart_x < half[one] + half[other] and apart_y < _LINE - 1e-6:
                upper, lower = (one, other) if places[one, 1] <= places[other, 1] else (other, one)
                places[upper, 1] -= (_LINE - apart_y) / 2
                places[lower, 1] += (_LINE - apart_y) / 2
                moved = True
        if not moved:
            break
    return places


def tiled(tiles: UInt8[np.ndarray, "N T T 3"], budget: int) -> bytes | None:
    """All tiles on one JPEG, row by row, :data:`COLUMNS` a row; None if it cannot have at most ``budget`` bytes."""
    count, side = tiles.shape[:2]
    rows = max(1, math.ceil(count / COLUMNS))
    sheet = np.full((rows * COLUMNS, side, side, 3), 255, np.uint8)
    sheet[:count] = tiles
    whole = sheet.reshape(rows, COLUMNS, side, side, 3).swapaxes(1, 2).reshape(rows * side, COLUMNS * side, 3)
    attempts = (imaging.encode(np.ascontiguousarray(whole), "jpeg", quality) for quality in _QUALITIES)
    return next((sheet for sheet in attempts if len(sheet) <= budget), None)
