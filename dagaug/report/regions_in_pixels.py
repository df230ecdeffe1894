"""Attended regions (paper, eqs. 1 and 2) of the images of an HDF5 file, in pixels of the whole images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, UInt8

from dagaug.compute.tensors import to_tensor
from dagaug.data.dataset_records import Dataset
from dagaug.hdf5.reader import Store
from dagaug.model.checkpoint import find_by_hash
from dagaug.model.frozen_encoder_translator import FeatureEncoder
from dagaug.model.networks import DeepAttentionEncoder
from dagaug.model.trained_model import TrainedModel, load_model
from dagaug.report.morph_images import AttendedRegions, ImageRef, OriginalImages
from dagaug.report.network_crops import NetworkInputs
from dagaug.runtime.errors import CheckpointError

__all__ = ["RegionFinder", "find_attention"]

_BATCH = 256


@dataclass(frozen=True)
class RegionFinder:
    """Computes the attended regions of images; call it.

    Attributes:
        store: HDF5 file with the images.
        model: the model that made the file.
        dataset: the data that the file was made from, for sources, references and their bounding boxes; or None.
        device: where the network runs.
    """

    store: Path
    model: TrainedModel
    dataset: Dataset | None = None
    device: torch.device | str = "cpu"

    def __call__(self, shown: Sequence[ImageRef]) -> list[AttendedRegions | None]:
        """The regions of each image; None for an image that is not available."""
        found: list[AttendedRegions | None] = [None] * len(shown)
        with Store(self.store) as store:
            originals = OriginalImages(store, None if self.dataset is None else self.dataset.root)
            squares = NetworkInputs(store, originals, self.model.card.framing, self.dataset)
            for start in range(0, len(shown), _BATCH):
                places = range(start, min(start + _BATCH, len(shown)))
                there = {place: square for place in places if (square := squares.of(shown[place])) is not None}
                if not there:
                    continue
                centres = self._centres(np.stack([square.pixels for square in there.values()]))
                for (place, square), own in zip(there.items(), centres, strict=True):
                    left, top, side = square.region.pixels()
                    where = np.array([left, top]) + (own.astype(np.float64) + 1) / 2 * side
                    found[place] = AttendedRegions(square.size, where, self.model.card.half_size * side / 2)
        return found

    @torch.inference_mode()
    def _centres(self, images: UInt8[np.ndarray, "B S S 3"]) -> Float[np.ndarray, "B N 2"]:
        tensor = to_tensor(images, torch.device(self.device))
        dae = cast(DeepAttentionEncoder | FeatureEncoder, self.model.translator.to(self.device).dae)
        return dae.find_centres(tensor).float().cpu().numpy()


def find_attention(
    store: Path, dataset: Dataset | None, *, device: torch.device | str = "cpu"
) -> tuple[RegionFinder | None, str]:
    """Load the model that made a file.

    Returns:
        the region finder, or None; and the reason if there is none.
    """
    with Store(store) as opened:
        header = opened.header
    found, reason = find_by_hash(header.provenance.checkpoint_places(store), header.checkpoint_sha256)
    if found is None:
        return None, reason
    try:
        model = load_model(found)
    except CheckpointError as error:
        return None, str(error)
    if not model.card.attends:
        return None, "a model without training attends to no regions"
    if dataset is None and model.card.framing.crop == "box":
        return None, "the data folder with the bounding boxes was not found"
    return RegionFinder(store, model, dataset, device), ""
