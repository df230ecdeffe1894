"""Number of steps of a training: by the number of images, or by a time to train."""

from __future__ import annotations

import copy
import time

import numpy as np
from torch import nn

from dagaug.training.trainer import PHASES, Trainer

__all__ = ["default_steps", "steps_in"]


def default_steps(images: int, device: str, *, frozen: bool = False) -> int:
    """Steps for a number of training images: four each on a CPU (800 to 2,000), else twelve each (4,000 to 60,000).

    With a ``frozen`` encoder a step takes four times as long; on a CPU there are 500 to 1,000 then.
    """
    if device == "cpu" and frozen:
        return int(np.clip(2 * images, 500, 1_000))
    if device == "cpu":
        return int(np.clip(4 * images, 800, 2_000))
    return int(np.clip(12 * images, 4_000, 60_000))


def steps_in(minutes: float, trainer: Trainer) -> int:
    """Number of steps, at least 10, that take about ``minutes`` on this machine.

    Runs a few steps of each phase at learning rate 0, measures them, and restores the trainer.

    Args:
        minutes: time of the whole training.
        trainer: a trainer that has done no step yet.
    """
    modules: list[nn.Module] = [trainer.mode.objective, trainer.averaged, trainer.discriminators]
    before = [copy.deepcopy(module.state_dict()) for module in modules]
    rate = trainer.rate
    trainer.rate = 0.0
    seconds: dict[str, float] = {}
    first, second = PHASES
    shares = {"structure": first, "pairs": second - first, "full": 1 - second}
    for at in (0, 25, 80):  # percent of the steps: one in each phase
        phase = trainer.phase(at, 100)
        for attempt in range(4):
            trainer.done = at
            start = time.monotonic()
            trainer.step(100)
            if attempt:  # the first one allocates memory
                seconds[phase] = min(seconds.get(phase, np.inf), time.monotonic() - start)
    trainer.done, trainer.rate = 0, rate
    for module, tensors in zip(modules, before, strict=True):
        module.load_state_dict(tensors)
    for optimizer in trainer.optimizers.values():
        optimizer.state.clear()
    each = sum(shares[phase] * taken for phase, taken in seconds.items()) / sum(shares[phase] for phase in seconds)
    return max(int(60 * minutes / each), 10)
