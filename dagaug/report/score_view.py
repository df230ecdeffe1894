"""Results of ``dagaug score`` as texts and plot positions for the HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dagaug.classifiers.recipes import MODE_WORDS
from dagaug.report.accuracy_plots import LineData, LinePlot, Tick, line_plot, ticks
from dagaug.report.chosen_settings import TriedRow, arm_settings, chosen_settings, tried_rows
from dagaug.report.class_gains import ClassRow, class_rows, count_significant
from dagaug.report.palette import ARMS, arm_colours
from dagaug.report.wording import arm_description, display_names, interval, p_value, percent, signed
from dagaug.score.results import ClassGroupResult, Comparison, FractionPoint, ScoreResult
from dagaug.score.statistics import ConfidenceInterval, ConfusionChange

__all__ = ["CompareRow", "FractionRow", "GroupColumn", "GroupRow", "ScoreRow", "ScoreView", "score_view"]


_HEADLINES = {
    "helps": "Yes, they improve accuracy.",
    "no measurable effect": "No measurable effect.",
    "harms": "No, they reduce accuracy.",
}


@dataclass(frozen=True)
class ScoreRow:
    """An arm. Numbers are formatted; ``low``, ``width``, ``mean`` and ``dots`` are in per cent of the axis.

    Attributes:
        colour: index into the palette, the same in every plot.
        words: description of its training images, and the settings that cross-validation chose, if it did.
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
    """Comparison of an arm with another baseline than ``real``, as texts."""

    arm: str
    baseline: str
    difference: str
    interval: str
    p: str
    p_images: str
    verdict: str


@dataclass(frozen=True)
class GroupColumn:
    """A group of classes with similar numbers of training images, as texts."""

    name: str
    classes: str
    images: str


@dataclass(frozen=True)
class GroupRow:
    """An arm's accuracy in each group, and its difference from real alone: pairs of mean and interval, as texts."""

    arm: str
    accuracies: tuple[tuple[str, str], ...]
    differences: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FractionRow:
    """Results for one number of real images, as texts; estimates with their intervals."""

    real: str
    synthetic: str
    without: tuple[str, str]
    with_synthetic: tuple[str, str]
    difference: tuple[str, str]
    worth: str


@dataclass(frozen=True)
class ScoreView:
    """Texts and positions of the score section.

    Attributes:
        headline: the verdict in a few words; empty without comparisons.
        verdict: verdict of the first comparison.
        answer: the result of the first comparison and of the control, in sentences.
        sentences: (verdict, sentence) of each comparison, as ``dagaug score`` prints them.
        rows: one for each arm.
        ticks: ticks of the accuracy axis.
        zero: position of the mean of ``real`` on that axis.
        setting: description of the experiment, in a sentence.
        citation: setting and result in a paragraph, to cite; empty without comparisons.
        compared: comparisons with other baselines than ``real``.
        question: arm whose gain per class is shown.
        classes: gain of each class, largest first.
        class_ticks: ticks of the axis of gains.
        sure: number of classes with a significant gain, and with a significant loss.
        better, worse: confusions that became rarer and more frequent, as texts.
        groups, group_rows: accuracy on classes with many, medium and few training images; empty if they differ little.
        fractions: accuracy by number of real images; also as a plot if there are at least two.
        tried: settings that cross-validation tried.
        ratios: (fraction, accuracy, difference) for other synthetic fractions, with their plot.
        guards: (passed, sentence) of each check for leaks of test images.
        notes: notes of the score.
    """

    headline: str
    verdict: str
    answer: tuple[str, ...]
    sentences: tuple[tuple[str, str], ...]
    rows: tuple[ScoreRow, ...]
    ticks: tuple[Tick, ...]
    zero: float | None
    setting: str
    citation: str
    compared: tuple[CompareRow, ...]
    question: str
    classes: tuple[ClassRow, ...]
    class_ticks: tuple[Tick, ...]
    sure: tuple[int, int]
    better: tuple[str, ...]
    worse: tuple[str, ...]
    groups: tuple[GroupColumn, ...]
    group_rows: tuple[GroupRow, ...]
    fractions: tuple[FractionRow, ...]
    fraction_plot: LinePlot | None
    tried: tuple[TriedRow, ...]
    ratios: tuple[tuple[str, str, str], ...]
    ratio_plot: LinePlot | None
    guards: tuple[tuple[bool, str], ...]
    notes: tuple[str, ...]


def score_view(score: ScoreResult, photographs: Mapping[str, bytes] | None = None) -> ScoreView:
    """Texts and positions of all parts of a score.

    Args:
        score: the score.
        photographs: a JPEG file of an image of each class, by class name.
    """
    low, high = _axis(score)

    def place(share: float | int) -> float:
        return round(100 * min(1.0, max(0.0, (share - low) / (high - low))), 2)

    colours = arm_colours([arm.arm for arm in score.arms])
    compared = {one.arm: one for one in score.comparisons if one.baseline == "real"}
    first = score.comparisons[0] if score.comparisons else None
    classes, class_ticks = class_rows(first.classes if first else [], photographs or {})
    return ScoreView(
        headline=_HEADLINES[first.verdict] if first else "",
        verdict=first.verdict if first else "",
        answer=_answer(score),
        # A sentence without a comparison has no verdict.
        sentences=tuple(
            (score.comparisons[index].verdict if index < len(score.comparisons) else "", sentence)
            for index, sentence in enumerate(score.sentences)
        ),
        rows=tuple(
            ScoreRow(
                arm=arm.arm,
                colour=colours[arm.arm],
                words=arm_description(arm.arm) + (f"; {arm_settings(arm)}" if score.validated else ""),
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
        citation=_citation(score),
        compared=tuple(_compared(one) for one in score.comparisons if one.baseline != "real"),
        question=first.arm if first else "",
        classes=classes,
        class_ticks=class_ticks,
        sure=count_significant(first.classes if first else []),
        better=_confusions(first.better if first else [], first),
        worse=_confusions(first.worse if first else [], first),
        groups=tuple(map(_group_column, score.groups)),
        group_rows=_group_rows(score),
        fractions=tuple(_fraction(point) for point in score.fractions),
        fraction_plot=_fraction_plot(score.fractions),
        tried=tried_rows(score),
        ratios=tuple((percent(one.share, 0), percent(one.accuracy.mean), signed(one.difference.mean))
                     for one in score.ratios),
        ratio_plot=_ratio_plot(score),
        guards=_guards(score),
        notes=tuple(score.notes),
    )  # fmt: skip


def _answer(score: ScoreResult) -> tuple[str, ...]:
    """Both accuracies and their difference; then whether the pose itself helps."""
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
            f"Accuracy on {score.test:,} test images: {percent(accuracy[first.arm])} with them ({first.arm}), "
            f"{percent(accuracy[first.baseline])} without ({first.baseline}). Difference: {asked}."
        )
    control = next((one for one in score.comparisons if (one.arm, one.baseline) == (first.arm, "cutout")), None)
    rival = score.strongest_rival
    told = [asked]
    if rival is not None and rival.baseline in accuracy:
        told.append(
            f"Strongest arm without a generator: {rival.baseline}, {percent(accuracy[rival.baseline])}. Over it, "
            f"{rival.arm} gains {signed(rival.difference.mean)} points (95% interval "
            f"{_signed_interval(rival.difference)}): {rival.verdict}."
        )
    return tuple(told) if control is None else (*told, _about_pose(control))


def _about_pose(control: Comparison) -> str:
    """Result of the cutout control, which has the same sources and backgrounds, but not the references' poses."""
    by = f"{signed(control.difference.mean)} points, {_signed_interval(control.difference)}"
    if control.verdict == "helps":
        return f"The pose helps: {control.arm} beats the control that changes only the background (cutout) by {by}."
    if control.verdict == "harms":
        return f"The pose does not help: the control that changes only the background (cutout) is better ({by})."
    return (
        f"No evidence that the pose helps: {control.arm} differs from the control that changes only the background "
        f"(cutout) by {by}."
    )


def _setting(score: ScoreResult) -> str:
    fit = score.options.get("fit")
    network = fit.get("name") if isinstance(fit, dict) else None
    seeds = max((len(arm.accuracies) for arm in score.arms), default=0)
    settings = (
        f"{score.steps:,} steps in every arm, {score.synthetic_share:.0%} of each batch synthetic in arms with "
        "synthetic images"
    )
    if score.validated:
        settings = "settings of each arm chosen by cross-validation on the training images"
    return (
        f"{network or 'The same classifier'}, {seeds} seeds, {settings}; {score.real:,} real and "
        f"{score.synthetic:,} synthetic training images; {score.test:,} test images of {score.classes:,} classes."
    )


def _citation(score: ScoreResult) -> str:
    """Network, training, data and result in a paragraph."""
    fit, versions = score.options.get("fit"), score.options.get("versions")
    if not score.comparisons or not isinstance(fit, dict) or not isinstance(versions, dict):
        return ""
    first, accuracy = score.comparisons[0], {arm.arm: arm.accuracy for arm in score.arms}
    frozen = f", the first {fit['frozen_stages']} stages frozen" if fit.get("frozen_stages") else ""
    how = next((words for mode, words in MODE_WORDS.items() if mode == fit.get("mode")), MODE_WORDS["scratch"])
    results = [
        f"{name}: {percent(accuracy[name].mean)} ({interval(accuracy[name].low, accuracy[name].high)})"
        for name in (first.baseline, first.arm)
        if name in accuracy
    ]
    rival = score.strongest_rival
    over = [] if rival is None or rival.baseline == first.baseline else [rival]
    gains = [
        f"{one.arm} over {one.baseline}: {signed(one.difference.mean)} points ({_signed_interval(one.difference)})"
        for one in (first, *over)
    ]
    settings = f"{score.steps:,} steps"
    if score.validated:
        settings = f"steps chosen by cross-validation on the training images ({chosen_settings(score)})"
    decay = f", times {fit['layer_decay']} from each layer to the one before it" if fit.get("layer_decay") else ""
    share = "" if score.validated else f" ({score.synthetic_share:.0%} of each batch)"
    return (
        f"{fit.get('name')} ({how}{frozen}; images of {fit.get('size')} px, {settings}, batches of "
        f"{fit.get('batch_size')} images, AdamW with a peak learning rate of {fit.get('learning_rate')}{decay}, "
        f"{len(first.differences)} seeds), {score.real:,} real training images of {score.classes:,} classes, "
        f"{score.synthetic:,} synthetic images{share}, {score.test:,} test images. "
        f"Accuracy with 95% intervals over seeds: {'; '.join(results)}. "
        f"Paired differences: {'; '.join(gains)}. "
        f"dagaug {versions.get('dagaug', '')}, torch {versions.get('torch', '')}, timm {versions.get('timm', '')}."
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
    short = dict(zip(known, display_names(known), strict=True))
    return tuple(
        f"{short.get(one.truth, one.truth)} taken for {short.get(one.taken_for, one.taken_for)}: "
        f"{one.before:.0%} before, {one.after:.0%} now"
        for one in changes
    )


def _group_column(group: ClassGroupResult) -> GroupColumn:
    images = f"{group.fewest}" if group.fewest == group.most else f"{group.fewest} to {group.most}"
    return GroupColumn(group.name, f"{group.classes:,} classes", f"{images} images each")


def _group_rows(score: ScoreResult) -> tuple[GroupRow, ...]:
    rows = zip(*(group.arms for group in score.groups), strict=True)
    return tuple(
        GroupRow(
            arm=row[0].arm,
            accuracies=tuple(
                (percent(one.accuracy.mean), interval(one.accuracy.low, one.accuracy.high)) for one in row
            ),
            differences=tuple(
                ("", "") if one.difference is None else (signed(one.difference.mean), _signed_interval(one.difference))
                for one in row
            ),
        )
        for row in rows
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
            f"The judges were trained on {selector.learned:,} images; "
            f"{selector.seen or 'none'} of the {selector.test:,} test images "
            f"{'was' if selector.seen < 2 else 'were'} among them.",
        ))  # fmt: skip
    return tuple(found)


def _signed_interval(estimate: ConfidenceInterval) -> str:
    return interval(estimate.low, estimate.high, sign=True)


def _axis(score: ScoreResult) -> tuple[float, float]:
    """Ends of the accuracy axis: whole per cents around all values, within 0 to 100%."""
    drawn = [value for arm in score.arms for value in arm.accuracies]
    drawn += [value for arm in score.arms for value in (arm.accuracy.low, arm.accuracy.high)]
    low, high = min(drawn, default=0.0), max(drawn, default=1.0)
    low, high = max(0.0, 100 * low // 1 / 100 - 0.01), min(1.0, -(-100 * high // 1) / 100 + 0.01)
    return (low, high) if high > low else (0.0, 1.0)


def _fraction_plot(points: Sequence[FractionPoint]) -> LinePlot | None:
    if len(points) < 2:
        return None
    counts = [point.real for point in points]
    without, with_synthetic = [point.without for point in points], [point.with_synthetic for point in points]
    return line_plot(
        "real training images (log scale)",
        [(float(count), f"{count:,}") for count in counts],
        [
            LineData("real", ARMS["real"], True, counts, [_ends(one) for one in without]),
            LineData("real + synthetic", ARMS["real+dagaug"], False, counts, [_ends(one) for one in with_synthetic]),
        ],
        logarithmic=True,
    )


def _ratio_plot(score: ScoreResult) -> LinePlot | None:
    if len(score.ratios) < 2:
        return None
    shares = [one.share for one in score.ratios]
    accuracies = [_ends(one.accuracy) for one in score.ratios]
    lines = [LineData("real + synthetic", ARMS["real+dagaug"], False, shares, accuracies)]
    real = next((arm.accuracy for arm in score.arms if arm.arm == "real"), None)
    if real is not None:
        lines.insert(0, LineData("real", ARMS["real"], True, [shares[0], shares[-1]], [_ends(real)] * 2))
    return line_plot("synthetic share of a batch", [(share, percent(share, 0)) for share in shares], lines)


def _ends(estimate: ConfidenceInterval) -> tuple[float, float, float]:
    return estimate.mean, estimate.low, estimate.high
