"""Groups of points: distinct colours, labels without overlap, positions of tiles."""

from __future__ import annotations

import cv2
import numpy as np

from dagaug.report.palette import PALETTE, assign_distinct_colours
from dagaug.report.scatter import COLUMNS, scatter, tile_sheet


def test_groups_of_one_colour_lie_farther_apart_than_groups_of_others() -> None:
    line = np.stack([np.arange(16.0), np.zeros(16)], axis=1)
    colours = assign_distinct_colours(line, range(1, 9))
    assert len(set(colours)) == 8
    for place in range(15):
        assert colours[place] != colours[place + 1]
    assert assign_distinct_colours(line[:0], [1]) == []


def test_groups_are_named_where_they_lie_unless_names_would_cover_each_other() -> None:
    points = np.array([[0.1, 0.1], [0.1, 0.3], [0.8, 0.5], [0.8, 0.5], [0.82, 0.5]])
    found = scatter(
        points, np.zeros(5, int), np.array([4, 4, 1, 2, 3]), ["any"], ["no", "a finch", "a wren", "a bird", "far"]
    )
    assert [group.name for group in found.groups] == ["a finch", "a wren", "a bird", "far"]
    assert found.group.tolist() == [3, 3, 0, 1, 2]
    assert (found.groups[3].x, found.groups[3].y) == (0.1, 0.2)
    heights = sorted(group.y for group in found.groups[:3])
    assert min(np.diff(heights)) > 0.02
    assert len({group.colour for group in found.groups}) == 4
    assert all(0 < group.colour < len(PALETTE) for group in found.groups)


def test_tiles_lie_row_by_row_and_a_sheet_keeps_to_its_budget() -> None:
    count = COLUMNS + 3
    tiles = np.stack([np.full((16, 16, 3), 6 * number, np.uint8) for number in range(count)])
    sheet = tile_sheet(tiles, 1_000_000)
    assert sheet is not None
    picture = cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (32, 16 * COLUMNS, 3)
    for number in range(count):
        row, column = divmod(number, COLUMNS)
        assert abs(int(picture[16 * row + 8, 16 * column + 8, 0]) - 6 * number) <= 3
    noise = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    fine, coarse = tile_sheet(noise, 1_000_000), tile_sheet(noise, 4_000)
    assert fine is not None
    assert coarse is not None
    assert len(coarse) <= 4_000 < len(fine)
    assert tile_sheet(noise, 100) is None
