"""Curves of a training run: reads ``metrics.jsonl`` and lays out each loss term as an SVG path."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

__all__ = ["HEIGHT", "WIDTH", "LossCurve", "Metrics", "bin_steps", "loss_curves", "read_metrics"]

WIDTH, HEIGHT = 300, 96
"""Size of the coordinate system of :attr:`LossCurve.line`; y grows downward."""

_BINS = 80


_LOGARITHMIC = 12.0  # ratio of largest to median value above which a linear axis would show a flat line


@dataclass(frozen=True)
class Metrics:
    """Content of ``metrics.jsonl``.

    Attributes:
        terms: for each loss term its steps and values, in the order of the file.
        unreadable: number of malformed lines, e.g. the line that a killed run was writing.
    """

    terms: dict[str, tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]]
    unreadable: int


@dataclass(frozen=True)
class LossCurve:
    """One loss term over the training.

    Attributes:
        name: of the term.
        line: SVG path of the mean of each bin of steps.
        band: SVG path of the area between the smallest and largest value of each bin.
        low, high: values at the bottom and the top.
        first, last: steps at the left and the right.
        latest: mean of the last bin.
        logarithmic: whether the vertical axis is logarithmic.
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
    """Read ``metrics.jsonl``. If a resumed run repeated steps, the later values count.

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


def loss_curves(metrics: Metrics) -> list[LossCurve]:
    """The curve of every loss term that has at least two values."""
    return [_curve(name, *points) for name, points in metrics.terms.items() if len(points[0]) > 1]


def bin_steps(
    steps: Float[np.ndarray, " N"], values: Float[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"], Float[np.ndarray, " M"], Float[np.ndarray, " M"]]:
    """Divide the steps into up to 80 bins: mean step, and mean, smallest and largest value of each bin."""
    parts = np.array_split(np.arange(len(steps)), min(_BINS, len(steps)))
    middle = np.array([steps[part].mean() for part in parts])
    mean = np.array([values[part].mean() for part in parts])
    smallest = np.array([values[part].min() for part in parts])
    largest = np.array([values[part].max() for part in parts])
    return middle, mean, smallest, largest


def _curve(name: str, steps: Float[np.ndarray, " N"], values: Float[np.ndarray, " N"]) -> LossCurve:
    middle, mean, smallest, largest = bin_steps(steps, values)
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
    return LossCurve(
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
    """Ends of the axis: all of the line and nearly all of the band. They differ even if the values do not."""
    low = float(min(mean.min(), np.percentile(smallest, 3)))
    high = float(max(mean.max(), np.percentile(largest, 97)))
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):
        reach = abs(low) / 2 or 1.0
        return low - reach, high + reach
    return low, high


def _path(x: Sequence[float] | Float[np.ndarray, " M"], y: Sequence[float] | Float[np.ndarray, " M"]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
