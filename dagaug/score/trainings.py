"""Trainings of a score: what each is trained and tested on, and running them all in parallel."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from dagaug.classifiers.fit import FitOptions, fit, fit_identity
from dagaug.classifiers.linear_probe import LinearProbe
from dagaug.compute.device_jobs import run_jobs
from dagaug.runtime.errors import DataError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import scratch_folder
from dagaug.runtime.progress import Progress
from dagaug.runtime.streamed_array import batches
from dagaug.score.image_set_loading import ImageSet
from dagaug.score.run_log import RunLog, ScoreRun, pack
from dagaug.score.statistics import calibration_error

__all__ = ["SharedSettings", "TrainingSpec", "run_all"]

_BATCH = 64  # images in memory at a time
_SHARED = "dagaug-score-"  # begins the name of the temporary folder that the processes of several devices share


@dataclass(frozen=True)
class SharedSettings:
    """What all trainings of a score have in common.

    Attributes:
        classes: names of the classes.
        network: how classifiers are trained (``mode``); name, size and weights of the frozen network of a linear probe.
    """

    classes: tuple[str, ...]
    network: FitOptions


@dataclass(frozen=True)
class TrainingSpec:
    """What one network is trained on and tested on.

    Attributes:
        name: name in the run log.
        options: options of the training, with the number of steps.
        train: real images.
        synthetic: images that have a share of each batch; None for no share.
        test: images that the trained network is tested on, once.
    """

    name: str
    options: FitOptions
    train: ImageSet
    synthetic: ImageSet | None
    test: ImageSet

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return self.options.steps or 0

    @property
    def synthetic_share(self) -> float | None:
        """Synthetic share of each batch; None without synthetic images."""
        return None if self.synthetic is None else self.options.synthetic_share

    def identity(self, shared: SharedSettings, device: torch.device) -> str:
        """Key of everything that the predictions depend on, except the seed and the versions of libraries."""
        sets = (self.train, self.test, *([] if self.synthetic is None else [self.synthetic]))
        parts = (fit_identity(one.hashes, one.labels, shared.classes, self.options) for one in sets)
        return "-".join([*(part[:16] for part in parts), device.type])


def run_all(
    jobs: Sequence[tuple[TrainingSpec, int]],
    shared: SharedSettings,
    devices: Sequence[torch.device],
    log: RunLog,
    progress: Progress,
    title: str = "Scoring",
) -> tuple[ScoreRun, ...]:
    """Train and test, except what the run log holds already.

    Args:
        jobs: trainings with their seeds.
        shared: what they have in common.
        devices: each runs one training at a time.
        log: finished trainings; each new one is added at once.
        progress: receives each training step.
        title: title of the progress bar.

    Returns:
        one run for each job, in the order of the jobs.

    Raises:
        TrainingError: a loss is not finite.
    """
    identities = [training.identity(shared, devices[0]) for training, _ in jobs]
    runs: dict[int, ScoreRun] = {}
    for place, (training, seed) in enumerate(jobs):
        run = log.find(identities[place], training.name, seed)
        if run is not None:
            runs[place] = run
    left = [place for place in range(len(jobs)) if place not in runs]
    if left:
        groups = _groups(jobs, left, shared)
        with progress.task(title, sum(jobs[place][0].steps for place in left), "steps") as task, ExitStack() as stack:
            sets: list[ImageSet] = []
            packed = [_job_of(jobs[group[0]][0], sets, tuple(jobs[place][1] for place in group)) for group in groups]
            images: Sequence[ImageSet | Path] = sets
            if len(devices) > 1:
                folder = tempfile.TemporaryDirectory(prefix=_SHARED, dir=scratch_folder())
                images = _write_sets(sets, Path(stack.enter_context(folder)))
            worker = partial(_Trainer, shared, images)
            for number, done in run_jobs(worker, packed, devices, task=task, progress=progress):
                for place, run in zip(groups[number], done, strict=True):
                    log.add(identities[place], run)
                    runs[place] = run
                    so_far = f"{len(runs)} of {len(jobs)} trainings"
                    task.advance(0, f"{run.arm}, seed {run.seed}: {100 * run.accuracy:.1f}%; {so_far}")
    return tuple(runs[place] for place in range(len(jobs)))


def _groups(jobs: Sequence[tuple[TrainingSpec, int]], left: Sequence[int], shared: SharedSettings) -> list[list[int]]:
    """Indices of jobs that one process runs together: each alone; the seeds of a probe, which share features."""
    if shared.network.mode != "linear-probe":
        return [[place] for place in left]
    groups: dict[str, list[int]] = {}
    for place in left:
        groups.setdefault(jobs[place][0].name, []).append(place)
    return list(groups.values())


# Sharing images between processes


@dataclass(frozen=True)
class _Job:
    """A training for a worker process: image sets by their index, and the seeds to train with."""

    name: str
    options: FitOptions
    train: int
    synthetic: int | None
    test: int
    seeds: tuple[int, ...]


def _job_of(training: TrainingSpec, sets: list[ImageSet], seeds: tuple[int, ...]) -> _Job:
    """Replace the image sets of a training by indices into ``sets``, which is extended."""
    train, test = _index(sets, training.train), _index(sets, training.test)
    synthetic = None if training.synthetic is None else _index(sets, training.synthetic)
    return _Job(training.name, training.options, train, synthetic, test, seeds)


def _index(sets: list[ImageSet], images: ImageSet) -> int:
    for number, known in enumerate(sets):
        if known is images:
            return number
    sets.append(images)
    return len(sets) - 1


def _write_sets(sets: Sequence[ImageSet], folder: Path) -> list[Path]:
    """Write image sets to files: worker processes are sent paths instead of gigabytes, and share the files.

    Raises:
        DataError: the disk is full.
    """
    paths = [folder / f"{number}.npy" for number in range(len(sets))]
    for path, one in zip(paths, sets, strict=True):
        header = {"descr": "|u1", "fortran_order": False, "shape": one.images.shape}
        try:
            with path.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                for part in batches(one.images, _BATCH):
                    part.tofile(file)
            np.save(path.with_suffix(".labels.npy"), one.labels)
        except OSError as error:
            raise DataError(
                f"{folder.parent}: no room for the images that the devices share ({error.strerror}); set TMPDIR to a "
                "folder on a larger disk, or train on one device"
            ) from error
    return paths


def _read_set(images: ImageSet | Path) -> ImageSet:
    """An image set that is in memory, or that is in a file of :func:`_write_sets`."""
    if isinstance(images, ImageSet):
        return images
    return ImageSet(np.load(images, mmap_mode="r"), np.load(images.with_suffix(".labels.npy")))


# One training


class _Trainer:
    """Trains and tests on one device.

    Args:
        shared: what all trainings have in common.
        sets: image sets, or their files, that jobs refer to by index.
        device: where to train.
    """

    def __init__(self, shared: SharedSettings, sets: Sequence[ImageSet | Path], device: torch.device) -> None:
        self._shared, self._sets, self._device = shared, sets, device
        self._probe: LinearProbe | None = None

    def __call__(self, job: _Job, progress: Progress) -> list[ScoreRun]:
        train, test = _read_set(self._sets[job.train]), _read_set(self._sets[job.test])
        synthetic = None if job.synthetic is None else _read_set(self._sets[job.synthetic])
        training = TrainingSpec(job.name, job.options, train, synthetic, test)
        execution = Execution(device=str(self._device), progress=progress)
        return [self._run(training, seed, execution) for seed in job.seeds]

    def _run(self, training: TrainingSpec, seed: int, execution: Execution) -> ScoreRun:
        """Train one network and test it once."""
        start = time.perf_counter()
        predict = self._probe_linearly if self._shared.network.mode == "linear-probe" else self._fit
        probabilities = predict(training, seed, execution)
        predicted, confidence = probabilities.argmax(1), probabilities.max(1)
        right = predicted == training.test.labels
        return ScoreRun(
            arm=training.name,
            seed=seed,
            accuracy=float(right.mean()),
            calibration_error=calibration_error(confidence, right),
            predictions=pack(predicted),
            seconds=round(time.perf_counter() - start, 2),
        )

    def _fit(self, training: TrainingSpec, seed: int, execution: Execution) -> Float32[np.ndarray, "N K"]:
        """Class probabilities of the test images, by a network whose weights are all trained."""
        synthetic = training.synthetic
        classifier = fit(
            training.train.images,
            training.train.labels,
            self._shared.classes,
            training.options,
            seed=seed,
            synthetic=None if synthetic is None else (synthetic.images, synthetic.labels),
            title=f"{training.name}, seed {seed}",
            execution=execution,
        )
        return classifier.probabilities(training.test.images)

    def _probe_linearly(self, training: TrainingSpec, seed: int, execution: Execution) -> Float32[np.ndarray, "N K"]:
        """Class probabilities of the test images, by a linear layer on frozen features."""
        probe = self._probe = self._probe or LinearProbe(self._shared.network, execution=execution)
        augment, trivialaugment = training.options.augment or "none", training.options.trivialaugment
        train, synthetic = (
            None
            if one is None
            else probe.features(one.images, one.labels, one.hashes, augment, trivialaugment=trivialaugment)
            for one in (training.train, training.synthetic)
        )
        assert train is not None
        test = training.test
        tested = probe.features(test.images, test.labels, test.hashes)
        found = probe.probabilities(train, synthetic, tested, len(self._shared.classes), training.options, seed=seed)
        with execution.progress.task(f"{training.name}, seed {seed}", training.steps, "steps") as task:
            task.advance(training.steps)
        return found
