from __future__ import annotations

import multiprocessing
import os

import pytest
from pool_jobs import CPU, setup

from dagaug.compute.device_jobs import run_jobs
from dagaug.runtime.errors import DataError, ImageError, TrainingError


class Listener:
    """A task and a progress that record steps, notes and lines."""

    def __init__(self) -> None:
        self.steps = 0
        self.notes: list[str] = []
        self.lines: list[str] = []

    def advance(self, count: int = 1, note: str = "") -> None:
        self.steps += count
        self.notes.append(note)

    def task(self, name: str, total: int, unit: str) -> Listener:
        raise AssertionError(f"{name}: {total} {unit} are part of the whole")

    def say(self, text: str) -> None:
        self.lines.append(text)


def run(jobs: list[int], devices: int) -> tuple[dict[int, tuple[int, int]], Listener]:
    listener = Listener()
    return dict(run_jobs(setup, jobs, [CPU] * devices, task=listener, progress=listener)), listener


@pytest.mark.parametrize("devices", [1, 2])
def test_every_job_runs_once_and_its_steps_are_counted(devices: int) -> None:
    done, listener = run([3, 4, 5, 6, 7], devices)
    assert {number: square for number, (square, _) in done.items()} == {0: 9, 1: 16, 2: 25, 3: 36, 4: 49}
    assert listener.steps == 10
    assert "job 5: loss 0.5" in listener.notes
    assert sorted(listener.lines) == [f"{job} is done" for job in (3, 4, 5, 6, 7)]
    workers = {process for _, process in done.values()}
    assert (os.getpid() in workers) == (devices == 1)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "error", "words"),
    [
        (-1, DataError, r"x\.png: not an image"),
        (-2, TrainingError, "ended with exit code 9.*fewer devices"),
        (-3, RuntimeError, "ZeroDivisionError: a bug"),
        (-4, ImageError, r"y\.png: empty file"),
    ],
)
def test_an_error_in_one_process_is_raised_and_terminates_the_others(
    job: int, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run([job, 1], 2)
    assert multiprocessing.active_children() == []
