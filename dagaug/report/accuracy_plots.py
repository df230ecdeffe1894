"""Line plots of accuracies with confidence intervals; positions are in per cent, so that plots fit any width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dagaug.report.wording import interval, percent

__all__ = [
    "DrawnLine",
    "LineData",
    "LinePlot",
    "PlotPoint",
    "Tick",
    "line_plot",
    "ticks",
]


_ASIDE = 0.9  # between the points of two lines at one x, in per cent of the width


@dataclass(frozen=True)
class Tick:
    """A label on an axis and its position, in per cent from the left or the top."""

    place: float
    text: str


@dataclass(frozen=True)
class PlotPoint:
    """A point of a line and the ends of its interval, in per cent from the left and the top."""

    x: float
    y: float
    high: float
    low: float
    text: str


@dataclass(frozen=True)
class LineData:
    """Data of one line: ``y`` holds mean, low and high of values in [0, 1]; ``colour`` is an index into the palette."""

    name: str
    colour: int
    dashed: bool
    x: Sequence[float | int]
    y: Sequence[tuple[float | int, float | int, float | int]]


@dataclass(frozen=True)
class DrawnLine:
    """A line to draw; ``line`` and ``band`` are SVG points in a square of side 100."""

    name: str
    colour: int
    dashed: bool
    marks: tuple[PlotPoint, ...]
    line: str
    band: str


@dataclass(frozen=True)
class LinePlot:
    """Lines over common axes."""

    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[DrawnLine, ...]


def ticks(low: float | int, high: float | int, most: int = 5) -> list[float]:
    """Up to ``most`` round numbers from ``low`` to ``high``: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [float(low)]
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            break
    return [round(place * step, 12) for place in range(first, last + 1)]


def line_plot(
    x_label: str,
    x_ticks: Sequence[tuple[float | int, str]],
    lines: Sequence[LineData],
    *,
    logarithmic: bool = False,
    bands: bool = True,
) -> LinePlot:
    """Lay out lines over common axes.

    Args:
        x_label: label of the x axis.
        x_ticks: values of x in rising order, with their labels; the first and the last are the ends of the axis.
        lines: at least one, each with at least one point.
        logarithmic: whether the x axis is logarithmic.
        bands: whether intervals are also drawn as bands. Without them, lines are drawn beside each other, so that the
            intervals of several lines at one x can be told apart.
    """
    values = [value for line in lines for ends in line.y for value in ends]
    bottom, top = max(0.0, min(values)), min(1.0, max(values))
    margin = 0.06 * (top - bottom) or 0.01
    bottom, top = max(0.0, bottom - margin), min(1.0, top + margin)
    along = math.log if logarithmic else float
    first, last = along(x_ticks[0][0]), along(x_ticks[-1][0])

    def across(x: float | int) -> float:
        return round(5 + 90 * (along(x) - first) / ((last - first) or 1), 2)

    def down(share: float | int) -> float:
        return round(100 * (top - min(top, max(bottom, share))) / (top - bottom), 2)

    def drawn(number: int, one: LineData) -> DrawnLine:
        aside = 0.0 if bands else _ASIDE * (number - (len(lines) - 1) / 2)
        marks = tuple(
            PlotPoint(
                round(across(at) + aside, 2),
                down(mean),
                down(high),
                down(low),
                f"{percent(mean)} ({interval(low, high)})",
            )
            for at, (mean, low, high) in zip(one.x, one.y, strict=True)
        )
        upper = [f"{mark.x},{mark.high}" for mark in marks]
        lower = [f"{mark.x},{mark.low}" for mark in reversed(marks)]
        line = " ".join(f"{mark.x},{mark.y}" for mark in marks)
        return DrawnLine(one.name, one.colour, one.dashed, marks, line, " ".join(upper + lower) if bands else "")

    return LinePlot(
        x_label=x_label,
        y_label="accuracy on test images",
        x_ticks=tuple(Tick(across(at), text) for at, text in x_ticks),
        y_ticks=tuple(Tick(down(share), percent(share, 0)) for share in ticks(bottom, top)),
        series=tuple(drawn(number, one) for number, one in enumerate(lines)),
    )
