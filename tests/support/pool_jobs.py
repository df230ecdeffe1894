"""Jobs for the tests of the process pool: worker processes import them by name."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from dagaug.runtime.errors import DataError
from dagaug.runtime.progress import Progress

CPU = torch.device("cpu")


def start(device: torch.device) -> Callable[[int, Progress], tuple[int, int]]:
    assert device == CPU
    return square


def square(job: int, progress: Progress) -> tuple[int, int]:
    """Its square and the process that found it; negative ones fail in ways of their own."""
    if job == -1:
        raise DataError("x.png: not an image")
    if job == -2:
        os._exit(9)
    if job == -3:
        raise ZeroDivisionError("a bug")
    with progress.task(f"job {job}", 2, "steps") as task:
        task.advance(1)
        task.advance(1, "loss 0.5")
    progress.say(f"{job} is done")
    return job * job, os.getpid()
