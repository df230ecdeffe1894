"""Scatter plot with named groups: colours, label positions, and the sheet of thumbnails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float64, Integer, UInt8

from dagaug.data.image_files import encode
from dagaug.report.palette import PALETTE, assign_distinct_colours

__all__ = ["COLUMNS", "Group", "Scatter", "scatter", "tile_sheet"]

COLUMNS = 32
"""Columns of a sheet of thumbnails."""

_LETTER, _LINE = 0.0105, 0.024  # width of a letter and height of a line of names, in parts of the side


_LONGEST = 24  # letters; longer names are cut short on a page


_ROUNDS = 200


_QUALITIES = (75, 60, 45, 30)


@dataclass(frozen=True)
class Group:
    """A group of points: name, index into the palette, and position of the name."""

    number: int
    name: str
    colour: int
    x: float
    y: float


@dataclass(frozen=True)
class Scatter:
    """Points and their groups; y grows downward.

    Attributes:
        points: x and y in [0, 1].
        kind: index into ``kinds`` of each point; kinds are drawn in this order.
        group: index into ``groups`` of each point.
        kinds: names of the kinds.
        groups: the groups; a name stands near the median of its points.
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
    """Group points by label, and choose colours so that groups of equal colour are far from each other."""
    labels, group = np.unique(label, return_inverse=True)
    middles = np.array([np.median(points[group == place], axis=0) for place in range(len(labels))]).reshape(-1, 2)
    colours = assign_distinct_colours(middles, range(1, len(PALETTE)))
    middles = _without_overlaps(middles, [len(names[label]) for label in labels.tolist()])
    groups = tuple(
        Group(place, names[label], colour, round(float(x), 4), round(float(y), 4))
        for place, (label, colour, (x, y)) in enumerate(zip(labels.tolist(), colours, middles, strict=True))
    )
    return Scatter(points, kind, group, tuple(kinds), groups)


def _without_overlaps(places: Float64[np.ndarray, "K 2"], letters: Sequence[int]) -> Float64[np.ndarray, "K 2"]:
    """Move labels up and down until they do not overlap, within a fixed number of rounds."""
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


def tile_sheet(tiles: UInt8[np.ndarray, "N T T 3"], budget: int) -> bytes | None:
    """All thumbnails in one JPEG, :data:`COLUMNS` per row; None if it would exceed ``budget`` bytes."""
    count, side = tiles.shape[:2]
    rows = max(1, math.ceil(count / COLUMNS))
    sheet = np.full((rows * COLUMNS, side, side, 3), 255, np.uint8)
    sheet[:count] = tiles
    whole = sheet.reshape(rows, COLUMNS, side, side, 3).swapaxes(1, 2).reshape(rows * side, COLUMNS * side, 3)
    attempts = (encode(np.ascontiguousarray(whole), "jpeg", quality) for quality in _QUALITIES)
    return next((sheet for sheet in attempts if len(sheet) <= budget), None)
