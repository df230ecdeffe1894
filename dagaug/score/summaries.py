"""Means, comparisons and sweep points of finished trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int64

from dagaug.score.class_frequency import ClassGroup
from dagaug.score.results import (
    ArmResult,
    ClassGroupResult,
    Comparison,
    FractionPoint,
    GroupAccuracy,
    RatioPoint,
)
from dagaug.score.run_log import ScoreRun
from dagaug.score.statistics import (
    ConfidenceInterval,
    class_gains,
    confusion_changes,
    mcnemar,
    mean_interval,
    paired_difference,
    verdict_of,
)

__all__ = ["RunTable"]


class RunTable:
    """Statistics of trainings with the same seeds and test images.

    Args:
        runs: every arm with every seed, in the order of the seeds.
        labels: class of each test image.
        classes: names of the classes.
    """

    def __init__(self, runs: Sequence[ScoreRun], labels: Int64[np.ndarray, " N"], classes: tuple[str, ...]) -> None:
        self._labels, self._classes = labels, classes
        self._resolution = 1 / len(labels)
        self._runs: dict[str, list[ScoreRun]] = {}
        for run in runs:
            self._runs.setdefault(run.arm, []).append(run)

    def arm(self, name: str, images: int, steps: int, synthetic_share: float | None) -> ArmResult:
        """Results of an arm with this number of synthetic images and steps, and this synthetic share of a batch."""
        return ArmResult(
            arm=name,
            images=images,
            steps=steps,
            synthetic_share=synthetic_share,
            accuracies=self._accuracies(name),
            accuracy=self._mean_accuracy(name),
            calibration_error=mean_interval([run.calibration_error for run in self._runs[name]]),
        )

    def compare(self, arm: str, baseline: str) -> Comparison:
        """Compare an arm with another."""
        difference, p = self._difference(arm, baseline)
        (ours, right), (theirs, right_before) = self._predictions(arm), self._predictions(baseline)
        over_images = mcnemar(right, right_before)
        better, worse = confusion_changes(self._classes, self._labels, ours, theirs)
        return Comparison(
            arm=arm,
            baseline=baseline,
            differences=tuple(a - b for a, b in zip(self._accuracies(arm), self._accuracies(baseline), strict=True)),
            difference=difference,
            p=p,
            p_images=over_images.p,
            gained=over_images.gained,
            lost=over_images.lost,
            test=len(self._labels),
            verdict=verdict_of(difference, over_images.p),
            classes=class_gains(self._classes, self._labels, right, right_before),
            better=better,
            worse=worse,
        )

    def group(self, group: ClassGroup, arms: Sequence[str]) -> ClassGroupResult:
        """Mean accuracy of each arm over the classes of a group, which have test images."""
        rows = [np.flatnonzero(self._labels == label) for label in group.labels]
        test = sum(map(len, rows))

        def accuracies(name: str) -> list[float]:
            right = self._predictions(name)[1]
            return np.mean([right[:, own].mean(1) for own in rows], axis=0).tolist()

        real = accuracies("real")
        found = []
        for name in arms:
            own = accuracies(name)
            difference, p = (None, None) if name == "real" else paired_difference(own, real, resolution=1 / test)
            accuracy = mean_interval(own, resolution=1 / test)
            found.append(GroupAccuracy(arm=name, accuracy=accuracy, difference=difference, p=p))
        return ClassGroupResult(
            name=group.name, classes=len(group.labels), fewest=group.fewest, most=group.most, test=test,
            arms=tuple(found),
        )  # fmt: skip

    def fractions(
        self, points: Sequence[tuple[float, int, int]], names: Mapping[float, tuple[str, str]]
    ) -> tuple[FractionPoint, ...]:
        """Accuracy against the number of real images.

        Args:
            points: fraction, number of real and of synthetic images, in rising order.
            names: the arms without and with synthetic images, for each fraction.
        """
        counts = [real for _, real, _ in points]
        plain = [self._mean_accuracy(names[fraction][0]) for fraction, _, _ in points]
        found = []
        for (fraction, real, synthetic), without in zip(points, plain, strict=True):
            difference, p = self._difference(*reversed(names[fraction]))
            reached = self._mean_accuracy(names[fraction][1])
            found.append(
                FractionPoint(
                    fraction=fraction,
                    real=real,
                    synthetic=synthetic,
                    without=without,
                    with_synthetic=reached,
                    difference=difference,
                    p=p,
                    worth=_worth(reached.mean, counts, [one.mean for one in plain]),
                )
            )
        return tuple(found)

    def ratios(self, names: Mapping[float, str]) -> tuple[RatioPoint, ...]:
        """Accuracy against the synthetic share of a batch; ``names`` gives the arm of each share."""
        found = []
        for share, name in names.items():
            difference, p = self._difference(name, "real")
            found.append(RatioPoint(share=share, accuracy=self._mean_accuracy(name), difference=difference, p=p))
        return tuple(found)

    def _accuracies(self, name: str) -> tuple[float, ...]:
        return tuple(run.accuracy for run in self._runs[name])

    def _mean_accuracy(self, name: str) -> ConfidenceInterval:
        return mean_interval(self._accuracies(name), resolution=self._resolution)

    def _difference(self, name: str, baseline: str) -> tuple[ConfidenceInterval, float]:
        return paired_difference(self._accuracies(name), self._accuracies(baseline), resolution=self._resolution)

    def _predictions(self, name: str) -> tuple[Int64[np.ndarray, "S N"], Bool[np.ndarray, "S N"]]:
        """Predicted classes of an arm, and which of them are right."""
        predicted = np.stack([run.predicted() for run in self._runs[name]])
        return predicted, predicted == self._labels


def _worth(accuracy: float, counts: Sequence[int], accuracies: Sequence[float]) -> float | None:
    """Number of real images at which the accuracy without synthetic ones first reaches this one; linear between."""
    points = list(zip(counts, accuracies, strict=True))
    for (count, low), (next_count, high) in pairwise(points):
        if low <= accuracy <= high:
            return count + (next_count - count) * (accuracy - low) / (high - low) if high > low else float(count)
    return None
