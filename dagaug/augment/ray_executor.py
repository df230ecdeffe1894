"""Execution of an augmentation on a Ray cluster: workers hold the networks and write shards.

All nodes must see the data folder and the output folder under the same paths. Encodings are stored in one table
beside the shards: each block of images is encoded by one worker and read by all. Workers write their shards
themselves; a shard file that exists is complete. The driver process never handles image data. Ray restarts a worker
that died and repeats its unfinished work.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from copy import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from dagaug.augment.in_process_executor import Executor, missing_morphs, missing_real
from dagaug.augment.judge_preparation import Judges
from dagaug.augment.prepared_augmentation import Job, Shard
from dagaug.augment.shard_content import ShardMaker
from dagaug.compute.devices import pick_device
from dagaug.data.image_files import Skipped
from dagaug.hdf5.shard_folder import ShardFolder
from dagaug.hdf5.shards import write_shard
from dagaug.runtime.errors import DagaugError, DataError, MissingExtraError, StoreError, UsageError
from dagaug.runtime.progress import Progress, Task
from dagaug.runtime.signals import Stop

__all__ = ["RayExecutor"]

_TABLE = "encodings.tmp"
_QUEUED = 2  # tasks given to a worker at a time, so that it never waits for the next one
_CONNECT_SECONDS = 10
_POLL_SECONDS = 0.5  # between two checks of the stop request


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            "the Ray engine needs Ray, which is not installed: pip install 'dagaug[ray]'"
        ) from error
    return ray


class _Worker:
    """A process of the cluster. Errors that users can fix are returned, because Ray wraps raised exceptions."""

    def __init__(self, job: Job, judges: Judges, parts: Path, device: str, threads: int) -> None:
        if threads:
            torch.set_num_threads(threads)
        job.device = pick_device(device)
        if job.cache is not None and not job.cache.folder.is_dir():
            job.cache = None  # this node does not see it; a folder made here would be left behind
        self.job, self.parts = job, parts
        self._maker = ShardMaker(job, judges.min_confidence)
        self._engine = job.engine(judges.classifiers.to(job.device), judges.rows, parts / _TABLE)

    def ready(self) -> str | None:
        """An error message if this node does not see the folders, else None."""
        node = os.uname().nodename
        for folder in (self.job.dataset.root, self.parts):
            if not folder.exists():
                return f"{folder}: is not visible on {node}; all nodes need it under the same path"
        return None

    def encode(self, block: int) -> int | DagaugError:
        """Encode a block of images; returns their number."""
        try:
            return self._engine.encoder.encode_block(block)
        except OSError as error:
            return StoreError(f"{self.parts}: the table of encodings cannot be written ({error.strerror or error})")

    def make(self, shard: Shard) -> tuple[int, tuple[Skipped, ...]] | DagaugError:
        """Make and write a shard; returns its number of images and the skipped files."""
        try:
            if shard.real:
                made = self._maker.real(shard)
            else:
                made = self._maker.synthetic(shard, self._engine.morph(self.job.plan, shard.part))
            write_shard(self.parts, shard.index, made.content)
        except DagaugError as error:
            kind = type(error) if isinstance(error, DataError | StoreError) else DataError
            return kind(error.message, option=error.option, value=error.value, remedies=error.remedies)
        return len(made.content.encoded), made.skipped


def _check_address(address: str | None) -> None:
    """Check that something listens at HOST:PORT. Ray itself would retry for a quarter of an hour.

    Raises:
        OSError: nothing listens.
        ValueError: the port is not a number.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()


class RayExecutor(Executor):
    """Makes shards on a Ray cluster.

    Args:
        address: a running cluster (``auto``, ``ray://HOST:PORT``, ``HOST:PORT``); None starts one on this machine.
        workers: number of processes; None means one for each GPU or, without GPUs, one for each CPU.
        device: device of each worker, as for :func:`~dagaug.compute.devices.pick_device`.
        threads: torch threads of each worker; 0 leaves torch's default.

    Raises:
        MissingExtraError: Ray is not installed.
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
                _check_address(self._address)
                self._ray.init(self._address, **options)
            except (ConnectionError, ValueError, RuntimeError, OSError, TimeoutError) as error:
                reason = str(error).strip().partition("\n")[0]
                raise UsageError(
                    f"no Ray cluster can be used ({reason})", option="ray_address", value=self._address
                ) from error
            self._ours = True
        return self

    def __exit__(self, *exception: object) -> None:
        if self._ours:
            self._ray.shutdown()

    def make(self, job: Job, judges: Judges, folder: ShardFolder, stop: Stop, progress: Progress) -> None:
        """See :class:`~dagaug.augment.in_process_executor.Executor`."""
        real, morphs = missing_real(job, folder), missing_morphs(job, folder)
        if not real and not morphs:
            return
        parts = folder.parts.resolve()
        (parts / _TABLE).unlink(missing_ok=True)
        encoder = job.engine(judges.classifiers, judges.rows, parts).encoder
        blocks = encoder.blocks(job.plan, [shard.part for shard in morphs])
        images = sum(map(encoder.block_length, blocks))
        workers = self._start(job, judges, parts, len(real) + len(blocks) + len(morphs))
        try:
            self._check(workers)
            if job.real:
                with progress.task("Storing real images", len(job.real), "images") as task:
                    task.advance(len(job.real) - sum(map(len, real)))
                    self._make(workers, real, job, folder, stop, task)
            with progress.task("Encoding", images, "images") as task:
                self._distribute(workers, "encode", blocks, stop, lambda number, count: task.advance(int(count)))
            if not stop.requested:
                with progress.task("Morphing", len(job.plan), "candidates") as task:
                    task.advance(len(job.plan) - sum(map(len, morphs)))
                    self._make(workers, morphs, job, folder, stop, task)
        finally:
            for worker in workers:
                self._ray.kill(worker)
            with suppress(OSError):
                (parts / _TABLE).unlink(missing_ok=True)

    def _start(self, job: Job, judges: Judges, parts: Path, tasks: int) -> list[Any]:
        """Start the workers, at most one for each task."""
        resources = self._ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if self._device in ("auto", "cuda", "gpu") else 0
        count = self._workers or gpus or int(resources.get("CPU", 1))
        gpu = min(gpus / count, 1.0) if gpus else 0
        remote = self._ray.remote(num_cpus=1, num_gpus=gpu, max_restarts=-1, max_task_retries=-1)(_Worker)
        sent = copy(job)
        sent.patches = job.patches.divided(count)
        shared = self._ray.put(sent), self._ray.put(judges)  # once to each node
        return [remote.remote(*shared, parts, self._device, self._threads) for _ in range(min(count, tasks))]

    def _check(self, workers: list[Any]) -> None:
        for problem in self._ray.get([worker.ready.remote() for worker in workers]):
            if problem is not None:
                raise DataError(problem)

    def _make(
        self, workers: list[Any], shards: list[Shard], job: Job, folder: ShardFolder, stop: Stop, task: Task
    ) -> None:
        kept = done = 0
        skipped: dict[int, tuple[Skipped, ...]] = {}

        def finished(shard: Shard, result: tuple[int, tuple[Skipped, ...]]) -> None:
            nonlocal kept, done
            folder.mark_finished(shard.index)
            skipped[shard.index] = result[1]
            kept, done = kept + result[0], done + len(shard)
            task.advance(len(shard), "" if shard.real else f"{kept / max(done, 1):.0%} kept")

        self._distribute(workers, "make", shards, stop, finished)
        job.skipped += [skip for index in sorted(skipped) for skip in skipped[index]]

    def _distribute(
        self, workers: list[Any], method: str, tasks: Iterable[Any], stop: Stop, finished: Callable[[Any, Any], None]
    ) -> None:
        """Call a method of the workers for each task, a few tasks at a time; a stop request ends the distribution."""
        remaining = iter(tasks)
        free = [worker for _ in range(_QUEUED) for worker in workers]
        running: dict[Any, tuple[Any, Any]] = {}
        while True:
            while free and not stop.requested and (task := next(remaining, None)) is not None:
                worker = free.pop(0)
                running[getattr(worker, method).remote(task)] = (worker, task)
            if not running:
                return
            ready, _ = self._ray.wait(list(running), timeout=_POLL_SECONDS)
            for reference in ready:
                worker, task = running.pop(reference)
                result = self._ray.get(reference)
                if isinstance(result, DagaugError):
                    raise result
                free.append(worker)
                finished(task, result)
