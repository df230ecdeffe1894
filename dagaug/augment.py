"""Augmenting on this machine: shard after shard; killed at any moment, it goes on where it was.

Shards are those of :mod:`dagaug.morphing`. A resumed run ends with the same file as an uninterrupted one.
"""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from dagaug.backbones import network_for
from dagaug.classifier import untrained
from dagaug.datasets import Dataset
from dagaug.engine import Engine, Morphs, pick_device
from dagaug.finished import Finished
from dagaug.images import Skipped
from dagaug.interrupts import Interrupted, Stop, stop_on_signals
from dagaug.judges import CrossFitted
from dagaug.models import TrainedModel
from dagaug.morphing import AugmentOptions, Job, Made, Shard, check_classes
from dagaug.outputs import telling_writes, write_whole
from dagaug.planning import VIEWS, random_plan
from dagaug.progress import SILENT, Progress
from dagaug.selection import verdict_counts
from dagaug.shards import Merge, Run, begun, difference, open_run, parts_of, settle
from dagaug.store import Store
from dagaug.translators import ReferenceTranslator

__all__ = [
    "AugmentOptions",
    "Augmented",
    "Estimate",
    "Executor",
    "Local",
    "augment",
    "check_classes",
    "estimate",
    "missing_real",
    "skipped_log",
]


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
        seconds: of all that is computed, read and encoded, by a measured warm-up; training the judges comes on top.
        size: of the file in bytes, if all that can be kept were kept.
        scratch: bytes of the table of encodings, which lies beside the shards and goes before they are merged.
        needed: bytes on the disk at the worst moment.
        free: bytes free where the file would lie.
    """

    sources: int
    candidates: int
    seconds: float
    size: int
    scratch: int
    needed: int
    free: int


_TRIAL_IMAGES = 32
_TRIAL_REFERENCES = 4


@runtime_checkable
class Executor(Protocol):
    """Where shards are made."""

    def __enter__(self) -> Executor: ...

    def __exit__(self, *exception: object) -> None: ...

    def make(
        self, job: Job, judges: CrossFitted, judged_by: np.ndarray, run: Run, stop: Stop, progress: Progress
    ) -> None:
        """Make and write the shards that the run lacks, or as many as can be before it is asked to stop."""


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
            with telling_writes(out, f"finished shards are kept in {parts_of(out)}"):
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
    with telling_writes(path, f"finished shards are kept in {parts_of(out)}"):
        if skipped:
            write_whole(path, table.getvalue().encode("utf-8", "surrogateescape"))
        else:
            path.unlink(missing_ok=True)


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
    model: TrainedModel,
    dataset: Dataset,
    options: AugmentOptions,
    out: Path,
    *,
    device: str = "auto",
    workers: int = 2,
    merge: Merge = "copy",
) -> Estimate:
    """What :func:`augment` would take, from a few batches on this machine; nothing is written."""
    job = Job(model, dataset, options, device=pick_device(device), workers=workers, strict=False, progress=SILENT)
    folder = next(parent for parent in out.absolute().parents if parent.is_dir())
    trial = _Trial(job)
    images = len(np.unique(np.concatenate([job.plan.source, job.plan.reference])))
    encodings = images * len(VIEWS)
    real, size_of_real = trial.real()
    each_encoding, each_candidate, size_of_morph = trial.synthetic()
    most = len(job.plan)
    if options.keep != "all" and not options.pairs:
        winners = len({variant == "cutout" for variant in options.variants})  # cut-outs compete among themselves
        groups = job.plan.sources if options.keep == "per-image" else len(job.plan) // len(options.variants)
        most = winners * groups
    size = round(size_of_morph * most + size_of_real)
    scratch = encodings * trial.record_bytes
    return Estimate(
        sources=job.plan.sources,
        candidates=len(job.plan),
        seconds=real + each_encoding * encodings + each_candidate * len(job.plan),
        size=size,
        scratch=scratch,
        needed=size + (max(size, scratch) if merge == "copy" else scratch),
        free=shutil.disk_usage(folder).free,
    )


class _Trial:
    """A measured warm-up: the first images of a job, encoded, morphed among each other and stored in memory."""

    def __init__(self, job: Job) -> None:
        self.job = job
        size = job.model.card.framing.size
        few = job.patches.images[:_TRIAL_IMAGES]
        judge = untrained(network_for(job.options.classifier, size), job.dataset.classes, size=size).to(job.device)
        judges = CrossFitted([judge], np.zeros(1, np.int64), np.zeros(1, bool), float("nan"))
        self._plan = random_plan(
            len(few), refs=min(_TRIAL_REFERENCES, len(few) - 1), variants=job.options.variants, seed=0
        ).on(job.options.background)
        assert isinstance(job.model.translator, ReferenceTranslator)
        self._engine = Engine(
            job.model.translator,
            few,
            judges,
            np.zeros(len(few), np.int64),
            device=job.device,
            batch_size=job.options.batch_size,
            scratch=Path(tempfile.gettempdir()),
        )

    @property
    def record_bytes(self) -> int:
        """What an image takes in the table of encodings in each view."""
        return self._engine.table.record.itemsize

    def real(self) -> tuple[float, float]:
        """Seconds and bytes of all real images, by the first of them."""
        count = min(len(self.job.real), _TRIAL_IMAGES)
        if not count:
            return 0.0, 0.0
        started = time.monotonic()
        made = self.job.store_real(Shard(0, True, slice(0, count)))
        scale = len(self.job.real) / count
        return (time.monotonic() - started) * scale, sum(map(len, made.content.encoded)) * scale

    def synthetic(self) -> tuple[float, float, float]:
        """Seconds of an encoding, seconds of a candidate, bytes of a morph."""
        engine, job = self._engine, self.job
        some = slice(0, min(len(self._plan), 2 * engine.batch_size))
        engine.encode()  # the first time is not typical
        started = time.monotonic()
        engine.encode()
        encoding = (time.monotonic() - started) / (len(VIEWS) * len(engine.patches))
        engine.morph(self._plan, some)
        started = time.monotonic()
        morphs = engine.morph(self._plan, some)
        stored = [
            len(job.store(job.framed(morphs, row, int(self._plan.behind[row]), int(self._plan.variant[row]))))
            for row in range(min(_TRIAL_IMAGES, some.stop))
        ]
        return encoding, (time.monotonic() - started) / some.stop, float(np.mean(stored))
