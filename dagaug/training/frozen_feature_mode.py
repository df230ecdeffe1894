"""Training mode of pose morphing on frozen features: images and features, batches, sample images."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dagaug.classifiers.frozen_feature_maps import FeatureExtractor
from dagaug.compute.devices import pick_device
from dagaug.compute.tensors import scale_pixels, to_bytes, to_pixels, to_tensor
from dagaug.data.dataset_records import Dataset
from dagaug.data.grabcut_and_inpainting import backgrounds
from dagaug.data.mask_files import mask_faults
from dagaug.data.object_patches import Framing, Patches, leave_out, read_patches
from dagaug.data.patch_loading import say_transparent
from dagaug.model.frozen_encoder_translator import FeatureTranslator
from dagaug.model.frozen_readings import FrozenReader
from dagaug.model.task_presets import AttentionSettings
from dagaug.model.training_free import spread_objects
from dagaug.model.training_free_statistics import fit_frozen
from dagaug.runtime.disk_cache import cache_of
from dagaug.runtime.errors import DataError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.streamed_array import StreamedArray
from dagaug.training.consistency_distances import Distance, make_distance
from dagaug.training.frozen_feature_objective import FeatureObjective
from dagaug.training.frozen_feature_pairs import ComponentCache, FeaturePairSampler
from dagaug.training.mode_objectives import Ablation, Phase
from dagaug.training.modes import Snapshot, StepResult, sample_morphs, sample_rows
from dagaug.training.pairs import TrainingData

__all__ = ["COMPONENTS", "FeatureMode"]

COMPONENTS = 96
"""Principal components of the frozen features that the trained head reads."""


class FeatureMode:
    """Pose morphing on a labelled data set with a frozen encoder.

    Args:
        dataset: only its training images are used.
        framing: how patches are cut from images.
        extractor: the frozen network E.
        layer_weights: of each of its layers in the similarity of two cells.
        attention: the attended regions.
        own_pixels: least share of the source's own pixels in a morph.
        distance: name of d, see :func:`dagaug.training.consistency_distances.make_distance`.
        weights: file of weights for d, if it is a timm network.
        without: parts that are switched off (Table 1a).
        seed: seed of the pairs.
        execution: where to compute features, and how to read the images.

    Attributes:
        translator: F, untrained: it morphs as the model without training.

    Raises:
        DataError: there are readable images of fewer than two classes.
    """

    def __init__(
        self,
        dataset: Dataset,
        framing: Framing,
        extractor: FeatureExtractor,
        *,
        layer_weights: tuple[float, ...],
        attention: AttentionSettings,
        own_pixels: float,
        distance: str,
        weights: Path | None,
        without: frozenset[Ablation],
        seed: int,
        execution: Execution = Execution(),
    ) -> None:
        patches = read_patches(dataset, dataset.train, framing, masks=True, execution=execution)
        say_transparent(patches.transparent, len(dataset.train), execution.progress)
        if len(set(patches.labels.tolist())) < 2:
            raise DataError(f"{dataset.root}: training needs readable images of at least two classes")
        frozen = fit_frozen(
            patches.images, patches.boxes(), extractor, layer_weights=layer_weights, masks=patches.masks,
            dimensions=COMPONENTS, execution=execution,
        )  # fmt: skip
        self.translator = FeatureTranslator(extractor, frozen.dae.reduction, attention, own_pixels)
        frozen.to(pick_device(execution.device))
        objects = _read_objects(patches, self.translator, execution)
        wrong = mask_faults(objects.masks, patches.boxes(), "the estimated mask")
        patches = leave_out(dataset, patches, wrong, execution)
        objects = objects.without(wrong)
        self.boxes, self.seed = patches.boxes(), seed
        self.sampler = _sampler(patches, objects, self.translator, seed, execution)
        self.classes, self.skipped = dataset.classes, patches.skipped + patches.unmasked
        d = make_distance(
            distance, self.translator.dae.channels, len(dataset.classes), size=framing.size, weights=weights
        )
        self.objective: nn.Module = FeatureObjective(self.translator, d, without)

    @property
    def image_count(self) -> int:
        """Number of training images."""
        return len(self.boxes)

    @property
    def label_count(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def to(self, device: torch.device) -> None:
        """Move the images to a device."""
        self.sampler.to(device)

    def forward(self, objective: Callable[..., Any], step: int, phase: Phase, batch_size: int) -> StepResult:
        """The forward pass of a step; the phase ``structure`` is fast and takes 1.5 times ``batch_size`` pairs."""
        first = phase == "structure"
        size = batch_size + batch_size // 2 if first else batch_size
        batch = self.sampler.batch(step, size, with_teacher=first)
        terms, fakes = objective(batch, phase)
        return StepResult(terms, fakes, batch.source, batch.source_label)

    def run_translator(self, translator: nn.Module, step: int, batch_size: int) -> None:
        """Morph a batch."""
        assert isinstance(translator, FeatureTranslator)
        batch = self.sampler.batch(step, batch_size, with_teacher=False)
        FeatureObjective(translator, Distance()).morph(batch)

    def snapshot(self, translator: nn.Module) -> Snapshot:
        """Sources of different classes in the poses of random references."""
        assert isinstance(translator, FeatureTranslator)
        data = self.sampler.data
        chosen = sample_rows(data.labels, self.seed)
        pixels = [data.rows(rows) for rows in chosen]
        images = [scale_pixels(of_rows.images.to(data.device)) for of_rows in pixels]
        structure, poses = (
            translator.structure(one, [self.boxes[row] for row in rows.tolist()])
            for one, rows in zip(images, chosen, strict=True)
        )
        behind = scale_pixels(pixels[1].backgrounds.to(data.device))
        morphs = sample_morphs(translator, translator.appearance(images[0], structure), structure, poses, behind)
        return Snapshot(
            to_pixels(images[0]),
            to_pixels(images[1]),
            to_pixels(morphs),
            to_pixels(images[1]),
            translator.dae.centres(poses.keys).cpu().numpy(),
            translator.dae.attention.half_size,
        )


@dataclass(frozen=True)
class _Objects:
    """What is read of the objects of all patches.

    Attributes:
        masks: 255 on the object, N × S × S.
        spread: the patches with their backgrounds painted over by their objects, RGB, N × S × S × 3.
        cache: principal components of their features.
    """

    masks: StreamedArray
    spread: StreamedArray
    cache: ComponentCache

    def without(self, rows: Collection[int]) -> _Objects:
        """All but some of them."""
        kept = np.array([row for row in range(len(self.masks)) if row not in rows], np.int64)
        self.cache.keep(kept)
        return _Objects(self.masks.take(kept), self.spread.take(kept), self.cache)


def _read_objects(patches: Patches, translator: FeatureTranslator, execution: Execution) -> _Objects:
    """Masks, given or estimated, and features; sets the scale of the head's input."""
    device, count, dae = pick_device(execution.device), len(patches.images), translator.dae
    boxes, grid = patches.boxes(), dae.reduction.grid
    reader = FrozenReader(dae, device, cache_of(execution))
    cache, squares = ComponentCache(count, (dae.channels, grid, grid), execution=execution), 0.0
    masks = StreamedArray(count, patches.images.shape[1:3], execution=execution)
    spread = StreamedArray(count, patches.images.shape[1:], execution=execution)
    with torch.inference_mode(), execution.progress.task("Features and masks", count, "images") as task:
        for row, box in enumerate(boxes):
            patch, given = patches.images[row], patches.masks[row]
            reading = reader.read(patch, box)
            cache.write(row, reading.components, reading.mirrored)
            squares += float(np.square(reading.components, dtype=np.float32).mean())
            mask = reading.mask if given is None else given
            masks.write(row, mask[None])
            where = torch.from_numpy(mask)[None, None].float() / 255
            spread.write(row, to_bytes(spread_objects(to_tensor(patch[None], torch.device("cpu")), where)).numpy())
            task.advance()
    dae.head.scale.fill_((squares / count) ** 0.5)
    return _Objects(masks, spread, cache)


def _sampler(
    patches: Patches, objects: _Objects, translator: FeatureTranslator, seed: int, execution: Execution
) -> FeaturePairSampler:
    dae = translator.dae
    behind = backgrounds(patches.images, objects.masks, execution=execution)
    data = TrainingData.of(patches.images, behind, objects.masks, patches.labels)

    def components_of(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return dae.components(images)[0]

    return FeaturePairSampler(data, objects.spread, objects.cache, components_of, keys=dae.head.keys, seed=seed)
