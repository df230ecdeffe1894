"""Contact sheets: places of images, attended regions, captions."""

from __future__ import annotations

import numpy as np

from dagaug.report.contact_sheets import GROUND, Triple, attention_overlay, contact_sheet, region_colours, triple_sheet


def plain(*colours: tuple[int, int, int], size: int = 16) -> np.ndarray:
    return np.stack([np.full((size, size, 3), colour, np.uint8) for colour in colours])


def test_contact_sheet_puts_each_image_where_it_belongs() -> None:
    sources, references = plain((200, 0, 0), (150, 0, 0)), plain((0, 200, 0), (0, 150, 0), (0, 100, 0))
    morphs = np.stack([plain(*[(0, row, 10 * column) for column in range(3)]) for row in range(2)])
    sheet = contact_sheet(sources, references, morphs, scale=3)
    side, gap, margin, apart = 48, 2, 12, 6
    assert sheet.shape == (2 * margin + 3 * side + 2 * gap + apart, 2 * margin + 4 * side + 3 * gap + apart, 3)
    starts = [margin] + [margin + apart + index * (side + gap) for index in range(1, 4)]
    for row in range(2):
        cell = sheet[starts[row + 1] : starts[row + 1] + side, starts[0] : starts[0] + side]
        assert (cell == sources[row, 0, 0]).all()
        for column in range(3):
            left = starts[column + 1]
            assert (sheet[starts[row + 1] :, left:][:side, :side] == morphs[row, column, 0, 0]).all()
            assert (sheet[starts[0] :, left:][:side, :side] == references[column, 0, 0]).all()
    assert tuple(sheet[0, 0]) == GROUND
    corner = sheet[margin : margin + side, margin : margin + side]
    assert (corner != GROUND).any()  # the labels


def test_attention_boxes_lie_where_the_centres_say() -> None:
    images = plain((128, 128, 128), (90, 90, 90), size=64)
    centres = np.zeros((2, 2, 2), np.float32)
    centres[:, 0] = (-0.5, -0.5)
    centres[:, 1] = (0.5, 0.0)
    sheet = attention_overlay(images, centres, 0.25)
    side, margin, gap = 208, 20, 10
    for index in range(2):
        left = margin + index * (side + gap)
        for (x, y), colour in zip(centres[index], region_colours(2), strict=True):
            column, row = left + round((x + 1) / 2 * side), margin + round((y + 1) / 2 * side)
            assert tuple(sheet[row, column]) == colour  # the dot
            edge = sheet[row + 15, column - 30 : column - 20]  # 0.25 of 104 pixels to the left
            assert (edge == colour).all(axis=-1).any()
    assert tuple(sheet[margin + side - 3, margin + 3]) == (128, 128, 128)


def test_attention_takes_stray_and_many_regions() -> None:
    centres = np.zeros((1, 14, 2), np.float32)
    centres[0, 0], centres[0, 1] = np.nan, 1e9
    assert attention_overlay(plain((1, 2, 3)), centres, 0.3).ndim == 3
    assert len(set(region_colours(14))) == 14
    assert len(set(region_colours(10))) == 10


def test_sheet_of_triples_takes_odd_images_and_names() -> None:
    wide, tall = np.zeros((10, 40, 3), np.uint8), np.zeros((500, 20, 3), np.uint8)
    names = ("$x^$ 鳥 \n" + 60 * "w", "", "0.98")
    for count in (1, 4, 10):
        sheet = triple_sheet([Triple(wide, None, tall, *names)] * count)
        columns = {1: 1, 4: 2, 10: 3}[count]
        assert sheet.shape[1] == 52 + columns * (3 * 128 + 12) + (columns - 1) * 34
        assert tuple(sheet[-1, -1]) == GROUND
