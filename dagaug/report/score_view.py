"""The JSON of ``dagaug score`` in words and as places on common axes, for the page's tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dagaug.report.palette import ARMS, arm_places
from dagaug.report.svg_plots import Line, Plot, Tick, plot, ticks
from dagaug.report.wording import arm_words, interval, names_of, p_value, percent, signed
from dagaug.score.results import Comparison, FractionPoint, ScoreResult
from dagaug.score.statistics import ClassGain, ConfidenceInterval, ConfusionChange

__all__ = ["ClassRow", "CompareRow", "FractionRow", "ScoreRow", "ScoreTable", "score_table"]


_HEADLINES = {
    "helps": "Yes, they help.",
    "no measurable effect": "No measurable effect.",
    "harms": "No, they harm.",
}


@dataclass(frozen=True)
class ScoreRow:
    """An arm. Numbers are texts; ``low``, ``width``, ``mean`` and ``dots`` are per cent of the axis.

    Attributes:
        colour: place in the palette, the same in every plot.
        words: what it was trained on.
    """

    arm: str
    colour: int
    words: str
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
    """A number of real images, as texts; estimates with their intervals."""

    real: str
    synthetic: str
    without: tuple[str, str]
    with_synthetic: tuple[str, str]
    difference: tuple[str, str]
    worth: str


@dataclass(frozen=True)
class ScoreTable:
    """Attributes as they stand on the page.

    Attributes:
        headline: the answer in a few words; empty where nothing was compared.
        verdict: of the first comparison.
        answer: the answer in plain sentences: what was asked, and what the controls say of it.
        sentences: (verdict, sentence) of each comparison, as ``dagaug score`` prints them.
        rows: one for each arm.
        ticks: of the axis of accuracies.
        zero: place of the mean of ``real`` on that axis.
        setting: what was trained on what, in a sentence.
        compared: comparisons with other arms than ``real``.
        question: the arm that the classes are about.
        classes: gain of each class, the greatest first.
        class_ticks: of the axis of gains.
        sure: how many classes surely gained, and how many surely lost.
        better, worse: confusions that became rarer and more frequent, in words.
        fractions: accuracy against number of real images; with two of them and more also as a plot.
        ratios: (share, accuracy, difference) of other synthetic shares, with their plot.
        guards: (whether all is well, sentence) about leaks of test images.
        notes: what a reader should know.
    """

    headline: str
    verdict: str
    answer: tuple[str, ...]
    sentences: tuple[tuple[str, str], ...]
    rows: tuple[ScoreRow, ...]
    ticks: tuple[Tick, ...]
    zero: float | None
    setting: str
    compared: tuple[CompareRow, ...]
    question: str
    classes: tuple[ClassRow, ...]
    class_ticks: tuple[Tick, ...]
    sure: tuple[int, int]
    better: tuple[str, ...]
    worse: tuple[str, ...]
    fractions: tuple[FractionRow, ...]
    fraction_plot: Plot | None
    ratios: tuple[tuple[str, str, str], ...]
    ratio_plot: Plot | None
    guards: tuple[tuple[bool, str], ...]
    notes: tuple[str, ...]


def score_table(score: ScoreResult) -> ScoreTable:
    """Everything of a score that stands on a page."""
    low, high = _axis(score)

    def place(share: float | int) -> float:
        return round(100 * min(1.0, max(0.0, (share - low) / (high - low))), 2)

    colours = arm_places([arm.arm for arm in score.arms])
    compared = {one.arm: one for one in score.comparisons if one.baseline == "real"}
    first = score.comparisons[0] if score.comparisons else None
    classes, class_ticks = _classes(first.classes if first else [])
    return ScoreTable(
        headline=_HEADLINES[first.verdict] if first else "",
        verdict=first.verdict if first else "",
        answer=_answer(score),
        # A sentence without a comparison has no verdict to colour it.
        sentences=tuple(
            (score.comparisons[index].verdict if index < len(score.comparisons) else "", sentence)
            for index, sentence in enumerate(score.sentences)
        ),
        rows=tuple(
            ScoreRow(
                arm=arm.arm,
                colour=colours[arm.arm],
                words=arm_words(arm.arm),
                synthetic=f"{arm.images:,}" if arm.images else "",
                accuracy=percent(arm.accuracy.mean),
                interval=interval(arm.accuracy.low, arm.accuracy.high),
                low=place(arm.accuracy.low),
                width=round(place(arm.accuracy.high) - place(arm.accuracy.low), 2),
                mean=place(arm.accuracy.mean),
                dots=tuple(map(place, arm.accuracies)),
                difference=signed(compared[arm.arm].difference.mean) if arm.arm in compared else "",
                difference_interval=_signed_interval(compared[arm.arm].difference) if arm.arm in compared else "",
                p=p_value(compared[arm.arm].p) if arm.arm in compared else "",
                calibration=f"{100 * arm.calibration_error.mean:.1f}" if arm.calibration_error else "",
            )
            for arm in score.arms
        ),
        ticks=tuple(Tick(place(share), percent(share, 0)) for share in ticks(low, high, 4)),
        zero=next((place(arm.accuracy.mean) for arm in score.arms if arm.arm == "real"), None),
        setting=_setting(score),
        compared=tuple(_compared(one) for one in score.comparisons if one.baseline != "real"),
        question=first.arm if first else "",
        classes=classes,
        class_ticks=class_ticks,
        sure=_sure(first.classes if first else []),
        better=_confusions(first.better if first else [], first),
        worse=_confusions(first.worse if first else [], first),
        fractions=tuple(_fraction(point) for point in score.fractions),
        fraction_plot=_fraction_plot(score.fractions),
        ratios=tuple((percent(one.share, 0), percent(one.accuracy.mean), signed(one.difference.mean))
                     for one in score.ratios),
        ratio_plot=_ratio_plot(score),
        guards=_guards(score),
        notes=tuple(score.notes),
    )  # fmt: skip


# In words


def _answer(score: ScoreResult) -> tuple[str, ...]:
    """What was asked, with both accuracies; then whether the pose itself is what helps."""
    if not score.comparisons:
        return ()
    first = score.comparisons[0]
    accuracy = {arm.arm: arm.accuracy.mean for arm in score.arms}
    seeds = max((len(arm.accuracies) for arm in score.arms), default=0)
    asked = (
        f"{signed(first.difference.mean)} points (95% interval {_signed_interval(first.difference)}, over {seeds} "
        "trainings of each)"
    )
    if {first.arm, first.baseline} <= accuracy.keys():
        asked = (
            f"With them ({first.arm}) the classifier is right on {percent(accuracy[first.arm])} of {score.test:,} test "
            f"images, without them ({first.baseline}) on {percent(accuracy[first.baseline])}: {asked}."
        )
    control = next((one for one in score.comparisons if (one.arm, one.baseline) == (first.arm, "cutout")), None)
    return (asked,) if control is None else (asked, _about_pose(control))


def _about_pose(control: Comparison) -> str:
    """What the cut-out control says: it has the sources and the backgrounds, but not the references' poses."""
    by = f"{signed(control.difference.mean)} points, {_signed_interval(control.difference)}"
    if control.verdict == "helps":
        return f"The pose counts: {control.arm} leads the control that changes only the background (cutout) by {by}."
    if control.verdict == "harms":
        return f"The pose does not help: the control that changes only the background (cutout) does better ({by})."
    return (
        f"Whether the pose counts is not shown: {control.arm} and the control that changes only the background "
        f"(cutout) differ by {by}."
    )


def _setting(score: ScoreResult) -> str:
    fit = score.options.get("fit")
    network = fit.get("name") if isinstance(fit, dict) else None
    seeds = max((len(arm.accuracies) for arm in score.arms), default=0)
    return (
        f"{network or 'The same classifier'} from {seeds} seeds, {score.steps:,} steps in every arm; "
        f"{score.real:,} real and {score.synthetic:,} synthetic training images, {score.synthetic_share:.0%} of a "
        f"batch synthetic where there are any; {score.test:,} test images of {score.classes:,} classes."
    )


def _compared(one: Comparison) -> CompareRow:
    return CompareRow(
        one.arm,
        one.baseline,
        signed(one.difference.mean),
        _signed_interval(one.difference),
        p_value(one.p),
        "" if one.p_images is None else p_value(one.p_images),
        one.verdict,
    )


def _confusions(changes: Sequence[ConfusionChange], comparison: Comparison | None) -> tuple[str, ...]:
    known = [one.name for one in comparison.classes] if comparison else []
    short = dict(zip(known, names_of(known), strict=True))
    return tuple(
        f"{short.get(one.truth, one.truth)} taken for {short.get(one.taken_for, one.taken_for)}: "
        f"{one.before:.0%} before, {one.after:.0%} now"
        for one in changes
    )


def _fraction(point: FractionPoint) -> FractionRow:
    gain = point.difference
    return FractionRow(
        f"{point.real:,}",
        f"{point.synthetic:,}",
        (percent(point.without.mean), interval(point.without.low, point.without.high)),
        (percent(point.with_synthetic.mean), interval(point.with_synthetic.low, point.with_synthetic.high)),
        ("", "") if gain is None else (signed(gain.mean), _signed_interval(gain)),
        "" if point.worth is None else f"{point.worth:,.0f}",
    )


def _guards(score: ScoreResult) -> tuple[tuple[bool, str], ...]:
    found: list[tuple[bool, str]] = []
    near, selector = score.guards.alike, score.guards.selector
    if near:
        usual = next((one.usual for one in near.values() if one.usual is not None), None)
        by_features = all(one.by_features is not None for one in near.values())
        how = "by perceptual hash and by features" if by_features else "by perceptual hash"
        alike = [
            f"{one.count:,} of {f'{one.images:,} ' if one.images else ''}{name}"
            for name, one in near.items()
            if one.count
        ]
        well = not any(one.count if one.suspicious is None else one.suspicious for one in near.values())
        if not alike:
            found.append((well, f"No training image looks like a test image ({how}; {', '.join(near)})."))
        else:
            beside = "" if usual is None else f"; of the test images, {usual:.0%} look like another one"
            found.append((well, f"Training images that look like a test image ({how}): {', '.join(alike)}{beside}."))
    if selector is not None:
        found.append((
            not selector.seen,
            f"The classifiers that selected learned from {selector.learned:,} images; "
            f"{selector.seen or 'none'} of the {selector.test:,} test images "
            f"{'was' if selector.seen < 2 else 'were'} among them.",
        ))  # fmt: skip
    return tuple(found)


def _signed_interval(estimate: ConfidenceInterval) -> str:
    return interval(estimate.low, estimate.high, sign=True)


# On axes


def _axis(score: ScoreResult) -> tuple[float, float]:
    """Whole per cents round everything that is drawn, within 0 to 100%."""
    drawn = [value for arm in score.arms for value in arm.accuracies]
    drawn += [value for arm in score.arms for value in (arm.accuracy.low, arm.accuracy.high)]
    low, high = min(drawn, default=0.0), max(drawn, default=1.0)
    low, high = max(0.0, 100 * low // 1 / 100 - 0.01), min(1.0, -(-100 * high // 1) / 100 + 0.01)
    return (low, high) if high > low else (0.0, 1.0)


def _sure(classes: Sequence[ClassGain]) -> tuple[int, int]:
    sure = [one.difference.mean for one in classes if one.sure]
    return sum(gain > 0 for gain in sure), sum(gain < 0 for gain in sure)


def _classes(classes: Sequence[ClassGain]) -> tuple[tuple[ClassRow, ...], tuple[Tick, ...]]:
    """Bars from the middle of an axis that spans the greatest interval, within ±100 points."""
    span = max((max(abs(one.difference.low), abs(one.difference.high)) for one in classes), default=0.0)
    span = min(1.0, span) or 1.0

    def place(gain: float | int) -> float:
        return round(50 + 50 * min(1.0, max(-1.0, gain / span)), 2)

    names = names_of([one.name for one in classes])
    rows = tuple(
        ClassRow(
            name=name,
            difference=signed(one.difference.mean),
            interval=_signed_interval(one.difference),
            left=min(50.0, place(one.difference.mean)),
            width=round(abs(place(one.difference.mean) - 50), 2),
            low=place(one.difference.low),
            reach=round(place(one.difference.high) - place(one.difference.low), 2),
            sign="up" if one.difference.mean > 0 else "down",
            sure=one.sure,
        )
        for name, one in sorted(zip(names, classes, strict=True), key=lambda pair: -pair[1].difference.mean)
    )
    return rows, tuple(Tick(place(gain), signed(gain, 0).replace("+0", "0")) for gain in ticks(-span, span))


def _fraction_plot(points: Sequence[FractionPoint]) -> Plot | None:
    if len(points) < 2:
        return None
    counts = [point.real for point in points]
    without, with_synthetic = [point.without for point in points], [point.with_synthetic for point in points]
    return plot(
        "real training images (log scale)",
        [(float(count), f"{count:,}") for count in counts],
        [
            Line("real", ARMS["real"], True, counts, [_ends(one) for one in without]),
            Line("real + synthetic", ARMS["real+dagaug"], False, counts, [_ends(one) for one in with_synthetic]),
        ],
        logarithmic=True,
    )


def _ratio_plot(score: ScoreResult) -> Plot | None:
    if len(score.ratios) < 2:
        return None
    shares = [one.share for one in score.ratios]
    accuracies = [_ends(one.accuracy) for one in score.ratios]
    lines = [Line("real + synthetic", ARMS["real+dagaug"], False, shares, accuracies)]
    real = next((arm.accuracy for arm in score.arms if arm.arm == "real"), None)
    if real is not None:
        lines.insert(0, Line("real", ARMS["real"], True, [shares[0], shares[-1]], [_ends(real)] * 2))
    return plot("synthetic share of a batch", [(share, percent(share, 0)) for share in shares], lines)


def _ends(estimate: ConfidenceInterval) -> tuple[float, float, float]:
    return estimate.mean, estimate.low, estimate.high
