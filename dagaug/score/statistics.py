"""How sure a difference between two ways of training is. Pure numbers: no images, no networks, no files.

Chance enters twice: every training has its own (initial weights, order, augmentation), and the test images are a
sample. Student's paired t over the seeds answers for the first, McNemar's test over the images for the second; a
difference counts as one only where both say so.
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
    "ConfusionChange",
    "Estimate",
    "McNemar",
    "Verdict",
    "calibration_error",
    "class_gains",
    "confusion_changes",
    "estimate",
    "holm",
    "mcnemar",
    "paired_difference",
    "verdict_of",
]

CONFIDENCE = 0.95

Verdict = Literal["helps", "no measurable effect", "harms"]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval; all as shares, not per cent."""

    mean: float
    low: float
    high: float


# Over seeds


def estimate(values: Sequence[float], *, resolution: float = 0.0) -> Estimate:
    """Mean with Student's 95% interval.

    Args:
        values: at least two.
        resolution: step in which values can differ at all. Values that are equal by rounding would seem
            certain; their spread is taken to be at least that of rounding, resolution / √12.
    """
    mean, error = _mean_and_error(values, resolution)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return Estimate(mean, mean - reach, mean + reach)


def paired_difference(
    values: Sequence[float], baseline: Sequence[float], *, resolution: float = 0.0
) -> tuple[Estimate, float]:
    """Mean difference of paired values with its 95% interval, and p of the two-sided paired t test.

    The resolution is that of :func:`estimate`. Without any spread, p is 1 for no difference and 0 for one.
    """
    differences = [a - b for a, b in zip(values, baseline, strict=True)]
    mean, error = _mean_and_error(differences, resolution)
    if error == 0:
        return Estimate(mean, mean, mean), 1.0 if mean == 0 else 0.0
    p = 2 * float(stats.t.sf(abs(mean) / error, len(differences) - 1))
    return estimate(differences, resolution=resolution), p


def _mean_and_error(values: Sequence[float], resolution: float) -> tuple[float, float]:
    """Mean and its standard error."""
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 values, not {len(values)}")
    spread = max(float(np.std(values, ddof=1)), resolution / math.sqrt(12))
    return float(np.mean(values)), spread / math.sqrt(len(values))


# Over test images


@dataclass(frozen=True)
class McNemar:
    """Predictions that only one of two arms has right, over all seeds.

    Attributes:
        gained: only the arm has them right.
        lost: only its baseline has.
        p: that chance in the choice of test images makes so great a difference.
    """

    gained: int
    lost: int
    p: float


def mcnemar(right: Bool[np.ndarray, "S N"], baseline: Bool[np.ndarray, "S N"]) -> McNemar:
    """McNemar's exact test on the predictions of S seeds for N images, pooled.

    The same image met by S networks is one draw, not S: its net gain over the seeds keeps or changes its sign as a
    whole under the null hypothesis, and p is exact over all such changes. With one seed this is McNemar's own exact
    (binomial) test; for pooling over clusters see Durkalski et al., Statistics in Medicine 22 (2003).
    """
    net = right.astype(np.int64).sum(0) - baseline.astype(np.int64).sum(0)
    sizes = np.abs(net[net != 0])
    chances = np.ones(1)  # of the sums -k, -k + 2, ..., k of the images so far
    for size in np.sort(sizes).tolist():
        wider = np.zeros(len(chances) + size)
        wider[: len(chances)] += chances / 2
        wider[size:] += chances / 2
        chances = wider
    sums = np.abs(2 * np.arange(len(chances)) - int(sizes.sum()))
    p = min(1.0, float(chances[sums >= abs(int(net.sum()))].sum()))
    return McNemar(int((right & ~baseline).sum()), int((baseline & ~right).sum()), p)


def verdict_of(difference: Estimate, p_images: float) -> Verdict:
    """``helps`` or ``harms`` where the interval over seeds and the test over images both rule chance out."""
    if p_images < 1 - CONFIDENCE and difference.low > 0:
        return "helps"
    if p_images < 1 - CONFIDENCE and difference.high < 0:
        return "harms"
    return "no measurable effect"


def holm(values: Sequence[float]) -> list[float]:
    """p of each of several tests, raised so that one of them being false is as rare as with one test (Holm 1979)."""
    raised, floor = [0.0] * len(values), 0.0
    for rank, place in enumerate(np.argsort(values, kind="stable").tolist()):
        floor = max(floor, min(1.0, (len(values) - rank) * values[place]))
        raised[place] = floor
    return raised


# What lies behind an accuracy


def calibration_error(confidence: Float[np.ndarray, " N"], right: Bool[np.ndarray, " N"], *, bins: int = 15) -> float:
    """Expected calibration error: mean distance of confidence and accuracy in bins of equal width (Guo et al. 2017).

    Args:
        confidence: p of each top-1 prediction.
        right: whether it is right.
        bins: between 0 and 1; each is open below and closed above.
    """
    place = np.clip(np.ceil(confidence.astype(np.float64) * bins) - 1, 0, bins - 1).astype(np.int64)
    gaps = np.bincount(place, weights=confidence.astype(np.float64) - right, minlength=bins)
    return float(np.abs(gaps).sum() / max(len(right), 1))


@dataclass(frozen=True)
class ClassGain:
    """An arm against its baseline on the test images of one class.

    Attributes:
        name: of the class.
        test: its test images.
        accuracy: of the arm, mean over seeds.
        difference: accuracy minus that of the baseline, with the interval over seeds.
        p: the greater of those over seeds and over images.
        sure: whether p still rules chance out though so many classes were looked at (:func:`holm`).
    """

    name: str
    test: int
    accuracy: float
    difference: Estimate
    p: float
    sure: bool


def class_gains(
    classes: Sequence[str],
    labels: Integer[np.ndarray, " N"],
    right: Bool[np.ndarray, "S N"],
    baseline: Bool[np.ndarray, "S N"],
) -> tuple[ClassGain, ...]:
    """Gain or harm of each class that has test images, in the order of the classes."""
    found = []
    for label, name in enumerate(classes):
        of_class = labels == label
        count = int(of_class.sum())
        if not count:
            continue
        ours, theirs = right[:, of_class], baseline[:, of_class]
        difference, p = paired_difference(ours.mean(1).tolist(), theirs.mean(1).tolist(), resolution=1 / count)
        found.append((name, count, float(ours.mean()), difference, max(p, mcnemar(ours, theirs).p)))
    raised = holm([one[-1] for one in found])
    return tuple(ClassGain(*one, sure=p < 1 - CONFIDENCE) for one, p in zip(found, raised, strict=True))


@dataclass(frozen=True)
class ConfusionChange:
    """How much more often images of one class are taken for another: shares of the class's test images."""

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
    """The pairs of classes whose confusion fell most, and those whose confusion rose most."""
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
