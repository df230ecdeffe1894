"""Results of ``dagaug score --shots`` as texts and plot positions for the HTML page."""

from __future__ import annotations

from dataclasses import dataclass

from dagaug.report.accuracy_plots import LineData, LinePlot, line_plot
from dagaug.report.palette import arm_colours
from dagaug.report.wording import interval, percent
from dagaug.score.shot_results import ShotsResult

__all__ = ["ShotsRow", "ShotsView", "shots_view"]


@dataclass(frozen=True)
class ShotsRow:
    """An arm: its colour (an index into the palette), and mean and interval for each number of images, as texts."""

    arm: str
    colour: int
    accuracies: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ShotsView:
    """Texts and positions of the section on numbers of training images a class.

    Attributes:
        verdict: verdict on all numbers; empty without comparisons.
        columns: (number of images a class, number of training images) of each column.
        rows: one for each arm.
        plot: accuracy against the number of images a class, a line for each arm; None with a single number.
        sentences: (verdict, sentence) of each number.
        notes: remarks.
    """

    verdict: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[ShotsRow, ...]
    plot: LinePlot | None
    sentences: tuple[str, ...]
    notes: tuple[str, ...]


def shots_view(result: ShotsResult) -> ShotsView:
    """Texts and positions of a score at several numbers of training images a class."""
    names = list(dict.fromkeys(arm.arm for point in result.shots for arm in point.arms))
    colours = arm_colours(names)
    found = [{arm.arm: arm.accuracy for arm in point.arms} for point in result.shots]
    return ShotsView(
        verdict=result.verdict or "",
        columns=tuple((f"{point.per_class:,} a class", f"{point.real:,} images") for point in result.shots),
        rows=tuple(
            ShotsRow(
                name,
                colours[name],
                tuple(
                    (percent(of[name].mean), interval(of[name].low, of[name].high)) if name in of else ("–", "")
                    for of in found
                ),
            )
            for name in names
        ),
        plot=_plot(result, names, colours),
        sentences=result.sentences,
        notes=result.notes,
    )


def _plot(result: ShotsResult, names: list[str], colours: dict[str, int]) -> LinePlot | None:
    if len(result.shots) < 2:
        return None
    lines = []
    for name in names:
        points = [(p.per_class, arm.accuracy) for p in result.shots for arm in p.arms if arm.arm == name]
        ends = [(one.mean, one.low, one.high) for _, one in points]
        lines.append(LineData(name, colours[name], name == "real", [count for count, _ in points], ends))
    numbers = [point.per_class for point in result.shots]
    return line_plot(
        "training images a class (log scale)",
        [(number, f"{number:,}") for number in numbers],
        lines,
        logarithmic=True,
        bands=False,
    )
