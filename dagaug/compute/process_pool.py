"""Jobs on one device after each other, or on several at once: a process for each, which takes the next when it is free.

Processes rather than threads, since a training draws its initial weights from torch's global random numbers, and since
augmentation is Python's work. What a job gives depends on the job alone, not on who does it or when.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch

from dagaug.runtime.errors import DagaugError, TrainingError
from dagaug.runtime.progress import SILENT, Progress, Task, TaskContext

__all__ = ["crew"]

_Job = TypeVar("_Job")


_Result = TypeVar("_Result")


_Start = Callable[[torch.device], Callable[[_Job, Progress], _Result]]

_PATIENCE = 1.0  # seconds between looks at whether the others are still alive


def crew(
    start: _Start[_Job, _Result],
    jobs: Sequence[_Job],
    devices: Sequence[torch.device],
    *,
    task: Task,
    progress: Progress,
) -> Iterator[tuple[int, _Result]]:
    """Do the jobs and give each one's number with its result, in the order in which they end.

    Args:
        start: makes what does the jobs, once in each process. With several devices it must be picklable, as jobs and
            results must be.
        jobs: what to do, in this order.
        devices: one process each, which share the threads of this one; a single one needs no process of its own.
        task: is told of the steps of all jobs.
        progress: is told what jobs say.

    Raises:
        DagaugError: the first that a job raises; the other processes are ended.
        TrainingError: a process ended, for want of memory or because somebody ended it.
    """
    if len(devices) == 1:
        do = start(devices[0])
        for number, job in enumerate(jobs):
            yield number, do(job, _Part(task, progress))
        return
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    waiting, told = context.Queue(), context.Queue()
    for number, job in enumerate(jobs):
        waiting.put((number, job))
    devices = devices[: max(1, len(jobs))]
    threads = max(1, torch.get_num_threads() // len(devices))
    processes: list[BaseProcess] = []
    try:
        for device in devices:
            waiting.put(None)
            arguments = (start, str(device), threads, waiting, told)
            process = context.Process(target=_work, args=arguments, daemon=True, name=f"dagaug on {device}")
            process.start()
            processes.append(process)
        left = len(jobs)
        while left:
            try:
                message = told.get(timeout=_PATIENCE)
            except queue.Empty:
                _check(processes)
                continue
            if isinstance(message, _Steps):
                task.advance(message.count, message.note)
            elif isinstance(message, str):
                progress.say(message)
            elif isinstance(message, _Failed):
                raise message.error or RuntimeError(f"a job failed:\n{message.traceback}")
            else:
                left -= 1
                yield message
    finally:
        for one in processes:
            one.terminate()
        for one in processes:
            one.join()


@dataclass(frozen=True)
class _Steps:
    count: int
    note: str


@dataclass(frozen=True)
class _Failed:
    error: DagaugError | None
    traceback: str


def _check(processes: Sequence[BaseProcess]) -> None:
    """Raise if a process ended before its time."""
    for process in processes:
        if process.exitcode not in (None, 0):
            raise TrainingError(
                f"the process {process.name} ended with exit code {process.exitcode}, perhaps for want of memory; "
                "what was finished is kept: the same command goes on, with fewer --devices or a smaller --batch-size"
            )


def _work(start: _Start[_Job, _Result], device: str, threads: int, waiting: Any, told: Any) -> None:
    """Do jobs until there is none left, or nobody to do them for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches the whole group; the parent ends this process
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    teller = _Teller(told)
    part = _Part(teller, teller)
    try:
        do = start(torch.device(device))
        while parent is None or parent.is_alive():
            try:
                taken = waiting.get(timeout=_PATIENCE)
            except queue.Empty:
                continue
            if taken is None:
                return
            number, job = taken
            told.put((number, do(job, part)))
    except DagaugError as error:
        told.put(_Failed(error, ""))
    except Exception:
        told.put(_Failed(None, traceback.format_exc()))


class _Part:
    """The progress of one job, whose steps are some of all jobs' steps."""

    def __init__(self, whole: Task, progress: Progress) -> None:
        self._whole, self._progress = whole, progress

    def task(self, name: str, total: int, unit: str) -> TaskContext:
        return _Counted(self._whole, name) if unit == "steps" else self._progress.task(name, total, unit)

    def say(self, text: str) -> None:
        self._progress.say(text)


class _Counted:
    """Steps of a job; its name stands before what it says of them."""

    def __init__(self, whole: Task, name: str) -> None:
        self._whole, self._name = whole, name

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def advance(self, count: int = 1, note: str = "") -> None:
        self._whole.advance(count, f"{self._name}: {note}" if note else "")


class _Teller:
    """What a process of the crew tells its parent: steps and remarks."""

    def __init__(self, told: Any) -> None:
        self._told = told

    def advance(self, count: int = 1, note: str = "") -> None:
        self._told.put(_Steps(count, note))

    def task(self, name: str, total: int, unit: str) -> TaskContext:
        return SILENT.task(name, total, unit)

    def say(self, text: str) -> None:
        self._told.put(text)
