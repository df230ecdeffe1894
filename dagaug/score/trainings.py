"""Trainings of a score: what each is trained on and tested on, and the running of them all."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from dagaug.classifiers.fit import FitOptions, fit, fit_identity
from dagaug.classifiers.linear_probe import LinearProbe
from dagaug.compute.process_pool import crew
from dagaug.runtime.progress import Progress
from dagaug.score.image_sets import ImageSet
from dagaug.score.options import Mode
from dagaug.score.run_log import Ledger, Run, pack
from dagaug.score.statistics import calibration_error

__all__ = ["Setting", "Training", "run_all"]


@dataclass(frozen=True)
class Setting:
    """What all trainings have in common.

    Attributes:
        classes: names.
        mode: which weights are trained.
        network: name, size and weights of the frozen network of a linear probe.
    """

    classes: tuple[str, ...]
    mode: Mode
    network: FitOptions


@dataclass(frozen=True)
class Training:
    """What one network is trained on, and tested on once it is.

    Attributes:
        name: as it stands in the ledger.
        options: with the number of steps.
        train: real images.
        synthetic: images that have a share of each batch; None for no such share.
        test: images that the trained network is tested on, once.
    """

    name: str
    options: FitOptions
    train: ImageSet
    synthetic: ImageSet | None
    test: ImageSet

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.options.steps or 0

    def identity(self, setting: Setting, device: torch.device) -> str:
        """Name everything that its predictions depend on but the seed."""
        sets = (self.train, self.test, *([] if self.synthetic is None else [self.synthetic]))
        parts = (fit_identity(one.hashes, one.labels, setting.classes, self.options) for one in sets)
        return "-".join([*(part[:16] for part in parts), setting.mode, device.type])


def run_all(
    jobs: Sequence[tuple[Training, int]],
    setting: Setting,
    devices: Sequence[torch.device],
    ledger: Ledger,
    progress: Progress,
    title: str = "Scoring",
) -> tuple[Run, ...]:
    """Train with these seeds and test, all but what is in the ledger; the order is that of the jobs."""
    identities = [training.identity(setting, devices[0]) for training, _ in jobs]
    runs: dict[int, Run] = {}
    for place, (training, seed) in enumerate(jobs):
        run = ledger.find(identities[place], training.name, seed)
        if run is not None:
            runs[place] = run
    left = [place for place in range(len(jobs)) if place not in runs]
    if left:
        groups = _groups(jobs, left, setting)
        with (
            progress.task(title, sum(jobs[place][0].steps for place in left), "steps") as task,
            tempfile.TemporaryDirectory() as folder,
        ):
            sets = _Sets()
            packed = [_Packed.of(jobs[group[0]][0], sets, tuple(jobs[place][1] for place in group)) for group in groups]
            shelf = _Shelf(sets.held) if len(devices) == 1 else _filed(sets.held, Path(folder))
            for number, done in crew(partial(_Trainer, setting, shelf), packed, devices, task=task, progress=progress):
                for place, run in zip(groups[number], done, strict=True):
                    ledger.add(identities[place], run)
                    runs[place] = run
                    so_far = f"{len(runs)} of {len(jobs)} trainings"
                    task.advance(0, f"{run.arm}, seed {run.seed}: {100 * run.accuracy:.1f}%; {so_far}")
    return tuple(runs[place] for place in range(len(jobs)))


def _groups(jobs: Sequence[tuple[Training, int]], left: Sequence[int], setting: Setting) -> list[list[int]]:
    """Places of the jobs that one process does in one go: each alone; in a probe all seeds, which share features."""
    if setting.mode != "linear-probe":
        return [[place] for place in left]
    groups: dict[str, list[int]] = {}
    for place in left:
        groups.setdefault(jobs[place][0].name, []).append(place)
    return list(groups.values())


# Images that several processes share


class _Sets:
    """Different sets of images, and the place of each."""

    def __init__(self) -> None:
        self.held: list[ImageSet] = []

    def place(self, one: ImageSet) -> int:
        for number, known in enumerate(self.held):
            if known is one:
                return number
        self.held.append(one)
        return len(self.held) - 1


@dataclass(frozen=True)
class _Packed:
    """A training with places of sets for sets, and the seeds to train with."""

    name: str
    options: FitOptions
    train: int
    synthetic: int | None
    test: int
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, training: Training, sets: _Sets, seeds: tuple[int, ...]) -> _Packed:
        synthetic = None if training.synthetic is None else sets.place(training.synthetic)
        train, test = sets.place(training.train), sets.place(training.test)
        return cls(training.name, training.options, train, synthetic, test, seeds)


@dataclass(frozen=True)
class _Shelf:
    """Sets in memory, or files of them that are opened where they are needed."""

    sets: Sequence[ImageSet | Path]

    def take(self, place: int) -> ImageSet:
        one = self.sets[place]
        if isinstance(one, ImageSet):
            return one
        return ImageSet(np.load(one, mmap_mode="r"), np.load(one.with_suffix(".labels.npy")))


def _filed(sets: Sequence[ImageSet], folder: Path) -> _Shelf:
    """The same sets in files: a process is sent names, not gigabytes."""
    paths = [folder / f"{number}.npy" for number in range(len(sets))]
    for path, one in zip(paths, sets, strict=True):
        np.save(path, one.images)
        np.save(path.with_suffix(".labels.npy"), one.labels)
    return _Shelf(paths)


# One training


class _Trainer:
    """Trains and tests on one device."""

    def __init__(self, setting: Setting, shelf: _Shelf, device: torch.device) -> None:
        self._setting, self._shelf, self._device = setting, shelf, device
        self._probe: LinearProbe | None = None

    def __call__(self, job: _Packed, progress: Progress) -> list[Run]:
        take = self._shelf.take
        synthetic = None if job.synthetic is None else take(job.synthetic)
        training = Training(job.name, job.options, take(job.train), synthetic, take(job.test))
        return [self._run(training, seed, progress) for seed in job.seeds]

    def _run(self, training: Training, seed: int, progress: Progress) -> Run:
        """Train one network and test it, once."""
        start = time.perf_counter()
        tried = self._probed if self._setting.mode == "linear-probe" else self._fitted
        probabilities = tried(training, seed, progress)
        predicted, confidence = probabilities.argmax(1), probabilities.max(1)
        right = predicted == training.test.labels
        return Run(
            training.name,
            seed,
            float(right.mean()),
            calibration_error(confidence, right),
            pack(predicted),
            round(time.perf_counter() - start, 2),
        )

    def _fitted(self, training: Training, seed: int, progress: Progress) -> Float32[np.ndarray, "N K"]:
        synthetic = training.synthetic
        classifier = fit(
            training.train.images,
            training.train.labels,
            self._setting.classes,
            training.options,
            seed=seed,
            device=self._device,
            synthetic=None if synthetic is None else (synthetic.images, synthetic.labels),
            progress=progress,
            title=f"{training.name}, seed {seed}",
        )
        return classifier.probabilities(training.test.images)

    def _probed(self, training: Training, seed: int, progress: Progress) -> Float32[np.ndarray, "N K"]:
        probe = self._probe = self._probe or LinearProbe(self._setting.network, device=self._device, progress=progress)
        augment = training.options.augment
        train, synthetic = (
            None if one is None else probe.features(one.images, one.labels, one.hashes, augment)
            for one in (training.train, training.synthetic)
        )
        assert train is not None
        test = training.test
        tested = probe.features(test.images, test.labels, test.hashes)
        found = probe.probabilities(train, synthetic, tested, len(self._setting.classes), training.options, seed=seed)
        with progress.task(f"{training.name}, seed {seed}", training.steps, "steps") as task:
            task.advance(training.steps)
        return found
