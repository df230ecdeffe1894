"""Augmentation of a data set: plan, generate, select, write one HDF5 file.

A run that was stopped or killed continues with the missing shards, and ends with the same file as an uninterrupted run.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dagaug.augment.class_balance import below_balance, class_counts
from dagaug.augment.cost_estimate import suitable_batch_size
from dagaug.augment.finished_file_reuse import PreviousFile
from dagaug.augment.in_process_executor import Executor, LocalExecutor
from dagaug.augment.judge_preparation import Judges, licences_of_weights, prepare_judges
from dagaug.augment.options import AugmentOptions
from dagaug.augment.prepared_augmentation import DEFAULT_SHARD_SIZES, Job, ShardSizes
from dagaug.augment.selection import verdict_counts
from dagaug.data.dataset_records import Dataset
from dagaug.data.image_files import Skipped
from dagaug.hdf5.merge import Merge
from dagaug.hdf5.provenance import Provenance
from dagaug.hdf5.reader import Store
from dagaug.hdf5.shard_folder import (
    ShardFolder,
    first_difference,
    open_shard_folder,
    remove_leftovers,
    unfinished_identity,
)
from dagaug.hdf5.shards import parts_folder
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.disk_cache import with_cache
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.files import explain_write_errors, write_atomically
from dagaug.runtime.progress import Progress
from dagaug.runtime.signals import Interrupted, stop_on_signals

__all__ = ["Augmented", "augment", "skipped_log"]


@dataclass(frozen=True)
class Augmented:
    """Summary of a finished augmentation.

    Attributes:
        out: the HDF5 file.
        sources, references: different images used as such.
        candidates: candidates generated.
        kept: candidates stored in the file.
        verdicts: number of candidates by verdict.
        real: real images in the file.
        real_training: those of them that are training images.
        accuracy: accuracy of the judges on held-out images, in [0, 1]; NaN if no judge was trained.
        skipped: files that could not be read.
        seconds: duration of this call.
        below_balance: classes with fewer training images, real and synthetic, than ``balance`` asks for, and how many
            they have; empty without ``balance``.
    """

    out: Path
    sources: int
    references: int
    candidates: int
    kept: int
    verdicts: dict[str, int]
    real: int
    real_training: int
    accuracy: float
    skipped: tuple[Skipped, ...]
    seconds: float
    below_balance: dict[str, int]


def augment(
    model: TrainedModel,
    dataset: Dataset,
    options: AugmentOptions,
    out: Path,
    *,
    overwrite: bool = False,
    cache: Path | None = None,
    retry_failed: bool = False,
    executor: Executor | None = None,
    merge: Merge = "copy",
    shard_sizes: ShardSizes = DEFAULT_SHARD_SIZES,
    execution: Execution = Execution(),
) -> Augmented:
    """Augment a data set, or continue a run that was stopped.

    Args:
        model: a trained model of ``reference`` mode.
        dataset: labelled images; only training images are used as sources and references.
        options: what to generate, keep and store.
        out: the HDF5 file to write.
        overwrite: replace a finished file, or an unfinished run with other options.
        cache: file that keeps the trained judges.
        retry_failed: if ``out`` is finished, make the shards again whose images were unreadable and are readable now;
            copy all other shards. With a given judge, the result is that of a run in which all were readable. Trained
            judges are reused; they have not seen the new images.
        executor: makes the shards; None uses this process. The executor does not change the result.
        merge: ``copy`` makes one file, ``virtual`` leaves the images in a folder of shards beside it.
        shard_sizes: images and sources of a shard.
        execution: where to compute, and how to read images.

    Raises:
        CheckpointError: the model has other classes.
        UsageError, DataError: options do not fit the data.
        OutputExistsError, LockedError, StoreError: ``out`` cannot be written.
        Interrupted: stopped by a signal; finished shards are kept.
    """
    started, progress = time.monotonic(), execution.progress
    completed = remove_leftovers(out)
    previous = PreviousFile(out) if retry_failed and out.exists() else None
    if previous is not None and not previous.readable():
        reason = f"none of the {len(previous.skipped)} skipped files can be read now"
        progress.say(f"{out}: {reason if previous.skipped else 'no file was skipped'}; the file is unchanged")
        return _summary(out, float("nan"), time.monotonic() - started)
    with with_cache(execution) as reading:
        job = Job(model, dataset, options, shard_sizes=shard_sizes, execution=reading)
        execution.memory.tell(progress)
        used = _batch_size(completed or unfinished_identity(out)) if previous is None else previous.batch_size
        if options.batch_size is None:
            job.fix_batch_size(used or suitable_batch_size(job))
        if previous is not None:
            previous.check(job.header())
        elif completed is not None and first_difference(completed, job.identity()) is None:
            progress.say(f"{out}: already complete; an earlier call was killed after writing it")
            return _summary(out, float("nan"), time.monotonic() - started)
        replaces = overwrite or previous is not None
        with open_shard_folder(out, job.identity(), overwrite=replaces) as folder, executor or LocalExecutor() as makes:
            judges = _make_shards(job, folder, makes, cache, previous, reading)
            header = job.header(judges.sha256, judges.accuracy_on_training, licences_of_weights(job, judges))
            folder.merge(header, len(job.shards), how=merge, progress=progress)
    return _summary(out, judges.classifiers.accuracy, time.monotonic() - started)


def _batch_size(identity: Mapping[str, object]) -> int | None:
    """The batch size of a run that is continued; None for a new run."""
    options = identity.get("options")
    return Provenance.read(options).batch_size if isinstance(options, dict) else None


def _make_shards(
    job: Job,
    folder: ShardFolder,
    executor: Executor,
    cache: Path | None,
    previous: PreviousFile | None,
    execution: Execution,
) -> Judges:
    """Prepare the judges and write all shards."""
    progress = execution.progress
    out, kept = folder.target, f"finished shards are kept in {folder.parts}"
    _write_skipped_log(out, job)
    judges = prepare_judges(job, cache, previous=previous, execution=execution)
    accuracy = judges.classifiers.accuracy
    if not np.isnan(accuracy):
        progress.say(f"Judges: {accuracy:.1%} accuracy on held-out real images")
    _remove_outdated_shards(job, folder, judges.sha256)
    if previous is not None:
        _reuse_shards(job, folder, previous, progress)
    with stop_on_signals() as stop:
        with explain_write_errors(out, kept):
            executor.make(job, judges, folder, stop, progress)
        if stop.requested:
            raise Interrupted(f"stopped; {kept}; run the same command again to continue")
    _write_skipped_log(out, job)
    return judges


def _remove_outdated_shards(job: Job, folder: ShardFolder, judges_sha256: str) -> None:
    """Remove shards of an earlier call that were made with other files or judges, or by an older version."""
    folder.require([shard.index for shard in job.shards if not shard.real], judges_sha256)
    for shard in job.shards:
        if shard.index in folder.finished and not (
            folder.has_objects(shard.index)
            and all(
                np.array_equal(folder.column(shard.index, name), column)
                for name, column in job.expected_columns(shard).items()
            )
        ):
            folder.remove_shards([shard.index])


def _reuse_shards(job: Job, folder: ShardFolder, previous: PreviousFile, progress: Progress) -> None:
    """Write the shards that a finished file contains unchanged."""
    missing = [shard for shard in job.shards if shard.index not in folder.finished]
    with progress.task("Reusing shards", len(missing), "shards") as task:
        for shard in missing:
            content = previous.shard(job.expected_columns(shard))
            if content is not None:
                folder.write(shard.index, content)
            task.advance()


def skipped_log(out: Path) -> Path:
    """Path of the CSV file beside ``out`` that lists the skipped files with reasons."""
    return out.with_name(out.name + ".skipped.csv")


def _write_skipped_log(out: Path, job: Job) -> None:
    path, skipped = skipped_log(out), dict.fromkeys(job.skipped)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([("path", "reason"), *((str(skip.path), skip.reason) for skip in skipped)])
    with explain_write_errors(path, f"finished shards are kept in {parts_folder(out)}"):
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
        real_training = int((~store.images.synthetic & (store.images.split == 0)).sum())
        skipped = tuple(Skipped(Path(path), reason) for path, reason in store.header.skipped)
        balance = store.header.options.get("balance")
        below = below_balance(store.classes, class_counts(store), balance) if isinstance(balance, int) else {}
    return Augmented(
        out=out,
        sources=len(np.unique(candidates.source)),
        references=len(np.unique(candidates.reference)),
        candidates=len(candidates),
        kept=kept,
        verdicts=counts,
        real=real,
        real_training=real_training,
        accuracy=accuracy,
        skipped=skipped,
        seconds=seconds,
        below_balance=below,
    )
