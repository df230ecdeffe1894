"""Sweeps of a score: fewer real images, and other synthetic shares of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int64

from dagaug.runtime.errors import UsageError
from dagaug.score.image_set_loading import ImageSet, TracedImageSet
from dagaug.score.options import Arm, ScoreOptions
from dagaug.score.results import FractionPoint, RatioPoint
from dagaug.score.summaries import RunTable
from dagaug.score.trainings import TrainingSpec

__all__ = ["fraction_points", "ratio_points", "sweep_trainings", "swept_arm"]


def swept_arm(arms: Sequence[Arm], options: ScoreOptions) -> str | None:
    """Name of the arm that the sweeps vary: ``real+dagaug``, or else the first with synthetic images.

    Raises:
        UsageError: a sweep is asked for, but no arm has synthetic images.
    """
    found = sorted((arm.name for arm in arms if arm.images), key=lambda name: name != "real+dagaug")
    if (options.fractions or options.ratios) and not found:
        raise UsageError(
            "the sweeps need an arm with synthetic images; add real+dagaug",
            option="arms",
            value=",".join(options.arms),
        )
    return found[0] if found else None


def sweep_trainings(
    base: TrainingSpec, plain: TrainingSpec, options: ScoreOptions, real: TracedImageSet
) -> dict[str, TrainingSpec]:
    """The trainings that only the sweeps need, by name.

    Args:
        base: training of the arm that the sweeps vary.
        plain: training of the arm ``real``.
        options: options of the score.
        real: the real training images.

    Raises:
        UsageError: at some fraction there are no synthetic images, or their origins are unknown.
    """
    found = {}
    for fraction in options.fractions:
        if fraction < 1:
            rows = _first_of_each_class(real.labels, fraction)
            synthetic = _made_from(base, {real.origins[row][0] for row in rows.tolist()}, fraction)
            fewer = real.take(rows)
            without = replace(plain, name=_at_fraction("real", fraction), train=fewer)
            found[without.name] = without
            name = _at_fraction(base.name, fraction)
            found[name] = TrainingSpec(name, base.options, fewer, synthetic, base.test)
    for share in options.ratios:
        name = _at_share(base.name, share)
        found[name] = replace(base, name=name, options=replace(base.options, synthetic_share=share))
    return found


def fraction_points(
    table: RunTable, arm: str, options: ScoreOptions, trainings: Mapping[str, TrainingSpec]
) -> tuple[FractionPoint, ...]:
    """Accuracy against the number of real images, without and with the synthetic images of ``arm``."""
    names = {
        fraction: (_at_fraction("real", fraction), _at_fraction(arm, fraction))
        for fraction in sorted(set(options.fractions))
    }
    points = [
        (fraction, len(trainings[without].train), len(trainings[with_synthetic].synthetic or ()))
        for fraction, (without, with_synthetic) in names.items()
    ]
    return table.fractions(points, names)


def ratio_points(table: RunTable, arm: str, options: ScoreOptions) -> tuple[RatioPoint, ...]:
    """Accuracy of ``arm`` against the synthetic share of a batch."""
    return table.ratios({share: _at_share(arm, share) for share in sorted(set(options.ratios))})


def _made_from(base: TrainingSpec, files: set[str], fraction: float) -> ImageSet:
    """The synthetic images made from these files alone."""
    value = f"{fraction:g}"
    assert base.synthetic is not None
    if not isinstance(base.synthetic, TracedImageSet):
        message = f"the real images that those of {base.name} were made from are unknown"
        raise UsageError(message, option="fractions", value=value)
    rows = np.flatnonzero([files.issuperset(origins) for origins in base.synthetic.origins])
    if not len(rows):
        message = "no synthetic image was made from these real images alone; give a larger fraction"
        raise UsageError(message, option="fractions", value=value)
    return base.synthetic.take(rows)


def _first_of_each_class(labels: Int64[np.ndarray, " N"], fraction: float) -> Int64[np.ndarray, " M"]:
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.sort(np.concatenate([of_class[: max(1, round(fraction * len(of_class)))] for of_class in rows]))


def _at_fraction(name: str, fraction: float) -> str:
    return name if fraction == 1 else f"{name}, {fraction:.3g} of the real images"


def _at_share(name: str, share: float) -> str:
    return f"{name}, {share:.3g} of a batch synthetic"
