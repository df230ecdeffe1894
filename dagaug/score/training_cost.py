"""Estimated time of a score's trainings, from a few steps on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from dagaug.classifiers.fit import fit
from dagaug.runtime.execution_settings import Execution
from dagaug.score.trainings import SharedSettings, TrainingSpec

__all__ = ["TrainingCost", "in_words"]

_TIMED_STEPS = 3


@dataclass(frozen=True)
class TrainingCost:
    """Seconds before the first step of a training, and seconds of each step; the test is not included."""

    start: float
    step: float

    @classmethod
    def measured(cls, training: TrainingSpec, shared: SharedSettings, device: torch.device) -> TrainingCost | None:
        """Measure a few steps of a training; None for a linear probe, whose time is that of reading features."""
        if shared.network.mode == "linear-probe":
            return None

        def seconds(steps: int) -> float:
            synthetic = training.synthetic
            started = time.monotonic()
            fit(
                training.train.images,
                training.train.labels,
                shared.classes,
                replace(training.options, steps=steps),
                seed=0,
                synthetic=None if synthetic is None else (synthetic.images, synthetic.labels),
                execution=Execution(device=str(device)),
            )
            return time.monotonic() - started

        seconds(1)  # libraries load and choose their algorithms
        one, more = seconds(1), seconds(1 + _TIMED_STEPS)
        step = max(more - one, 0.0) / _TIMED_STEPS
        return cls(max(one - step, 0.0), step)

    def of(self, steps: Sequence[int]) -> float:
        """Seconds of trainings of these numbers of steps, one after the other."""
        return self.start * len(steps) + self.step * sum(steps)


def in_words(seconds: float) -> str:
    """A duration: ``40 seconds``, ``12 minutes``, ``5.2 hours``."""
    if seconds < 90:
        return f"{max(round(seconds), 2)} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"
