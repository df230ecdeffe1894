"""Choice of each arm's number of steps and synthetic share by cross-validation on the real training images.

Each fold's network is trained without the fold, with each combination of settings on offer, and predicts the fold; so
every training image is a validation image once. An arm then trains on all images with the settings of the highest
accuracy; if several tie, with the fewest steps and then the smallest share. All arms are offered the same settings and
train equally often: arms without synthetic images, which have no share, repeat each number of steps with as many seeds
as there are shares. Test images are never used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int64

from dagaug.classifiers.cross_fit import assign_folds
from dagaug.runtime.errors import UsageError
from dagaug.runtime.progress import Progress
from dagaug.score.image_set_loading import ImageSet, TracedImageSet
from dagaug.score.options import ScoreOptions
from dagaug.score.results import SettingsCandidate
from dagaug.score.run_log import RunLog, ScoreRun
from dagaug.score.training_cost import TrainingCost, in_words
from dagaug.score.trainings import SharedSettings, TrainingSpec, run_all

__all__ = ["OFFERED", "choose_settings", "steps_of_choice", "without_origins"]

OFFERED = (0.5, 1.0, 2.0)
"""Numbers of steps to choose from where none are named, as multiples of the default number."""

_Job = tuple[TrainingSpec, int]
"""A training and its seed."""


def choose_settings(
    real: TracedImageSet,
    trainings: Mapping[str, TrainingSpec],
    following: int,
    options: ScoreOptions,
    shared: SharedSettings,
    devices: Sequence[torch.device],
    log: RunLog,
    progress: Progress,
) -> tuple[dict[str, TrainingSpec], tuple[SettingsCandidate, ...]]:
    """Choose the number of steps and, if shares are on offer, the synthetic share of each arm.

    Synthetic images made from a held-out image, or in its pose, are held out with it, if their origins are known.

    Args:
        real: the real training images.
        trainings: training of each arm on all real training images, with the default settings.
        following: number of trainings that follow the choice, for the message about the cost.
        options: of the score: the share that a fold holds out (``validation``), what is on offer, and the seed.
        shared, devices, log: see :func:`dagaug.score.trainings.run_all`.
        progress: receives the cost before the first training, and then each step.

    Returns:
        the trainings with the chosen settings, and all settings that were tried.

    Raises:
        UsageError: no class has two images, so that none can be held out, or no synthetic images are left without the
            held-out ones.
    """
    folds = _folds(real, options)
    trials = [trial for training in trainings.values() for trial in _trials(training, folds, options)]
    jobs = [job for trial in trials for job in trial.jobs]
    _tell_cost(trials, len(folds), following, shared, devices, log, progress)
    runs = iter(run_all(jobs, shared, devices, log, progress, "Choosing settings"))
    accuracy = [_accuracy(trial.jobs, runs) for trial in trials]
    best: dict[str, int] = {}
    for place, trial in enumerate(trials):  # of one arm: rising steps, then rising shares
        if trial.arm not in best or accuracy[place] > accuracy[best[trial.arm]]:
            best[trial.arm] = place
    chosen = {
        arm: replace(training, options=trials[best[arm]].jobs[0][0].options) for arm, training in trainings.items()
    }
    return chosen, tuple(
        SettingsCandidate(
            arm=trial.arm,
            steps=trial.steps,
            synthetic_share=trial.share,
            trainings=len(trial.jobs),
            accuracy=accuracy[place],
            chosen=place == best[trial.arm],
        )
        for place, trial in enumerate(trials)
    )


# Folds and trials


@dataclass(frozen=True)
class _Fold:
    """The real training images, split in two, and the file names of those that are held out."""

    train: ImageSet
    held_out: ImageSet
    files: frozenset[str]

    @classmethod
    def of(cls, real: TracedImageSet, held_out: Bool[np.ndarray, " N"]) -> _Fold:
        rows = np.flatnonzero(held_out)
        files = frozenset(file for row in rows.tolist() for file in real.origins[row])
        return cls(real.take(np.flatnonzero(~held_out)), real.take(rows), files)


def _folds(real: TracedImageSet, options: ScoreOptions) -> list[_Fold]:
    share = options.validation or 0.0  # given, or nothing is chosen
    fold_of, held_out = assign_folds(real.hashes, real.labels, max(2, round(1 / share)), seed=options.seed)
    if not held_out.any():
        raise UsageError(
            "no class has two different training images, so that none can be held out",
            option="validation",
            value=f"{share:g}",
        )
    return [_Fold.of(real, held_out & (fold_of == fold)) for fold in range(int(fold_of.max()) + 1)]


@dataclass(frozen=True)
class _Trial:
    """Settings to try for an arm: a training for each fold and seed. ``share`` is None without synthetic images."""

    arm: str
    steps: int
    share: float | None
    jobs: tuple[_Job, ...]


def _trials(training: TrainingSpec, folds: Sequence[_Fold], options: ScoreOptions) -> Iterator[_Trial]:
    """The trials of an arm, in rising order of steps and then of shares; ``training`` has the default settings."""
    parts = [without_origins(training.synthetic, fold.files) for fold in folds]
    if training.synthetic is not None and None in parts:
        raise UsageError(
            f"{training.name} has no synthetic image that was made without the held-out images; hold out fewer",
            option="validation",
            value=f"{options.validation:g}",
        )
    named = sorted(set(options.share_choices))
    shares: Sequence[float | None] = [None]
    seeds = max(1, len(named))
    if training.synthetic is not None:
        shares, seeds = named or [training.options.synthetic_share], 1
    for steps in _steps_on_offer(training.steps, options):
        for share in shares:
            settings = replace(training.options, steps=steps)
            name = f"{training.name}, {steps} steps"
            if share is not None and named:
                settings = replace(settings, synthetic_share=share)
                name += f", {share:.3g} of a batch synthetic"
            jobs = tuple(
                (TrainingSpec(f"{name}, fold {place + 1}", settings, fold.train, part, fold.held_out), seed)
                for seed in range(options.seed, options.seed + seeds)
                for place, (fold, part) in enumerate(zip(folds, parts, strict=True))
            )
            yield _Trial(training.name, steps, share, jobs)


def _steps_on_offer(default: int, options: ScoreOptions) -> list[int]:
    """The named numbers of steps, or multiples of the default; the default alone if only shares are named."""
    if options.step_choices:
        return sorted(set(options.step_choices))
    multiples = (1.0,) if options.share_choices else OFFERED
    return sorted({max(1, round(multiple * default)) for multiple in multiples})


def steps_of_choice(default: int, options: ScoreOptions) -> int:
    """Optimiser steps of all trainings that choose the settings of one arm; 0 without cross-validation.

    Args:
        default: number of steps of a training where none are named.
        options: of the score.
    """
    if options.validation is None:
        return 0
    repeats = max(1, len(options.share_choices)) * round(1 / options.validation)
    return repeats * sum(_steps_on_offer(default, options))


def _accuracy(jobs: Sequence[_Job], runs: Iterator[ScoreRun]) -> float:
    """Accuracy on all held-out images; takes the runs of these jobs from ``runs``."""
    right = [next(runs).predicted() == training.test.labels for training, _ in jobs]
    return float(np.concatenate(right).mean())


def without_origins(images: ImageSet | None, files: frozenset[str]) -> ImageSet | None:
    """The synthetic images that were not made from any of ``files``; None if there are none.

    A set whose origins are unknown is returned whole.
    """
    if images is None or not isinstance(images, TracedImageSet):
        return images
    rows: Int64[np.ndarray, " M"] = np.flatnonzero([files.isdisjoint(origins) for origins in images.origins])
    return images.take(rows) if len(rows) else None


# Cost


def _tell_cost(
    trials: Sequence[_Trial],
    folds: int,
    following: int,
    shared: SharedSettings,
    devices: Sequence[torch.device],
    log: RunLog,
    progress: Progress,
) -> None:
    """Say how many trainings the choice takes and about how long."""
    jobs = [job for trial in trials for job in trial.jobs]
    left = [job for job in jobs if not log.has(job[0].identity(shared, devices[0]), job[0].name, job[1])]
    arms = len({trial.arm for trial in trials})
    what = "steps and synthetic share" if len({trial.share for trial in trials} - {None}) > 1 else "steps"
    counts = sorted({trial.steps for trial in trials})
    range_of_steps = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    done = f", {len(jobs) - len(left)} of them finished" if len(left) < len(jobs) else ""
    cost = TrainingCost.measured(left[0][0], shared, devices[0]) if left else None
    first = "" if cost is None else f", about {in_words(cost.of([job[0].steps for job in left]) / len(devices))}"
    then = "" if cost is None else f", at most {in_words(cost.of([counts[-1]] * following) / len(devices))}"
    progress.say(
        f"Choosing {what} of {arms} arms by cross-validation in {folds} folds of the training images: {len(jobs):,} "
        f"trainings of {range_of_steps} steps{done}{first}; then {following:,} trainings for the test{then}"
    )
