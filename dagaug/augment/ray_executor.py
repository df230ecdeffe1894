"""Augmenting on a Ray cluster: the shards of :mod:`dagaug.morphing`, made by workers that hold the networks.

The data folder and the output's folder must be visible to all nodes under the same names. Encodings lie in one table
beside the shards: each block of images is encoded by one worker and read by all. Workers write their shards
themselves, as the local engine does (a name that is there is whole), so no image passes through the process that
deals the work out; it sees numbers only. Ray starts a worker that died again and gives it what it had not finished.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from dagaug.augment.job import Job, Shard
from dagaug.augment.local_executor import Executor, missing_real
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.compute.devices import pick_device
from dagaug.data.image_files import Skipped
from dagaug.hdf5.run import Run
from dagaug.hdf5.shards import write_shard
from dagaug.runtime.errors import DagaugError, DataError, MissingExtraError, StoreError, UsageError
from dagaug.runtime.progress import Progress, Task
from dagaug.runtime.signals import Stop

__all__ = ["RayExecutor"]

_TABLE = "encodings.tmp"


_AHEAD = 2  # pieces of work that a worker has, so that it never waits for the next


_REACH_SECONDS = 10  # for a connection to a cluster


_LOOK_SECONDS = 0.5  # between two looks at whether somebody asked to stop


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("--engine ray needs Ray, which is not installed: pip install 'dagaug[ray]'") from error
    return ray


class _Worker:
    """One process of the cluster. What users can mend comes back as a value, for Ray would wrap what is raised."""

    def __init__(
        self, job: Job, judges: CrossFitted, judged_by: np.ndarray, parts: Path, device: str, threads: int
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        job.device = pick_device(device)
        self.job, self.parts = job, parts
        self.judges, self.judged_by = judges.to(job.device), judged_by
        self._engine = job.engine(self.judges, judged_by, parts / _TABLE)

    def ready(self) -> str | None:
        """What is wrong with this worker's place, if something is."""
        node = os.uname().nodename
        for folder in (self.job.dataset.root, self.parts):
            if not folder.exists():
                return f"{folder}: is not visible on {node}; all nodes need it under the same name"
        return None

    def encode(self, block: int) -> int | DagaugError:
        """Encode a block of images; returns how many."""
        try:
            return self._engine.encode_block(block)
        except OSError as error:
            return StoreError(f"{self.parts}: the table of encodings cannot be written ({error.strerror or error})")

    def make(self, shard: Shard) -> tuple[int, tuple[Skipped, ...]] | DagaugError:
        """Make and write a shard; returns how many images it has and what was skipped."""
        try:
            if shard.real:
                made = self.job.store_real(shard)
            else:
                made = self.job.select(shard, self._engine.morph(self.job.plan, shard.part))
            write_shard(self.parts, shard.index, made.content)
        except DagaugError as error:
            return type(error)(str(error)) if isinstance(error, DataError | StoreError) else DataError(str(error))
        return len(made.content.encoded), made.skipped


def _reach(address: str | None) -> None:
    """See that something listens at HOST:PORT; Ray itself would try for a quarter of an hour.

    Raises:
        OSError: nothing does.
        ValueError: the port is no number.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()


class RayExecutor(Executor):
    """Makes shards on a Ray cluster.

    Args:
        address: of a running cluster (``auto``, ``ray://HOST:PORT``, ``HOST:PORT``); None starts one on this machine.
        workers: how many processes; None for one on each GPU or, where there is none, on each CPU.
        device: auto, cpu or cuda, for each worker.
        threads: of torch in each worker; 0 for torch's own choice.
    """

    def __init__(
        self, address: str | None = None, workers: int | None = None, *, device: str = "auto", threads: int = 1
    ) -> None:
        self._address, self._workers, self._device, self._threads = address, workers, device, threads
        self._ray: Any = _ray()
        self._ours = False

    def __enter__(self) -> RayExecutor:
        if not self._ray.is_initialized():
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
            if self._address is None:
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                options |= {"num_cpus": self._workers, "include_dashboard": False}
            try:
                _reach(self._address)
                self._ray.init(self._address, **options)
            except (ConnectionError, ValueError, RuntimeError, OSError, TimeoutError) as error:
                reason = str(error).strip().partition("\n")[0]
                raise UsageError(f"--ray-address {self._address}: no Ray cluster can be used ({reason})") from error
            self._ours = True
        return self

    def __exit__(self, *exception: object) -> None:
        if self._ours:
            self._ray.shutdown()

    def make(
        self, job: Job, judges: CrossFitted, judged_by: np.ndarray, run: Run, stop: Stop, progress: Progress
    ) -> None:
        """See :class:`~dagaug.augment.Executor`."""
        real = missing_real(job, run)
        morphs = [shard for shard in job.shards if not shard.real and shard.index not in run.finished]
        if not real and not morphs:
            return
        parts = run.parts.resolve()
        (parts / _TABLE).unlink(missing_ok=True)
        local = job.engine(judges, judged_by, parts)
        blocks = local.blocks(job.plan, [shard.part for shard in morphs])
        sizes = {number: local.block_length(number) for number in blocks}
        workers = self._start(job, judges, judged_by, parts, len(real) + len(blocks) + len(morphs))
        try:
            self._check(workers)
            self._store(workers, real, job, run, stop, progress)
            with progress.task("Encoding", sum(sizes.values()), "images") as task:
                self._deal(workers, "encode", blocks, stop, lambda number, count: task.advance(int(count)))
            if not stop.requested:
                self._morph(workers, morphs, job, run, stop, progress)
        finally:
            for worker in workers:
                self._ray.kill(worker)
            with suppress(OSError):
                (parts / _TABLE).unlink(missing_ok=True)

    def _start(self, job: Job, judges: CrossFitted, judged_by: np.ndarray, parts: Path, work: int) -> list[Any]:
        resources = self._ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if self._device in ("auto", "cuda", "gpu") else 0
        count = self._workers or gpus or int(resources.get("CPU", 1))
        gpu = min(gpus / count, 1.0) if gpus else 0
        remote = self._ray.remote(num_cpus=1, num_gpus=gpu, max_restarts=-1, max_task_retries=-1)(_Worker)
        # Sent once to each node, where processes share the memory of what are arrays.
        shared = self._ray.put(job), self._ray.put(judges), self._ray.put(judged_by)
        return [remote.remote(*shared, parts, self._device, self._threads) for _ in range(min(count, work))]

    def _check(self, workers: list[Any]) -> None:
        for problem in self._ray.get([worker.ready.remote() for worker in workers]):
            if problem is not None:
                raise DataError(problem)

    def _store(
        self, workers: list[Any], shards: list[Shard], job: Job, run: Run, stop: Stop, progress: Progress
    ) -> None:
        if not job.real:
            return
        with progress.task("Storing real images", len(job.real), "images") as task:
            task.advance(len(job.real) - sum(map(len, shards)))
            self._make(workers, shards, job, run, stop, task)

    def _morph(
        self, workers: list[Any], shards: list[Shard], job: Job, run: Run, stop: Stop, progress: Progress
    ) -> None:
        with progress.task("Morphing", len(job.plan), "candidates") as task:
            task.advance(len(job.plan) - sum(map(len, shards)))
            self._make(workers, shards, job, run, stop, task)

    def _make(self, workers: list[Any], shards: list[Shard], job: Job, run: Run, stop: Stop, task: Task) -> None:
        kept = done = 0
        skipped: dict[int, tuple[Skipped, ...]] = {}

        def finished(shard: Shard, result: tuple[int, tuple[Skipped, ...]]) -> None:
            nonlocal kept, done
            run.found(shard.index)
            skipped[shard.index] = result[1]
            kept, done = kept + result[0], done + len(shard)
            task.advance(len(shard), "" if shard.real else f"{kept / max(done, 1):.0%} kept")

        self._deal(workers, "make", shards, stop, finished)
        job.skipped += [skip for index in sorted(skipped) for skip in skipped[index]]

    def _deal(
        self, workers: list[Any], method: str, work: Iterable[Any], stop: Stop, finished: Callable[[Any, Any], None]
    ) -> None:
        """Give each worker a few pieces at a time, the next whenever one is done; when asked to stop, no more."""
        left = iter(work)
        free = [worker for _ in range(_AHEAD) for worker in workers]
        running: dict[Any, tuple[Any, Any]] = {}
        while True:
            while free and not stop.requested and (piece := next(left, None)) is not None:
                worker = free.pop(0)
                running[getattr(worker, method).remote(piece)] = (worker, piece)
            if not running:
                return
            ready, _ = self._ray.wait(list(running), timeout=_LOOK_SECONDS)
            for reference in ready:
                worker, piece = running.pop(reference)
                result = self._ray.get(reference)
                if isinstance(result, DagaugError):
                    raise result
                free.append(worker)
                finished(piece, result)
