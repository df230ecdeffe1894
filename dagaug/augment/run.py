"""Augmenting on this machine: shard after shard; killed at any moment, it goes on where it was.

Shards are those of :mod:`dagaug.morphing`. A resumed run ends with the same file as an uninterrupted one.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dagaug.augment.job import Job
from dagaug.augment.local_executor import Executor, Local
from dagaug.augment.options import AugmentOptions
from dagaug.augment.previous_file import Finished
from dagaug.augment.selection import verdict_counts
from dagaug.compute.devices import pick_device
from dagaug.data.dataset import Dataset
from dagaug.data.image_files import Skipped
from dagaug.hdf5.merge import Merge
from dagaug.hdf5.reader import Store
from dagaug.hdf5.run import Run, begun, difference, open_run, settle
from dagaug.hdf5.shards import parts_of
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.files import explain_write_errors, write_atomically
from dagaug.runtime.progress import SILENT, Progress
from dagaug.runtime.signals import Interrupted, stop_on_signals

__all__ = ["Augmented", "augment", "skipped_log"]


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
    executor: Executor | None = None,
    merge: Merge = "copy",
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
        executor: makes the shards; this process by default. They are the same, whoever makes them.
        merge: ``copy`` makes one file, ``virtual`` leaves the images in the shards, in a folder beside it.
        progress: is told of images, rates and what is skipped.

    Raises:
        CheckpointError: the model is for other classes.
        UsageError, DataError: options do not fit the data.
        OutputExistsError, LockedError, StoreError: ``out`` cannot be written.
        Interrupted: stopped by a signal; finished shards are kept.
    """
    started = time.monotonic()
    left = settle(out)
    before = Finished(out) if retry_failed and out.exists() else None
    if before is not None and not before.readable():
        unreadable = f"none of the {len(before.skipped)} files that were skipped can be read now"
        progress.say(f"{out}: {unreadable if before.skipped else 'no file was skipped'}; it stays as it is")
        return _summary(out, float("nan"), time.monotonic() - started)
    job = Job(model, dataset, options, device=pick_device(device), workers=workers, strict=strict, progress=progress)
    job.fix_batch_size(_batch_size(left or begun(out)) if before is None else before.batch_size)
    if before is not None:
        before.check(job.header())
    elif left is not None and difference(left, job.identity()) is None:
        progress.say(f"{out}: was whole already when the call before was killed")
        return _summary(out, float("nan"), time.monotonic() - started)
    replaces = overwrite or before is not None
    with open_run(out, job.identity(), overwrite=replaces) as run, executor or Local() as makes:
        _log_skipped(out, job)
        judges, judged_by = job.judges(cache, progress, before)
        if not np.isnan(judges.accuracy):
            progress.say(f"The classifier that selects is right on {judges.accuracy:.1%} of the images it did not see")
        _forget_outdated(job, run)
        if before is not None:
            _take_over(job, run, before, progress)
        with stop_on_signals() as stop:
            with explain_write_errors(out, f"finished shards are kept in {parts_of(out)}"):
                makes.make(job, judges, judged_by, run, stop, progress)
            if stop.requested:
                raise Interrupted(f"stopped; finished shards are kept in {parts_of(out)}; the same command goes on")
        _log_skipped(out, job)
        run.merge(job.header(), len(job.shards), how=merge, progress=progress)
    return _summary(out, judges.accuracy, time.monotonic() - started)


def _batch_size(identity: Mapping[str, object]) -> int | None:
    """The batch size that a run began with, if it tells."""
    options = identity.get("options")
    size = options.get("batch_size") if isinstance(options, dict) else None
    return size if isinstance(size, int) and size > 0 else None


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
    with explain_write_errors(path, f"finished shards are kept in {parts_of(out)}"):
        if skipped:
            write_atomically(path, table.getvalue().encode("utf-8", "surrogateescape"))
        else:
            path.unlink(missing_ok=True)


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
