"""How long each arm trains, if that is to be chosen: by held-out training images, never by the test.

With ten images a class a share that is held out once is too few images to choose by, and too many to do without. So
the real training images are dealt to folds; for each fold a network is trained without it, for each number of steps
on offer, and asked about it. Every training image is thus a validation image once. The arm then trains on all images
for as many steps as gave most right answers, the fewer of those that tie. All arms are offered the same numbers.
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
from dagaug.score.image_sets import ImageSet, MorphSet
from dagaug.score.results import Validated
from dagaug.score.run_log import Ledger, Run
from dagaug.score.trainings import Setting, Training, run_all

__all__ = ["OFFERED", "choose_steps", "without_origins"]

OFFERED = (0.5, 1.0, 2.0)
"""The numbers of steps to choose among, as multiples of the usual one."""


def choose_steps(
    real: MorphSet,
    trainings: Mapping[str, Training],
    share: float,
    seed: int,
    setting: Setting,
    devices: Sequence[torch.device],
    ledger: Ledger,
    progress: Progress,
) -> tuple[dict[str, Training], tuple[Validated, ...]]:
    """Choose the number of steps of each arm.

    Synthetic images that were made from a held-out image stay out with it, where it is known what they were made from.

    Args:
        real: the real training images.
        trainings: those of the arms, on all real training images, with the usual number of steps.
        share: of the real training images that a fold holds out.
        seed: of the folds and of these trainings.
        setting, devices, ledger, progress: see :func:`dagaug.trainings.run_all`.

    Raises:
        UsageError: no class has two images, so that nothing can be held out.
    """
    fold_of, held_out = assign_folds(real.hashes, real.labels, max(2, round(1 / share)), seed=seed)
    if not held_out.any():
        raise UsageError("--validation: no class has two different training images, so that none can be held out")
    folds = [_Fold.of(real, held_out & (fold_of == fold)) for fold in range(int(fold_of.max()) + 1)]
    asked: dict[tuple[str, int], list[Training]] = {}
    for arm, training in trainings.items():
        parts = [without_origins(training.synthetic, fold.files) for fold in folds]
        for steps in sorted({max(1, round(multiple * training.steps)) for multiple in OFFERED}):
            options = replace(training.options, steps=steps)
            asked[arm, steps] = [
                Training(f"{arm}, {steps} steps, fold {number + 1}", options, fold.train, part, fold.held)
                for number, (fold, part) in enumerate(zip(folds, parts, strict=True))
            ]
    jobs = [(training, seed) for several in asked.values() for training in several]
    runs = iter(run_all(jobs, setting, devices, ledger, progress, "Choosing the number of steps"))
    accuracy = {key: _accuracy(several, runs) for key, several in asked.items()}
    best: dict[str, int] = {}
    for arm, steps in sorted(accuracy, key=lambda key: key[1]):
        if arm not in best or accuracy[arm, steps] > accuracy[arm, best[arm]]:
            best[arm] = steps
    chosen = {
        arm: replace(training, options=replace(training.options, steps=best[arm]))
        for arm, training in trainings.items()
    }
    return chosen, tuple(Validated(*key, value, key[1] == best[key[0]]) for key, value in accuracy.items())


@dataclass(frozen=True)
class _Fold:
    """The real training images parted in two, and the names of those that are held out."""

    train: ImageSet
    held: ImageSet
    files: frozenset[str]

    @classmethod
    def of(cls, real: MorphSet, held: Bool[np.ndarray, " N"]) -> _Fold:
        rows = np.flatnonzero(held)
        files = frozenset(file for row in rows.tolist() for file in real.origins[row])
        return cls(real.take(np.flatnonzero(~held)), real.take(rows), files)


def _accuracy(trainings: Sequence[Training], runs: Iterator[Run]) -> float:
    """Of the next runs, which are those of these trainings, on all that these held out."""
    right = [next(runs).predicted() == training.test.labels for training in trainings]
    return float(np.concatenate(right).mean())


def without_origins(images: ImageSet | None, files: frozenset[str]) -> ImageSet | None:
    """Synthetic images but those that were made from one of these files; None if that leaves none."""
    if images is None or not isinstance(images, MorphSet):
        return images
    rows: Int64[np.ndarray, " M"] = np.flatnonzero([files.isdisjoint(origins) for origins in images.origins])
    return images.take(rows) if len(rows) else None
