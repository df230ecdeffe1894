"""Everything that an augmentation works on: model, data, options, morph plan, and the split into shards.

A :class:`Job` bundles them; executors take it and make its shards (paper, Sec. 4.6). It is prepared once. The content
of a shard depends on the job and the judges only, so shards can be made in any order, again, or on another machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64

from dagaug.augment.checkpoint_checks import check_classes
from dagaug.augment.class_balance import DEFAULT_REFERENCES, balanced_plan
from dagaug.augment.engine import Engine
from dagaug.augment.missing_poses import MissingPoses, read_key_grids
from dagaug.augment.morph_plan import (
    VARIANTS,
    Draw,
    MorphPlan,
    pairs_from_csv,
    plan_of_references,
    random_draw,
    spread_sources,
)
from dagaug.augment.options import AugmentOptions
from dagaug.augment.selection import SURPLUS, VERDICTS, check_bounds
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.compute.devices import pick_device
from dagaug.data.dataset_records import Dataset, Sample
from dagaug.data.mask_files import PatchMask, hash_masks, mask_faults
from dagaug.data.object_patches import Patches, leave_out, read_patches
from dagaug.data.patch_loading import say_transparent
from dagaug.hdf5.schema import Header
from dagaug.model.frozen_readings import StructureReader
from dagaug.model.mode_translators import ReferenceTranslator
from dagaug.model.trained_model import TrainedModel
from dagaug.model.training_free import FrozenStructure, FrozenTranslator, PoseTranslator
from dagaug.runtime.disk_cache import cache_of
from dagaug.runtime.errors import UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.versions import library_versions

__all__ = ["DEFAULT_SHARD_SIZES", "JUDGE_ACCURACY", "Job", "Shard", "ShardSizes", "draw_plan"]


JUDGE_ACCURACY = "judge_accuracy_on_training_images"
"""Entry of ``/options``: accuracy of a given judge on the real training images, in [0, 1]."""


@dataclass(frozen=True)
class ShardSizes:
    """How the work is split. It does not change the images.

    Attributes:
        sources: sources whose candidates are in one shard.
        real: real images in one shard.
    """

    sources: int = 32
    real: int = 256


DEFAULT_SHARD_SIZES = ShardSizes()


@dataclass(frozen=True)
class Shard:
    """A part of the work.

    Attributes:
        index: number of the shard; shards of real images come first.
        real: True for real images, False for morphs.
        part: slice of the job's real images, or of its candidates.
    """

    index: int
    real: bool
    part: slice

    def __len__(self) -> int:
        """Number of real images or of candidates."""
        return int(self.part.stop - self.part.start)


class Job:
    """Model, data, options and plan of an augmentation.

    Attributes:
        device: where to compute.
        threads: number of threads that read and encode images.
        cache: keeps what frozen networks say about images; None reads them anew.
        patches: patches of the readable images whose masks, if given or estimated by frozen features, are usable.
        masks_sha256: hash of the given masks; empty without any.
        plan: the candidates; sources and references are indices into the patches. Which pairs are drawn does not
            depend on what is readable, except for pairs with an unreadable source or reference; references for
            missing poses depend on all images.
        training_rows: indices of the patches that judges are trained on.
        files: every image that the output names.
        file_of: for each patch its index in ``files``.
        real: indices in ``files`` of the real images to store.
        shards: parts of the work, in the order in which they are merged.
        skipped: files that could not be read so far, and those with unusable masks.

    Args:
        model: the model.
        dataset: labelled images; only training images are sources and references.
        options: what to generate, keep and store.
        shard_sizes: how the work is split.
        execution: where to compute, and how to read images.
        trial: prepare only an estimate: masks are not estimated, and references are random.
    """

    def __init__(
        self,
        model: TrainedModel,
        dataset: Dataset,
        options: AugmentOptions,
        *,
        shard_sizes: ShardSizes = DEFAULT_SHARD_SIZES,
        execution: Execution = Execution(),
        trial: bool = False,
    ) -> None:
        self.device, self.threads = pick_device(execution.device), execution.threads
        self.cache = cache_of(execution)
        check_classes(model, dataset)
        _check_options(options)
        assert isinstance(model.translator, ReferenceTranslator | FrozenTranslator)
        self.model, self.dataset, self.options = model, dataset, options
        self.translator = model.translator
        _check_correspondence(options, self.translator)
        framing = model.card.framing
        train = dataset.subset(options.per_class).train
        pool = dataset.samples if options.pairs else train
        self.patches: Patches = read_patches(dataset, pool, framing, masks=True, execution=execution)
        if not options.pairs and not trial:  # all morphs of given pairs are kept
            self.patches = self._with_usable_masks(execution)
        samples = self.patches.samples
        say_transparent(self.patches.transparent, len(pool), execution.progress)
        self.skipped = [*self.patches.skipped, *self.patches.unmasked]
        self.masks_sha256 = hash_masks(pool)
        plan = self._drawn_plan(pool, execution, trial) if not options.pairs else pairs_from_csv(options.pairs, samples)
        self.plan: MorphPlan = plan.with_background(options.background)
        allowed = {sample.path for sample in train}
        self.training_rows = np.array([row for row, sample in enumerate(samples) if sample.path in allowed], np.int64)
        self.files = tuple(dataset.samples) if options.real else tuple(pool)
        row_of = {sample.path: row for row, sample in enumerate(self.files)}
        self.file_of = np.array([row_of[sample.path] for sample in samples], np.int64)
        keep_real = {sample.path for sample in train} | {sample.path for sample in dataset.test}
        self.real = [row for row, sample in enumerate(self.files) if sample.path in keep_real] if options.real else []
        self.shards = self._split(shard_sizes)

    def _with_usable_masks(self, execution: Execution) -> Patches:
        """The patches without those whose masks, as frozen features estimate them, are surely wrong."""
        patches = self.patches
        rows = [row for row, mask in enumerate(patches.masks) if mask is None]
        if self.translator.structure_type is not FrozenStructure or not rows:
            return patches
        reader, boxes = StructureReader(self.translator, self.device, self.cache), patches.boxes()

        def found(row: int) -> PatchMask:
            mask = 255 * reader.masks(patches.images[row : row + 1], boxes[row : row + 1])
            task.advance()
            return mask[0, 0].round().to(torch.uint8).cpu().numpy()

        self.translator.to(self.device)
        with torch.inference_mode(), execution.progress.task("Finding objects", len(rows), "images") as task:
            faults = mask_faults(map(found, rows), [boxes[row] for row in rows], "the estimated mask")
        self.translator.to("cpu")  # other processes may get the translator, and must not use this GPU
        return leave_out(self.dataset, patches, {rows[place]: fault for place, fault in faults.items()}, execution)

    def _drawn_plan(self, pool: Sequence[Sample], execution: Execution, trial: bool) -> MorphPlan:
        """Drawn among all samples of the pool, then expressed in indices of the patches."""
        row_of = {sample.path: row for row, sample in enumerate(self.patches.samples)}
        patch_of = np.array([row_of.get(sample.path, -1) for sample in pool], np.int64)
        labels = np.array([sample.label for sample in pool], np.int64)
        usable, options = patch_of >= 0, self.options
        if options.references == "random" or trial:
            plan = draw_plan(labels, options, usable=usable)
            return replace(plan, source=patch_of[plan.source], reference=patch_of[plan.reference])

        @cache
        def poses() -> MissingPoses:
            return self._read_poses(execution)

        def draw(source: int, count: int) -> list[int]:
            luck = np.random.default_rng([options.seed, source]).random(len(pool))[usable]
            return np.flatnonzero(usable)[poses().draw(int(patch_of[source]), count, luck)].tolist()

        plan = draw_plan(labels, options, usable=usable, draw=draw)
        plan = replace(plan, source=patch_of[plan.source], reference=patch_of[plan.reference])
        chosen, every = poses().mean_distances(plan.source, plan.reference)
        execution.progress.say(
            f"References with missing poses: parts are {chosen:.1%} of the patch's side away from the nearest pose of "
            f"the source's class; of random references {every:.1%}"
        )
        return plan

    def _read_poses(self, execution: Execution) -> MissingPoses:
        patches = self.patches
        self.translator.to(self.device)
        grids = read_key_grids(
            self.translator, patches.images, patches.boxes(), patches.masks, device=self.device, cache=self.cache,
            progress=execution.progress,
        )  # fmt: skip
        self.translator.to("cpu")
        return MissingPoses(grids, patches.labels)

    def _split(self, sizes: ShardSizes) -> tuple[Shard, ...]:
        count = len(self.real)
        real = [slice(first, min(first + sizes.real, count)) for first in range(0, count, sizes.real)]
        parts = [(True, part) for part in real] + [(False, part) for part in self.plan.shards(sizes.sources)]
        return tuple(Shard(index, is_real, part) for index, (is_real, part) in enumerate(parts))

    def expected_columns(self, shard: Shard) -> dict[str, np.ndarray]:
        """The columns of a shard's file that identify its content, by name.

        A shard from an earlier call with other columns is outdated: files were added, removed, or became readable.
        Files that were not read for a patch count as readable if they exist.
        """
        if shard.real:
            unreadable = {skip.path for skip in self.patches.skipped}
            paths = {row: self.dataset.file(self.files[row]) for row in self.real[shard.part]}
            rows = [row for row, path in paths.items() if path not in unreadable and os.access(path, os.R_OK)]
            return {"images/source": np.array(rows, np.int64)}
        return {
            "candidates/source": self.file_of[self.plan.source[shard.part]],
            "candidates/reference": self.file_of[self.plan.reference[shard.part]],
            "candidates/variant": self.plan.variant[shard.part],
        }

    def fix_batch_size(self, batch_size: int) -> None:
        """Set the batch size in the options, if they give none."""
        if self.options.batch_size is None:
            self.options = self.options.model_copy(update={"batch_size": batch_size})

    def engine(self, judges: CrossFitted, judge_rows: np.ndarray, scratch: Path) -> Engine:
        """The generator and its judges; see :class:`Engine`."""
        return Engine(
            self.translator, self.patches.images, judges, judge_rows, device=self.device,
            batch_size=self.options.batch_size, scratch=scratch, boxes=self.patches.boxes(),
            masks=self.patches.masks, cache=self.cache,
            measures_correspondence=self.options.min_correspondence > 0,
        )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the run that it continues; can be written as JSON."""
        return {
            "options": self.options.model_dump(mode="json"),
            "checkpoint": self.model.sha256,
            "seed": self.options.seed,
            "files": [str(sample.path) for sample in self.files],
            "data": str(self.dataset.root.absolute()),
            "versions": library_versions("numpy", "opencv-python", "timm", "torch"),
            **({"masks": self.masks_sha256} if self.masks_sha256 else {}),
        }

    def header(
        self,
        judges_sha256: str = "",
        judge_accuracy: float | None = None,
        licences: Mapping[str, str] | None = None,
    ) -> Header:
        """Everything in the file that is not about a single image.

        Args:
            judges_sha256: hash of the judges, in hexadecimal.
            judge_accuracy: accuracy of a given judge on the real training images, in [0, 1].
            licences: licence of each pretrained network whose weights were used.
        """
        options: dict[str, object] = {
            **self.options.model_dump(mode="json"),
            "data": str(self.dataset.root.absolute()),
            "data_given": str(self.dataset.root),
            "layout": self.dataset.layout,
            "split_seed": self.dataset.split_seed,
            "framing": self.model.card.framing.model_dump(mode="json"),
            "checkpoint": str(self.model.path.absolute()),
            "checkpoint_given": str(self.model.path),
            "judges": judges_sha256,
        }
        if self.model.hub:
            options["checkpoint_hub"] = self.model.hub
        if self.masks_sha256:
            options |= {
                "masks": str(self.dataset.masks.absolute()) if self.dataset.masks else "",
                "masks_given": str(self.dataset.masks or ""),
                "masks_sha256": self.masks_sha256,
            }
        if licences:
            options["licences"] = dict(licences)
        if judge_accuracy is not None:
            options[JUDGE_ACCURACY] = judge_accuracy
        return Header(
            classes=self.dataset.classes,
            files=tuple(sample.path.as_posix() for sample in self.files),
            files_label=np.array([sample.label for sample in self.files], np.int32),
            files_split=np.array([sample.split == "test" for sample in self.files], np.uint8),
            encoding=self.options.encoding,
            quality=self.options.quality if self.options.encoding == "jpeg" else 0,
            variants=VARIANTS,
            # without balance as in files of versions that had no such option, so that these can be continued
            verdicts=VERDICTS if self.options.balance is not None else VERDICTS[:SURPLUS],
            options=options,
            checkpoint_sha256=self.model.sha256,
            seed=self.options.seed,
            created_by=f"dagaug {version('dagaug')}",
            skipped=tuple((str(skip.path), skip.reason) for skip in dict.fromkeys(self.skipped)),
        )


def draw_plan(
    labels: Int64[np.ndarray, " N"],
    options: AugmentOptions,
    *,
    usable: Bool[np.ndarray, " N"] | None = None,
    draw: Draw | None = None,
) -> MorphPlan:
    """The candidates that the options ask for, without their backgrounds.

    Args:
        labels: class of each training image; each is a source and a possible reference.
        options: options without a file of pairs.
        usable: False for images that cannot be used; None if all can.
        draw: chooses the references; None draws them at random.

    Raises:
        UsageError: there are too few other images, or with ``balance`` every class is full.
    """
    if options.balance is not None:
        return balanced_plan(
            labels, balance=options.balance, refs=options.refs, variants=options.variants, keep=options.keep,
            seed=options.seed, limit=options.limit, usable=usable, draw=draw,
        )  # fmt: skip
    usable = np.ones(len(labels), bool) if usable is None else usable
    references = dict.fromkeys(spread_sources(len(labels), options.limit), options.refs or DEFAULT_REFERENCES)
    return plan_of_references(
        references, variants=options.variants, usable=usable, draw=draw or random_draw(usable, options.seed)
    )


def _check_correspondence(options: AugmentOptions, translator: PoseTranslator) -> None:
    if not options.min_correspondence:
        return
    option, value = "min_correspondence", options.min_correspondence
    if translator.structure_type is not FrozenStructure:
        raise UsageError(
            "used only for models with frozen features", option=option, value=value, remedies={"checkpoint": "frozen"}
        )
    if options.pairs is not None:
        raise UsageError("has no effect on a file of pairs, whose morphs are all kept", option=option, value=value)


def _check_options(options: AugmentOptions) -> None:
    check_bounds(options.min_confidence or 0.0, options.max_confidence)
    for option, value in (("limit", options.limit), ("balance", options.balance)):
        if options.pairs is not None and value is not None:
            raise UsageError(
                "cannot be combined with a file of pairs, which lists every morph; give one of the two",
                option=option, value=value,
            )  # fmt: skip
    if options.pairs is not None and options.references != "random":
        raise UsageError(
            "has no effect on a file of pairs, which lists every reference; give one of the two",
            option="references", value=options.references,
        )  # fmt: skip
    if options.class_map is not None and options.weights is None:
        raise UsageError(
            "used only with the weights that it belongs to",
            option="class_map", value=options.class_map, remedies={"weights": "FILE"},
        )  # fmt: skip
    if options.background == "source" and "cutout" in options.variants and options.pairs is None:
        raise UsageError(
            "cut-outs on this background would be copies of the sources; leave cutout out of the variants",
            option="background", value=options.background,
        )  # fmt: skip
