"""Jobs in several processes: all are done once, what fails is told, and nobody is left behind."""

from __future__ import annotations

import multiprocessing
import os
from functools import partial

import pytest
import torch
from pool_jobs import CPU, start

from dagaug.compute.devices import pick_devices
from dagaug.compute.process_pool import crew
from dagaug.runtime.errors import DataError, TrainingError, UsageError


class Listener:
    """Remembers steps, notes and lines; a task and a progress at once."""

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
    return dict(crew(start, jobs, [CPU] * devices, task=listener, progress=listener)), listener


@pytest.mark.parametrize("devices", [1, 2])
def test_every_job_is_done_once_and_its_steps_are_told(devices: int) -> None:
    done, told = run([3, 4, 5, 6, 7], devices)
    assert {number: square for number, (square, _) in done.items()} == {0: 9, 1: 16, 2: 25, 3: 36, 4: 49}
    assert told.steps == 10
    assert "job 5: loss 0.5" in told.notes
    assert sorted(told.lines) == [f"{job} is done" for job in (3, 4, 5, 6, 7)]
    workers = {process for _, process in done.values()}
    assert (os.getpid() in workers) == (devices == 1)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "error", "words"),
    [
        (-1, DataError, r"x\.png: not an image"),
        (-2, TrainingError, "ended with exit code 9.*fewer --devices"),
        (-3, RuntimeError, "ZeroDivisionError: a bug"),
    ],
)
def test_what_fails_in_a_process_is_told_and_ends_the_others(job: int, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        run([job, 1], 2)
    assert multiprocessing.active_children() == []


def test_devices_are_named_or_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pick = partial(pick_devices, device=CPU, every=True)
    assert pick("cpu, cpu") == (CPU, CPU)
    assert pick(None) == (CPU,)
    with pytest.raises(UsageError, match="--devices cuda:7: cuda:7 is not on this machine"):
        pick("cuda:7")
    with pytest.raises(UsageError, match="--devices gpu: 'gpu' is no device"):
        pick("gpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    both = (torch.device("cuda:0"), torch.device("cuda:1"))
    assert pick_devices(None, torch.device("cuda"), every=True) == both
    assert pick_devices(None, torch.device("cuda"), every=False) == (torch.device("cuda"),)
    assert pick("cuda:1") == both[1:]
