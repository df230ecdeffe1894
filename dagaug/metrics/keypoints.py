"""PCK of the attended regions against annotated parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from dagaug.compute.tensors import to_tensor
from dagaug.data.dataset import Dataset
from dagaug.data.patches import Patches, read_patches
from dagaug.metrics import measures as metrics
from dagaug.metrics.inputs import held_images
from dagaug.model.trained_model import TrainedModel, load_model
from dagaug.runtime.errors import CheckpointError
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["Attended", "attended", "model_of"]


@dataclass(frozen=True)
class Attended:
    """How well the centres of the attended regions (eq. 1) stand on parts, on test images.

    Attributes:
        pck: share of visible parts within ``alpha`` of the box's larger side of their region's centre.
        of_mean_place: the same for a region that always stands at its part's mean place in the training patches.
        regions: how many there are.
        matched: how many of them stand for a part, by the best assignment on training images.
        parts: how many parts the data have.
        images: test images with parts.
        alpha: the tolerance.
    """

    pck: float
    of_mean_place: float
    regions: int
    matched: int
    parts: int
    images: int
    alpha: float


# Attention


def model_of(checkpoint: Path | None, options: Mapping[str, object], sha256: str) -> tuple[TrainedModel | None, str]:
    """The model that made a file, or why it is not to be had; one that is named must be there."""
    if checkpoint is not None:
        return load_model(checkpoint), ""
    named = options.get("checkpoint")
    if not isinstance(named, str) or not named:
        return None, "PCK was not measured: the file names no checkpoint; give it with --checkpoint."
    try:
        model = load_model(Path(named))
    except CheckpointError as error:
        return None, f"PCK was not measured ({error}); name the checkpoint with --checkpoint."
    if model.sha256 != sha256:
        return None, f"PCK was not measured: {named} is not the model that made the file; name it with --checkpoint."
    return model, ""


@dataclass(frozen=True)
class _Located:
    """Centres and parts of the images of a split that have parts, in pixels of the whole images.

    Attributes:
        corner, side: of the patches.
        scale: larger side of the box; of the patch where there is no box.
    """

    centres: Float[np.ndarray, "N R 2"]
    parts: Float[np.ndarray, "N P 2"]
    visible: np.ndarray
    corner: Float[np.ndarray, "N 2"]
    side: Float[np.ndarray, " N"]
    scale: Float[np.ndarray, " N"]


def attended(
    model: TrainedModel,
    dataset: Dataset,
    *,
    alpha: float = 0.1,
    device: torch.device | str = "cpu",
    workers: int | None = None,
    progress: Progress = SILENT,
) -> tuple[Attended | None, str]:
    """Measure a model's attended regions by the parts of a data set.

    Which region stands for which part is decided on training images and judged on test images.

    Returns:
        the measure; or None, and why there is none.
    """
    numbers = sorted({number for sample in dataset.samples for number, _, _ in sample.parts})
    splits = [[sample for sample in split if sample.parts] for split in (dataset.train, dataset.test)]
    if not all(splits):
        return None, "PCK was not measured: the data have no key points of parts."
    train, test = (
        _locate(model, read_patches(dataset, split, model.card.framing, workers=workers, progress=progress),
                numbers, torch.device(device))
        for split in splits
    )  # fmt: skip
    regions, parts = metrics.match_regions(train.centres, train.parts, train.visible, train.scale)
    where = (train.parts[:, parts] - train.corner[:, None]) / train.side[:, None, None]
    weight = train.visible[:, parts, None]
    mean = np.where(weight, where, 0).sum(0) / weight.sum(0)
    always = test.corner[:, None] + mean * test.side[:, None, None]
    wanted, visible = test.parts[:, parts], test.visible[:, parts]
    return Attended(
        pck=metrics.pck(test.centres[:, regions], wanted, visible, test.scale, alpha=alpha),
        of_mean_place=metrics.pck(always, wanted, visible, test.scale, alpha=alpha),
        regions=train.centres.shape[1],
        matched=len(regions),
        parts=len(numbers),
        images=len(test.scale),
        alpha=alpha,
    ), ""


def _locate(model: TrainedModel, patches: Patches, numbers: list[int], device: torch.device) -> _Located:
    dae = model.translator.to(device).eval().dae
    with torch.inference_mode():
        found = [
            dae.structure(to_tensor(part, device))[0].centres.cpu().numpy()
            for part in held_images(patches.images)
        ]
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
    return _Located(centres, parts, visible, corner, side, np.array(scale))
