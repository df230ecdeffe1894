"""PCK (percentage of correct key points) of the attended regions, against annotated parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float

from dagaug.compute.devices import pick_device
from dagaug.compute.tensors import to_tensor
from dagaug.data.dataset_records import Dataset
from dagaug.data.object_patches import Patches, read_patches
from dagaug.metrics import measure_formulas as measures
from dagaug.metrics.inputs import BATCH
from dagaug.model.checkpoint import find_by_hash
from dagaug.model.frozen_encoder_translator import FeatureEncoder
from dagaug.model.networks import DeepAttentionEncoder
from dagaug.model.trained_model import TrainedModel, load_model
from dagaug.runtime.errors import CheckpointError, HubError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.streamed_array import batches

__all__ = ["KeypointAccuracy", "keypoint_accuracy", "model_of_file"]


@dataclass(frozen=True)
class KeypointAccuracy:
    """How closely the centres of the attended regions (eq. 1) follow annotated parts, on test images.

    Attributes:
        pck: share of visible parts whose region's centre is within ``alpha`` times the box's larger side.
        of_mean_place: the same for a baseline that predicts each part's mean position in the training patches.
        regions: number of attended regions.
        matched: number of regions that are matched with a part, by the best assignment on training images.
        parts: number of parts that the data set has.
        images: number of test images with parts.
        alpha: tolerance as a share of the box's larger side.
    """

    pck: float
    of_mean_place: float
    regions: int
    matched: int
    parts: int
    images: int
    alpha: float


def model_of_file(
    checkpoint: Path | None, places: Sequence[Path], sha256: str, hub: str = ""
) -> tuple[TrainedModel | None, str]:
    """Load the model that made an HDF5 file.

    Args:
        checkpoint: the model to load instead of the one that the file names.
        places: where the checkpoint may lie that the file names; empty if it names none.
        sha256: hash of the checkpoint that made the file.
        hub: its name on the hub, from where it is taken if it lies in no place; empty if it has none.

    Returns:
        the model; or None, and the reason.

    Raises:
        CheckpointError: ``checkpoint`` is given and cannot be read.
    """
    if checkpoint is not None:
        return load_model(checkpoint), ""
    found, reason = find_by_hash(places, sha256)
    if found is None and not hub:
        return None, f"PCK was not measured: {reason}; give the checkpoint."
    try:
        model = load_model(found or Path(hub))
    except (CheckpointError, HubError) as error:
        return None, f"PCK was not measured: {error.message}; give the checkpoint."
    if model.sha256 != sha256:
        return None, f"PCK was not measured: {hub} is not the model that made the file; give the checkpoint."
    return model, ""


@dataclass(frozen=True)
class _PointsOfImages:
    """Regions' centres and parts of the images of a split, in pixels of the whole images.

    Attributes:
        centres: centres of the attended regions.
        parts: positions of the parts.
        visible: which parts are visible.
        corner, side: left top corner and side of each patch.
        scale: larger side of the box, or of the patch without a box.
    """

    centres: Float[np.ndarray, "N R 2"]
    parts: Float[np.ndarray, "N P 2"]
    visible: Bool[np.ndarray, "N P"]
    corner: Float[np.ndarray, "N 2"]
    side: Float[np.ndarray, " N"]
    scale: Float[np.ndarray, " N"]


def keypoint_accuracy(
    model: TrainedModel,
    dataset: Dataset,
    *,
    alpha: float = 0.1,
    execution: Execution = Execution(),
) -> tuple[KeypointAccuracy | None, str]:
    """Measure how closely a model's attended regions follow the parts of a data set.

    Regions are matched with parts on training images, and measured on test images.

    Args:
        model: the model.
        dataset: data set with annotated parts.
        alpha: tolerance as a share of the box's larger side.
        execution: where the model runs; its progress receives the number of images read.

    Returns:
        the measure; or None, and the reason.
    """
    if not model.card.attends:
        return None, "PCK was not measured: a model without training attends to no regions."
    numbers = sorted({number for sample in dataset.samples for number, _, _ in sample.parts})
    splits = [[sample for sample in split if sample.parts] for split in (dataset.train, dataset.test)]
    if not all(splits):
        return None, "PCK was not measured: the data set has no key points of parts."
    device = pick_device(execution.device)
    train, test = (
        _locate(model, read_patches(dataset, split, model.card.framing, execution=execution), numbers, device)
        for split in splits
    )
    regions, parts = measures.match_regions(train.centres, train.parts, train.visible, train.scale)
    relative = (train.parts[:, parts] - train.corner[:, None]) / train.side[:, None, None]  # N Q 2
    weight = train.visible[:, parts, None]
    mean = np.where(weight, relative, 0).sum(0) / weight.sum(0)
    baseline = test.corner[:, None] + mean * test.side[:, None, None]
    wanted, visible = test.parts[:, parts], test.visible[:, parts]
    return KeypointAccuracy(
        pck=measures.pck(test.centres[:, regions], wanted, visible, test.scale, alpha=alpha),
        of_mean_place=measures.pck(baseline, wanted, visible, test.scale, alpha=alpha),
        regions=train.centres.shape[1],
        matched=len(regions),
        parts=len(numbers),
        images=len(test.scale),
        alpha=alpha,
    ), ""


def _locate(model: TrainedModel, patches: Patches, numbers: list[int], device: torch.device) -> _PointsOfImages:
    dae = cast(DeepAttentionEncoder | FeatureEncoder, model.translator.to(device).eval().dae)
    with torch.inference_mode():
        found = [dae.find_centres(to_tensor(part, device)).cpu().numpy() for part in batches(patches.images, BATCH)]
    squares = np.array([region.pixels() for region in patches.regions], np.float64)
    corner, side = squares[:, :2], squares[:, 2]
    parts = np.zeros((len(squares), len(numbers), 2))
    visible = np.zeros(parts.shape[:2], bool)
    place = {number: column for column, number in enumerate(numbers)}
    for row, sample in enumerate(patches.samples):
        for number, x, y in sample.parts:
            parts[row, place[number]], visible[row, place[number]] = (x, y), True
    scale = [side[row] if sample.box is None else max(sample.box[2:]) for row, sample in enumerate(patches.samples)]
    centres = corner[:, None] + (np.concatenate(found).astype(np.float64) + 1) / 2 * side[:, None, None]
    return _PointsOfImages(centres, parts, visible, corner, side, np.array(scale))
