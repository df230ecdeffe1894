"""Results as text for the command line: tables and sentences for ``dagaug score`` and ``dagaug metrics``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from dagaug.metrics.answer_comparison import PairsEvaluation
    from dagaug.metrics.flow_pck import FlowPck
    from dagaug.metrics.synthetic_image_quality import Evaluation
    from dagaug.score.results import ScoreResult
    from dagaug.score.statistics import ConfidenceInterval

__all__ = ["flow_lines", "metrics_lines", "metrics_table", "pairs_lines", "pairs_table", "score_lines", "score_table"]


def score_table(result: ScoreResult) -> Table:
    """Table of a score: accuracy of each arm, its difference from real images alone, and the settings that it chose."""
    from rich import box

    from dagaug.report.wording import p_value

    title = f"Accuracy on {result.test:,} test images, {result.classes} classes, per cent ± 95% interval"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("arm", overflow="fold", min_width=13)
    for name in ("synthetic", "accuracy", "difference\nfrom real", "p", "ECE"):
        table.add_column(name, justify="right", no_wrap=True)
    compared = {comparison.arm: comparison for comparison in result.comparisons if comparison.baseline == "real"}
    for arm in result.arms:
        share = "" if arm.synthetic_share is None else f", share {arm.synthetic_share:.0%}"
        chosen = f"\n[dim]{arm.steps:,} steps{share}[/dim]" if result.validated else ""
        row = [escape(arm.arm) + chosen, f"{arm.images:,}" if arm.images else "", _with_reach(arm.accuracy, "")]
        if arm.arm in compared:
            row += [_with_reach(compared[arm.arm].difference, "+"), p_value(compared[arm.arm].p)]
        else:
            row += ["", ""]
        table.add_row(*row, f"{100 * arm.calibration_error.mean:.1f}" if arm.calibration_error else "")
    return table


def _with_reach(one: ConfidenceInterval, sign: Literal["", "+"]) -> str:
    """A mean and half the width of its symmetric interval, in per cent."""
    return f"{100 * one.mean:{sign}.1f} ± {50 * (one.high - one.low):.1f}"


def score_lines(result: ScoreResult) -> list[str]:
    """Findings of a score: gains, classes, confusions, near-duplicates, numbers of images and steps."""
    from dagaug.report.chosen_settings import chosen_settings

    fit = result.options["fit"]
    network = fit["name"] if isinstance(fit, dict) else ""
    lines = list(result.sentences)
    rival = result.strongest_rival
    if rival is not None:
        others = [sentence for sentence in lines if sentence != rival.sentence]
        lines = [f"Strongest arm without a generator: {rival.baseline}. {rival.sentence}", *others]
    for point in result.fractions:
        worth = f"; equivalent to {point.worth:.0f} real images alone" if point.worth is not None else ""
        lines.append(
            f"Accuracy with {point.real} real images: {point.without.mean:.1%} alone, "
            f"{point.with_synthetic.mean:.1%} with {point.synthetic} synthetic images{worth}"
        )
    for share in result.ratios:
        lines.append(f"Accuracy with {share.share:.0%} synthetic images per batch: {share.accuracy.mean:.1%}")
    if result.comparisons:
        first = result.comparisons[0]
        gains = sorted(first.classes, key=lambda one: one.difference.mean)
        sure = [f"{one.name} {100 * one.difference.mean:+.0f}" for one in gains if one.sure]
        lines.append(f"Classes with a significant change by {first.arm}, in points: {', '.join(sure) or 'none'}")
        for what, changes in (("less frequent", first.better), ("more frequent", first.worse)):
            pairs = [f"{one.truth} as {one.taken_for} {one.before:.0%} → {one.after:.0%}" for one in changes[:3]]
            lines.append(f"Confusions that became {what}: {'; '.join(pairs) or 'none'}")
    settings = (
        f"synthetic share of a batch: {result.synthetic_share:.0%}; {result.steps} training steps of {network} in "
        "every arm"
    )
    if result.validated:
        settings = f"training of {network}, chosen by cross-validation: {chosen_settings(result)}"
    alike = {name: found for name, found in result.guards.alike.items() if found.by_hash or found.by_features}
    usual = {name: found for name, found in alike.items() if not found.suspicious}
    if not alike:
        how = "perceptual hash or features" if result.guards.features else "perceptual hash"
        lines.append(f"No training image is a near-duplicate of a test image ({how}).")
    elif usual:
        counts = ", ".join(f"{found.by_features} of {found.images} {name}" for name, found in usual.items())
        often = max(found.usual or 0.0 for found in usual.values())
        lines.append(
            f"Training images whose features, but not hashes, are close to those of a test image: {counts}. This is "
            f"normal in these data: {often:.0%} of the test images are as close to another test image."
        )
    return [
        *lines,
        *result.notes,
        f"{result.real} real and {result.synthetic} synthetic training images; {settings}.",
    ]


def metrics_table(result: Evaluation) -> Table:
    """Table of ``dagaug metrics``: one row per measure, one column per set of images."""
    table = Table(title=f"Synthetic and real images, {result.classes} classes")
    table.add_column("measure")
    judged = {one.images: one for one in result.judged}
    against = {one.images: one for one in result.compared if one.against == "test"}
    sets = ("synthetic", "training", "test")
    for name in sets:
        table.add_column(name if name == "synthetic" else f"real {name}", justify="right")
    rows = [judged[name] for name in sets]
    table.add_row("images", *(f"{one.count}" for one in rows))
    table.add_row("top-1 accuracy", *(f"{one.accuracy:.1%}" for one in rows))
    table.add_row("inception score (eq. 11)", *(f"{one.inception.mean:.2f} ± {one.inception.std:.2f}" for one in rows))
    table.add_row("missing classes", *(f"{one.missing}" for one in rows))
    table.add_row("feature diversity per source or class", *(f"{one.diversity:.3g}" for one in rows))
    if result.lpips:
        table.add_row(f"LPIPS ({result.lpips}) per source or class", *(f"{one.lpips:.3f}" for one in rows))
    both = [against[name] for name in sets[:2]]
    table.add_row("FID against test", *(f"{one.fid:.4g}" for one in both))
    table.add_row("KID against test", *(f"{one.kid.mean:.3g} ± {one.kid.std:.2g}" for one in both))
    for name in ("precision", "recall", "density", "coverage"):
        table.add_row(f"{name} against test", *(f"{getattr(one, name):.3f}" for one in both))
    return table


def metrics_lines(result: Evaluation) -> list[str]:
    """Sentences below the table: the judge, the features, key points, and remarks."""
    synthetic, test = result.judged[0], result.judged[1]
    lines = [
        f"Accuracy of a classifier ({result.classifier}) trained on the real training images: "
        f"{synthetic.accuracy:.1%} on the synthetic images, {test.accuracy:.1%} on the real test images.",
        f"Features: {result.features}.",
    ]
    if result.attended is not None:
        found = result.attended
        lines.append(
            f"Attended regions: {found.matched} of {found.regions} are matched with one of {found.parts} parts each. "
            f"PCK@{found.alpha:g} of the matched parts: {found.pck:.1%} on {found.images} test images; "
            f"{found.of_mean_place:.1%} for the mean position of each part as prediction."
        )
    return [*lines, *result.remarks]


def flow_lines(found: FlowPck) -> list[str]:
    """Sentences on the flow and the masks of a model."""
    return [
        f"PCK@0.1 of the flow: {found.pck:.1%} ({found.parts:,} parts in {found.pairs} pairs of {found.split} images); "
        f"{found.in_place:.1%} if every part stays where it is. PCK@0.05: {found.pck_fine:.1%}.",
        f"Masks: {found.inside:.1%} of the visible parts lie inside, at {found.area:.1%} of the patch "
        f"({found.images} images).",
    ]


def pairs_table(result: PairsEvaluation) -> Table:
    """Table of ``dagaug metrics --pairs``: the measures of each answer, compared with the true answers."""
    table = Table(title="Answers compared with the true answers, mean ± standard error")
    for name in ("answer", "pairs", "error inside", "identity", "mask overlap"):
        table.add_column(name, justify="left" if name == "answer" else "right")
    for one in result.scores:
        values = [
            "–" if math.isnan(mean.value) else f"{mean.value:.3f} ± {mean.error:.3f}"
            for mean in (one.error, one.identity, one.overlap)
        ]
        name = one.answer if one.images == "all" else f"{one.answer}, {one.images}"
        table.add_row(name, str(one.pairs), *values)
    return table


def pairs_lines(result: PairsEvaluation) -> list[str]:
    """How to read the measures of answers, the oracle, and remarks."""
    lines = [
        "Error: mean absolute difference in [0, 1]. Plain grey has a low error too, so compare all three measures."
    ]
    if result.oracle:
        known = not math.isnan(result.oracle_accuracy)
        accuracy = f"{result.oracle_accuracy:.1%}" if known else "unknown, no test images were left"
        lines.append(f"Oracle: {result.oracle}; accuracy on real test images that it was not trained on: {accuracy}.")
    return [*lines, *result.remarks]
