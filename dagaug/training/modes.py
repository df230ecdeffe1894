"""Training modes: the images, batches, objective and sample images of ``reference`` and of ``paper`` mode.

:class:`dagaug.training.trainer.Trainer` is the same for both; it calls a :class:`TrainingMode` in every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from dagaug.compute.tensors import scale_pixels, to_pixels
from dagaug.data.dataset_records import Dataset, Domains
from dagaug.data.grabcut_and_inpainting import backgrounds, grabcut_masks
from dagaug.data.image_files import Skipped
from dagaug.data.mask_files import mask_faults
from dagaug.data.object_patches import Framing, Patches, leave_out, read_patches
from dagaug.data.patch_loading import load, say_transparent
from dagaug.model.mode_translators import PaperTranslator, ReferenceTranslator, composite
from dagaug.model.networks import Structure
from dagaug.runtime.errors import DataError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.streamed_array import StreamedArray
from dagaug.training.consistency_distances import make_distance
from dagaug.training.mode_objectives import Ablation, Fakes, PaperObjective, Phase, ReferenceObjective
from dagaug.training.pairs import PairSampler, StepReader, TrainingData, channels_first, step_generator

__all__ = [
    "PaperMode",
    "ReferenceMode",
    "Snapshot",
    "StepResult",
    "TrainingMode",
    "sample_morphs",
    "sample_rows",
]

_SAMPLES = 8  # sources and references of a snapshot


@dataclass(frozen=True)
class Snapshot:
    """Sample images of a training, uint8 RGB.

    Attributes:
        sources: R sources.
        references: C references; none in ``paper`` mode.
        morphs: each source (row) in the pose of each reference (column); K = C, or 1 in ``paper`` mode.
        attended: images whose attended regions are given.
        centres: centres of these regions, in [-1, 1].
        half_size: half of the regions' side, in the same units.
    """

    sources: UInt8[np.ndarray, "R S S 3"]
    references: UInt8[np.ndarray, "C S S 3"]
    morphs: UInt8[np.ndarray, "R K S S 3"]
    attended: UInt8[np.ndarray, "A S S 3"]
    centres: Float[np.ndarray, "A N 2"]
    half_size: float


@dataclass(frozen=True)
class StepResult:
    """Result of the forward pass of a step.

    Attributes:
        terms: unweighted loss terms.
        fakes: generated images for the discriminators, in the phase ``full``.
        real, real_label: real images and labels for the discriminators.
    """

    terms: dict[str, Tensor]
    fakes: Fakes | None
    real: Float[Tensor, "B 3 H W"]
    real_label: Int[Tensor, " B"] | None


@runtime_checkable
class TrainingMode(Protocol):
    """What a trainer needs of a mode.

    Attributes:
        classes: class names; empty without labels.
        skipped: images that could not be read or whose masks are unusable.
    """

    classes: tuple[str, ...]
    skipped: tuple[Skipped, ...]

    @property
    def objective(self) -> nn.Module:
        """F and d as one module; its forward pass returns the loss terms."""

    @property
    def image_count(self) -> int:
        """Number of training images."""

    @property
    def label_count(self) -> int:
        """Number of classes for the discriminators; 0 without labels."""

    def to(self, device: torch.device) -> None:
        """Move the images to a device."""

    def forward(self, objective: Callable[..., Any], step: int, phase: Phase, batch_size: int) -> StepResult:
        """The forward pass of a step on its batch; ``objective`` may wrap :attr:`objective`."""

    def run_translator(self, translator: nn.Module, step: int, batch_size: int) -> None:
        """Run the translator on a batch without colour jitter, to collect batch-norm statistics."""

    def snapshot(self, translator: nn.Module) -> Snapshot:
        """Sample images of the translator, always of the same source images."""


class ReferenceMode:
    """Pose morphing on a labelled data set.

    Args:
        dataset: only its training images are used.
        framing: how patches are cut from images.
        translator: F.
        distance: name of d, see :func:`dagaug.training.consistency_distances.make_distance`.
        weights: file of weights for d, if it is a timm network.
        without: parts that are switched off (Table 1a).
        seed: seed of the pairs.
        execution: how to read the images; its device is not used.

    Raises:
        DataError: there are readable images of fewer than two classes.
    """

    def __init__(
        self,
        dataset: Dataset,
        framing: Framing,
        translator: ReferenceTranslator,
        *,
        distance: str,
        weights: Path | None,
        without: frozenset[Ablation],
        seed: int,
        execution: Execution = Execution(),
    ) -> None:
        d = make_distance(distance, translator.dae.channels, len(dataset.classes), size=framing.size, weights=weights)
        patches = read_patches(dataset, dataset.train, framing, masks=True, execution=execution)
        say_transparent(patches.transparent, len(dataset.train), execution.progress)
        patches, masks = _with_objects(dataset, patches, execution)
        labels = patches.labels
        if len(set(labels.tolist())) < 2:
            raise DataError(f"{dataset.root}: training needs readable images of at least two classes")
        behind = backgrounds(patches.images, masks, execution=execution)
        self.data = TrainingData.of(patches.images, behind, masks, labels)
        self.sampler = PairSampler(self.data, seed)
        self.classes, self.skipped, self.seed = dataset.classes, patches.skipped + patches.unmasked, seed
        self.objective: nn.Module = ReferenceObjective(translator, d, without)

    @property
    def image_count(self) -> int:
        """Number of training images."""
        return len(self.data.images)

    @property
    def label_count(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def to(self, device: torch.device) -> None:
        """Move the images to a device."""
        self.data = self.sampler.data = self.data.to(device)

    def forward(self, objective: Callable[..., Any], step: int, phase: Phase, batch_size: int) -> StepResult:
        """The forward pass of a step; the phase ``structure`` is fast and takes 1.5 times ``batch_size`` pairs."""
        exact = phase == "structure"
        batch = self.sampler.batch(step, batch_size + batch_size // 2 if exact else batch_size, only_exact=exact)
        terms, fakes = objective(batch, phase, step_generator(self.seed, step, 1))
        return StepResult(terms, fakes, batch.source, batch.source_label)

    def run_translator(self, translator: nn.Module, step: int, batch_size: int) -> None:
        """Encode and morph a batch."""
        assert isinstance(translator, ReferenceTranslator)
        batch = self.sampler.batch(step, batch_size)
        source, appearance = translator.read(batch.source)
        reference, _ = translator.read(batch.reference)
        translator(appearance, source, reference)

    def snapshot(self, translator: nn.Module) -> Snapshot:
        """Sources of different classes in the poses of random references."""
        assert isinstance(translator, ReferenceTranslator)
        sources, references = (self.data.rows(rows) for rows in sample_rows(self.data.labels, self.seed))
        source_image = scale_pixels(sources.images.to(self.data.device))
        reference_image = scale_pixels(references.images.to(self.data.device))
        structure, appearance = translator.read(source_image)
        poses, _ = translator.read(reference_image)
        behind = scale_pixels(references.backgrounds.to(self.data.device))
        morphs = sample_morphs(translator, appearance, structure, poses, behind)
        return Snapshot(
            to_pixels(source_image),
            to_pixels(reference_image),
            to_pixels(morphs),
            to_pixels(reference_image),
            poses.centres.cpu().numpy(),
            translator.dae.attention.half_size,
        )


def sample_rows(labels: Int[Tensor, " M"], seed: int) -> tuple[Int[Tensor, " R"], Int[Tensor, " C"]]:
    """Rows of a snapshot: one source of each of some classes, and random references."""
    rng, known = np.random.default_rng(seed), labels.cpu().numpy()
    shown = rng.permutation(np.unique(known))[:_SAMPLES]
    sources = torch.tensor([int(rng.choice(np.flatnonzero(known == label))) for label in shown])
    return sources, torch.from_numpy(rng.permutation(len(known))[:_SAMPLES])


def sample_morphs(
    translator: Any, appearance: Any, structure: Any, poses: Any, behind: Float[Tensor, "C 3 H W"]
) -> Float[Tensor, "R C 3 H W"]:
    """Each of R encoded sources in the pose of each of C encoded references, on their backgrounds.

    Args:
        translator: a pose translator; appearance and structures are of its kinds.
        appearance, structure: of the sources.
        poses: structures of the references.
        behind: the references without their objects.
    """
    rows = []
    for row in range(len(structure.object)):
        same = torch.full((len(behind),), row, device=behind.device)
        rows.append(composite(translator.finished(appearance[same], structure[same], poses), behind))
    return torch.stack(rows)


def _with_objects(dataset: Dataset, patches: Patches, execution: Execution) -> tuple[Patches, StreamedArray]:
    """Patches and masks of their objects, given or by GrabCut, without those whose masks are surely wrong."""
    boxes = patches.boxes()
    masks = grabcut_masks(patches.images, boxes, given=patches.masks, execution=execution)
    wrong = mask_faults(masks, boxes, "GrabCut's")
    right = np.array([row for row in range(len(masks)) if row not in wrong], np.int64)
    return leave_out(dataset, patches, wrong, execution), masks.take(right)


class PaperMode:
    """Translation between two unpaired domains; arguments as in :class:`ReferenceMode`.

    If both domains have the same folder names, the folders are the labels Y. Otherwise there are no labels and no term
    d(Y, ·) (Table 4, "None").
    """

    def __init__(
        self,
        domains: Domains,
        framing: Framing,
        translator: PaperTranslator,
        *,
        distance: str,
        weights: Path | None,
        without: frozenset[Ablation],
        seed: int,
        execution: Execution = Execution(),
    ) -> None:
        read = [
            load(paths, size=framing.size, fit=framing.fit, execution=execution)
            for paths in (domains.source, domains.target)
        ]
        say_transparent(sum(one.transparent for one in read), sum(len(one.images) for one in read), execution.progress)
        self.skipped = read[0].skipped + read[1].skipped
        self.domain, self._device = [loaded.images for loaded in read], torch.device("cpu")
        folders = [
            [paths[row].parent.name for row in loaded.kept]
            for paths, loaded in zip((domains.source, domains.target), read, strict=True)
        ]
        common = sorted(set(folders[0]) & set(folders[1]))
        labelled = len(common) > 1 and set(folders[0]) == set(folders[1])
        self.classes = tuple(common) if labelled else ()
        self.labels = [torch.tensor([common.index(name) for name in names]) if labelled else None for names in folders]
        self.seed = seed
        self._reader: StepReader[list[tuple[Tensor, Tensor]]] = StepReader()
        channels = translator.dae.attention.regions * translator.dae.channels
        d = make_distance(distance, channels, max(len(self.classes), 1), size=framing.size, weights=weights)
        self.objective: nn.Module = PaperObjective(translator, d, labelled=labelled, without=without)

    @property
    def image_count(self) -> int:
        """Number of training images in both domains."""
        return len(self.domain[0]) + len(self.domain[1])

    @property
    def label_count(self) -> int:
        """Number of classes; 0 without labels."""
        return len(self.classes)

    def to(self, device: torch.device) -> None:
        """Move the images to a device."""
        self._device = device
        self.labels = [None if labels is None else labels.to(device) for labels in self.labels]

    def _batch(self, step: int, size: int) -> tuple[list[Tensor], list[Tensor | None]]:
        found = self._reader(self._read, step, size)
        images = [scale_pixels(pixels.to(self._device)) for _, pixels in found]
        labels = [
            None if names is None else names[index.to(self._device)]
            for names, (index, _) in zip(self.labels, found, strict=True)
        ]
        return images, labels

    def _read(self, step: int, size: int, flag: bool) -> list[tuple[Tensor, UInt8[Tensor, "B 3 S S"]]]:
        """Rows of a step in each domain, and their pixels."""
        del flag  # all steps are alike
        generator = step_generator(self.seed, step)
        rows = [torch.randint(len(pixels), (size,), generator=generator) for pixels in self.domain]
        return [(index, channels_first(pixels[index.numpy()])) for pixels, index in zip(self.domain, rows, strict=True)]

    def forward(self, objective: Callable[..., Any], step: int, phase: Phase, batch_size: int) -> StepResult:
        """The forward pass of a step on its batch; ``objective`` may wrap :attr:`objective`."""
        del phase  # the paper has no phases
        (source, target), (source_label, target_label) = self._batch(step, batch_size)
        terms, fakes = objective(source, target, source_label, target_label)
        return StepResult(terms, fakes, target, target_label)

    def run_translator(self, translator: nn.Module, step: int, batch_size: int) -> None:
        """Translate a batch of both domains."""
        images, _ = self._batch(step, batch_size)
        translator(torch.cat(images))

    def snapshot(self, translator: nn.Module) -> Snapshot:
        """Sources at equal distances in the list of files, which is often sorted by class, and their translations."""
        assert isinstance(translator, PaperTranslator)
        count = len(self.domain[0])
        shown = torch.linspace(0, count - 1, min(_SAMPLES, count)).round().long()
        source = scale_pixels(channels_first(self.domain[0][shown.numpy()]).to(self._device))
        structure: Structure = translator.dae.structure(source)[0]
        pixels = to_pixels(source)
        return Snapshot(
            pixels,
            pixels[:0],
            to_pixels(translator(source))[:, None],
            pixels,
            structure.centres.cpu().numpy(),
            translator.dae.attention.half_size,
        )
