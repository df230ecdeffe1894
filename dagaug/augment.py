"""Augmenting on this machine: shard after shard; killed at any moment, it goes on where it was.

Shards are those of :mod:`dagaug.morphing`. A resumed run ends with the same file as an uninterrupted one.
"""

from __future__ import annotations

import csv
import io
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dagaug.classifier import CrossFitted, network_for, untrained
from dagaug.datasets import Dataset
from dagaug.engine import Engine, Morphs, pick_device
from dagaug.finished import Finished
from dagaug.images import Skipped
from dagaug.interrupts import Interrupted, Stop, stop_on_signals
from dagaug.models import TrainedModel
from dagaug.morphing import AugmentOptions, Job, Made, Shard, check_classes
from dagaug.outputs import telling_writes, write_whole
from dagaug.progress import SILENT, Progress
from dagaug.selection import verdict_counts
from dagaug.shards import Run, open_run, parts_of
from dagaug.store import Store

__all__ = ["AugmentOptions", "Augmented", "Estimate", "augment", "check_classes", "estimate", "skipped_log"]


@dataclass(frozen=True)
class Augmented:
    """A finished augmentation.

    Attributes:
        out: the HDF5 file.
        sources, references: how many were used.
        candidates: how many were generated.
        kept: how many of them stand in the file.
        verdicts: number of candidates by verdict.
        real: real images in the file.
        accuracy: the judges' accuracy on images that they did not learn from; NaN if they were given.
        skipped: files that could not be read.
        seconds: time this call took.
    """

    out: Path
    sources: int
    references: int
    candidates: int
    kept: int
    verdicts: dict[str, int]
    real: int
    accuracy: float
    skipped: tuple[Skipped, ...]
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """What an augmentation would take (``--dry-run``).

    Attributes:
        sources, candidates: how many.
        seconds: of generating and judging, by a measured batch; training the judges comes on top.
        size: of the file in bytes, if all that can be kept were kept.
        free: bytes free where the file would lie; twice the size is needed while shards are merged.
    """

    sources: int
    candidates: int
    seconds: float
    size: int
    free: int


def augment(
    model: TrainedModel,
    dataset: Dataset,
    options: AugmentOptions,
    out: Path,
    *,
    device: str = "auto",
    workers: int = 2,
    overwrite: bool = False,
    strict: bool = False,
    cache: Path | None = None,
    retry_failed: bool = False,
    progress: Progress = SILENT,
) -> Augmented:
    """Morph a data set and write what the classifier recognises, or go on with a run that was stopped.

    Args:
        model: a trained model of ``reference`` mode.
        dataset: labelled images; only training images are sources and references.
        options: how many, which and how they are stored.
        out: the HDF5 file to write.
        device: auto, cpu or cuda.
        workers: threads that read images.
        overwrite: replace a finished file, or a run with other options.
        strict: an unreadable image is an error.
        cache: file that keeps the trained judges.
        retry_failed: where ``out`` is finished, make those of its shards that lack something of files which could not
            be read then and can be now, as sources, references or real images, and take over the others. With a
            judge that is given, the result is that of a run in which all of them could be read. Judges that were
            trained go on judging; they have not learned from the new images.
        progress: is told of images, rates and what is skipped.

    Raises:
        CheckpointError: the model is for other classes.
        UsageError, DataError: options do not fit the data.
        OutputExistsError, LockedError, StoreError: ``out`` cannot be written.
        Interrupted: stopped by a signal; finished shards are kept.
    """
    started = time.monotonic()
    before = Finished(out) if retry_failed and out.exists() else None
    if before is not None and not before.readable():
        unreadable = f"none of the {len(before.skipped)} files that were skipped can be read now"
        progress.say(f"{out}: {unreadable if before.skipped else 'no file was skipped'}; it stays as it is")
        return _summary(out, float("nan"), time.monotonic() - started)
    job = Job(model, dataset, options, device=pick_device(device), workers=workers, strict=strict, progress=progress)
    if before is not None:
        before.check(job.header())
    with open_run(out, job.identity(), overwrite=overwrite or before is not None) as run:
        _log_skipped(out, job)
        judges, judged_by = job.judges(cache, progress, before)
        if not np.isnan(judges.accuracy):
            progress.say(f"The classifier that selects is right on {judges.accuracy:.1%} of the images it did not see")
        _forget_outdated(job, run)
        if before is not None:
            _take_over(job, run, before, progress)
        with stop_on_signals() as stop:
            _store_real(job, run, stop, progress)
            _morph(job, run, job.engine(judges, judged_by, parts_of(out)), stop, progress)
        _log_skipped(out, job)
        run.merge(job.header(), len(job.shards), progress=progress)
    return _summary(out, judges.accuracy, time.monotonic() - started)


def _forget_outdated(job: Job, run: Run) -> None:
    """Remove finished shards of an earlier call that this one would make otherwise: with other files or judges."""
    run.depend([shard.index for shard in job.shards if not shard.real], job.judges_sha256)
    for shard in job.shards:
        if shard.index in run.finished and not all(
            np.array_equal(run.column(shard.index, name), column) for name, column in job.expects(shard).items()
        ):
            run.forget([shard.index])


def _take_over(job: Job, run: Run, before: Finished, progress: Progress) -> None:
    """Write the shards that a finished file holds as they are to be."""
    missing = [shard for shard in job.shards if shard.index not in run.finished]
    with progress.task("Taking over", len(missing), "shards") as task:
        for shard in missing:
            content = before.shard(job.expects(shard))
            if content is not None:
                run.write(shard.index, content)
            task.advance()


def skipped_log(out: Path) -> Path:
    """The table of the files that could not be used for ``out``, beside it: path and reason."""
    return out.with_name(out.name + ".skipped.csv")


def _log_skipped(out: Path, job: Job) -> None:
    path, skipped = skipped_log(out), dict.fromkeys(job.skipped)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([("path", "reason"), *((str(skip.path), skip.reason) for skip in skipped)])
    with telling_writes(path, f"finished shards are kept in {parts_of(out)}"):
        if skipped:
            write_whole(path, table.getvalue().encode("utf-8", "surrogateescape"))
        else:
            path.unlink(missing_ok=True)


def _store_real(job: Job, run: Run, stop: Stop, progress: Progress) -> None:
    shards = [shard for shard in job.shards if shard.real]
    if not shards:
        return
    with progress.task("Storing real images", len(job.real), "images") as task:
        for shard in shards:
            if shard.index not in run.finished:
                _keep(job, run, shard, job.store_real(shard))
                _stop_if_asked(stop, run)
            task.advance(len(shard))


def _keep(job: Job, run: Run, shard: Shard, made: Made) -> None:
    run.write(shard.index, made.content)
    job.skipped += made.skipped


def _morph(job: Job, run: Run, engine: Engine, stop: Stop, progress: Progress) -> None:
    """Generate shard after shard; the one before is selected, encoded and written meanwhile."""
    synthetic = [shard for shard in job.shards if not shard.real]
    missing = [shard for shard in synthetic if shard.index not in run.finished]
    if not missing:
        return
    engine.encode(progress)
    kept = done = 0

    def write(shard: Shard, morphs: Morphs) -> tuple[int, int]:
        made = job.select(shard, morphs)
        _keep(job, run, shard, made)
        return len(made.content.encoded), len(shard)

    with (
        ThreadPoolExecutor(1) as writer,
        progress.task("Morphing", len(job.plan), "candidates") as task,
    ):
        task.advance(sum(len(shard) for shard in synthetic if shard.index in run.finished))
        pending: Future[tuple[int, int]] | None = None
        for shard in [*missing, None]:
            morphs = None if shard is None or stop.requested else engine.morph(job.plan, shard.part)
            if pending is not None:
                more, all_of = pending.result()
                kept, done = kept + more, done + all_of
                task.advance(all_of, f"{kept / max(done, 1):.0%} kept")
            if morphs is None or shard is None:
                break
            pending = writer.submit(write, shard, morphs)
    _stop_if_asked(stop, run)


def _stop_if_asked(stop: Stop, run: Run) -> None:
    if stop.requested:
        raise Interrupted(f"stopped; finished shards are kept in {parts_of(run.target)}; the same command goes on")


def _summary(out: Path, accuracy: float, seconds: float) -> Augmented:
    with Store(out) as store:
        candidates = store.candidates
        counts = verdict_counts(candidates.verdict)
        kept = int((candidates.image >= 0).sum())
        real = len(store) - kept
        skipped = tuple(Skipped(Path(path), reason) for path, reason in store.header.skipped)
    return Augmented(
        out=out,
        sources=len(np.unique(candidates.source)),
        references=len(np.unique(candidates.reference)),
        candidates=len(candidates),
        kept=kept,
        verdicts=counts,
        real=real,
        accuracy=accuracy,
        skipped=skipped,
        seconds=seconds,
    )


def estimate(
    model: TrainedModel, dataset: Dataset, options: AugmentOptions, out: Path, *, device: str = "auto", workers: int = 2
) -> Estimate:
    """What :func:`augment` would take, from a few batches on this machine; nothing is written."""
    job = Job(model, dataset, options, device=pick_device(device), workers=workers, strict=False, progress=SILENT)
    few = slice(0, min(len(job.plan), 2 * options.batch_size))
    size = model.card.framing.size
    judge = untrained(network_for(options.classifier, size), dataset.classes, size=size).to(job.device)
    judges = CrossFitted([judge], np.zeros(1, np.int64), np.zeros(1, bool), float("nan"))
    folder = out.parent if out.parent.is_dir() else Path.cwd()
    engine = job.engine(judges, np.zeros(len(job.patches.samples), np.int64), folder)
    start = time.monotonic()
    engine.encode()
    encoded = time.monotonic()
    engine.morph(job.plan, few)  # the first time is not typical
    begun = time.monotonic()
    morphs = engine.morph(job.plan, few)
    stored = [
        len(job.store(job.framed(morphs, row, int(job.plan.reference[row]), int(job.plan.variant[row]))))
        for row in range(min(16, few.stop))
    ]
    each = (time.monotonic() - begun) / few.stop
    most = len(job.plan) // (1 if options.keep == "all" else len(options.variants))
    if options.keep == "per-image":
        most = job.plan.sources
    real = sum(job.dataset.file(job.files[row]).stat().st_size for row in job.real)
    return Estimate(
        sources=job.plan.sources,
        candidates=len(job.plan),
        seconds=encoded - start + each * len(job.plan),
        size=int(np.mean(stored) * most) + real,
        free=shutil.disk_usage(folder).free,
    )
