"""What a score found: the table, the comparisons with their uncertainty, the sweeps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64
from pydantic import BaseModel, ValidationError
from pydantic.types import JsonValue

from dagaug.runtime.errors import DataError
from dagaug.score.controls import SelectorCheck
from dagaug.score.near_duplicates import Alike
from dagaug.score.run_log import Run
from dagaug.score.statistics import (
    ClassGain,
    ConfusionChange,
    Estimate,
    Verdict,
    class_gains,
    confusion_changes,
    estimate,
    mcnemar,
    paired_difference,
    verdict_of,
)

__all__ = [
    "ArmResult",
    "ClassRecord",
    "Comparison",
    "ComparisonRecord",
    "ConfusionRecord",
    "Estimated",
    "FractionPoint",
    "FractionRecord",
    "Guards",
    "RatioPoint",
    "RunTable",
    "ScoreFile",
    "ScoreResult",
    "Validated",
    "read_score",
]


@dataclass(frozen=True)
class ArmResult:
    """An arm's results on the test images.

    Attributes:
        arm: its name.
        images: how many synthetic ones it had.
        steps: optimiser steps of each of its trainings.
        accuracies: top-1, one for each seed.
        accuracy: their mean with its interval.
        calibration_error: how far confidence is from accuracy, mean with its interval.
    """

    arm: str
    images: int
    steps: int
    accuracies: tuple[float, ...]
    accuracy: Estimate
    calibration_error: Estimate


@dataclass(frozen=True)
class Comparison:
    """An arm against its baseline, paired by seed and by test image.

    Attributes:
        arm: its name.
        baseline: the name of the arm that it is compared with.
        differences: accuracy of the arm minus that of the baseline, one for each seed.
        difference: their mean with its interval.
        p: of the paired t test over seeds, two-sided.
        p_images: of McNemar's test over test images, all seeds pooled.
        gained, lost: predictions that only the arm, only the baseline has right, over all seeds.
        test: test images.
        verdict: ``helps`` or ``harms`` if the interval lies on one side of zero and ``p_images`` is below 0.05.
        classes: the gain of each class.
        better, worse: confusions of two classes that became rarer, more frequent.
    """

    arm: str
    baseline: str
    differences: tuple[float, ...]
    difference: Estimate
    p: float
    p_images: float
    gained: int
    lost: int
    test: int
    verdict: Verdict
    classes: tuple[ClassGain, ...]
    better: tuple[ConfusionChange, ...]
    worse: tuple[ConfusionChange, ...]

    @property
    def sentence(self) -> str:
        """The comparison in words, with its uncertainty."""
        effect = self.verdict if self.verdict != "no measurable effect" else f"has {self.verdict}"
        return (
            f"{self.arm} {effect} against {self.baseline}: {100 * self.difference.mean:+.1f} points of accuracy "
            f"(95% interval {_interval(self.difference)}, p = {self.p:.2g} over {len(self.differences)} paired seeds; "
            f"p = {self.p_images:.2g} over {self.test:,} test images)"
        )


@dataclass(frozen=True)
class FractionPoint:
    """With and without synthetic images where there are fewer real ones.

    Attributes:
        fraction: share of the real training images of each class.
        real: how many these are.
        synthetic: synthetic images that were made from these alone.
        without, with_synthetic: accuracies.
        difference: paired.
        p: of the paired t test.
        worth: how many real images reach, without synthetic ones, what these reach with them; interpolated between
            the points, None beyond them.
    """

    fraction: float
    real: int
    synthetic: int
    without: Estimate
    with_synthetic: Estimate
    difference: Estimate
    p: float
    worth: float | None


@dataclass(frozen=True)
class RatioPoint:
    """Another synthetic share of each batch: its accuracy, and the paired difference from ``real``."""

    share: float
    accuracy: Estimate
    difference: Estimate
    p: float


@dataclass(frozen=True)
class Validated:
    """A number of steps that an arm was offered.

    Attributes:
        arm: its name.
        steps: the number.
        accuracy: on all real training images, each by the network that had not learned from it.
        chosen: whether the arm trains for so many steps.
    """

    arm: str
    steps: int
    accuracy: float
    chosen: bool


@dataclass(frozen=True)
class Guards:
    """What was looked at so that no test image leaks.

    Attributes:
        alike: for each set of training images (``real`` and synthetic) how many look like a test image.
        features: the network by whose features that was told; empty where there was none.
        selector: whether the classifiers that selected knew test images; None if their file is not there.
    """

    alike: dict[str, Alike]
    features: str
    selector: SelectorCheck | None


@dataclass(frozen=True)
class ScoreResult:
    """The table and what it rests on.

    Attributes:
        arms: one row for each arm.
        comparisons: each arm with those that it is compared with; the first is the question that was asked.
        runs: every training.
        classes: how many.
        real: real training images.
        synthetic: synthetic images of the HDF5 file, or else of the first arm that has any.
        test: test images.
        steps: optimiser steps of every training, but where each arm's were chosen.
        synthetic_share: share of each batch that is synthetic, in arms that have such images.
        skipped: real images that could not be read, with the reason.
        options: everything that was asked for.
        fractions, ratios: the sweeps, where asked for.
        validated: what each arm's number of steps was chosen by, where asked for.
        guards: against leaks.
        notes: what a reader should know, in sentences.
    """

    arms: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...]
    runs: tuple[Run, ...]
    classes: int
    real: int
    synthetic: int
    test: int
    steps: int
    synthetic_share: float
    skipped: tuple[tuple[str, str], ...]
    options: dict[str, object]
    fractions: tuple[FractionPoint, ...]
    ratios: tuple[RatioPoint, ...]
    validated: tuple[Validated, ...]
    guards: Guards
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Verdict | None:
        """The answer to the question that was asked: that of the first comparison, if there is one."""
        return self.comparisons[0].verdict if self.comparisons else None

    @property
    def sentences(self) -> tuple[str, ...]:
        """Each comparison in words."""
        return tuple(comparison.sentence for comparison in self.comparisons)

    def to_json(self) -> str:
        """Everything as one JSON object, with the sentences; accuracies are shares in [0, 1]."""
        return json.dumps(
            asdict(self) | {"verdict": self.verdict, "sentences": self.sentences},
            indent=2,
            ensure_ascii=False,
            allow_nan=False,
        )


def _interval(estimate: Estimate) -> str:
    return f"{100 * estimate.low:+.1f} to {100 * estimate.high:+.1f}"


class RunTable:
    """Statistics of runs with the same seeds and test images.

    Args:
        runs: every arm with every seed, in the order of the seeds.
        labels: of the test images.
        classes: names.
    """

    def __init__(self, runs: Sequence[Run], labels: Int64[np.ndarray, " N"], classes: tuple[str, ...]) -> None:
        self._labels, self._classes = labels, classes
        self._resolution = 1 / len(labels)
        self._runs: dict[str, list[Run]] = {}
        for run in runs:
            self._runs.setdefault(run.arm, []).append(run)

    def arm(self, name: str, images: int, steps: int) -> ArmResult:
        """The results of an arm with so many synthetic images and steps."""
        errors = [run.calibration_error for run in self._runs[name]]
        return ArmResult(name, images, steps, self._accuracies(name), self._estimate(name), estimate(errors))

    def compare(self, arm: str, baseline: str) -> Comparison:
        """An arm against another."""
        difference, p = self._difference(arm, baseline)
        (ours, right), (theirs, before) = self._predicted(arm), self._predicted(baseline)
        pooled = mcnemar(right, before)
        better, worse = confusion_changes(self._classes, self._labels, ours, theirs)
        return Comparison(
            arm,
            baseline,
            tuple(a - b for a, b in zip(self._accuracies(arm), self._accuracies(baseline), strict=True)),
            difference,
            p,
            pooled.p,
            pooled.gained,
            pooled.lost,
            len(self._labels),
            verdict_of(difference, pooled.p),
            class_gains(self._classes, self._labels, right, before),
            better,
            worse,
        )

    def fractions(
        self, points: Sequence[tuple[float, int, int]], names: Mapping[float, tuple[str, str]]
    ) -> tuple[FractionPoint, ...]:
        """Accuracy against number of real images.

        Args:
            points: fraction, number of real and of synthetic images, in rising order.
            names: for each fraction the arms without and with synthetic images.
        """
        counts = [real for _, real, _ in points]
        plain = [self._estimate(names[fraction][0]) for fraction, _, _ in points]
        found = []
        for (fraction, real, synthetic), without in zip(points, plain, strict=True):
            difference, p = self._difference(*reversed(names[fraction]))
            reached = self._estimate(names[fraction][1])
            worth = _worth(reached.mean, counts, [one.mean for one in plain])
            found.append(FractionPoint(fraction, real, synthetic, without, reached, difference, p, worth))
        return tuple(found)

    def ratios(self, names: Mapping[float, str]) -> tuple[RatioPoint, ...]:
        """Accuracy against the synthetic share of a batch; ``names`` gives the arm of each share."""
        return tuple(
            RatioPoint(share, self._estimate(name), *self._difference(name, "real")) for share, name in names.items()
        )

    def _accuracies(self, name: str) -> tuple[float, ...]:
        return tuple(run.accuracy for run in self._runs[name])

    def _estimate(self, name: str) -> Estimate:
        return estimate(self._accuracies(name), resolution=self._resolution)

    def _difference(self, name: str, baseline: str) -> tuple[Estimate, float]:
        return paired_difference(self._accuracies(name), self._accuracies(baseline), resolution=self._resolution)

    def _predicted(self, name: str) -> tuple[Int64[np.ndarray, "S N"], Bool[np.ndarray, "S N"]]:
        predicted = np.stack([run.predicted() for run in self._runs[name]])
        return predicted, predicted == self._labels


def _worth(accuracy: float, counts: Sequence[int], accuracies: Sequence[float]) -> float | None:
    """Where the accuracies without synthetic images first reach this one, on straight lines between the points."""
    points = list(zip(counts, accuracies, strict=True))
    for (count, low), (next_count, high) in pairwise(points):
        if low <= accuracy <= high:
            return count + (next_count - count) * (accuracy - low) / (high - low) if high > low else float(count)
    return None


_VERDICTS = Literal["helps", "no measurable effect", "harms"]


class Estimated(BaseModel):
    """A mean and the ends of its 95% interval, as shares."""

    mean: float
    low: float
    high: float


class _Arm(BaseModel):
    arm: str
    images: int = 0
    accuracies: list[float]
    accuracy: Estimated
    calibration_error: Estimated | None = None


class ClassRecord(BaseModel):
    name: str
    difference: Estimated
    sure: bool


class ConfusionRecord(BaseModel):
    truth: str
    taken_for: str
    before: float
    after: float


class ComparisonRecord(BaseModel):
    arm: str
    baseline: str = "real"
    difference: Estimated
    p: float
    p_images: float | None = None
    verdict: _VERDICTS
    classes: list[ClassRecord] = []
    better: list[ConfusionRecord] = []
    worse: list[ConfusionRecord] = []


class FractionRecord(BaseModel):
    fraction: float
    real: int
    synthetic: int
    without: Estimated
    with_synthetic: Estimated
    difference: Estimated | None = None
    worth: float | None


class _Ratio(BaseModel):
    share: float
    accuracy: Estimated
    difference: Estimated


class _Selector(BaseModel):
    learned: int
    test: int
    seen: int


class _Alike(BaseModel):
    images: int = 0
    by_hash: int
    by_features: int | None = None
    usual: float | None = None
    suspicious: bool | None = None

    @property
    def count(self) -> int:
        """By either measure."""
        return max(self.by_hash, self.by_features or 0)


class _Guards(BaseModel):
    alike: dict[str, _Alike] = {}
    selector: _Selector | None = None


class ScoreFile(BaseModel):
    """What tables and plots need of the JSON; shares are in [0, 1], other keys are ignored."""

    arms: list[_Arm]
    comparisons: list[ComparisonRecord]
    sentences: list[str]
    classes: int
    real: int
    synthetic: int
    test: int
    steps: int
    synthetic_share: float
    options: dict[str, JsonValue]
    fractions: list[FractionRecord] = []
    ratios: list[_Ratio] = []
    notes: list[str] = []
    guards: _Guards = _Guards()


def read_score(path: Path) -> ScoreFile:
    """Read the file.

    Raises:
        DataError: it is missing or no score.
    """
    try:
        return ScoreFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it first: dagaug score") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise DataError(f"{path}: not a score ({reason}); make it anew: dagaug score") from error
