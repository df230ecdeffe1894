"""Plots of shares as places in per cent of a box, so that a page can draw them at any width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dagaug.wording import interval, percent

__all__ = ["Line", "Mark", "Plot", "Series", "Tick", "plot", "ticks"]


@dataclass(frozen=True)
class Tick:
    """A number on an axis and its place in per cent from the left or the top."""

    place: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A point of a line and the ends of its interval, in per cent from the left and the top."""

    x: float
    y: float
    high: float
    low: float
    text: str


@dataclass(frozen=True)
class Line:
    """What is to be drawn: ``y`` holds mean, low and high of shares in [0, 1]; ``colour`` is a place in the palette."""

    name: str
    colour: int
    dashed: bool
    x: Sequence[float | int]
    y: Sequence[tuple[float | int, float | int, float | int]]


@dataclass(frozen=True)
class Series:
    """A line; ``line`` and ``band`` are points of SVG in a square of 100."""

    name: str
    colour: int
    dashed: bool
    marks: tuple[Mark, ...]
    line: str
    band: str


@dataclass(frozen=True)
class Plot:
    """Lines over common axes."""

    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Series, ...]


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


def plot(
    x_label: str, x_ticks: Sequence[tuple[float | int, str]], lines: Sequence[Line], *, logarithmic: bool = False
) -> Plot:
    """Lay lines over common axes.

    Args:
        x_label: what x is.
        x_ticks: values of x in rising order and how they are written; the first and the last are the axis's ends.
        lines: at least one, each with at least one point.
        logarithmic: whether equal steps of x are equal ratios.
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

    def drawn(one: Line) -> Series:
        marks = tuple(
            Mark(across(at), down(mean), down(high), down(low), f"{percent(mean)} ({interval(low, high)})")
            for at, (mean, low, high) in zip(one.x, one.y, strict=True)
        )
        upper = [f"{mark.x},{mark.high}" for mark in marks]
        lower = [f"{mark.x},{mark.low}" for mark in reversed(marks)]
        line = " ".join(f"{mark.x},{mark.y}" for mark in marks)
        return Series(one.name, one.colour, one.dashed, marks, line, " ".join(upper + lower))

    return Plot(
        x_label=x_label,
        y_label="accuracy on test images",
        x_ticks=tuple(Tick(across(at), text) for at, text in x_ticks),
        y_ticks=tuple(Tick(down(share), percent(share, 0)) for share in ticks(bottom, top)),
        series=tuple(map(drawn, lines)),
    )
