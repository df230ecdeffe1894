"""Execution of an augmentation in this process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

from dagaug.augment.engine import MorphBatch
from dagaug.augment.judge_preparation import Judges
from dagaug.augment.prepared_augmentation import Job, Shard
from dagaug.augment.shard_content import ShardMaker, ShardResult
from dagaug.hdf5.shard_folder import ShardFolder
from dagaug.runtime.prefetch import map_ahead
from dagaug.runtime.progress import Progress
from dagaug.runtime.signals import Stop

__all__ = ["Executor", "LocalExecutor", "missing_morphs", "missing_real"]


@runtime_checkable
class Executor(Protocol):
    """Makes the shards of a job."""

    def __enter__(self) -> Executor: ...

    def __exit__(self, *exception: object) -> None: ...

    def make(self, job: Job, judges: Judges, folder: ShardFolder, stop: Stop, progress: Progress) -> None:
        """Make and write the shards that the run lacks; stop early if ``stop.requested`` becomes True."""


class LocalExecutor:
    """Makes shards in this process. Reading, computing, encoding and writing overlap."""

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def make(self, job: Job, judges: Judges, folder: ShardFolder, stop: Stop, progress: Progress) -> None:
        """See :class:`Executor`."""
        maker = ShardMaker(job, judges.min_confidence)
        with ThreadPoolExecutor(job.threads) as pool:
            _store_real(job, maker, folder, pool, stop, progress)
            if not stop.requested:
                _morph(job, judges, maker, folder, pool, stop, progress)


def missing_real(job: Job, folder: ShardFolder) -> list[Shard]:
    """Shards of real images that must be made.

    A shard with fewer images than expected is made again, so that the reasons for the missing ones become known.
    """
    unreadable = {skip.path for skip in job.patches.skipped}

    def is_complete(shard: Shard) -> bool:
        expected = sum(job.dataset.file(job.files[row]) not in unreadable for row in job.real[shard.part])
        return shard.index in folder.finished and folder.image_count(shard.index) >= expected

    return [shard for shard in job.shards if shard.real and not is_complete(shard)]


def missing_morphs(job: Job, folder: ShardFolder) -> list[Shard]:
    """Shards of morphs that must be made."""
    return [shard for shard in job.shards if not shard.real and shard.index not in folder.finished]


def _store_real(
    job: Job, maker: ShardMaker, folder: ShardFolder, pool: ThreadPoolExecutor, stop: Stop, progress: Progress
) -> None:
    if not job.real:
        return
    missing = missing_real(job, folder)

    def make(shard: Shard) -> tuple[Shard, ShardResult]:
        return shard, maker.real(shard)

    with progress.task("Storing real images", len(job.real), "images") as task:
        task.advance(len(job.real) - sum(map(len, missing)))
        for shard, made in map_ahead(make, _until_stopped(missing, stop), pool, ahead=1):
            _write(job, folder, shard, made)
            task.advance(len(shard))


def _morph(
    job: Job,
    judges: Judges,
    maker: ShardMaker,
    folder: ShardFolder,
    pool: ThreadPoolExecutor,
    stop: Stop,
    progress: Progress,
) -> None:
    """Generate shard after shard; the previous one is selected, encoded and written at the same time."""
    missing = missing_morphs(job, folder)
    if not missing:
        return
    engine = job.engine(judges.classifiers, judges.rows, folder.parts)
    engine.encoder.encode(progress, engine.encoder.blocks(job.plan, [shard.part for shard in missing]))
    kept = done = 0

    def write(generated: tuple[Shard, MorphBatch]) -> tuple[Shard, int]:
        shard, morphs = generated
        made = maker.synthetic(shard, morphs, pool)
        _write(job, folder, shard, made)
        return shard, len(made.content.encoded)

    with (
        ThreadPoolExecutor(1) as writer,
        progress.task("Morphing", len(job.plan), "candidates") as task,
    ):
        task.advance(len(job.plan) - sum(map(len, missing)))
        generated = ((shard, engine.morph(job.plan, shard.part)) for shard in _until_stopped(missing, stop))
        for shard, written in map_ahead(write, generated, writer, ahead=1):
            kept, done = kept + written, done + len(shard)
            task.advance(len(shard), f"{kept / max(done, 1):.0%} kept")


def _until_stopped(shards: list[Shard], stop: Stop) -> Iterator[Shard]:
    for shard in shards:
        if stop.requested:
            return
        yield shard


def _write(job: Job, folder: ShardFolder, shard: Shard, made: ShardResult) -> None:
    folder.write(shard.index, made.content)
    job.skipped += made.skipped
