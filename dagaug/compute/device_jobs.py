"""Jobs that run one after another on one device, or in parallel on several, with one process per device.

Trainings need processes rather than threads, since they draw initial weights from torch's global random generator.
The result of a job depends on the job alone, and not on the process or the order.

``concurrent.futures.ProcessPoolExecutor`` is not used: it has no device per process, waits for running jobs when one
has failed, hides the exit code of a process that was killed, and leaves its processes behind when the parent is
killed.
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
from dagaug.runtime.freed_memory import keep_freed_memory
from dagaug.runtime.progress import SILENT, Progress, Task, TaskContext

__all__ = ["run_jobs"]

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")
_Setup = Callable[[torch.device], Callable[[_Job, Progress], _Result]]

_POLL_SECONDS = 1.0  # between checks whether the other processes are alive


def run_jobs(
    setup: _Setup[_Job, _Result],
    jobs: Sequence[_Job],
    devices: Sequence[torch.device],
    *,
    task: Task,
    progress: Progress,
) -> Iterator[tuple[int, _Result]]:
    """Run the jobs and yield each job's index with its result, in the order in which they end.

    Args:
        setup: returns the function that runs a job on a device; it is called once per process. With several devices
            it must be picklable, and so must jobs and results.
        jobs: are begun in this order.
        devices: one process per device, and all share this process's number of threads; with a single device the
            jobs run in this process.
        task: is advanced by the steps of all jobs.
        progress: receives the lines that jobs print.

    Raises:
        DagaugError: the first error of a job; all processes are terminated.
        TrainingError: a process was killed, for example for lack of memory.
        RuntimeError: a job failed by a bug; the message holds its traceback.
    """
    if len(devices) == 1:
        run_job = setup(devices[0])
        for index, job in enumerate(jobs):
            yield index, run_job(job, _JobProgress(task, progress))
        return
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    waiting, messages = context.Queue(), context.Queue()
    for index, job in enumerate(jobs):
        waiting.put((index, job))
    devices = devices[: max(1, len(jobs))]
    threads = max(1, torch.get_num_threads() // len(devices))
    processes: list[BaseProcess] = []
    try:
        for device in devices:
            waiting.put(None)
            arguments = (setup, str(device), threads, waiting, messages)
            process = context.Process(target=_work, args=arguments, daemon=True, name=f"dagaug on {device}")
            process.start()
            processes.append(process)
        left = len(jobs)
        while left:
            try:
                message = messages.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                _check_alive(processes)
                continue
            if isinstance(message, _Steps):
                task.advance(message.count, message.note)
            elif isinstance(message, str):
                progress.say(message)
            elif isinstance(message, _Failure):
                raise message.error or RuntimeError(f"a job failed:\n{message.traceback}")
            else:
                left -= 1
                yield message
    finally:
        for started in processes:
            started.terminate()
        for started in processes:
            started.join()


@dataclass(frozen=True)
class _Steps:
    """Message of a worker: steps done, and a note about them."""

    count: int
    note: str


@dataclass(frozen=True)
class _Failure:
    """Message of a worker: the error of a job, or the traceback of a bug."""

    error: DagaugError | None
    traceback: str


def _check_alive(processes: Sequence[BaseProcess]) -> None:
    """Raise if a process ended before the jobs did."""
    for process in processes:
        if process.exitcode not in (None, 0):
            raise TrainingError(
                f"the process {process.name} ended with exit code {process.exitcode}, perhaps for lack of memory; "
                "finished jobs are kept: run the same command again with fewer devices or a smaller batch size"
            )


def _work(setup: _Setup[_Job, _Result], device: str, threads: int, waiting: Any, messages: Any) -> None:
    """The main function of a worker: run jobs until none is left or the parent is dead."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent terminates this one
    torch.set_num_threads(threads)
    keep_freed_memory()
    parent = multiprocessing.parent_process()
    sender = _Sender(messages)
    progress = _JobProgress(sender, sender)
    try:
        run_job = setup(torch.device(device))
        while parent is None or parent.is_alive():
            try:
                taken = waiting.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if taken is None:
                return
            index, job = taken
            messages.put((index, run_job(job, progress)))
    except DagaugError as error:
        messages.put(_Failure(error, ""))
    except Exception:
        messages.put(_Failure(None, traceback.format_exc()))


class _JobProgress:
    """The progress of one job: its steps advance the task of all jobs."""

    def __init__(self, task_of_all: Task, progress: Progress) -> None:
        self._task_of_all, self._progress = task_of_all, progress

    def task(self, name: str, total: int, unit: str) -> TaskContext:
        return _JobSteps(self._task_of_all, name) if unit == "steps" else self._progress.task(name, total, unit)

    def say(self, text: str) -> None:
        self._progress.say(text)


class _JobSteps:
    """A task that advances another one and puts its own name before the notes."""

    def __init__(self, task_of_all: Task, name: str) -> None:
        self._task_of_all, self._name = task_of_all, name

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def advance(self, count: int = 1, note: str = "") -> None:
        self._task_of_all.advance(count, f"{self._name}: {note}" if note else "")


class _Sender:
    """A task and a progress that send steps and lines to the parent process."""

    def __init__(self, messages: Any) -> None:
        self._messages = messages

    def advance(self, count: int = 1, note: str = "") -> None:
        self._messages.put(_Steps(count, note))

    def task(self, name: str, total: int, unit: str) -> TaskContext:
        return SILENT.task(name, total, unit)

    def say(self, text: str) -> None:
        self._messages.put(text)
