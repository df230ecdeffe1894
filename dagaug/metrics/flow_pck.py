"""PCK of the flow: does a morph take each part of the reference from the same part of the source?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.nn import functional as F

from dagaug.compute.devices import pick_device
from dagaug.compute.tensors import to_tensor
from dagaug.data.dataset_records import Dataset, Split
from dagaug.data.object_patches import Patches, read_patches
from dagaug.model.frozen_readings import StructureReader
from dagaug.model.given_masks import with_given_masks, with_masks
from dagaug.model.trained_model import TrainedModel
from dagaug.model.training_free import PoseStructure, PoseTranslator
from dagaug.runtime.disk_cache import cache_of, with_cache
from dagaug.runtime.errors import DataError, UsageError
from dagaug.runtime.execution_settings import Execution

__all__ = ["FlowPck", "FoundParts", "find_parts", "measure_flow", "part_positions"]

_LEAST_PARTS = 3  # common visible parts of a pair
_BATCH = 8


@dataclass(frozen=True)
class FlowPck:
    """Percentage of correct key points of a model's flow, as shares in [0, 1].

    Attributes:
        pck: share of parts whose flow ends within 0.1 of the larger side of the source's box from the same part.
        pck_fine: the same within 0.05.
        in_place: the same as ``pck`` for a flow that leaves every part where it is.
        inside: share of visible parts inside the mask (above 0.5).
        area: mean share of the patch that the mask covers.
        pairs: image pairs.
        parts: parts visible in both images of a pair, over all pairs.
        images: images whose masks were measured.
        split: of the images.
    """

    pck: float
    pck_fine: float
    in_place: float
    inside: float
    area: float
    pairs: int
    parts: int
    images: int
    split: Split


def part_positions(patches: Patches) -> tuple[Float32[np.ndarray, "N P 2"], Bool[np.ndarray, "N P"]]:
    """Where the annotated parts are in the patches (x, y in [0, 1], anything where unseen), and which are visible."""
    numbers = sorted({number for sample in patches.samples for number, _, _ in sample.parts})
    place = {number: column for column, number in enumerate(numbers)}
    positions = np.zeros((len(patches.samples), len(numbers), 2), np.float32)
    visible = np.zeros(positions.shape[:2], bool)
    for row, (sample, region) in enumerate(zip(patches.samples, patches.regions, strict=True)):
        left, top, side = region.pixels()
        for number, x, y in sample.parts:
            positions[row, place[number]] = (x - left) / side, (y - top) / side
            visible[row, place[number]] = True
    return positions, visible & (positions >= 0).all(-1) & (positions < 1).all(-1)


@dataclass(frozen=True)
class FoundParts:
    """Where a model's flow finds the references' parts in the sources.

    Attributes:
        patches: the images.
        pairs: rows of the sources and of the references.
        positions, visible: as :func:`part_positions` gives them.
        ends: where in the source of a pair each part of its reference is found, x and y in [0, 1].
    """

    patches: Patches
    pairs: Int64[np.ndarray, "M 2"]
    positions: Float32[np.ndarray, "N P 2"]
    visible: Bool[np.ndarray, "N P"]
    ends: Float32[np.ndarray, "M P 2"]

    @property
    def common(self) -> Bool[np.ndarray, "M P"]:
        """Parts that both images of a pair show."""
        return self.visible[self.pairs[:, 0]] & self.visible[self.pairs[:, 1]]

    def distances(self, *, in_place: bool = False) -> Float[np.ndarray, " K"]:
        """Distance of each common part from the truth, over the larger side of the source's box.

        Args:
            in_place: of a flow that leaves every part where it is in the reference.
        """
        sides = np.array([max(box[2:]) if box is not None else 1.0 for box in self.patches.boxes()])
        source, reference = self.pairs.T
        ends = self.positions[reference] if in_place else self.ends
        away = np.linalg.norm(ends - self.positions[source], axis=-1) / sides[source, None]
        return away[self.common]


def find_parts(
    model: TrainedModel,
    dataset: Dataset,
    *,
    split: Split = "test",
    pairs: int = 300,
    seed: int = 0,
    execution: Execution = Execution(),
) -> FoundParts:
    """Let the flow of random pairs of images of any classes carry their part points; see :func:`measure_flow`."""
    with with_cache(execution) as reading:
        return _find_parts(model, dataset, split, pairs, seed, reading)


def _find_parts(
    model: TrainedModel, dataset: Dataset, split: Split, pairs: int, seed: int, execution: Execution
) -> FoundParts:
    if model.card.mode != "reference":
        raise UsageError(f"{model.path}: does not morph poses, so it has no flow to measure")
    samples = [sample for sample in dataset.samples if sample.split == split and sample.parts]
    if len(samples) < 2:
        raise DataError(f"{dataset.root}: has no part points (parts/part_locs.txt) in its {split} images")
    patches = read_patches(dataset, samples, model.card.framing, masks=True, execution=execution)
    positions, visible = part_positions(patches)
    chosen = _draw_pairs(visible, pairs, seed)
    if not len(chosen):
        raise DataError(f"{dataset.root}: no two {split} images have {_LEAST_PARTS} visible parts in common")
    translator, reader, device = _on_device(model, execution)
    ends = []
    with execution.progress.task("Measuring the flow", len(chosen), "pairs") as task:
        for first in range(0, len(chosen), _BATCH):
            part = chosen[first : first + _BATCH]
            ends.append(_carried_parts(translator, reader, patches, part, positions, device))
            task.advance(len(part))
    return FoundParts(patches, chosen, positions, visible, np.concatenate(ends))


def measure_flow(
    model: TrainedModel,
    dataset: Dataset,
    *,
    split: Split = "test",
    pairs: int = 300,
    seed: int = 0,
    execution: Execution = Execution(),
) -> FlowPck:
    """Measure the flow of random pairs of images of any classes, and the masks of all images of a split.

    Args:
        model: morphs poses (mode ``reference``).
        dataset: has part points, as CUB-200-2011 has.
        split: of the images.
        pairs: number of pairs (source, reference), drawn from ``seed``; both have at least 3 visible parts in common.
        seed: seed of the pairs.
        execution: where the model runs; its progress receives images read and pairs measured.

    Raises:
        UsageError: the model does not morph poses.
        DataError: the data have no part points, or no pair has enough of them in common.
    """
    with with_cache(execution) as reading:
        found = _find_parts(model, dataset, split, pairs, seed, reading)
        distances = found.distances()
        inside, area = _measure_masks(model, found, reading)
    return FlowPck(
        pck=float((distances <= 0.1).mean()),
        pck_fine=float((distances <= 0.05).mean()),
        in_place=float((found.distances(in_place=True) <= 0.1).mean()),
        inside=inside,
        area=area,
        pairs=len(found.pairs),
        parts=len(distances),
        images=len(found.patches.samples),
        split=split,
    )


def _draw_pairs(visible: Bool[np.ndarray, "N P"], count: int, seed: int) -> Int64[np.ndarray, "M 2"]:
    rng = np.random.default_rng(seed)
    common = visible.astype(np.int64) @ visible.T
    np.fill_diagonal(common, 0)
    possible = np.argwhere(common >= _LEAST_PARTS)
    return possible[rng.permutation(len(possible))[:count]]


def _on_device(model: TrainedModel, execution: Execution) -> tuple[PoseTranslator, StructureReader, torch.device]:
    device = pick_device(execution.device)
    translator = cast(PoseTranslator, model.translator).to(device)
    return translator, StructureReader(translator, device, cache_of(execution)), device


def _carried_parts(
    translator: PoseTranslator,
    reader: StructureReader,
    patches: Patches,
    pairs: Int64[np.ndarray, "B 2"],
    positions: Float32[np.ndarray, "N P 2"],
    device: torch.device,
) -> Float32[np.ndarray, "B P 2"]:
    """Where in the sources the flow takes the references' parts from, x and y in [0, 1]."""
    with torch.inference_mode():
        source, reference = (_structure(translator, reader, patches, rows) for rows in pairs.T)
        images = to_tensor(patches.images[pairs[:, 0]], device)
        appearance = translator.appearance(images, source)  # type: ignore[arg-type]
        flow: Tensor = translator(appearance, source, reference).flow.permute(0, 3, 1, 2).float()
        where = torch.from_numpy(positions[pairs[:, 1]]).to(device)[:, None] * 2 - 1  # B 1 P 2
        ends = F.grid_sample(flow, where, padding_mode="border", align_corners=False)[:, :, 0].mT
    return ((ends + 1) / 2).cpu().numpy()


def _structure(
    translator: PoseTranslator, reader: StructureReader, patches: Patches, rows: Int64[np.ndarray, " B"]
) -> PoseStructure:
    """Structures of some patches, with their given masks if the translator takes them."""
    boxes = patches.boxes()
    structure = reader.structure(patches.images[rows], [boxes[row] for row in rows])
    return with_masks(structure, [patches.masks[row] for row in rows]) if translator.takes_given_masks else structure


def _measure_masks(model: TrainedModel, found: FoundParts, execution: Execution) -> tuple[float, float]:
    """Share of visible parts inside the masks, and the masks' mean share of the patches."""
    _, reader, _ = _on_device(model, execution)
    patches, positions, visible = found.patches, found.positions, found.visible
    boxes, side = patches.boxes(), patches.images.shape[1]
    hits, area = [], []
    count = len(patches.images)
    with torch.inference_mode(), execution.progress.task("Measuring the masks", count, "images") as task:
        for first in range(0, len(patches.images), _BATCH):
            images = patches.images[first : first + _BATCH]
            part = boxes[first : first + _BATCH]
            estimated = reader.masks(images, part)
            masks = with_given_masks(estimated, patches.masks[first : first + _BATCH])
            for row, mask in enumerate(masks[:, 0].cpu().numpy() > 0.5, start=first):
                x, y = (positions[row, visible[row]] * side).astype(np.int64).T
                hits.append(mask[y, x])
                area.append(mask.mean())
            task.advance(len(images))
    return float(np.concatenate(hits).mean()), float(np.mean(area))
