"""Measurements on a few batches: the cost of an augmentation, and the batch size for a device."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from dagaug.augment.class_balance import below_balance, images_per_reference
from dagaug.augment.engine import Engine
from dagaug.augment.judge_preparation import untrained_judge
from dagaug.augment.morph_plan import MorphPlan, random_plan
from dagaug.augment.options import AugmentOptions
from dagaug.augment.prepared_augmentation import Job, Shard
from dagaug.augment.shard_content import ShardMaker
from dagaug.data.dataset_records import Dataset
from dagaug.hdf5.merge import Merge
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.progress import SILENT

__all__ = ["AugmentEstimate", "estimate", "most_of_each_source", "suitable_batch_size"]

_TRIAL_IMAGES = 32
_TRIAL_REFERENCES = 4


@dataclass(frozen=True)
class AugmentEstimate:
    """Estimated cost of an augmentation.

    Attributes:
        sources, candidates: counts.
        kept: number of synthetic images, at most.
        below_balance: classes that cannot reach the number of training images that ``balance`` asks for, and how many
            they will have; empty without ``balance``.
        seconds: time to read, compute and encode everything; the training of the judges is not included.
        size: size of the file in bytes, if the selection rejects nothing.
        scratch: size in bytes of the table of encodings. It lies beside the shards and is deleted before the merge.
        needed: peak disk use in bytes.
        free: free bytes in the output folder.
    """

    sources: int
    candidates: int
    kept: int
    below_balance: dict[str, int]
    seconds: float
    size: int
    scratch: int
    needed: int
    free: int


def estimate(
    model: TrainedModel,
    dataset: Dataset,
    options: AugmentOptions,
    out: Path,
    *,
    merge: Merge = "copy",
    execution: Execution = Execution(),
) -> AugmentEstimate:
    """Estimate the cost of :func:`~dagaug.augment.run.augment` from a few batches on this machine. Writes nothing.

    Unreadable images are left out, and nothing is reported: only device and threads of ``execution`` count. Images with
    wrong masks are counted, and references are random.

    Raises:
        CheckpointError: the model has other classes.
        UsageError, DataError: the options do not fit the data.
    """
    quiet = replace(execution, strict=False, progress=SILENT, cache=None)
    job = Job(model, dataset, options, execution=quiet, trial=True)
    folder = next(parent for parent in out.absolute().parents if parent.is_dir())
    trial = _Trial(job)
    images = len(np.unique(np.concatenate([job.plan.source, job.plan.reference])))
    encodings = images * trial.orientations
    real, size_of_real = trial.real()
    each_encoding, each_candidate, size_of_morph = trial.synthetic()
    kept = most_of_each_source(job.plan, options)
    most = int(kept.sum())
    size = round(size_of_morph * most + size_of_real)
    scratch = encodings * trial.record_bytes
    return AugmentEstimate(
        sources=job.plan.sources,
        candidates=len(job.plan),
        kept=most,
        below_balance=_below_balance(job, kept),
        seconds=real + each_encoding * encodings + each_candidate * len(job.plan),
        size=size,
        scratch=scratch,
        needed=size + (max(size, scratch) if merge == "copy" else scratch),
        free=shutil.disk_usage(folder).free,
    )


def most_of_each_source(plan: MorphPlan, options: AugmentOptions) -> Int64[np.ndarray, " P"]:
    """Largest number of images that the selection keeps of each source of a plan."""
    candidates = np.diff(plan.starts)
    if options.pairs:
        return candidates
    each = images_per_reference(options.variants, options.keep)
    most = np.minimum(candidates, each) if options.keep == "per-image" else candidates // len(options.variants) * each
    if plan.quota is None or not len(plan):
        return most
    return np.minimum(most, plan.quota[np.minimum(plan.starts[:-1], len(plan) - 1)])


def _below_balance(job: Job, kept: Int64[np.ndarray, " P"]) -> dict[str, int]:
    balance, plan = job.options.balance, job.plan
    if balance is None:
        return {}
    labels, counted = job.patches.labels, np.flatnonzero(kept)
    made = labels[plan.source[plan.starts[:-1][counted]]]
    classes = job.dataset.classes
    real = [sample.label for sample in job.dataset.subset(job.options.per_class).train]
    counts = np.bincount(real, minlength=len(classes)) + np.bincount(
        made, weights=kept[counted], minlength=len(classes)
    ).astype(np.int64)
    return below_balance(classes, counts, balance)


def suitable_batch_size(job: Job) -> int:
    """Candidates to compute at a time on the job's device."""
    rows = np.zeros(len(job.patches.samples), np.int64)
    return job.engine(untrained_judge(job), rows, Path(tempfile.gettempdir())).batch_size


class _Trial:
    """The first images of a job, encoded, morphed into each other's poses and encoded as files, with timings."""

    def __init__(self, job: Job) -> None:
        self._job, self._maker = job, ShardMaker(job)
        few = job.patches.images[:_TRIAL_IMAGES]
        self._plan = random_plan(
            len(few), refs=min(_TRIAL_REFERENCES, len(few) - 1), variants=job.options.variants, seed=0
        ).with_background(job.options.background)
        self._engine = Engine(
            job.translator, few, untrained_judge(job), np.zeros(len(few), np.int64), device=job.device,
            batch_size=job.options.batch_size, scratch=Path(tempfile.gettempdir()),
            boxes=job.patches.boxes()[: len(few)], masks=job.patches.masks[: len(few)],
        )  # fmt: skip

    @property
    def orientations(self) -> int:
        """Records of an image."""
        return self._engine.encoder.orientations

    @property
    def record_bytes(self) -> int:
        """Size of a record."""
        return self._engine.encoder.table.record.itemsize

    def real(self) -> tuple[float, float]:
        """Seconds and bytes of all real images, extrapolated from the first ones."""
        total = len(self._job.real)
        count = min(total, _TRIAL_IMAGES)
        if not count:
            return 0.0, 0.0
        started = time.monotonic()
        made = self._maker.real(Shard(0, True, slice(0, count)))
        scale = total / count
        return (time.monotonic() - started) * scale, sum(map(len, made.content.encoded)) * scale

    def synthetic(self) -> tuple[float, float, float]:
        """Seconds of an encoding, seconds of a candidate, bytes of a morph."""
        engine, plan, maker = self._engine, self._plan, self._maker
        some = slice(0, min(len(plan), 2 * engine.batch_size))
        engine.encoder.encode()  # the first pass is slower: libraries are initialised
        started = time.monotonic()
        engine.encoder.encode()
        encoding = (time.monotonic() - started) / (self.orientations * len(engine.patches))
        engine.morph(plan, some)
        started = time.monotonic()
        morphs = engine.morph(plan, some)
        sizes = [
            len(
                maker.encode_image(maker.composite(morphs, row, int(plan.background_rows[row]), int(plan.variant[row])))
            )
            for row in range(min(_TRIAL_IMAGES, some.stop))
        ]
        return encoding, (time.monotonic() - started) / some.stop, float(np.mean(sizes))
