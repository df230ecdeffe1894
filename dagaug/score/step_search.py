"""Choice of each arm's number of steps by cross-validation on the real training images.

Each fold's network is trained without the fold, for each number of steps on offer, and predicts the fold; so every
training image is a validation image once. An arm then trains on all images for the number of steps with the highest
accuracy, the smallest one if several tie. All arms are offered the same numbers. Test images are never used.
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
from dagaug.score.results import StepCandidate
from dagaug.score.run_log import RunLog, ScoreRun
from dagaug.score.trainings import SharedSettings, TrainingSpec, run_all

__all__ = ["OFFERED", "choose_steps", "without_origins"]

OFFERED = (0.5, 1.0, 2.0)
"""Numbers of steps to choose from, as multiples of the default number."""


def choose_steps(
    real: TracedImageSet,
    trainings: Mapping[str, TrainingSpec],
    share: float,
    seed: int,
    shared: SharedSettings,
    devices: Sequence[torch.device],
    log: RunLog,
    progress: Progress,
) -> tuple[dict[str, TrainingSpec], tuple[StepCandidate, ...]]:
    """Choose the number of steps of each arm.

    Synthetic images made from a held-out image are held out with it, if their origins are known.

    Args:
        real: the real training images.
        trainings: training of each arm on all real training images, with the default number of steps.
        share: share of the real training images that a fold holds out.
        seed: seed of the folds and of these trainings.
        shared, devices, log, progress: see :func:`dagaug.score.trainings.run_all`.

    Returns:
        the trainings with the chosen numbers of steps, and all numbers that were tried.

    Raises:
        UsageError: no class has two images, so that none can be held out.
    """
    fold_of, held_out = assign_folds(real.hashes, real.labels, max(2, round(1 / share)), seed=seed)
    if not held_out.any():
        raise UsageError(
            "no class has two different training images, so that none can be held out",
            option="validation",
            value=f"{share:g}",
        )
    folds = [_Fold.of(real, held_out & (fold_of == fold)) for fold in range(int(fold_of.max()) + 1)]
    tried: dict[tuple[str, int], list[TrainingSpec]] = {}
    for arm, training in trainings.items():
        parts = [without_origins(training.synthetic, fold.files) for fold in folds]
        for steps in sorted({max(1, round(multiple * training.steps)) for multiple in OFFERED}):
            options = replace(training.options, steps=steps)
            tried[arm, steps] = [
                TrainingSpec(f"{arm}, {steps} steps, fold {number + 1}", options, fold.train, part, fold.held_out)
                for number, (fold, part) in enumerate(zip(folds, parts, strict=True))
            ]
    jobs = [(training, seed) for several in tried.values() for training in several]
    runs = iter(run_all(jobs, shared, devices, log, progress, "Choosing the number of steps"))
    accuracy = {key: _accuracy(several, runs) for key, several in tried.items()}
    best: dict[str, int] = {}
    for arm, steps in sorted(accuracy, key=lambda key: key[1]):
        if arm not in best or accuracy[arm, steps] > accuracy[arm, best[arm]]:
            best[arm] = steps
    chosen = {
        arm: replace(training, options=replace(training.options, steps=best[arm]))
        for arm, training in trainings.items()
    }
    return chosen, tuple(
        StepCandidate(arm=arm, steps=steps, accuracy=value, chosen=steps == best[arm])
        for (arm, steps), value in accuracy.items()
    )


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


def _accuracy(trainings: Sequence[TrainingSpec], runs: Iterator[ScoreRun]) -> float:
    """Accuracy on all held-out images; takes the runs of these trainings from ``runs``."""
    right = [next(runs).predicted() == training.test.labels for training in trainings]
    return float(np.concatenate(right).mean())


def without_origins(images: ImageSet | None, files: frozenset[str]) -> ImageSet | None:
    """The synthetic images that were not made from any of ``files``; None if there are none.

    A set whose origins are unknown is returned whole.
    """
    if images is None or not isinstance(images, TracedImageSet):
        return images
    rows: Int64[np.ndarray, " M"] = np.flatnonzero([files.isdisjoint(origins) for origins in images.origins])
    return images.take(rows) if len(rows) else None
