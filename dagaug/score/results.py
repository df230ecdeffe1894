"""The records of a score and their JSON, written by ``dagaug score`` and read by reports.

Accuracies, differences, calibration errors and p values are shares in [0, 1] (differences in [-1, 1]). Fields with a
default may be missing in a file of an older version; :func:`read_score` ignores keys of later versions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dagaug.runtime.errors import DataError
from dagaug.score.run_log import ScoreRun
from dagaug.score.statistics import ClassGain, ConfidenceInterval, ConfusionChange, Verdict

__all__ = [
    "RIVALS",
    "ArmResult",
    "ClassGroupResult",
    "Comparison",
    "FractionPoint",
    "GroupAccuracy",
    "LeakChecks",
    "NearDuplicates",
    "RatioPoint",
    "ScoreResult",
    "SelectorCheck",
    "SettingsCandidate",
    "read_score",
    "strongest_rival",
]


RIVALS = ("real", "cutmix", "mixup", "trivialaugment", "cutout", "cutwarp")
"""Arms that need no generator: what the morphs have to beat."""


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """Results of one arm on the test images.

    Attributes:
        arm: name of the arm.
        images: number of its synthetic images.
        steps: optimiser steps of each training.
        synthetic_share: synthetic share of each batch; None without synthetic images and in files of older versions.
        accuracies: top-1 accuracy of each seed.
        accuracy: their mean.
        calibration_error: mean expected calibration error; None in files of older versions.
    """

    arm: str
    images: int = 0
    steps: int = 0
    synthetic_share: float | None = None
    accuracies: tuple[float, ...]
    accuracy: ConfidenceInterval
    calibration_error: ConfidenceInterval | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An arm against its baseline, paired by seed and by test image.

    Attributes:
        arm: name of the arm.
        baseline: name of the arm that it is compared with.
        differences: accuracy of the arm minus accuracy of the baseline, one for each seed.
        difference: their mean.
        p: two-sided p value of the paired t test over seeds.
        p_images: p value of McNemar's test over test images, all seeds pooled; None in files of older versions.
        gained, lost: predictions that only the arm, only the baseline has right, over all seeds.
        test: number of test images.
        verdict: ``helps`` or ``harms`` if the interval excludes zero and ``p_images`` is below 0.05.
        classes: the gain of each class.
        better, worse: confusions of two classes that became rarer, more frequent.
    """

    arm: str
    baseline: str = "real"
    differences: tuple[float, ...] = ()
    difference: ConfidenceInterval
    p: float
    p_images: float | None = None
    gained: int = 0
    lost: int = 0
    test: int = 0
    verdict: Verdict
    classes: tuple[ClassGain, ...] = ()
    better: tuple[ConfusionChange, ...] = ()
    worse: tuple[ConfusionChange, ...] = ()

    @property
    def sentence(self) -> str:
        """The comparison in words, with its uncertainty."""
        effect = self.verdict if self.verdict != "no measurable effect" else f"has {self.verdict}"
        low, high = (f"{100 * end:+.1f}" for end in (self.difference.low, self.difference.high))
        over_images = "" if self.p_images is None else f"; p = {self.p_images:.2g} over {self.test:,} test images"
        return (
            f"{self.arm} {effect} against {self.baseline}: {100 * self.difference.mean:+.1f} points of accuracy "
            f"(95% interval {low} to {high}, p = {self.p:.2g} over {len(self.differences)} paired seeds{over_images})"
        )


@dataclass(frozen=True, kw_only=True)
class FractionPoint:
    """Accuracy with and without synthetic images at a smaller number of real images.

    Attributes:
        fraction: share of the real training images of each class.
        real: number of these real images.
        synthetic: number of synthetic images made from these real images alone.
        without, with_synthetic: accuracies.
        difference: paired difference; None in files of older versions.
        p: p value of the paired t test; NaN in files of older versions.
        worth: number of real images that reach the same accuracy without synthetic ones, interpolated between the
            points; None outside their range.
    """

    fraction: float
    real: int
    synthetic: int
    without: ConfidenceInterval
    with_synthetic: ConfidenceInterval
    difference: ConfidenceInterval | None = None
    p: float = math.nan
    worth: float | None


@dataclass(frozen=True, kw_only=True)
class GroupAccuracy:
    """Mean accuracy of an arm over the classes of a group, each class with the same weight.

    Attributes:
        arm: name of the arm.
        accuracy: mean over classes and seeds.
        difference: paired difference from the arm ``real``; None for ``real`` itself.
        p: p value of the paired t test over seeds; None for ``real`` itself.
    """

    arm: str
    accuracy: ConfidenceInterval
    difference: ConfidenceInterval | None = None
    p: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClassGroupResult:
    """Results on the classes with many, medium or few training images.

    Attributes:
        name: ``many``, ``medium`` or ``few``.
        classes: number of classes.
        fewest, most: smallest and largest number of real training images of a class.
        test: number of test images.
        arms: accuracy of each arm.
    """

    name: str
    classes: int
    fewest: int
    most: int
    test: int
    arms: tuple[GroupAccuracy, ...]


@dataclass(frozen=True, kw_only=True)
class RatioPoint:
    """Accuracy at another synthetic share of each batch, and its paired difference from the arm ``real``."""

    share: float
    accuracy: ConfidenceInterval
    difference: ConfidenceInterval
    p: float = math.nan


@dataclass(frozen=True, kw_only=True)
class SettingsCandidate:
    """Settings tried for an arm by cross-validation on the real training images.

    Attributes:
        arm: name of the arm.
        steps: optimiser steps.
        synthetic_share: synthetic share of each batch; None without synthetic images and in files of older versions.
        trainings: number of trainings of this trial, over folds and seeds; 0 in files of older versions.
        accuracy: cross-validated accuracy on the real training images.
        chosen: whether the arm trains with these settings.
    """

    arm: str
    steps: int
    synthetic_share: float | None = None
    trainings: int = 0
    accuracy: float
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class NearDuplicates:
    """Training images of one set that look like a test image.

    Attributes:
        images: number of images in the set.
        by_hash: how many match a test image by perceptual hash and thumbnail.
        by_features: how many have features as close to a test image as altered copies of test images; None without a
            pretrained network.
        nearest: smallest feature distance to a test image, in units of the distance of altered copies; None without
            a pretrained network.
        usual: share of the test images that are as close to another test image; None without a pretrained network.
        suspicious: whether any image matches by hash, or significantly more than usual match by features; None in
            files of older versions.
    """

    images: int = 0
    by_hash: int
    by_features: int | None = None
    nearest: float | None = None
    usual: float | None = None
    suspicious: bool | None = None

    @property
    def count(self) -> int:
        """The larger of both counts."""
        return max(self.by_hash, self.by_features or 0)


@dataclass(frozen=True, kw_only=True)
class SelectorCheck:
    """Whether the classifiers that selected the synthetic images had been trained on test images.

    Attributes:
        file: file of these classifiers, which holds a hash of each image that they were trained on.
        learned: number of different images among these hashes.
        test: number of test images.
        seen: number of test images among the hashes.
    """

    file: str = ""
    learned: int
    test: int
    seen: int


@dataclass(frozen=True, kw_only=True)
class LeakChecks:
    """Checks that no test image leaked into the training images.

    Attributes:
        alike: near-duplicates of test images in each set of training images (``real`` and the synthetic sets).
        features: network of the features; empty if only perceptual hashes were compared.
        selector: check of the classifiers that selected; None if their file was not found.
    """

    alike: dict[str, NearDuplicates] = field(default_factory=dict)
    features: str = ""
    selector: SelectorCheck | None = None


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """Everything that a score measured.

    Attributes:
        arms: one row for each arm.
        comparisons: each arm with its baselines; the first one is the main question.
        runs: every training.
        classes: number of classes.
        real: number of real training images.
        synthetic: number of synthetic images of the HDF5 file, or of the first arm that has any.
        test: number of test images.
        steps: optimiser steps of every training, unless ``validated`` says what each arm chose.
        synthetic_share: synthetic share of each batch in arms with synthetic images, unless ``validated`` says what
            each arm chose.
        skipped: path and reason of each real image that could not be read.
        options: all options, and the versions and devices that the result depends on.
        groups: results by number of training images of a class, if the classes differ much in it.
        fractions, ratios: results of the sweeps.
        validated: settings that were tried by cross-validation.
        guards: checks for leaks of test images.
        notes: warnings and remarks, in sentences.
        verdict: verdict of the first comparison; None without comparisons.
        sentences: each comparison in words.
    """

    arms: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...]
    runs: tuple[ScoreRun, ...] = ()
    classes: int
    real: int
    synthetic: int
    test: int
    steps: int
    synthetic_share: float
    skipped: tuple[tuple[str, str], ...] = ()
    options: dict[str, object]
    groups: tuple[ClassGroupResult, ...] = ()
    fractions: tuple[FractionPoint, ...] = ()
    ratios: tuple[RatioPoint, ...] = ()
    validated: tuple[SettingsCandidate, ...] = ()
    guards: LeakChecks = field(default_factory=LeakChecks)
    notes: tuple[str, ...] = ()
    verdict: Verdict | None = None
    sentences: tuple[str, ...]

    @property
    def strongest_rival(self) -> Comparison | None:
        """See :func:`strongest_rival`."""
        return strongest_rival(self.arms, self.comparisons)

    def to_json(self) -> str:
        """All fields as one JSON object.

        Raises:
            ValueError: a number is not finite, as in a result that was read from a file of an older version.
        """
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> ScoreResult:
        """Read what :meth:`to_json` wrote.

        Raises:
            DataError: it is not the JSON of a score.
        """
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise DataError(f"{where}: {first['msg']}" if where else first["msg"]) from error


_ADAPTER = TypeAdapter(ScoreResult)


def strongest_rival(arms: Sequence[ArmResult], comparisons: Sequence[Comparison]) -> Comparison | None:
    """The main arm against the most accurate of :data:`RIVALS`; None unless at least two of them were trained.

    Args:
        arms: results of the arms.
        comparisons: each arm with its baselines; the first one is the main question.
    """
    if not comparisons:
        return None
    main = comparisons[0].arm
    accuracy = {arm.arm: arm.accuracy.mean for arm in arms}
    rivals = [one for one in comparisons if one.arm == main and one.baseline in RIVALS]
    rivals = [one for one in rivals if one.baseline in accuracy]
    return max(rivals, key=lambda one: accuracy[one.baseline]) if len(rivals) > 1 else None


def read_score(path: Path) -> ScoreResult:
    """Read the JSON file of ``dagaug score``.

    Raises:
        DataError: the file cannot be read or is not the JSON of a score.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it first: dagaug score") from error
    try:
        return ScoreResult.from_json(content)
    except DataError as error:
        raise DataError(f"{path}: not a score ({error}); make it again: dagaug score") from error
