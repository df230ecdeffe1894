"""Contact sheets: one RGB array with many small images and captions. No files are read or written.

Text is drawn with matplotlib, because OpenCV lacks glyphs and hinting.
"""

from __future__ import annotations

import colorsys
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

__all__ = [
    "GROUND",
    "Colour",
    "Triple",
    "attention_overlay",
    "contact_sheet",
    "fitted",
    "region_colours",
    "triple_sheet",
]

Colour = tuple[int, int, int]

GROUND: Colour = (248, 248, 246)


_INK: Colour = (58, 58, 56)


_FAINT: Colour = (120, 120, 116)


_EMPTY: Colour = (232, 232, 228)

_PALETTE: tuple[Colour, ...] = (
    (239, 83, 80),
    (66, 165, 245),
    (255, 202, 40),
    (102, 187, 106),
    (171, 71, 188),
    (255, 138, 46),
    (38, 198, 218),
    (240, 98, 160),
    (190, 214, 70),
    (94, 108, 210),
)


_DPI = 100  # of matplotlib's figures; sizes here are in pixels


_LONGEST_TEXT = 200


_CELL = 128  # side of an image on a sheet of triples


_OVERLAY_SIDE = 208


_OVERLAY_COLUMNS = 6


_SHADOW = 0.5  # opacity of the dark line under a coloured one


class _Sheet:
    """Canvas for images, with text drawn over them."""

    def __init__(self, height: int, width: int) -> None:
        self.pixels = np.full((height, width, 3), GROUND, np.uint8)
        self._figure = Figure(figsize=((width + 1) / _DPI, (height + 1) / _DPI), dpi=_DPI, facecolor="none")
        self._canvas = FigureCanvasAgg(self._figure)

    def place(self, image: UInt8[np.ndarray, "h w 3"], top: int, left: int) -> None:
        """Copy an image onto the canvas; ``top`` and ``left`` are its upper left corner."""
        self.pixels[top : top + image.shape[0], left : left + image.shape[1]] = image

    def write(
        self,
        text: str,
        x: float | int,
        y: float | int,
        *,
        size: float | int = 12,
        colour: Colour = _INK,
        across: str = "left",
        up: str = "center",
        room: float | int = math.inf,
    ) -> None:
        """Write one line of text at a point, cut to ``room`` pixels with …."""
        text = " ".join(text.split())[:_LONGEST_TEXT]
        drawn = self._figure.text(
            x,
            self._canvas.get_width_height()[1] - y,
            text,
            transform=None,
            fontsize=size * 72 / _DPI,
            color=tuple(value / 255 for value in colour),
            horizontalalignment=across,
            verticalalignment=up,
            parse_math=False,
        )
        self._shorten(drawn, text, room)

    def _shorten(self, drawn: Text, text: str, room: float | int) -> None:
        kept = len(text)
        with _missing_glyphs_ignored():
            while kept and drawn.get_window_extent(self._canvas.get_renderer()).width > room:
                kept -= 1
                drawn.set_text(text[:kept].rstrip() + "…")

    def finished(self) -> UInt8[np.ndarray, "H W 3"]:
        """The canvas with its text."""
        with _missing_glyphs_ignored():
            self._canvas.draw()
        height, width = self.pixels.shape[:2]
        text = np.asarray(self._canvas.buffer_rgba())[:height, :width]
        alpha = text[..., 3:].astype(np.float32) / 255
        mixed = self.pixels * (1 - alpha) + text[..., :3] * alpha
        return np.rint(mixed).astype(np.uint8)


@contextmanager
def _missing_glyphs_ignored() -> Iterator[None]:
    """Silence warnings about glyphs that matplotlib's font lacks; boxes are drawn for them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        yield


def fitted(image: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The whole image, resized so that its longer side has ``side`` pixels."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale == 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def contact_sheet(
    sources: UInt8[np.ndarray, "R S S 3"],
    references: UInt8[np.ndarray, "C S S 3"],
    morphs: UInt8[np.ndarray, "R K S S 3"],
    *,
    scale: float | int = 2.0,
) -> UInt8[np.ndarray, "H W 3"]:
    """Every source in the pose of every reference: references on top, sources on the left, morphs between.

    Args:
        sources: one for each row.
        references: one for each column, or none (C = 0) where results come from sources alone.
        morphs: of source r and reference c.
        scale: side of an image on the sheet over its own side.
    """
    rows, columns = morphs.shape[:2]
    side = max(1, round(sources.shape[1] * scale))
    gap = max(2, side // 24)
    margin, first_gap = max(12, 4 * gap), 3 * gap

    def at(index: int) -> int:
        """Start of the index-th image in pixels; index 0 is the row or column of originals."""
        return margin + index * (side + gap) + (first_gap if index else 0)

    sheet = _Sheet(at(rows) + side + margin, at(columns) + side + margin)
    for row, image in enumerate(sources, 1):
        sheet.place(fitted(image, side), at(row), at(0))
    for column, image in enumerate(references, 1):
        sheet.place(fitted(image, side), at(0), at(column))
    for row in range(rows):
        for column in range(columns):
            sheet.place(fitted(morphs[row, column], side), at(row + 1), at(column + 1))
    size, end = min(13.0, side / 8), at(0) + side
    middle, bottom = at(0) + side * 0.5, end - side * 0.06
    if len(references):
        sheet.write("reference →", end, middle, size=size, colour=_FAINT, across="right", room=side)
    sheet.write("source ↓", at(0), bottom, size=size, colour=_FAINT, up="baseline", room=side)
    return sheet.finished()


@cache
def region_colours(count: int) -> tuple[Colour, ...]:
    """One colour per attended region; easily distinguished for up to ten regions."""
    if count <= len(_PALETTE):
        return _PALETTE[:count]
    wheel = (colorsys.hls_to_rgb(index / count, 0.6, 0.75) for index in range(count))
    return tuple((round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in wheel)


def attention_overlay(
    images: UInt8[np.ndarray, "N S S 3"], centres: Float[np.ndarray, "N K 2"], half_size: float | int
) -> UInt8[np.ndarray, "H W 3"]:
    """Attended regions drawn over images (paper, Fig. 4): a box and a dot per region, in the same colour everywhere.

    Args:
        images: whole images; small ones are enlarged.
        centres: x, y of the regions; -1 and 1 are the edges of the image. Values that are not finite are left out.
        half_size: w = h of eq. 2, in the same units.
    """
    count, regions = centres.shape[:2]
    side = max(_OVERLAY_SIDE, images.shape[1])
    columns = min(count, _OVERLAY_COLUMNS) or 1
    rows = math.ceil(count / columns)
    gap, margin, legend = 10, 20, 40 if regions else 0
    grid_width = columns * (side + gap) - gap
    grid_height = max(0, rows * (side + gap) - gap)
    legend_width = 64 + 36 * regions
    sheet = _Sheet(margin + grid_height + legend + margin // 2, 2 * margin + max(grid_width, legend_width))
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        cell = _attended(fitted(image, side), centres[index], half_size)
        sheet.place(cell, margin + row * (side + gap), margin + column * (side + gap))
    _write_legend(sheet, margin, margin + grid_height + 26, regions)
    return sheet.finished()


def _attended(
    image: UInt8[np.ndarray, "S S 3"], centres: Float[np.ndarray, "K 2"], half_size: float | int
) -> UInt8[np.ndarray, "S S 3"]:
    """One image with its boxes and dots; a dark outline keeps them visible on any background."""
    drawn, side = image.copy(), len(image)
    points = [(centre.astype(float) + 1) / 2 * side for centre in centres]
    coloured = [
        (point, colour)
        for point, colour in zip(points, region_colours(len(centres)), strict=True)
        if np.isfinite(point).all()
    ]
    reach = min(half_size, 4.0) * side / 2
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * reach
    bits = 4  # of OpenCV's fixed-point coordinates
    boxes = []
    for point, _ in coloured:
        # Centres lie within the image; a stray one must not overflow OpenCV's integers.
        near = np.clip(point, -8 * side, 8 * side) - 0.5
        boxes.append(np.rint((near + corners) * 2**bits).astype(np.int32))
    cv2.polylines(drawn, boxes, True, (0, 0, 0), 4, cv2.LINE_AA, bits)
    drawn = cv2.addWeighted(drawn, _SHADOW, image, 1 - _SHADOW, 0)
    for box, (_, colour) in zip(boxes, coloured, strict=True):
        cv2.polylines(drawn, [box], True, colour, 2, cv2.LINE_AA, bits)
    for point, colour in coloured:
        near = np.rint((np.clip(point, -8 * side, 8 * side) - 0.5) * 2**bits).astype(int)
        middle = (int(near[0]), int(near[1]))
        cv2.circle(drawn, middle, 6 << bits, (0, 0, 0), -1, cv2.LINE_AA, bits)
        cv2.circle(drawn, middle, 5 << bits, (255, 255, 255), -1, cv2.LINE_AA, bits)
        cv2.circle(drawn, middle, 4 << bits, colour, -1, cv2.LINE_AA, bits)
    return drawn


def _write_legend(sheet: _Sheet, left: int, middle: int, regions: int) -> None:
    if regions:
        sheet.write("region", left, middle, colour=_FAINT)
    for index, colour in enumerate(region_colours(regions)):
        x = left + 64 + 36 * index
        cv2.circle(sheet.pixels, (x, middle), 5, colour, -1, cv2.LINE_AA)
        sheet.write(str(index + 1), x + 10, middle, colour=_FAINT)


@dataclass(frozen=True)
class Triple:
    """A morph with its source and reference; None for a missing image.

    Attributes:
        source, reference, result: RGB, any size.
        source_name, reference_name, note: captions.
    """

    source: UInt8[np.ndarray, "_ _ 3"] | None
    reference: UInt8[np.ndarray, "_ _ 3"] | None
    result: UInt8[np.ndarray, "_ _ 3"] | None
    source_name: str
    reference_name: str
    note: str


def triple_sheet(triples: Sequence[Triple]) -> UInt8[np.ndarray, "H W 3"]:
    """Triples source, reference, result with a line of text under each image, in one to three columns."""
    columns = 3 if len(triples) >= 9 else 2 if len(triples) >= 4 else 1
    rows = math.ceil(len(triples) / columns)
    gap, between, caption, margin, head = 6, 34, 30, 26, 26
    width = 3 * _CELL + 2 * gap
    sheet = _Sheet(2 * margin + head + rows * (_CELL + caption) - 6, 2 * margin + columns * (width + between) - between)
    for column in range(min(columns, len(triples))):
        for place, title in enumerate(("source", "reference", "result")):
            x = margin + column * (width + between) + place * (_CELL + gap)
            sheet.write(title, x, margin + head / 2 - 4, size=13, colour=_FAINT)
    for index, triple in enumerate(triples):
        row, column = divmod(index, columns)
        top = margin + head + row * (_CELL + caption)
        texts = (triple.source_name, triple.reference_name, triple.note)
        images = (triple.source, triple.reference, triple.result)
        for place, (image, text) in enumerate(zip(images, texts, strict=True)):
            left = margin + column * (width + between) + place * (_CELL + gap)
            _place_in_cell(sheet, image, top, left)
            sheet.write(text, left, top + _CELL + 11, size=11.5, room=_CELL)
    return sheet.finished()


def _place_in_cell(sheet: _Sheet, image: UInt8[np.ndarray, "_ _ 3"] | None, top: int, left: int) -> None:
    """Place an image in the middle of a cell; a missing one leaves the cell empty."""
    sheet.place(np.full((_CELL, _CELL, 3), _EMPTY, np.uint8), top, left)
    if image is None:
        sheet.write("no image", left + _CELL / 2, top + _CELL / 2, size=11, colour=_FAINT, across="center")
        return
    shown = fitted(image, _CELL)
    sheet.place(shown, top + (_CELL - shown.shape[0]) // 2, left + (_CELL - shown.shape[1]) // 2)
