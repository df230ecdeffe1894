"""The JSON of ``dagaug score`` as rows of a table, with places on a common axis for a plot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError
from pydantic.types import JsonValue

from dagaug.errors import DataError

__all__ = ["HEIGHT", "WIDTH", "ClassRow", "CompareRow", "Curve", "FractionRow", "ScoreRow", "ScoreTable", "read_score"]

WIDTH, HEIGHT = 300, 120
"""Of a curve, in units of its own."""

_VERDICTS = Literal["helps", "no measurable effect", "harms"]


class _Estimate(BaseModel):
    mean: float
    low: float
    high: float


class _Arm(BaseModel):
    arm: str
    images: int = 0
    accuracies: list[float]
    accuracy: _Estimate
    calibration_error: _Estimate | None = None


class _Class(BaseModel):
    name: str
    difference: _Estimate
    sure: bool


class _Confusion(BaseModel):
    truth: str
    taken_for: str
    before: float
    after: float


class _Comparison(BaseModel):
    arm: str
    baseline: str = "real"
    difference: _Estimate
    p: float
    p_images: float | None = None
    verdict: _VERDICTS
    classes: list[_Class] = []
    better: list[_Confusion] = []
    worse: list[_Confusion] = []


class _Fraction(BaseModel):
    fraction: float
    real: int
    synthetic: int
    without: _Estimate
    with_synthetic: _Estimate
    worth: float | None


class _Ratio(BaseModel):
    share: float
    accuracy: _Estimate
    difference: _Estimate


class _Score(BaseModel):
    """What the table needs of the JSON; shares are in [0, 1], other keys are ignored."""

    arms: list[_Arm]
    comparisons: list[_Comparison]
    sentences: list[str]
    classes: int
    real: int
    synthetic: int
    test: int
    steps: int
    synthetic_share: float
    options: dict[str, JsonValue]
    fractions: list[_Fraction] = []
    ratios: list[_Ratio] = []
    notes: list[str] = []


@dataclass(frozen=True)
class ScoreRow:
    """An arm. Numbers are texts; ``low``, ``width``, ``mean`` and ``dots`` are per cent of the axis."""

    arm: str
    synthetic: str
    accuracy: str
    interval: str
    low: float
    width: float
    mean: float
    dots: tuple[float, ...]
    difference: str
    difference_interval: str
    p: str
    calibration: str


@dataclass(frozen=True)
class CompareRow:
    """An arm against another than ``real``, as texts."""

    arm: str
    baseline: str
    difference: str
    interval: str
    p: str
    p_images: str
    verdict: str


@dataclass(frozen=True)
class ClassRow:
    """Gain of a class; its bar (``left``, ``width``) and interval (``low``, ``reach``) in per cent of the axis."""

    name: str
    difference: str
    interval: str
    left: float
    width: float
    low: float
    reach: float
    sign: str
    sure: bool


@dataclass(frozen=True)
class FractionRow:
    """A number of real images, as texts."""

    real: str
    synthetic: str
    without: str
    with_synthetic: str
    worth: str


@dataclass(frozen=True)
class Curve:
    """Accuracy against number of real images: points for SVG (:data:`WIDTH` × :data:`HEIGHT`), ends of the axes."""

    without: str
    with_synthetic: str
    accuracies: tuple[str, str]
    counts: tuple[str, str]


@dataclass(frozen=True)
class ScoreTable:
    """Attributes as they stand on the page.

    Attributes:
        sentences: (verdict, sentence) of each comparison.
        rows: one for each arm.
        axis: the accuracies at both ends of the axis.
        setting: what was trained on what, in a sentence.
        compared: comparisons with other arms than ``real``.
        question: the arm that the classes are about.
        classes: gain of each class, the greatest first.
        class_axis: the gain at both ends of their axis.
        better, worse: confusions that became rarer and more frequent, in words.
        fractions: accuracy against number of real images; with two of them and more also as a curve.
        ratios: (share, accuracy, difference) of other synthetic shares.
        notes: what a reader should know.
    """

    sentences: tuple[tuple[str, str], ...]
    rows: tuple[ScoreRow, ...]
    axis: tuple[str, str]
    setting: str
    compared: tuple[CompareRow, ...]
    question: str
    classes: tuple[ClassRow, ...]
    class_axis: str
    better: tuple[str, ...]
    worse: tuple[str, ...]
    fractions: tuple[FractionRow, ...]
    curve: Curve | None
    ratios: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]


def read_score(path: Path) -> ScoreTable:
    """Read the file.

    Raises:
        DataError: it is missing or no score.
    """
    try:
        score = _Score.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it first: dagaug score") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise DataError(f"{path}: not a score ({reason}); make it anew: dagaug score") from error
    return _table(score)


def _table(score: _Score) -> ScoreTable:
    low, high = _axis(score)

    def place(share: float) -> float:
        return round(100 * min(1.0, max(0.0, (share - low) / (high - low))), 2)

    compared = {one.arm: one for one in score.comparisons if one.baseline == "real"}
    first = score.comparisons[0] if score.comparisons else None
    classes, class_axis = _classes(first.classes if first else [])
    return ScoreTable(
        # A sentence without a comparison has no verdict to colour it.
        sentences=tuple(
            (score.comparisons[index].verdict if index < len(score.comparisons) else "", sentence)
            for index, sentence in enumerate(score.sentences)
        ),
        rows=tuple(
            ScoreRow(
                arm=arm.arm,
                synthetic=f"{arm.images:,}" if arm.images else "",
                accuracy=f"{100 * arm.accuracy.mean:.1f}%",
                interval=_interval(arm.accuracy, ".1f"),
                low=place(arm.accuracy.low),
                width=round(place(arm.accuracy.high) - place(arm.accuracy.low), 2),
                mean=place(arm.accuracy.mean),
                dots=tuple(map(place, arm.accuracies)),
                difference=_signed(compared[arm.arm].difference.mean) if arm.arm in compared else "",
                difference_interval=(_interval(compared[arm.arm].difference, "+.1f") if arm.arm in compared else ""),
                p=f"{compared[arm.arm].p:.2g}" if arm.arm in compared else "",
                calibration=f"{100 * arm.calibration_error.mean:.1f}" if arm.calibration_error else "",
            )
            for arm in score.arms
        ),
        axis=(f"{100 * low:.0f}%", f"{100 * high:.0f}%"),
        setting=_setting(score),
        compared=tuple(_compared(one) for one in score.comparisons if one.baseline != "real"),
        question=first.arm if first else "",
        classes=classes,
        class_axis=class_axis,
        better=tuple(map(_confusion, first.better if first else [])),
        worse=tuple(map(_confusion, first.worse if first else [])),
        fractions=tuple(_fraction(point) for point in score.fractions),
        curve=_curve(score.fractions),
        ratios=tuple(
            (f"{one.share:.0%}", f"{100 * one.accuracy.mean:.1f}%", _signed(one.difference.mean))
            for one in score.ratios
        ),
        notes=tuple(score.notes),
    )


def _compared(one: _Comparison) -> CompareRow:
    return CompareRow(
        one.arm,
        one.baseline,
        _signed(one.difference.mean),
        _interval(one.difference, "+.1f"),
        f"{one.p:.2g}",
        "" if one.p_images is None else f"{one.p_images:.2g}",
        one.verdict,
    )


def _classes(classes: list[_Class]) -> tuple[tuple[ClassRow, ...], str]:
    """Bars from the middle of an axis that spans the greatest interval, and the gain at its right end."""
    span = max((max(abs(one.difference.low), abs(one.difference.high)) for one in classes), default=0.0)
    span = min(1.0, span) or 1.0

    def place(gain: float) -> float:
        return round(50 + 50 * min(1.0, max(-1.0, gain / span)), 2)

    rows = tuple(
        ClassRow(
            name=one.name,
            difference=_signed(one.difference.mean),
            interval=_interval(one.difference, "+.1f"),
            left=min(50.0, place(one.difference.mean)),
            width=round(abs(place(one.difference.mean) - 50), 2),
            low=place(one.difference.low),
            reach=round(place(one.difference.high) - place(one.difference.low), 2),
            sign="up" if one.difference.mean > 0 else "down",
            sure=one.sure,
        )
        for one in sorted(classes, key=lambda one: -one.difference.mean)
    )
    return rows, f"{100 * span:.0f}"


def _confusion(one: _Confusion) -> str:
    return f"{one.truth} taken for {one.taken_for}: {one.before:.0%} before, {one.after:.0%} now"


def _fraction(point: _Fraction) -> FractionRow:
    return FractionRow(
        f"{point.real:,}",
        f"{point.synthetic:,}",
        f"{100 * point.without.mean:.1f}%",
        f"{100 * point.with_synthetic.mean:.1f}%",
        "" if point.worth is None else f"{point.worth:,.0f}",
    )


def _curve(points: list[_Fraction]) -> Curve | None:
    if len(points) < 2:
        return None
    values = [value for point in points for value in (point.without.mean, point.with_synthetic.mean)]
    low, high = min(values), max(values)
    few, many = points[0].real, points[-1].real

    def line(values: list[float]) -> str:
        return " ".join(
            f"{WIDTH * (point.real - few) / max(many - few, 1):.1f},{HEIGHT * (high - value) / ((high - low) or 1):.1f}"
            for point, value in zip(points, values, strict=True)
        )

    return Curve(
        line([point.without.mean for point in points]),
        line([point.with_synthetic.mean for point in points]),
        (f"{100 * low:.1f}%", f"{100 * high:.1f}%"),
        (f"{few:,}", f"{many:,}"),
    )


def _axis(score: _Score) -> tuple[float, float]:
    """Whole per cents round everything that is drawn, within 0 to 100%."""
    drawn = [value for arm in score.arms for value in arm.accuracies]
    drawn += [value for arm in score.arms for value in (arm.accuracy.low, arm.accuracy.high)]
    low, high = min(drawn, default=0.0), max(drawn, default=1.0)
    low, high = max(0.0, 100 * low // 1 / 100 - 0.01), min(1.0, -(-100 * high // 1) / 100 + 0.01)
    return (low, high) if high > low else (0.0, 1.0)


def _signed(share: float) -> str:
    """Points with their sign; nothing is negative that rounds to nothing."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def _interval(estimate: _Estimate, style: str) -> str:
    return f"{100 * estimate.low:{style}} to {100 * estimate.high:{style}}"


def _setting(score: _Score) -> str:
    fit = score.options.get("fit")
    network = fit.get("name") if isinstance(fit, dict) else None
    seeds = max((len(arm.accuracies) for arm in score.arms), default=0)
    return (
        f"{network or 'The same classifier'} from {seeds} seeds, {score.steps:,} steps in every arm; "
        f"{score.real:,} real and {score.synthetic:,} synthetic training images, {score.synthetic_share:.0%} of a "
        f"batch synthetic where there are any; {score.test:,} test images of {score.classes:,} classes."
    )
