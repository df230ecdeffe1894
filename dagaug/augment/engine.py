"""The engine: generates morphs in batches and classifies them on one device.

It does not choose among the morphs; :mod:`dagaug.augment.selection` does.

References are encoded once and stored on disk (:mod:`dagaug.augment.encode_references`). The appearance of a source is
computed once for all of its morphs. While a batch is computed, a thread reads the references of the next batch, and
the results of the previous batch are copied from the device.

Sources are always grouped and encoded in the same way, so results do not depend on who computes them, in which order,
or on interruptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor

from dagaug.augment.encode_references import ImageEncoder, object_masks
from dagaug.augment.encoding_table import Encodings
from dagaug.augment.morph_plan import IS_CUTOUT, MorphPlan
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.compute.devices import autocast, batch_size_for, split_to_fit
from dagaug.compute.tensors import to_bytes, to_tensor
from dagaug.data.grabcut_and_inpainting import PatchBox, cut_out
from dagaug.data.mask_files import PatchMask
from dagaug.model.mode_translators import composite
from dagaug.model.networks import join_batches
from dagaug.model.training_free import (
    FrozenStructure,
    PoseAppearance,
    PoseStructure,
    PoseTranslator,
    correspondence,
)
from dagaug.runtime.disk_cache import DiskCache
from dagaug.runtime.prefetch import map_ahead
from dagaug.runtime.streamed_array import ImageArray

__all__ = ["Engine", "MorphBatch"]


@dataclass(frozen=True)
class MorphBatch:
    """Generated candidates.

    Attributes:
        images: patches, RGB, on the plan's backgrounds.
        cover: opacity of the patch over the background image, 0 to 255; used to blend it into the whole image.
        objects: opacity of the object in the patch, 0 to 255.
        probabilities: class probabilities from the classifier that was not trained on the source.
        correspondence: share of mutual nearest neighbours in [0, 1]; 1 for cut-outs, and where it is not measured.
    """

    images: UInt8[np.ndarray, "M S S 3"]
    cover: UInt8[np.ndarray, "M S S"]
    objects: UInt8[np.ndarray, "M S S"]
    probabilities: Float32[np.ndarray, "M K"]
    correspondence: Float32[np.ndarray, " M"]

    @classmethod
    def joined(cls, batches: Sequence[MorphBatch]) -> MorphBatch:
        """All candidates of several batches."""
        columns = [[getattr(batch, column.name) for batch in batches] for column in fields(cls)]
        return cls(*map(np.concatenate, columns))


@dataclass(frozen=True)
class _DeviceBatch:
    """A batch of results on the device; fields as in :class:`MorphBatch`."""

    images: UInt8[Tensor, "B S S 3"]
    cover: UInt8[Tensor, "B S S"]
    objects: UInt8[Tensor, "B S S"]
    probabilities: Float32[Tensor, "B K"]
    correspondence: Float32[Tensor, " B"]

    def fetch(self) -> MorphBatch:
        return MorphBatch(*(getattr(self, column.name).cpu().numpy() for column in fields(self)))


@dataclass(frozen=True)
class _EncodedSources:
    """Encodings of the different sources of a part of the plan.

    Attributes:
        rows: patch index of each source.
        index: for each candidate, its source's place in ``rows``.
        structure, appearance: encodings of the sources.
    """

    rows: Int64[np.ndarray, " U"]
    index: Int64[np.ndarray, " M"]
    structure: PoseStructure
    appearance: PoseAppearance


@dataclass(frozen=True)
class _BatchInputs:
    """Inputs of a batch besides the sources.

    Attributes:
        references: records of the references.
        background, inpainted: background images, RGB, and their inpainted area (255).
        cutout: which candidates are cut-outs.
    """

    references: np.ndarray
    background: UInt8[np.ndarray, "B S S 3"]
    inpainted: UInt8[np.ndarray, "B S S"]
    cutout: Bool[np.ndarray, " B"]

    def __getitem__(self, rows: slice | np.ndarray) -> _BatchInputs:
        return _BatchInputs(*(getattr(self, column.name)[rows] for column in fields(self)))


class Engine:
    """Morphs any source into the pose of any reference.

    Args:
        translator: the networks, in evaluation mode.
        patches: all images that a plan may name, RGB.
        judges: the classifiers, on the networks' device.
        judge_rows: for each patch its row among the classifiers' images; -1 if no classifier was trained on it.
        device: where to compute.
        batch_size: candidates computed at a time; halved when memory runs out. None picks a size for the device.
        scratch: folder for the table of encodings, or the name of a table that other processes use, too.
        boxes: of the objects, as fractions of the patches' side; None where unknown.
        masks: given masks of the objects, in [0, 255]; the model estimates those that are None.
        block_size: images encoded at a time.
        measures_correspondence: whether to measure it; the translator's structures must be frozen features.
        cache: keeps what frozen networks say about images; None reads them anew.
    """

    def __init__(
        self,
        translator: PoseTranslator,
        patches: ImageArray,
        judges: CrossFitted,
        judge_rows: np.ndarray,
        *,
        device: torch.device,
        batch_size: int | None,
        scratch: Path,
        boxes: Sequence[PatchBox | None] | None = None,
        masks: Sequence[PatchMask | None] | None = None,
        block_size: int = 64,
        measures_correspondence: bool = False,
        cache: DiskCache | None = None,
    ) -> None:
        # Channels last was measured on two CPU cores: encoding is 1.5 times and morphing 1.3 times as fast.
        self.translator = translator.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.patches, self.judges, self.judge_rows, self.device = patches, judges, judge_rows, device
        self.encoder = ImageEncoder(
            self.translator, patches, device=device, scratch=scratch, boxes=boxes, masks=masks,
            block_size=block_size, cache=cache,
        )  # fmt: skip
        self._batch_size, self._measures_correspondence = batch_size, measures_correspondence

    @property
    def batch_size(self) -> int:
        """Candidates computed at a time; measured at the first use if none was given."""
        if self._batch_size is None:
            self._batch_size = batch_size_for(self.device, self._try_batch)
        return self._batch_size

    def _try_batch(self, count: int) -> None:
        images = to_tensor(self.patches[np.arange(count) % len(self.patches)], self.device)
        with torch.inference_mode():
            with autocast(self.device):
                structure, appearance = self.translator.read(images)
                result = composite(self.translator.finished(appearance, structure, structure), images)
            self.judges.probabilities_of_tensor(result, np.zeros(count, np.int64))

    def morph(self, plan: MorphPlan, part: slice) -> MorphBatch:
        """Generate and classify the candidates of a part of a plan, which may be empty.

        The part's blocks must be encoded; see :meth:`ImageEncoder.blocks`.
        """
        if part.start == part.stop:
            size = self.patches.shape[1]
            nothing, masks = np.zeros((0, len(self.judges.classes)), np.float32), np.zeros((0, size, size), np.uint8)
            return MorphBatch(np.zeros((0, size, size, 3), np.uint8), masks, masks, nothing, nothing.sum(1))
        batches = [
            slice(start, min(start + self.batch_size, part.stop))
            for start in range(part.start, part.stop, self.batch_size)
        ]
        done: list[MorphBatch] = []
        with torch.inference_mode(), ThreadPoolExecutor(1) as reader:
            sources = self._encode_sources(plan.source[part])
            waiting: list[_DeviceBatch] = []
            inputs_of = map_ahead(partial(self._read_inputs, plan), batches, reader, ahead=1)
            for batch, inputs in zip(batches, inputs_of, strict=True):
                morphed = self._morph_batch(sources, batch.start - part.start, batch.stop - part.start, inputs)
                # Fetch the previous batch only now, while the device computes this one.
                done += [previous.fetch() for previous in waiting]
                waiting = morphed
            done += [previous.fetch() for previous in waiting]
        return MorphBatch.joined(done)

    def _read_inputs(self, plan: MorphPlan, part: slice) -> _BatchInputs:
        variant = plan.variant[part]
        references = self.encoder.records(plan.reference[part], variant)
        rows = plan.reference[part] if plan.background is None else plan.background[part]
        behind = references if plan.background is None else self.encoder.records(rows, variant)
        backgrounds = self.encoder.backgrounds_of(behind, rows, variant)
        return _BatchInputs(references, *backgrounds, IS_CUTOUT[variant])

    def _encode_sources(self, source: Int64[np.ndarray, " M"]) -> _EncodedSources:
        rows, index = np.unique(source, return_inverse=True)
        records = self.encoder.original_records(rows)

        def compute(start: int, stop: int) -> tuple[PoseStructure, PoseAppearance]:
            structure = Encodings.structure(records[start:stop], self.device, self.translator.structure_type)
            images = to_tensor(self.patches[rows[start:stop]], self.device)
            with autocast(self.device):
                return structure, self.translator.appearance(images, structure)

        block = self.encoder.block_size
        pieces = [
            piece
            for first in range(0, len(rows), block)
            for piece in split_to_fit(compute, first, min(first + block, len(rows)), self.device)
        ]
        structure = join_batches([structure for structure, _ in pieces])
        return _EncodedSources(rows, index, structure, join_batches([appearance for _, appearance in pieces]))

    def _morph_batch(self, sources: _EncodedSources, start: int, stop: int, inputs: _BatchInputs) -> list[_DeviceBatch]:
        """Candidates ``start`` to ``stop`` of the part: one batch, or smaller ones if memory runs out."""

        def generate(first: int, last: int) -> _DeviceBatch:
            return self._generate(sources, sources.index[first:last], inputs[first - start : last - start])

        return split_to_fit(generate, start, stop, self.device)

    def _generate(self, sources: _EncodedSources, index: Int64[np.ndarray, " B"], inputs: _BatchInputs) -> _DeviceBatch:
        if not inputs.cutout.any():
            images, cover, objects = self._morphs(sources, index, inputs)
        else:
            images = torch.empty((len(index), 3, *inputs.inpainted.shape[1:]), device=self.device)
            images = images.contiguous(memory_format=torch.channels_last)
            cover = torch.empty(inputs.inpainted.shape, dtype=torch.uint8, device=self.device)
            objects = torch.empty_like(cover)
            for chosen, make in ((inputs.cutout, self._cutouts), (~inputs.cutout, self._morphs)):
                rows = np.flatnonzero(chosen)
                if len(rows):
                    images[rows], cover[rows], objects[rows] = make(sources, index[rows], inputs[rows])
        judge = np.maximum(self.judge_rows[sources.rows[index]], 0)
        probabilities = self.judges.probabilities_of_tensor(images, judge)
        shares = self._correspondence(sources, index, inputs)
        return _DeviceBatch(to_bytes(images), cover, objects, probabilities, shares)

    def _correspondence(
        self, sources: _EncodedSources, index: Int64[np.ndarray, " B"], inputs: _BatchInputs
    ) -> Float32[Tensor, " B"]:
        shares = torch.ones(len(index), device=self.device)
        rows = np.flatnonzero(~inputs.cutout)
        if self._measures_correspondence and len(rows):
            chosen = torch.from_numpy(index[rows]).to(self.device)
            references = Encodings.structure(inputs.references[rows], self.device, self.translator.structure_type)
            source = sources.structure[chosen]
            assert isinstance(source, FrozenStructure)
            assert isinstance(references, FrozenStructure)
            shares[torch.from_numpy(rows).to(self.device)] = correspondence(source, references)
        return shares

    def _morphs(
        self, sources: _EncodedSources, index: Int64[np.ndarray, " B"], inputs: _BatchInputs
    ) -> tuple[Float[Tensor, "B 3 S S"], UInt8[Tensor, "B S S"], UInt8[Tensor, "B S S"]]:
        """Sources in the poses of the references, in [-1, 1], their opacity and that of their objects."""
        chosen = torch.from_numpy(index).to(self.device)
        structure = Encodings.structure(inputs.references, self.device, self.translator.structure_type)
        with autocast(self.device):
            morph = self.translator.finished(sources.appearance[chosen], sources.structure[chosen], structure)
        images = composite(morph, to_tensor(inputs.background, self.device))
        objects = (255 * morph.mask[:, 0].clamp(0, 1)).round().to(torch.uint8)
        return images, torch.maximum(objects, torch.from_numpy(inputs.inpainted).to(self.device)), objects

    def _cutouts(
        self, sources: _EncodedSources, index: Int64[np.ndarray, " B"], inputs: _BatchInputs
    ) -> tuple[Float[Tensor, "B 3 S S"], UInt8[Tensor, "B S S"], UInt8[Tensor, "B S S"]]:
        """Sources without morphing, in [-1, 1], their opacity and that of their objects."""
        rows = sources.rows[index]
        structure = sources.structure[torch.from_numpy(index).to(self.device)]
        masks = object_masks(structure, self.encoder.given_masks(rows))
        images, cover = cut_out(self.patches[rows], masks, inputs.background, inputs.inpainted)
        objects = torch.from_numpy(np.rint(255 * masks).astype(np.uint8))
        return to_tensor(images, self.device), torch.from_numpy(cover).to(self.device), objects.to(self.device)
