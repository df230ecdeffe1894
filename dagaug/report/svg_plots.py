"""Plots of shares as places in per cent of a box, so that a page can draw them at any width."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dagaug.report.wording import interval, percent

__all__ = [
    "HEIGHT",
    "WIDTH",
    "Curve",
    "Line",
    "Mark",
    "Metrics",
    "Plot",
    "Series",
    "Tick",
    "draw",
    "plot",
    "read_metrics",
    "stretches",
    "ticks",
]


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


WIDTH, HEIGHT = 300, 96
"""Of the coordinates in :attr:`Curve.line`; y grows downward."""

_BUCKETS = 80


_LOGARITHMIC = 12.0  # largest over middle value from which a linear axis would show a flat line


@dataclass(frozen=True)
class Metrics:
    """What the file says.

    Attributes:
        terms: for each term its steps and values, in the order of the file.
        unreadable: lines that are not what they should be, such as the one that a killed run was writing.
    """

    terms: dict[str, tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]]
    unreadable: int


@dataclass(frozen=True)
class Curve:
    """One term over the training.

    Attributes:
        name: of the term.
        line: path of the mean of each short stretch of steps.
        band: path of the area between the smallest and largest value of each stretch.
        low, high: values at the bottom and the top.
        first, last: steps at the left and the right.
        latest: mean of the last stretch.
        logarithmic: whether equal heights are equal ratios.
    """

    name: str
    line: str
    band: str
    low: float
    high: float
    first: int
    last: int
    latest: float
    logarithmic: bool


def read_metrics(path: Path) -> Metrics:
    """Read a file of metrics; where a resumed run went back, what it did again replaces what was.

    Raises:
        OSError: the file cannot be read.
    """
    records: list[tuple[float, dict[str, float]]] = []
    unreadable = 0
    for line in path.read_bytes().splitlines():
        if not line.strip():
            continue
        record = _record(line)
        if record is None:
            unreadable += 1
            continue
        while records and records[-1][0] >= record[0]:
            records.pop()
        records.append(record)
    names = dict.fromkeys(name for _, values in records for name in values)
    terms = {}
    for name in names:
        points = [(step, values[name]) for step, values in records if name in values]
        steps, values = np.array(points, np.float64).T
        terms[name] = (steps, values)
    return Metrics(terms, unreadable)


def _record(line: bytes) -> tuple[float, dict[str, float]] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not _finite(record.get("step")):
        return None
    values = {name: float(value) for name, value in record.items() if name != "step" and _finite(value)}
    return float(record["step"]), values


def _finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def draw(metrics: Metrics) -> list[Curve]:
    """Draw every term that has at least two values."""
    return [_curve(name, *points) for name, points in metrics.terms.items() if len(points[0]) > 1]


def stretches(
    steps: Float[np.ndarray, " N"], values: Float[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"], Float[np.ndarray, " M"], Float[np.ndarray, " M"]]:
    """Means of the steps, and means, smallest and largest of the values, over up to 80 short stretches of steps."""
    parts = np.array_split(np.arange(len(steps)), min(_BUCKETS, len(steps)))
    middle = np.array([steps[part].mean() for part in parts])
    mean = np.array([values[part].mean() for part in parts])
    smallest = np.array([values[part].min() for part in parts])
    largest = np.array([values[part].max() for part in parts])
    return middle, mean, smallest, largest


def _curve(name: str, steps: Float[np.ndarray, " N"], values: Float[np.ndarray, " N"]) -> Curve:
    middle, mean, smallest, largest = stretches(steps, values)
    logarithmic = bool(smallest.min() > 0 and mean.max() > _LOGARITHMIC * np.median(mean))
    low, high = _limits(mean, smallest, largest)
    across = WIDTH * (middle - middle[0]) / (middle[-1] - middle[0])

    def down(heights: Float[np.ndarray, " M"]) -> Float[np.ndarray, " M"]:
        bottom, top = low, high
        if logarithmic:
            heights, bottom, top = np.log(heights), math.log(low), math.log(high)
        share = (heights - bottom) / (top - bottom)
        return HEIGHT * (1 - np.clip(share, -0.05, 1.05))

    edge = np.concatenate([across, across[::-1]])
    around = np.concatenate([down(largest), down(smallest)[::-1]])
    return Curve(
        name=name,
        line=_path(across, down(mean)),
        band=_path(edge, around) + "Z",
        low=low,
        high=high,
        first=round(steps[0]),
        last=round(steps[-1]),
        latest=float(mean[-1]),
        logarithmic=logarithmic,
    )


def _limits(
    mean: Float[np.ndarray, " M"], smallest: Float[np.ndarray, " M"], largest: Float[np.ndarray, " M"]
) -> tuple[float, float]:
    """Ends of the axis: all of the line and nearly all of the band; apart even where nothing changes."""
    low = float(min(mean.min(), np.percentile(smallest, 3)))
    high = float(max(mean.max(), np.percentile(largest, 97)))
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):
        reach = abs(low) / 2 or 1.0
        return low - reach, high + reach
    return low, high


def _path(x: Sequence[float] | Float[np.ndarray, " M"], y: Sequence[float] | Float[np.ndarray, " M"]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
