"""Figures for papers: each plot as PDF (vectors, embedded fonts) or PNG. No files are read or written.

An arm has the same colour as on the HTML page.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import matplotlib
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import NullLocator

from dagaug.report.loss_curves import Metrics, bin_steps
from dagaug.report.palette import ARMS, GAIN, HARM, PALETTE, arm_colours
from dagaug.report.scatter import Scatter
from dagaug.report.wording import display_names
from dagaug.score.results import ScoreResult
from dagaug.score.shot_results import ShotsResult
from dagaug.score.statistics import ConfidenceInterval

__all__ = [
    "FIGURE_FORMATS",
    "FigureFormat",
    "cloud_figure",
    "picture_figure",
    "score_figures",
    "shots_figures",
    "training_figure",
]

FigureFormat = Literal["png", "pdf"]


FIGURE_FORMATS: tuple[FigureFormat, ...] = get_args(FigureFormat)

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.linewidth": 0.4,
    "grid.color": "#dddddd",
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType, which journals ask for
    "pdf.compression": 9,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.03,
}


_WHOLE: dict[Any, Any] = {"savefig.bbox": None, "pdf.compression": 9}


_COLUMN, _PAGE = 3.4, 7.0  # widths in inches of a column and of a page


_DPI = 300


_LONGEST_NAME = 40

_ENDS = ("mean", "low", "high")


_CLOUD_LOOKS: tuple[dict[str, Any], ...] = (
    {"marker": "o", "filled": True, "size": 9, "alpha": 0.75},
    {"marker": "D", "filled": False, "size": 16, "alpha": 1},
    {"marker": "o", "filled": False, "size": 16, "alpha": 1},
)  # of the kinds of images in a data cloud


def _colour(place: int) -> str:
    return PALETTE[place][0]


def _printable(name: str) -> str:
    """A name as one short line of valid Unicode."""
    line = " ".join(name.encode("utf-8", "replace").decode().split())
    return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 1] + "…"


def _saved(figure: Figure, form: FigureFormat) -> bytes:
    """The encoded figure; without time stamps, so that equal figures give equal bytes."""
    metadata = {"CreationDate": None, "Creator": None, "Producer": None} if form == "pdf" else {"Software": None}
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)  # missing glyphs are drawn as boxes
        figure.savefig(out, format=form, dpi=_DPI, metadata=metadata)
    return out.getvalue()


def _plain(width: float | int, height: float | int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Label the rows, the first on top."""
    axes.set_yticks(range(len(names)), labels=[_printable(name) for name in names], parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _estimate(axes: Axes, row: float | int, one: ConfidenceInterval, colour: str, *, filled: bool = True) -> None:
    """Draw a mean and its interval, in per cent, in a row."""
    axes.errorbar(
        100 * one.mean, row, xerr=[[100 * (one.mean - one.low)], [100 * (one.high - one.mean)]], fmt="o", color=colour,
        markerfacecolor=colour if filled else "white", elinewidth=1, capsize=2, markersize=4,
    )  # fmt: skip


def _arms(score: ScoreResult) -> Figure:
    names = [arm.arm for arm in score.arms]
    places = arm_colours(names)
    figure, axes = _plain(_COLUMN, 0.5 + 0.26 * len(names))
    for row, arm in enumerate(score.arms):
        colour = _colour(places[arm.arm])
        axes.plot([100 * one for one in arm.accuracies], [row + 0.22] * len(arm.accuracies), "|", color=colour,
                  markersize=4, markeredgewidth=0.8)  # fmt: skip
        _estimate(axes, row, arm.accuracy, colour)
        if arm.arm == "real":
            axes.axvline(100 * arm.accuracy.mean, color=colour, linewidth=0.6, linestyle=":")
    _rows(axes, names)
    axes.set_xlabel(f"top-1 accuracy on {score.test:,} test images (%)")
    return figure


def _differences(score: ScoreResult) -> Figure:
    places = arm_colours([one.arm for one in score.comparisons])
    figure, axes = _plain(_COLUMN, 0.5 + 0.22 * len(score.comparisons))
    for row, one in enumerate(score.comparisons):
        _estimate(axes, row, one.difference, _colour(places[one.arm]), filled=one.verdict != "no measurable effect")
    axes.axvline(0, color="black", linewidth=0.6)
    _rows(axes, [f"{one.arm} against {one.baseline}" for one in score.comparisons])
    axes.set_xlabel("difference of accuracy, paired by seed (points)")
    return figure


def _classes(score: ScoreResult) -> Figure:
    first = score.comparisons[0]
    named = sorted(
        zip(display_names([one.name for one in first.classes]), first.classes, strict=True),
        key=lambda pair: -pair[1].difference.mean,
    )
    figure, axes = _plain(_COLUMN, 0.5 + 0.16 * len(named))
    for row, (_, one) in enumerate(named):
        colour = (GAIN if one.difference.mean > 0 else HARM)[0]
        _estimate(axes, row, one.difference, colour, filled=one.sure)
    axes.axvline(0, color="black", linewidth=0.6)
    _rows(axes, [name for name, _ in named])
    axes.set_xlabel(f"change of accuracy, {_printable(first.arm)} against {_printable(first.baseline)} (points)")
    return figure


def _line(
    axes: Axes, x: Sequence[float | int], y: Sequence[ConfidenceInterval], name: str, arm: str, style: str = "-"
) -> None:
    """Draw a line through means, with intervals."""
    mean, low, high = (100 * np.array([getattr(one, end) for one in y]) for end in _ENDS)
    colour = _colour(ARMS[arm])
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.errorbar(
        x, mean, yerr=[mean - low, high - mean], fmt=f"o{style}", color=colour, label=name, elinewidth=1, capsize=2,
        markersize=4,
    )  # fmt: skip


def _fractions(score: ScoreResult) -> Figure:
    figure, axes = _plain(_COLUMN, 2.4)
    counts = [float(point.real) for point in score.fractions]
    _line(axes, counts, [point.without for point in score.fractions], "real", "real", "--")
    _line(axes, counts, [point.with_synthetic for point in score.fractions], "real + synthetic", "real+dagaug")
    axes.set_xscale("log")
    axes.set_xticks(counts, labels=[f"{count:,.0f}" for count in counts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("real training images (log scale)")
    axes.set_ylabel(f"top-1 accuracy on {score.test:,} test images (%)")
    axes.grid(axis="y")
    axes.legend()
    return figure


def _ratios(score: ScoreResult) -> Figure:
    figure, axes = _plain(_COLUMN, 2.4)
    shares = [100 * one.share for one in score.ratios]
    _line(axes, shares, [one.accuracy for one in score.ratios], "real + synthetic", "real+dagaug")
    real = next((arm.accuracy for arm in score.arms if arm.arm == "real"), None)
    if real is not None:
        _line(axes, [shares[0], shares[-1]], [real, real], "real", "real", "--")
    axes.set_xlabel("synthetic share of a batch (%)")
    axes.set_ylabel(f"top-1 accuracy on {score.test:,} test images (%)")
    axes.grid(axis="y")
    axes.legend()
    return figure


def score_figures(score: ScoreResult, form: FigureFormat) -> Iterator[tuple[str, bytes]]:
    """All plots that the numbers of a score allow: name and content of each file."""
    wanted = {
        "accuracy": (_arms, bool(score.arms)),
        "differences": (_differences, bool(score.comparisons)),
        "classes": (_classes, bool(score.comparisons and score.comparisons[0].classes)),
        "fractions": (_fractions, len(score.fractions) > 1),
        "ratios": (_ratios, len(score.ratios) > 1),
    }
    with matplotlib.rc_context(_STYLE):
        for name, (draw, there) in wanted.items():
            if there:
                yield name, _saved(draw(score), form)


def shots_figures(result: ShotsResult, form: FigureFormat) -> Iterator[tuple[str, bytes]]:
    """Accuracy against the number of training images a class: name and content of the file; none with one number."""
    if len(result.shots) < 2:
        return
    names = list(dict.fromkeys(arm.arm for point in result.shots for arm in point.arms))
    places = arm_colours(names)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _plain(_COLUMN, 2.6)
        for number, name in enumerate(names):
            aside = 1 + 0.015 * (number - (len(names) - 1) / 2)
            points = [(p.per_class, arm.accuracy) for p in result.shots for arm in p.arms if arm.arm == name]
            mean, low, high = (100 * np.array([getattr(one, end) for _, one in points]) for end in _ENDS)
            axes.errorbar(
                [count * aside for count, _ in points], mean, yerr=[mean - low, high - mean],
                fmt="o--" if name == "real" else "o-", color=_colour(places[name]), label=_printable(name),
                elinewidth=1, capsize=2, markersize=3.5,
            )  # fmt: skip
        counts = [point.per_class for point in result.shots]
        axes.set_xscale("log")
        axes.set_xticks(counts, labels=[f"{count:,}" for count in counts])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("training images a class (log scale)")
        axes.set_ylabel(f"top-1 accuracy on {result.test:,} test images (%)")
        axes.grid(axis="y")
        axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=3, fontsize=7, columnspacing=1)
        yield "shots", _saved(figure, form)


def training_figure(metrics: Metrics, form: FigureFormat) -> bytes | None:
    """Small plots of all loss terms, side by side; None if there are none."""
    terms = {name: points for name, points in metrics.terms.items() if len(points[0]) > 1}
    if not terms:
        return None
    columns = min(4, len(terms))
    rows = math.ceil(len(terms) / columns)
    with matplotlib.rc_context({**_STYLE, "font.size": 7, "axes.titlesize": 7}):
        figure = Figure(figsize=(_PAGE, 0.3 + 1.45 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for place, axes in enumerate(grid.flat):
            axes.set_visible(place < len(terms))
        for axes, (name, points) in zip(grid.flat, terms.items(), strict=False):
            steps, mean, low, high = bin_steps(*points)
            axes.fill_between(steps, low, high, color=_colour(2), alpha=0.2, linewidth=0)
            axes.plot(steps, mean, color=_colour(2))
            axes.set_title(_printable(name), parse_math=False, loc="left")
        for axes in grid[-1]:
            axes.set_xlabel("step")
        return _saved(figure, form)


def cloud_figure(cloud: Scatter, form: FigureFormat) -> bytes:
    """The data cloud with class names. It has no axes, because they would have no meaning."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_PAGE, _PAGE))
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.set_aspect("equal")
        axes.invert_yaxis()
        colours = np.array([_colour(group.colour) for group in cloud.groups])[cloud.group]
        for place, (kind, look) in enumerate(zip(cloud.kinds, _CLOUD_LOOKS, strict=True)):
            chosen = cloud.kind == place
            if chosen.any():
                filled = colours[chosen] if look["filled"] else "white"
                shape: dict[str, Any] = {"s": look["size"], "marker": look["marker"], "linewidths": 0.7}
                x, y = cloud.points[chosen].T
                axes.scatter(x, y, c=filled, edgecolors=colours[chosen], alpha=look["alpha"], **shape)
                grey = "#444444" if look["filled"] else "white"
                axes.scatter([], [], c=grey, edgecolors="#444444", label=kind, **shape)
        for group in cloud.groups:
            axes.text(
                group.x, group.y, _printable(group.name), fontsize=6.5, ha="center", va="center", parse_math=False,
                path_effects=[Stroke(linewidth=2, foreground="white"), Normal()],
            )  # fmt: skip
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=len(cloud.kinds))
        return _saved(figure, form)


def picture_figure(pixels: UInt8[np.ndarray, "H W 3"], form: FigureFormat) -> bytes:
    """A contact sheet as a figure of page width, without resampling."""
    height, width = pixels.shape[:2]
    with matplotlib.rc_context(_WHOLE):
        figure = Figure(figsize=(_PAGE, _PAGE * height / width))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.imshow(pixels, interpolation="none", aspect="auto")
        return _saved(figure, form)
