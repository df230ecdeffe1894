"""The records of a score at several numbers of training images a class (``dagaug score --shots``), and their JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dagaug.runtime.errors import DataError
from dagaug.score.results import ArmResult, Comparison, ScoreResult, strongest_rival
from dagaug.score.statistics import Verdict

__all__ = ["ShotPoint", "ShotsResult", "point_of", "read_shots"]


@dataclass(frozen=True, kw_only=True)
class ShotPoint:
    """The comparison at one number of training images a class.

    Attributes:
        per_class: number of training images of each class; all of a class that has fewer.
        real: number of real training images.
        synthetic: number of synthetic images.
        steps: optimiser steps of every training, unless each arm's were chosen by validation.
        file: the HDF5 file, made from these images alone.
        score: JSON of the whole score; its options and notes are there.
        arms: results of each arm.
        comparisons: as in a score, without classes and confusions.
    """

    per_class: int
    real: int
    synthetic: int
    steps: int
    file: str
    score: str
    arms: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def verdict(self) -> Verdict | None:
        """Verdict of the first comparison; None without comparisons."""
        return self.comparisons[0].verdict if self.comparisons else None

    @property
    def strongest_rival(self) -> Comparison | None:
        """See :func:`dagaug.score.results.strongest_rival`."""
        return strongest_rival(self.arms, self.comparisons)

    @property
    def sentence(self) -> str:
        """The main comparison and that with the strongest rival, in words; empty without comparisons."""
        if not self.comparisons:
            return ""
        first, rival = self.comparisons[0], self.strongest_rival
        told = f"{_few(self.per_class)}: {first.arm} against {first.baseline} {_gain(first)}"
        if rival is not None and rival.baseline != first.baseline:
            told += f"; against {rival.baseline}, the strongest arm without a generator, {_gain(rival)}"
        return told


@dataclass(frozen=True, kw_only=True)
class ShotsResult:
    """Accuracy of each arm against the number of training images a class.

    Attributes:
        shots: one entry for each number, rising.
        classes, test: number of classes and of test images, the same at every number.
        options: the template's file, the options of the trainings of each number, and those of the score.
        notes: warnings and remarks, in sentences.
        verdict: ``helps`` if the morphs help at every number, ``harms`` if they harm at one; None without comparisons.
        sentences: the result of each number in words; differences are in points, with 95% intervals.
    """

    shots: tuple[ShotPoint, ...]
    classes: int
    test: int
    options: dict[str, object]
    notes: tuple[str, ...] = ()
    verdict: Verdict | None = None
    sentences: tuple[str, ...] = ()

    def to_json(self) -> str:
        """All fields as one JSON object."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False)


_ADAPTER = TypeAdapter(ShotsResult)


def _few(per_class: int) -> str:
    return f"{per_class} image{'s' * (per_class > 1)} a class"


def _gain(one: Comparison) -> str:
    gain = one.difference
    return f"{100 * gain.mean:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}), {one.verdict}"


def point_of(score: ScoreResult, *, per_class: int, file: Path, written: Path) -> ShotPoint:
    """A score as one point of the curve.

    Args:
        score: the score of ``file``.
        per_class: number of training images of each class.
        file: the HDF5 file.
        written: the JSON file of the score.
    """
    return ShotPoint(
        per_class=per_class,
        real=score.real,
        synthetic=score.synthetic,
        steps=score.steps,
        file=str(file),
        score=str(written),
        arms=score.arms,
        comparisons=tuple(replace(one, classes=(), better=(), worse=()) for one in score.comparisons),
    )


def read_shots(path: Path) -> ShotsResult:
    """Read the JSON file of ``dagaug score --shots``.

    Raises:
        DataError: the file cannot be read or is not such a JSON.
    """
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it first: dagaug score --shots") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path}: not a score of several numbers of images ({where}: {first['msg']}); make it again: dagaug score "
            "--shots"
        ) from error
