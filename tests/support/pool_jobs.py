"""Jobs for the tests of the process pool: worker processes import them by name."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from dagaug.runtime.errors import DataError, ImageError
from dagaug.runtime.progress import Progress

CPU = torch.device("cpu")


def setup(device: torch.device) -> Callable[[int, Progress], tuple[int, int]]:
    assert device == CPU
    return square


def square(job: int, progress: Progress) -> tuple[int, int]:
    """The square of a positive job and the number of the process; each negative job fails in its own way."""
    if job == -1:
        raise DataError("x.png: not an image")
    if job == -2:
        os._exit(9)
    if job == -3:
        raise ZeroDivisionError("a bug")
    if job == -4:
        raise ImageError("y.png", "empty file")
    with progress.task(f"job {job}", 2, "steps") as task:
        task.advance(1)
        task.advance(1, "loss 0.5")
    progress.say(f"{job} is done")
    return job * job, os.getpid()
