"""What an augmentation makes, shard by shard, whoever computes it (paper, Sec. 4.6).

A :class:`Job` is prepared once from checkpoint, data and options. It cuts the work into shards of a fixed number of
images or sources; the content of a shard depends on the job and on nothing else, so that shards may be made in any
order, again, or on another machine.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from dagaug.augment.checks import check_classes
from dagaug.augment.compositing import Frames
from dagaug.augment.engine import Engine, Morphs
from dagaug.augment.judge_practice import practice_images
from dagaug.augment.options import AugmentOptions
from dagaug.augment.plan import UNMORPHED, VARIANTS, Plan, pairs_from_csv, random_plan
from dagaug.augment.previous_file import Finished
from dagaug.augment.selection import KEPT, VERDICTS, check_bounds, select
from dagaug.classifiers.backbones import network_for
from dagaug.classifiers.classifier import Classifier, untrained
from dagaug.classifiers.cross_fit import TRUSTED, CrossFitted, Practice, cross_fit, ready_judge
from dagaug.classifiers.fit import FitOptions
from dagaug.data.dataset import Dataset, Sample
from dagaug.data.image_files import Skipped, decode, decode_bytes, encode, is_plain_jpeg
from dagaug.data.patches import Patches, read_patches
from dagaug.hdf5.schema import Candidates, Header, Images
from dagaug.hdf5.shards import ShardContent
from dagaug.model.trained_model import TrainedModel
from dagaug.model.translators import ReferenceTranslator
from dagaug.runtime.errors import CheckpointError, DataError, ImageError, UsageError
from dagaug.runtime.progress import Progress

__all__ = ["Job", "Made", "Shard"]

_SOURCES_PER_SHARD = 32


_REAL_PER_SHARD = 256


@dataclass(frozen=True)
class Shard:
    """A piece of the work.

    Attributes:
        index: its place among all shards; those of real images come first.
        real: whether it holds real images, or morphs.
        part: which of the job's real images, or of its candidates.
    """

    index: int
    real: bool
    part: slice

    def __len__(self) -> int:
        """Number of images that are read, or of candidates that are made."""
        return int(self.part.stop - self.part.start)


@dataclass(frozen=True)
class Made:
    """What became of a shard.

    Attributes:
        content: what belongs into its file.
        skipped: files that could not be read meanwhile.
    """

    content: ShardContent
    skipped: tuple[Skipped, ...] = ()


class Job:
    """All that the shards need, prepared once.

    Attributes:
        patches: of the images that can be read.
        plan: the candidates, by row of the patches. Which are drawn does not depend on what can be read, but for
            those of which the source or the reference cannot.
        files: every image that the output names.
        real: rows of the files whose images are stored.
        shards: the pieces of the work, in the order in which they are merged.
        skipped: files that could not be read so far.
        judges_sha256: of the classifiers, once they are known.
    """

    def __init__(
        self,
        model: TrainedModel,
        dataset: Dataset,
        options: AugmentOptions,
        *,
        device: torch.device,
        workers: int,
        strict: bool,
        progress: Progress,
    ) -> None:
        check_classes(model, dataset)
        check_bounds(options.min_confidence or 0.0, options.max_confidence)
        if options.pairs is not None and options.limit is not None:
            raise UsageError(f"--limit {options.limit}: --pairs names the morphs one by one; leave out one of the two")
        if options.background == "source" and "cutout" in options.variants and options.pairs is None:
            raise UsageError(
                "--background source: cut-outs on it would be copies of the sources; leave cutout out of --variants"
            )
        assert isinstance(model.translator, ReferenceTranslator)
        self.model, self.dataset, self.options = model, dataset, options
        self.device, self.workers = device, workers
        framing = model.card.framing
        train = dataset.subset(options.per_class).train
        pool = dataset.samples if options.pairs else train
        self.patches: Patches = read_patches(dataset, pool, framing, workers=workers, strict=strict, progress=progress)
        samples = self.patches.samples
        self.skipped = list(self.patches.skipped)
        plan = self._random_plan(pool) if options.pairs is None else pairs_from_csv(options.pairs, samples)
        self.plan: Plan = plan.on(options.background)
        allowed = {sample.path for sample in train}
        self.learned = np.array([row for row, sample in enumerate(samples) if sample.path in allowed], np.int64)
        # every image that the file names, and where it stands in the table of files
        self.files = tuple(dataset.samples) if options.real else tuple(pool)
        row_of = {sample.path: row for row, sample in enumerate(self.files)}
        self.file_of = np.array([row_of[sample.path] for sample in samples], np.int64)
        keep_real = {sample.path for sample in train} | {sample.path for sample in dataset.test}
        self.real = [row for row, sample in enumerate(self.files) if sample.path in keep_real] if options.real else []
        self.shards = self._cut()
        self.judges_sha256 = ""
        self.min_confidence = options.min_confidence or 0.0

    @cached_property
    def _frames(self) -> Frames:
        return Frames(self.dataset, self.patches, self.options.frame, read=self._decode)

    def __getstate__(self) -> dict[str, Any]:
        """Without the cache of whole images, as it goes to other processes."""
        return {name: value for name, value in self.__dict__.items() if name != "_frames"}

    def _random_plan(self, pool: Sequence[Sample]) -> Plan:
        """Drawn among all samples of the pool, by row of the patches."""
        row_of = {sample.path: row for row, sample in enumerate(self.patches.samples)}
        patch_of = np.array([row_of.get(sample.path, -1) for sample in pool], np.int64)
        options = self.options
        plan = random_plan(
            len(pool), refs=options.refs, variants=options.variants, seed=options.seed, limit=options.limit,
            usable=patch_of >= 0,
        )  # fmt: skip
        return replace(plan, source=patch_of[plan.source], reference=patch_of[plan.reference])

    def _cut(self) -> tuple[Shard, ...]:
        count, step = len(self.real), _REAL_PER_SHARD
        real = [slice(first, min(first + step, count)) for first in range(0, count, step)]
        synthetic = self.plan.shards(_SOURCES_PER_SHARD)
        parts = [(True, part) for part in real] + [(False, part) for part in synthetic]
        return tuple(Shard(index, is_real, part) for index, (is_real, part) in enumerate(parts))

    def expects(self, shard: Shard) -> dict[str, np.ndarray]:
        """What decides a shard's content, as it stands in its file: columns by name.

        Files may have come, gone or become readable since a shard was made, in an earlier call; it is then to be made
        again. Of the files that no patch was read of, those that are there are taken for readable.
        """
        if shard.real:
            unreadable = {skip.path for skip in self.patches.skipped}
            paths = {row: self.dataset.file(self.files[row]) for row in self.real[shard.part]}
            rows = [row for row, path in paths.items() if path not in unreadable and os.access(path, os.R_OK)]
            return {"images/source": np.array(rows, np.int64)}
        source, reference = self.plan.source[shard.part], self.plan.reference[shard.part]
        return {
            "candidates/source": self.file_of[source],
            "candidates/reference": self.file_of[reference],
            "candidates/variant": self.plan.variant[shard.part],
        }

    def _decode(self, path: Path) -> UInt8[np.ndarray, "H W 3"]:
        return decode(path)

    def judges(
        self, cache: Path | None, progress: Progress, selected: Finished | None = None
    ) -> tuple[CrossFitted, np.ndarray]:
        """The classifiers, and for each patch the row under which they know it (-1 for none).

        Args:
            cache: file that keeps trained classifiers.
            progress: is told of trainings.
            selected: a file whose selection goes on, by the classifiers that made it and no others.

        Raises:
            CheckpointError: those are not in the cache any more.
        """
        if selected is None or self._given_judge() is not None or cache is None or not cache.exists():
            fitted, rows = self._judges(cache, progress)
        else:
            fitted, rows = CrossFitted.load(cache, self.device), self._rows_of_learned()
        self.judges_sha256 = fitted.sha256()
        if selected is not None:
            if self.judges_sha256 != selected.judges_sha256:
                raise CheckpointError(
                    f"{self.options.weights or cache}: not the classifiers that selected {selected.path}; "
                    "--overwrite makes all of it anew"
                )
            if self._given_judge() is None and cache is not None:
                fitted = self._with_more_images(fitted, selected, cache)
        if self.options.min_confidence is None:
            chance, doubtful = 1 / len(self.dataset.classes), fitted.accuracy < TRUSTED
            self.min_confidence = 0.0 if doubtful or chance >= self.options.max_confidence else chance
        return fitted, rows

    def _with_more_images(self, fitted: CrossFitted, selected: Finished, cache: Path) -> CrossFitted:
        """Trained classifiers for the images, too, that could not be read when they were trained."""
        files = [str(self.dataset.file(self.patches.samples[row])) for row in self.learned]
        known = np.array([file not in selected.skipped for file in files], bool)
        if len(fitted.fold_of) == len(known):  # by an earlier call that was stopped
            return fitted
        fold_of, held_out = np.zeros(len(known), np.int64), np.zeros(len(known), bool)
        try:
            fold_of[known], held_out[known] = fitted.fold_of, fitted.held_out
        except ValueError as error:
            raise CheckpointError(
                f"{cache}: the classifiers of other images than {selected.path}; --overwrite makes all of it anew"
            ) from error
        fitted = CrossFitted(fitted.classifiers, fold_of, held_out, fitted.accuracy)
        fitted.save(cache)
        return fitted

    def _rows_of_learned(self) -> np.ndarray:
        rows = np.full(len(self.patches.samples), -1, np.int64)
        rows[self.learned] = np.arange(len(self.learned))
        return rows

    def _given_judge(self) -> Classifier | None:
        options, size = self.options, self.model.card.framing.size
        if options.weights is None:
            return None
        name = network_for(options.classifier, size)
        return ready_judge(name, self.dataset.classes, size=size, weights=options.weights)

    def _judges(self, cache: Path | None, progress: Progress) -> tuple[CrossFitted, np.ndarray]:
        options, size = self.options, self.model.card.framing.size
        name = network_for(options.classifier, size)
        fit = FitOptions(name=name, size=size, weights=options.weights)
        ready = self._given_judge()
        if ready is not None:
            progress.say(f"{options.weights}: judges as it is, without training")
            one = CrossFitted([ready.to(self.device)], np.zeros(1, np.int64), np.zeros(1, bool), float("nan"))
            return one, np.zeros(len(self.patches.samples), np.int64)
        images, labels = self.patches.images[self.learned], self.patches.labels[self.learned]
        fitted = cross_fit(
            images, labels, self.dataset.classes, fit,
            folds=options.folds, seed=options.seed, device=self.device, cache=cache, progress=progress,
            practice=lambda: self._practice(images, labels, progress), practice_of=self.model.sha256,
        )  # fmt: skip
        return fitted, self._rows_of_learned()

    def _practice(self, images: np.ndarray, labels: np.ndarray, progress: Progress) -> Practice:
        translator, seed = self.model.translator, self.options.seed
        assert isinstance(translator, ReferenceTranslator)
        return practice_images(
            translator, images, labels.astype(np.int64), seed=seed, device=self.device, progress=progress
        )

    def fix_batch_size(self, used: int | None = None) -> None:
        """Where no batch size was given: from now on ``used``, by the run that goes on, or what suits the device."""
        if self.options.batch_size is not None:
            return
        if used is None:
            size = self.model.card.framing.size
            name = network_for(self.options.classifier, size)
            judge = untrained(name, self.dataset.classes, size=size).to(self.device)
            judges = CrossFitted([judge], np.zeros(1, np.int64), np.zeros(1, bool), float("nan"))
            nobody = np.zeros(len(self.patches.samples), np.int64)
            used = self.engine(judges, nobody, Path(tempfile.gettempdir())).batch_size
        self.options = self.options.model_copy(update={"batch_size": used})

    def engine(self, judges: CrossFitted, judged_by: np.ndarray, scratch: Path) -> Engine:
        """The generator with its judges; ``scratch`` is a folder, or the name of a table that processes share."""
        assert isinstance(self.model.translator, ReferenceTranslator)
        return Engine(
            self.model.translator,
            self.patches.images,
            judges,
            judged_by,
            device=self.device,
            batch_size=self.options.batch_size,
            scratch=scratch,
        )

    def identity(self) -> dict[str, Any]:
        """What makes a run this run."""
        options = self.options.model_dump(mode="json")
        return {
            "options": options,
            "checkpoint": self.model.sha256,
            "seed": self.options.seed,
            "files": [str(sample.path) for sample in self.files],
            "data": str(self.dataset.root),
        }

    def header(self) -> Header:
        """Everything in the file that is not about one image."""
        options = {
            **self.options.model_dump(mode="json"),
            "data": str(self.dataset.root),
            "layout": self.dataset.layout,
            "split_seed": self.dataset.split_seed,
            "framing": self.model.card.framing.model_dump(mode="json"),
            "checkpoint": str(self.model.path),
            "judges": self.judges_sha256,
        }
        return Header(
            classes=self.dataset.classes,
            files=tuple(sample.path.as_posix() for sample in self.files),
            files_label=np.array([sample.label for sample in self.files], np.int32),
            files_split=np.array([sample.split == "test" for sample in self.files], np.uint8),
            encoding=self.options.encoding,
            quality=self.options.quality if self.options.encoding == "jpeg" else 0,
            variants=VARIANTS,
            verdicts=VERDICTS,
            options=options,
            checkpoint_sha256=self.model.sha256,
            seed=self.options.seed,
            created_by=f"dagaug {version('dagaug')}",
            skipped=tuple((str(skip.path), skip.reason) for skip in dict.fromkeys(self.skipped)),
        )

    def store(self, image: UInt8[np.ndarray, "H W 3"]) -> bytes:
        """An image in the file's encoding."""
        if self.options.encoding == "raw":
            return image.tobytes()
        return encode(image, self.options.encoding, self.options.quality)

    def store_real(self, shard: Shard) -> Made:
        """Real images, re-encoded whole (or kept byte for byte where they are what the file holds anyway)."""
        rows, encoded, sizes = [], [], []
        skipped: list[Skipped] = []
        read, unreadable = set(self.file_of.tolist()), {skip.path for skip in self.patches.skipped}
        for row in self.real[shard.part]:
            path = self.dataset.file(self.files[row])
            if path in unreadable:
                continue
            try:
                data = path.read_bytes()
                image = decode_bytes(data, path)
            except (ImageError, OSError) as error:
                reason = error.reason if isinstance(error, ImageError) else f"cannot be read ({error.strerror})"
                if row in read:
                    raise DataError(
                        f"{path}: {reason}; it was readable when this run began; restore it, or go on without it: "
                        "run the same command again"
                    ) from error
                skipped.append(Skipped(path, reason))
                continue
            same = self.options.encoding == "jpeg" and is_plain_jpeg(data, image)
            encoded.append(data if same else self.store(image))
            rows.append(row)
            sizes.append(image.shape[:2])
        size = np.array(sizes, np.int32).reshape(-1, 2)
        images = Images.real(
            height=size[:, 0],
            width=size[:, 1],
            label=np.array([self.files[row].label for row in rows], np.int32),
            split=np.array([self.files[row].split == "test" for row in rows], np.uint8),
            source=np.array(rows, np.int64),
        )
        return Made(ShardContent(encoded, images), tuple(skipped))

    def _verdicts(self, part: slice, morphs: Morphs) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Label, prediction, confidence and verdict of a part's candidates."""
        source = self.plan.source[part]
        label = self.patches.labels[source]
        predicted = morphs.probabilities.argmax(1).astype(np.int32)
        confidence = morphs.probabilities[np.arange(len(label)), label]
        exactly = self.options.pairs is not None
        verdict = select(
            source=source,
            reference=self.plan.reference[part],
            label=label,
            predicted=predicted,
            confidence=confidence,
            kind=UNMORPHED[self.plan.variant[part]].astype(np.uint8),
            keep="all" if exactly else self.options.keep,
            allow_mislabelled=exactly or self.options.allow_mislabelled,
            min_confidence=0.0 if exactly else self.min_confidence,
            max_confidence=1.0 if exactly else self.options.max_confidence,
        )
        return label, predicted, confidence, verdict

    def select(self, shard: Shard, morphs: Morphs, pool: ThreadPoolExecutor | None = None) -> Made:
        """Select a shard's candidates, put the kept ones into their frames and encode them, in a pool's threads."""
        part = shard.part
        label, predicted, confidence, verdict = self._verdicts(part, morphs)
        source, reference = self.plan.source[part], self.plan.reference[part]
        variant, behind = self.plan.variant[part], self.plan.behind[part]
        kept = np.flatnonzero(verdict == KEPT)

        def finish(row: int) -> tuple[bytes, tuple[int, ...]]:
            image = self.framed(morphs, row, int(behind[row]), int(variant[row]))
            return self.store(image), image.shape[:2]

        rows = kept.tolist()
        finished = list(map(finish, rows) if pool is None else pool.map(finish, rows))
        encoded, sizes = [data for data, _ in finished], [size for _, size in finished]
        chosen, size = kept.astype(np.int64), np.array(sizes, np.int32).reshape(-1, 2)
        place = np.full(len(label), -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        files = self.file_of
        images = Images(
            height=size[:, 0],
            width=size[:, 1],
            label=label[chosen],
            split=np.zeros(len(chosen), np.uint8),
            synthetic=np.ones(len(chosen), bool),
            source=files[source[chosen]],
            reference=files[reference[chosen]],
            variant=variant[chosen],
            confidence=confidence[chosen],
            predicted=predicted[chosen],
            candidate=chosen,
        )
        candidates = Candidates(
            files[source], files[reference], variant, label.astype(np.int32), predicted, confidence, verdict, place
        )
        return Made(ShardContent(encoded, images, candidates))

    def framed(self, morphs: Morphs, row: int, behind: int, variant: int) -> UInt8[np.ndarray, "H W 3"]:
        """A candidate as it is stored: its patch, or blended into the whole image ``behind``, a row of the patches."""
        return self._frames.put(morphs.images[row], morphs.cover[row], behind, variant)
