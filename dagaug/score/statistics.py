"""Confidence intervals and tests for the difference between two arms; plain numbers, no images or networks.

There are two sources of chance. Trainings differ in initial weights, order and augmentation: Student's paired t test
over the seeds covers this. The test images are a sample: McNemar's test over the images covers this. A verdict needs
both tests to agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import stats

__all__ = [
    "CONFIDENCE",
    "ClassGain",
    "ConfidenceInterval",
    "ConfusionChange",
    "McNemar",
    "Verdict",
    "calibration_error",
    "class_gains",
    "confusion_changes",
    "holm",
    "mcnemar",
    "mean_interval",
    "paired_difference",
    "verdict_of",
]

CONFIDENCE = 0.95
"""Level of all intervals."""

Verdict = Literal["helps", "no measurable effect", "harms"]


@dataclass(frozen=True)
class ConfidenceInterval:
    """A mean with its 95% confidence interval, as shares."""

    mean: float
    low: float
    high: float


# Over seeds


def mean_interval(values: Sequence[float], *, resolution: float = 0.0) -> ConfidenceInterval:
    """Mean with Student's 95% interval.

    Args:
        values: at least two.
        resolution: smallest possible difference of two values. The standard deviation is taken as at least that of
            rounding to this step, resolution / √12, so that values equal by rounding do not look certain.

    Raises:
        ValueError: there are fewer than two values.
    """
    mean, error = _mean_and_error(values, resolution)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return ConfidenceInterval(mean, mean - reach, mean + reach)


def paired_difference(
    values: Sequence[float], baseline: Sequence[float], *, resolution: float = 0.0
) -> tuple[ConfidenceInterval, float]:
    """Mean difference of paired values with its 95% interval, and p of the two-sided paired t test.

    ``resolution`` is that of :func:`mean_interval`. If all differences are equal, p is 1 if they are zero, else 0.

    Raises:
        ValueError: there are fewer than two pairs.
    """
    differences = [a - b for a, b in zip(values, baseline, strict=True)]
    mean, error = _mean_and_error(differences, resolution)
    if error == 0:
        return ConfidenceInterval(mean, mean, mean), 1.0 if mean == 0 else 0.0
    p = 2 * float(stats.t.sf(abs(mean) / error, len(differences) - 1))
    return mean_interval(differences, resolution=resolution), p


def _mean_and_error(values: Sequence[float], resolution: float) -> tuple[float, float]:
    """Mean and its standard error."""
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 values, not {len(values)}")
    spread = max(float(np.std(values, ddof=1)), resolution / math.sqrt(12))
    return float(np.mean(values)), spread / math.sqrt(len(values))


# Over test images


@dataclass(frozen=True)
class McNemar:
    """Result of McNemar's test of two arms.

    Attributes:
        gained: number of predictions that only the arm has right, over all seeds.
        lost: number of predictions that only the baseline has right.
        p: p value over the choice of test images.
    """

    gained: int
    lost: int
    p: float


def mcnemar(right: Bool[np.ndarray, "S N"], baseline: Bool[np.ndarray, "S N"]) -> McNemar:
    """McNemar's exact test on the pooled predictions of S seeds for N test images.

    An image seen by S networks is one sample, not S: under the null hypothesis the sign of its net gain over the
    seeds is random. p is exact over all combinations of signs. With one seed this is McNemar's exact (binomial) test;
    for pooling over clusters see Durkalski et al., Statistics in Medicine 22 (2003).

    Args:
        right: whether each prediction of the arm is right.
        baseline: the same for the baseline.
    """
    net = right.astype(np.int64).sum(0) - baseline.astype(np.int64).sum(0)
    sizes = np.abs(net[net != 0])
    chances = np.ones(1)  # probabilities of the sums -k, -k + 2, ..., k of the images so far
    for size in np.sort(sizes).tolist():
        wider = np.zeros(len(chances) + size)
        wider[: len(chances)] += chances / 2
        wider[size:] += chances / 2
        chances = wider
    sums = np.abs(2 * np.arange(len(chances)) - int(sizes.sum()))
    p = min(1.0, float(chances[sums >= abs(int(net.sum()))].sum()))
    return McNemar(int((right & ~baseline).sum()), int((baseline & ~right).sum()), p)


def verdict_of(difference: ConfidenceInterval, p_images: float) -> Verdict:
    """``helps`` or ``harms`` if both the interval over seeds and the test over images are significant."""
    if p_images < 1 - CONFIDENCE and difference.low > 0:
        return "helps"
    if p_images < 1 - CONFIDENCE and difference.high < 0:
        return "harms"
    return "no measurable effect"


def holm(values: Sequence[float]) -> list[float]:
    """p values of several tests, adjusted by Holm's method (1979) to control the family-wise error rate."""
    adjusted, floor = [0.0] * len(values), 0.0
    for rank, place in enumerate(np.argsort(values, kind="stable").tolist()):
        floor = max(floor, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = floor
    return adjusted


# Calibration, classes, confusions


def calibration_error(confidence: Float[np.ndarray, " N"], right: Bool[np.ndarray, " N"], *, bins: int = 15) -> float:
    """Expected calibration error: mean gap between confidence and accuracy in bins of equal width (Guo et al. 2017).

    Args:
        confidence: probability of each top-1 prediction, in [0, 1].
        right: whether each prediction is right.
        bins: number of bins; each is open below and closed above.
    """
    place = np.clip(np.ceil(confidence.astype(np.float64) * bins) - 1, 0, bins - 1).astype(np.int64)
    gaps = np.bincount(place, weights=confidence.astype(np.float64) - right, minlength=bins)
    return float(np.abs(gaps).sum() / max(len(right), 1))


@dataclass(frozen=True, kw_only=True)
class ClassGain:
    """An arm against its baseline on the test images of one class.

    Attributes:
        name: name of the class.
        test: number of its test images.
        accuracy: accuracy of the arm, mean over seeds; NaN in files of older versions.
        difference: accuracy minus that of the baseline, with the interval over seeds.
        p: the larger of the p values over seeds and over images; NaN in files of older versions.
        sure: whether the difference is significant after :func:`holm`'s correction for the number of classes.
    """

    name: str
    test: int = 0
    accuracy: float = math.nan
    difference: ConfidenceInterval
    p: float = math.nan
    sure: bool


def class_gains(
    classes: Sequence[str],
    labels: Integer[np.ndarray, " N"],
    right: Bool[np.ndarray, "S N"],
    baseline: Bool[np.ndarray, "S N"],
) -> tuple[ClassGain, ...]:
    """Gain of each class with test images, in the order of the classes."""
    found = []
    for label, name in enumerate(classes):
        of_class = labels == label
        count = int(of_class.sum())
        if not count:
            continue
        ours, theirs = right[:, of_class], baseline[:, of_class]
        difference, p = paired_difference(ours.mean(1).tolist(), theirs.mean(1).tolist(), resolution=1 / count)
        found.append((name, count, float(ours.mean()), difference, max(p, mcnemar(ours, theirs).p)))
    adjusted = holm([one[-1] for one in found])
    return tuple(
        ClassGain(name=name, test=count, accuracy=accuracy, difference=difference, p=p, sure=holm_p < 1 - CONFIDENCE)
        for (name, count, accuracy, difference, p), holm_p in zip(found, adjusted, strict=True)
    )


@dataclass(frozen=True)
class ConfusionChange:
    """Share of the test images of class ``truth`` that are classified as ``taken_for``, before and after."""

    truth: str
    taken_for: str
    before: float
    after: float


def confusion_changes(
    classes: Sequence[str],
    labels: Integer[np.ndarray, " N"],
    predicted: Integer[np.ndarray, "S N"],
    baseline: Integer[np.ndarray, "S N"],
    *,
    most: int = 5,
) -> tuple[tuple[ConfusionChange, ...], tuple[ConfusionChange, ...]]:
    """The ``most`` pairs of classes whose confusion fell most, and those whose confusion rose most."""
    count = len(classes)
    size = np.maximum(np.bincount(labels, minlength=count), 1)

    def shares(guesses: Integer[np.ndarray, "S N"]) -> Float[np.ndarray, "K K"]:
        cells = np.bincount((labels * count + guesses).ravel(), minlength=count * count)
        return cells.reshape(count, count) / (len(guesses) * size[:, None])

    before, after = shares(baseline), shares(predicted)
    change = after - before
    np.fill_diagonal(change, 0)
    order = np.argsort(change, axis=None, kind="stable").tolist()

    def listed(cells: Sequence[int], sign: int) -> tuple[ConfusionChange, ...]:
        pairs = [divmod(cell, count) for cell in cells]
        return tuple(
            ConfusionChange(classes[truth], classes[other], float(before[truth, other]), float(after[truth, other]))
            for truth, other in pairs
            if sign * change[truth, other] > 0
        )

    return listed(order[:most], -1), listed(order[::-1][:most], 1)
