"""Execution of an augmentation in this process."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np

from dagaug.augment.engine import Engine, Morphs
from dagaug.augment.job import Job, Made, Shard
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.hdf5.run import Run
from dagaug.runtime.progress import Progress
from dagaug.runtime.signals import Stop

__all__ = ["Executor", "Local", "missing_real"]


@runtime_checkable
class Executor(Protocol):
    """Where shards are made."""

    def __enter__(self) -> Executor: ...

    def __exit__(self, *exception: object) -> None: ...

    def make(
        self, job: Job, judges: CrossFitted, judged_by: np.ndarray, run: Run, stop: Stop, progress: Progress
    ) -> None:
        """Make and write the shards that the run lacks, or as many as can be before it is asked to stop."""


class Local:
    """Makes shards in this process: reading, computing, encoding and writing overlap."""

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def make(
        self, job: Job, judges: CrossFitted, judged_by: np.ndarray, run: Run, stop: Stop, progress: Progress
    ) -> None:
        """See :class:`Executor`."""
        with ThreadPoolExecutor(job.workers) as pool:
            _store_real(job, run, pool, stop, progress)
            if not stop.requested:
                _morph(job, run, job.engine(judges, judged_by, run.parts), pool, stop, progress)


def missing_real(job: Job, run: Run) -> list[Shard]:
    """Shards of real images that are to be made.

    One that lacks images for reasons that are not known yet is made again, so that they are.
    """
    known = {skip.path for skip in job.patches.skipped}

    def whole(shard: Shard) -> bool:
        there = sum(job.dataset.file(job.files[row]) not in known for row in job.real[shard.part])
        return shard.index in run.finished and run.count(shard.index) >= there

    return [shard for shard in job.shards if shard.real and not whole(shard)]


def _store_real(job: Job, run: Run, pool: ThreadPoolExecutor, stop: Stop, progress: Progress) -> None:
    if not job.real:
        return
    missing = missing_real(job, run)
    with progress.task("Storing real images", len(job.real), "images") as task:
        task.advance(len(job.real) - sum(map(len, missing)))
        ahead: deque[tuple[Shard, Future[Made]]] = deque()
        for shard in [*missing, None, None]:
            if len(ahead) == 2 or (shard is None and ahead):
                before, made = ahead.popleft()
                _keep(job, run, before, made.result())
                task.advance(len(before))
            if shard is not None and not stop.requested:
                ahead.append((shard, pool.submit(job.store_real, shard)))


def _keep(job: Job, run: Run, shard: Shard, made: Made) -> None:
    run.write(shard.index, made.content)
    job.skipped += made.skipped


def _morph(job: Job, run: Run, engine: Engine, pool: ThreadPoolExecutor, stop: Stop, progress: Progress) -> None:
    """Generate shard after shard; the one before is selected, encoded and written meanwhile."""
    missing = [shard for shard in job.shards if not shard.real and shard.index not in run.finished]
    if not missing:
        return
    engine.encode(progress, engine.blocks(job.plan, [shard.part for shard in missing]))
    kept = done = 0

    def write(shard: Shard, morphs: Morphs) -> int:
        made = job.select(shard, morphs, pool)
        _keep(job, run, shard, made)
        return len(made.content.encoded)

    with (
        ThreadPoolExecutor(1) as writer,
        progress.task("Morphing", len(job.plan), "candidates") as task,
    ):
        task.advance(len(job.plan) - sum(map(len, missing)))
        ahead: deque[tuple[Shard, Future[int]]] = deque()
        for shard in [*missing, None]:
            if shard is not None and not stop.requested:
                ahead.append((shard, writer.submit(write, shard, engine.morph(job.plan, shard.part))))
            if len(ahead) > 1 or ((shard is None or stop.requested) and ahead):
                before, written = ahead.popleft()
                kept, done = kept + written.result(), done + len(before)
                task.advance(len(before), f"{kept / max(done, 1):.0%} kept")
