"""Estimates of the count, time and size of an augmentation (`--dry-run`)."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dagaug.augment.engine import Engine
from dagaug.augment.job import Job, Shard
from dagaug.augment.options import AugmentOptions
from dagaug.augment.plan import VIEWS, random_plan
from dagaug.classifiers.backbones import network_for
from dagaug.classifiers.classifier import untrained
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.compute.devices import pick_device
from dagaug.data.dataset import Dataset
from dagaug.hdf5.merge import Merge
from dagaug.model.trained_model import TrainedModel
from dagaug.model.translators import ReferenceTranslator
from dagaug.runtime.progress import SILENT

__all__ = ["Estimate", "estimate"]


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
