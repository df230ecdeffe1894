"""The downstream experiment: do the synthetic images make a better classifier? (paper, Sec. 4.6)

Each arm of :data:`ARMS` trains the same network for the same number of steps of the same size from the same
seeds, and each trained network is tested once on the untouched test split. Arms are paired by seed: a
difference is taken within a seed, and its interval is Student's t over the seeds. Whole images are used, as
they will be met in the test.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64, Integer, UInt8
from scipy import stats

from dagaug import images as imaging
from dagaug.classifier import Augment, FitOptions, fit, hash_images, identity_of
from dagaug.datasets import Dataset
from dagaug.errors import DataError, UsageError
from dagaug.progress import SILENT, Progress
from dagaug.store import Store

__all__ = [
    "ARMS",
    "CONFIDENCE",
    "Arm",
    "ArmResult",
    "Comparison",
    "Estimate",
    "Run",
    "ScoreOptions",
    "ScoreResult",
    "Verdict",
    "estimate",
    "paired_difference",
    "score",
]

CONFIDENCE = 0.95

Verdict = Literal["helps", "no measurable effect", "harms"]


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: as it stands in the table.
        augment: the augmentation of all its images.
        synthetic: whether a share of each batch is synthetic.
        baseline: name of the arm that it is compared with; empty if it is a baseline itself.
    """

    name: str
    augment: Augment
    synthetic: bool
    baseline: str = ""


ARMS: tuple[Arm, ...] = (
    Arm("real", "standard", synthetic=False),
    Arm("real+dagaug", "standard", synthetic=True, baseline="real"),
)
"""The arms, in the order of the table."""


@dataclass(frozen=True)
class ScoreOptions:
    """What a score depends on besides data and images.

    Attributes:
        fit: network and training, the same for every arm but for the augmentation, which the arm chooses.
        seeds: how many trainings of each arm.
        seed: the first one; the others follow it.
        per_class: use only the first so many real training images of each class.
    """

    fit: FitOptions = field(default_factory=FitOptions)
    seeds: int = 3
    seed: int = 0
    per_class: int | None = None

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise UsageError(f"--seeds {self.seeds}: at least 2, since one training says nothing of chance")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: at least 0")


@dataclass(frozen=True)
class Run:
    """One training, tested once."""

    arm: str
    seed: int
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval; all as shares, not per cent."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ArmResult:
    """Top-1 test accuracy of an arm, one value per seed, and its mean over the seeds."""

    arm: str
    accuracies: tuple[float, ...]
    accuracy: Estimate


@dataclass(frozen=True)
class Comparison:
    """An arm against its baseline, paired by seed.

    Attributes:
        arm: its name.
        baseline: the name of the arm that it is compared with.
        differences: accuracy of the arm minus that of the baseline, one for each seed.
        difference: their mean with its interval.
        p: of the paired t test, two-sided.
        verdict: ``helps`` or ``harms`` if the whole interval lies on one side of zero.
    """

    arm: str
    baseline: str
    differences: tuple[float, ...]
    difference: Estimate
    p: float
    verdict: Verdict

    @property
    def sentence(self) -> str:
        """The comparison in words, with its uncertainty."""
        mean, low, high = self.difference.mean, self.difference.low, self.difference.high
        effect = self.verdict if self.verdict != "no measurable effect" else f"has {self.verdict}"
        return (
            f"{self.arm} {effect} against {self.baseline}: {100 * mean:+.1f} points of accuracy "
            f"(95% interval {100 * low:+.1f} to {100 * high:+.1f}, p = {self.p:.2g}, "
            f"{len(self.differences)} paired seeds)"
        )


@dataclass(frozen=True)
class ScoreResult:
    """The table and what it rests on.

    Attributes:
        arms: one row for each arm.
        comparisons: each arm with a baseline, against it.
        runs: every training.
        classes: how many.
        real: real training images.
        synthetic: synthetic training images.
        test: test images.
        steps: optimiser steps of every training.
        synthetic_share: share of each batch that is synthetic, in arms that have such images.
        skipped: real images that could not be read, with the reason.
        options: everything that was asked for.
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

    @property
    def sentences(self) -> tuple[str, ...]:
        """Each comparison in words."""
        return tuple(comparison.sentence for comparison in self.comparisons)

    def to_json(self) -> str:
        """Everything as one JSON object, with the sentences; accuracies are shares in [0, 1]."""
        return json.dumps(asdict(self) | {"sentences": self.sentences}, indent=2, ensure_ascii=False)


# Statistics


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


def _compare(arm: ArmResult, baseline: ArmResult, resolution: float) -> Comparison:
    difference, p = paired_difference(arm.accuracies, baseline.accuracies, resolution=resolution)
    verdict: Verdict = "no measurable effect"
    if difference.low > 0:
        verdict = "helps"
    elif difference.high < 0:
        verdict = "harms"
    differences = tuple(a - b for a, b in zip(arm.accuracies, baseline.accuracies, strict=True))
    return Comparison(arm.arm, baseline.arm, differences, difference, p, verdict)


# Data


@dataclass(frozen=True)
class _Set:
    """Images, uint8 RGB N S S 3, and their labels."""

    images: UInt8[np.ndarray, "N S S 3"]
    labels: Int64[np.ndarray, " N"]

    @cached_property
    def hashes(self) -> Int64[np.ndarray, " N"]:
        return hash_images(self.images)


@dataclass(frozen=True)
class _Material:
    """Everything that arms are made of."""

    classes: tuple[str, ...]
    train: _Set
    synthetic: _Set
    test: _Set


def _load(
    dataset: Dataset, store: Path, size: int, progress: Progress
) -> tuple[_Material, tuple[tuple[str, str], ...]]:
    """Read all images whole, and list the real ones that cannot be read with the reason."""
    synthetic = _load_synthetic(store, dataset, size, progress)
    train, test, skipped = _load_real(dataset, size, progress)
    return _Material(dataset.classes, train, synthetic, test), skipped


def _load_real(dataset: Dataset, size: int, progress: Progress) -> tuple[_Set, _Set, tuple[tuple[str, str], ...]]:
    """Read training and test images whole; unreadable ones are skipped and listed."""
    sets, skipped = [], []
    for name, samples in (("training", dataset.train), ("test", dataset.test)):
        if not samples:
            raise DataError(f"{dataset.root}: no {name} images; a score needs a training and a test split")
        paths = [dataset.file(sample) for sample in samples]
        loaded = imaging.load(paths, size=size, fit="letterbox", progress=progress)
        labels = np.array([sample.label for sample in samples], dtype=np.int64)
        sets.append(_Set(loaded.images, labels[loaded.kept]))
        skipped += [(str(one.path), one.reason) for one in loaded.skipped]
    return sets[0], sets[1], tuple(skipped)


def _load_synthetic(path: Path, dataset: Dataset, size: int, progress: Progress) -> _Set:
    """Read the synthetic images of a store, once it is sure that they fit the data and leak no test."""
    with Store(path) as store:
        _check_classes(path, store.classes, dataset)
        rows = np.flatnonzero(store.images.synthetic)
        if not len(rows):
            raise DataError(f"{path}: no synthetic images in it; make some: dagaug augment {dataset.root}")
        _check_origin(path, store, rows, dataset, progress)
        out = np.empty((len(rows), size, size, 3), dtype=np.uint8)
        with progress.task("Reading synthetic", len(rows), "images") as task:
            for start in range(0, len(rows), 256):
                chosen = rows[start : start + 256]
                for place, image in enumerate(store.read(chosen.tolist()), start):
                    region = imaging.region_of(*image.shape[:2], box=None, fit="letterbox")
                    out[place] = imaging.cut(image, region, size)
                task.advance(len(chosen))
        return _Set(out, store.images.label[rows].astype(np.int64))


def _check_classes(path: Path, classes: tuple[str, ...], dataset: Dataset) -> None:
    if classes == dataset.classes:
        return
    if set(classes) == set(dataset.classes):
        what = "the same classes in another order"
    else:
        what = f"{_listed(path, classes, dataset.classes)}; {_listed(dataset.root, dataset.classes, classes)}"
    raise DataError(f"{path} does not fit {dataset.root}: {what}; give the data that it was made from")


def _listed(where: Path, classes: Sequence[str], others: Sequence[str]) -> str:
    """How many classes there are, and one that the others lack."""
    alone = sorted(set(classes) - set(others))
    return f"{where} has {len(classes)} classes" + (f", {alone[0]!r} only there" if alone else "")


def _check_origin(
    path: Path, store: Store, rows: Integer[np.ndarray, " N"], dataset: Dataset, progress: Progress
) -> None:
    """Refuse synthetic images that were made from anything but the training images in use.

    A source or reference from the test split leaks the test; one from a training image that the real arm does
    not have (another ``--per-class``) gives the other arm more real information.
    """
    header, table = store.header, store.images
    train = {sample.path.as_posix() for sample in dataset.train}
    test = {sample.path.as_posix() for sample in dataset.test}
    origins = np.union1d(table.source[rows], table.reference[rows])
    used = [(int(row), header.files[row]) for row in origins if row >= 0]
    for row, file in used:
        if file in test or header.files_split[row] != 0:
            raise DataError(f"{path}: made from the test image {file}; a score would be false")
        if file not in train:
            raise DataError(
                f"{path}: made from {file}, which is not among the {len(train)} training "
                f"images in use of {dataset.root}; give the data folder and --per-class that it was made with"
            )
    if (table.split[rows] != 0).any():
        raise DataError(f"{path}: some synthetic images stand in the test split; a score would be false")
    if len(used) < len(train):
        progress.say(f"{path}: made from {len(used)} of the {len(train)} real training images")


# The experiment


def score(
    dataset: Dataset,
    store: Path | str,
    options: ScoreOptions | None = None,
    *,
    device: torch.device | str = "cpu",
    resume: Path | None = None,
    progress: Progress = SILENT,
) -> ScoreResult:
    """Train every arm with every seed, test each once, and compare.

    Args:
        dataset: real images with their split.
        store: HDF5 file of ``dagaug augment``; its synthetic images are used, its real ones are not.
        options: see :class:`ScoreOptions`.
        device: where to train.
        resume: JSON-lines file of finished runs. Those of the same images, labels and options are taken from
            it rather than trained again, and each new one is added at once.
        progress: told of each step of each training.

    Raises:
        DataError: the store does not fit the data, or its images were made from test images.
        StoreError: the store cannot be read.
        UsageError: an unknown network or an impossible option.
        TrainingError: a loss that is not finite.
    """
    options = options or ScoreOptions()
    dataset = dataset.subset(options.per_class)
    material, skipped = _load(dataset, Path(store), options.fit.size, progress)
    training = options.fit.resolved(len(material.train.images))
    ledger = _Ledger(resume, progress)
    runs: list[Run] = []
    with progress.task("Scoring", options.seeds * len(ARMS), "trainings") as task:
        for number in range(options.seeds):
            for arm in ARMS:
                seed = options.seed + number
                arm_options = replace(training, augment=arm.augment)
                identity = _identity(material, arm, arm_options, torch.device(device))
                run = ledger.find(identity, arm.name, seed)
                if run is None:
                    title = f"{arm.name}, seed {number + 1} of {options.seeds}"
                    run = _run(material, arm, arm_options, seed, device, progress, title)
                    ledger.add(identity, run)
                runs.append(run)
                task.advance(1, f"{arm.name}: {100 * run.accuracy:.1f}%")
    resolution = 1 / len(material.test.images)
    arms = {arm.name: _arm_result(arm, runs, resolution) for arm in ARMS}
    return ScoreResult(
        arms=tuple(arms.values()),
        comparisons=tuple(_compare(arms[a.name], arms[a.baseline], resolution) for a in ARMS if a.baseline),
        runs=tuple(runs),
        classes=len(dataset.classes),
        real=len(material.train.images),
        synthetic=len(material.synthetic.images),
        test=len(material.test.images),
        steps=training.steps or 0,
        synthetic_share=training.synthetic_share,
        skipped=skipped,
        options={
            "data": str(dataset.root),
            "store": str(store),
            **{name: getattr(options, name) for name in ("seeds", "seed", "per_class")},
            "fit": training.as_dict(),
        },
    )


def _run(
    material: _Material,
    arm: Arm,
    options: FitOptions,
    seed: int,
    device: torch.device | str,
    progress: Progress,
    title: str,
) -> Run:
    """Train one network and test it, once."""
    start = time.perf_counter()
    classifier = fit(
        material.train.images,
        material.train.labels,
        material.classes,
        options,
        seed=seed,
        device=device,
        synthetic=(material.synthetic.images, material.synthetic.labels) if arm.synthetic else None,
        progress=progress,
        title=title,
    )
    accuracy = classifier.accuracy(material.test.images, material.test.labels)
    return Run(arm.name, seed, accuracy, round(time.perf_counter() - start, 2))


def _arm_result(arm: Arm, runs: Sequence[Run], resolution: float) -> ArmResult:
    accuracies = tuple(run.accuracy for run in runs if run.arm == arm.name)
    return ArmResult(arm.name, accuracies, estimate(accuracies, resolution=resolution))


# Finished runs


def _identity(material: _Material, arm: Arm, options: FitOptions, device: torch.device) -> str:
    """Name everything that a run's accuracy depends on but its seed."""
    used = (material.train, material.test, *([material.synthetic] if arm.synthetic else []))
    parts = (identity_of(one.hashes, one.labels, material.classes, options) for one in used)
    return "-".join([*(part[:16] for part in parts), device.type])


class _Ledger:
    """Runs that are finished, in a JSON-lines file; without a path it only forgets."""

    def __init__(self, path: Path | None, progress: Progress) -> None:
        self._path = path
        self._progress = progress
        self._runs: dict[tuple[str, str, int], Run] = {}
        if path is None or not path.exists():
            return
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
                identity, arm, seed = record["identity"], record["arm"], int(record["seed"])
                run = Run(arm, seed, float(record["accuracy"]), float(record["seconds"]))
                self._runs[identity, arm, seed] = run
            except (ValueError, KeyError, TypeError):
                continue  # the line that a killed run was writing; it is trained again

    def find(self, identity: str, arm: str, seed: int) -> Run | None:
        """Give the run if it is finished."""
        run = self._runs.get((identity, arm, seed))
        if run is not None:
            self._progress.say(f"{arm}, seed {seed}: {100 * run.accuracy:.1f}%, from {self._path}")
        return run

    def add(self, identity: str, run: Run) -> None:
        """Write a run down, on disk when this returns."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"identity": identity, **asdict(run)}) + "\n"
        with self._path.open("ab") as file:
            # A line cut short by a killed run must not swallow this one.
            if file.tell() and not self._path.read_bytes().endswith(b"\n"):
                line = "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
