"""Where the network looks in the images of an HDF5 file: its attended regions (eqs. 1, 2), laid over whole images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from dagaug.compute.tensors import to_tensor
from dagaug.data.dataset import Dataset
from dagaug.hdf5.reader import Store
from dagaug.model.trained_model import TrainedModel, load_model
from dagaug.report.network_views import Squares
from dagaug.report.pictures import Attended, Originals, Shown
from dagaug.runtime.errors import CheckpointError

__all__ = ["Attention", "attention_of"]

_BATCH = 256


@dataclass(frozen=True)
class Attention:
    """Finds the attended regions of pictures; call it.

    Attributes:
        store: HDF5 file that they are of.
        model: what looks.
        dataset: the data that the file was made from, for sources, references and their boxes; None without.
        device: where the network runs.
    """

    store: Path
    model: TrainedModel
    dataset: Dataset | None = None
    device: torch.device | str = "cpu"

    def __call__(self, shown: Sequence[Shown]) -> list[Attended | None]:
        """The regions of each of these pictures, None where it is not to be had."""
        found: list[Attended | None] = [None] * len(shown)
        with Store(self.store) as store:
            originals = Originals(store, None if self.dataset is None else self.dataset.root)
            squares = Squares(store, originals, self.model.card.framing, self.dataset)
            for start in range(0, len(shown), _BATCH):
                places = range(start, min(start + _BATCH, len(shown)))
                there = {place: square for place in places if (square := squares.of(shown[place])) is not None}
                if not there:
                    continue
                centres = self._centres(np.stack([square.pixels for square in there.values()]))
                for (place, square), own in zip(there.items(), centres, strict=True):
                    left, top, side = square.region.pixels()
                    where = np.array([left, top]) + (own.astype(np.float64) + 1) / 2 * side
                    found[place] = Attended(square.size, where, self.model.card.half_size * side / 2)
        return found

    @torch.inference_mode()
    def _centres(self, images: UInt8[np.ndarray, "B S S 3"]) -> Float[np.ndarray, "B N 2"]:
        tensor = to_tensor(images, torch.device(self.device))
        dae = self.model.translator.to(self.device).dae
        return dae.structure(tensor)[0].centres.float().cpu().numpy()


def attention_of(
    store: Path, dataset: Dataset | None, *, device: torch.device | str = "cpu"
) -> tuple[Attention | None, str]:
    """What finds the regions as the model did that made a file; or None, and why that is not to be had."""
    with Store(store) as opened:
        named, sha256 = opened.header.provenance.checkpoint, opened.header.checkpoint_sha256
    if not named:
        return None, "the file names no checkpoint"
    try:
        model = load_model(Path(named))
    except CheckpointError as error:
        return None, str(error)
    if model.sha256 != sha256:
        return None, f"{named} is not the checkpoint that made the file"
    if dataset is None and model.card.framing.crop == "box":
        return None, "the data folder, which has the bounding boxes, is not at hand; give it with --data"
    return Attention(store, model, dataset, device), ""
