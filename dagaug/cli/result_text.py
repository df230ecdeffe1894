"""Results as text for the command line: sentences for ``dagaug augment``, also tables for ``score`` and ``metrics``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from dagaug.augment.cost_estimate import AugmentEstimate
    from dagaug.augment.run import Augmented
    from dagaug.metrics.answer_comparison import PairsEvaluation
    from dagaug.metrics.flow_pck import FlowPck
    from dagaug.metrics.synthetic_image_quality import Evaluation
    from dagaug.score.results import ScoreResult
    from dagaug.score.shot_results import ShotsResult
    from dagaug.score.statistics import ConfidenceInterval

__all__ = [
    "augment_lines",
    "estimate_lines",
    "flow_lines",
    "groups_table",
    "metrics_lines",
    "metrics_table",
    "pairs_lines",
    "pairs_table",
    "score_command",
    "score_lines",
    "score_table",
    "score_tables",
    "shots_lines",
    "shots_table",
]

_NAMED_CLASSES = 5  # that stay below --balance


def estimate_lines(guess: AugmentEstimate, out: Path) -> list[str]:
    """Counts, time and size of an augmentation that was not made (``--dry-run``)."""
    lines = [
        f"{guess.sources} sources, {guess.candidates} candidates, at most {guess.kept} synthetic images; output file: "
        f"{out}",
        *_balance_lines(guess.below_balance, "will have"),
        f"About {guess.seconds / 60:.1f} minutes, plus the training of the classifiers",
        f"At most {guess.size / 1e6:.1f} MB, and {guess.needed / 1e6:.1f} MB during the run; "
        f"{guess.free / 1e9:.1f} GB are free",
    ]
    if guess.free < guess.needed:
        lines.append("Warning: too little disk space; choose another --out, fewer --refs, or --merge virtual")
    return lines


def _balance_lines(below: Mapping[str, int], verb: str) -> list[str]:
    """The classes that --balance cannot fill."""
    if not below:
        return []
    named = ", ".join(f"{name} {verb} {count}" for name, count in list(below.items())[:_NAMED_CLASSES])
    more = f" and {len(below) - _NAMED_CLASSES} more" if len(below) > _NAMED_CLASSES else ""
    return [
        f"{len(below)} classes stay below --balance, for lack of accepted candidates: {named}{more}; "
        "try more --refs or --min-confidence 0"
    ]


def augment_lines(done: Augmented) -> list[str]:
    """What an augmentation made, rejected and could not read."""
    from dagaug.augment.run import skipped_log

    rejected = "; ".join(f"{count} {name}" for name, count in done.verdicts.items() if count and name != "kept")
    lines = [
        f"{done.sources} sources, {done.candidates} candidates, {done.kept} kept"
        + (f" ({rejected})" if rejected else ""),
        f"{done.out}: {done.kept} synthetic and {done.real} real images, in {done.seconds / 60:.1f} minutes",
        *_balance_lines(done.below_balance, "has"),
    ]
    unmasked = [skip for skip in done.skipped if skip.for_its_mask]
    unread = [skip for skip in done.skipped if not skip.for_its_mask]
    listed = f"listed in the file and in {skipped_log(done.out).name}; first:"
    if unread:
        lines.append(f"{len(unread)} files skipped, {listed}")
        first = unread[0]
        lines.append(f"{first.path}: {first.reason}; once they are readable: the same command with --retry-failed")
    if unmasked:
        lines.append(f"{len(unmasked)} images with unusable masks are neither sources nor references, {listed}")
        lines.append(f"{unmasked[0].path}: {unmasked[0].reason}")
    return lines


def score_command(done: Augmented, *, balanced: bool) -> str:
    """The command that scores an augmentation. That of balanced classes draws each training image equally often."""
    training = done.kept + done.real_training
    if not balanced or not done.kept or not done.real_training:
        return "dagaug score"
    return f"dagaug score --synthetic-share {max(0.01, round(done.kept / training, 2)):g}"


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


def score_tables(result: ScoreResult) -> RenderableType:
    """The table of a score; below it that of frequent and rare classes, if the classes differ much."""
    if not result.groups:
        return score_table(result)
    return Group(score_table(result), groups_table(result))


def groups_table(result: ScoreResult) -> Table:
    """Mean accuracy over the classes with many, medium and few training images: one column for each group."""
    from rich import box

    title = "Frequent and rare classes: mean accuracy, per cent ± 95% interval"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("arm", overflow="fold", min_width=13)
    for group in result.groups:
        images = f"{group.fewest}" if group.fewest == group.most else f"{group.fewest} to {group.most}"
        table.add_column(f"{group.name}\n{group.classes} classes\n{images} images", justify="right", no_wrap=True)
    for row in zip(*(group.arms for group in result.groups), strict=True):
        table.add_row(escape(row[0].arm), *(_with_reach(one.accuracy, "") for one in row))
    return table


def shots_table(result: ShotsResult) -> Table:
    """Accuracy of each arm, a column for each number of training images a class."""
    from rich import box

    title = "Accuracy by training images a class, per cent ± 95% interval"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("arm", overflow="fold", min_width=13)
    for point in result.shots:
        head = f"{point.per_class} a class\n{point.real:,} real"
        table.add_column(head, justify="right", no_wrap=True)
    names = dict.fromkeys(arm.arm for point in result.shots for arm in point.arms)
    for name in names:
        found = [{arm.arm: arm.accuracy for arm in point.arms}.get(name) for point in result.shots]
        table.add_row(escape(name), *("" if one is None else _with_reach(one, "") for one in found))
    return table


def shots_lines(result: ShotsResult) -> list[str]:
    """The comparisons of each number of training images, remarks, and the files that were made."""
    made = [f"{point.per_class} a class: {point.file}, {point.synthetic:,} synthetic images" for point in result.shots]
    return [*result.sentences, *result.notes, *made]


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
    lines += _group_lines(result)
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


def _group_lines(result: ScoreResult) -> list[str]:
    """Gain of the main arm for classes with many, medium and few training images."""
    if not result.groups or not result.comparisons:
        return []
    main = result.comparisons[0].arm
    gains = [
        f"{group.name} {_with_reach(one.difference, '+')}"
        for group in result.groups
        for one in group.arms
        if one.arm == main and one.difference is not None
    ]
    return [f"Gain of {main} over real by number of training images of a class, in points: {', '.join(gains)}"]


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
