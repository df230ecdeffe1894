"""Choice of references whose poses the class of a source lacks.

A pose is where the parts of an object are. Parts are found without labels: k-means over the keys of all cells on
objects (:mod:`dagaug.model.networks`, :mod:`dagaug.model.training_free`) gives eight kinds of cells, and the pose of an
image is the mean place and the area of each kind. Two poses are as far apart as their parts are, in the images or in
their mirror images: a class has the mirrored poses of its images, too.

References are drawn without replacement, with a weight that grows with the distance from the nearest pose of the
source's class [Efraimidis, Spirakis: "Weighted random sampling with a reservoir", Information Processing Letters 2006].
More are drawn than needed; those that correspond with the source best are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Int8, Int64, UInt8
from torch.nn import functional as F

from dagaug.augment.encode_references import mirror_boxes
from dagaug.compute.devices import autocast
from dagaug.data.grabcut_and_inpainting import PatchBox
from dagaug.data.mask_files import PatchMask
from dagaug.model.correspondence import mutual_share, similarities
from dagaug.model.frozen_readings import StructureReader
from dagaug.model.given_masks import with_masks
from dagaug.model.networks import resize
from dagaug.model.training_free import FrozenStructure, PoseStructure, PoseTranslator
from dagaug.runtime.disk_cache import DiskCache
from dagaug.runtime.progress import SILENT, Progress
from dagaug.runtime.streamed_array import ImageArray

__all__ = ["KeyGrids", "MissingPoses", "Poses", "find_poses", "read_key_grids"]

_PARTS = 8  # with more, parts tell individuals apart rather than places (examples/experiments.md)
_GRID = 16  # largest side of the grid in cells
_TOKENS = 20_000  # cells that parts are found from
_POWER = 8.0  # of the distance, in the weight of a draw
_DRAWN = 2  # times as many references are drawn as are taken
_NEAREST = 1e-3  # least distance, as a share of the side; images of the class itself are drawn only if others run out
_BATCH = 64


@dataclass(frozen=True)
class KeyGrids:
    """Keys of N images and of their mirror images, on a grid of h × h cells.

    Attributes:
        keys: unit vectors times 127; index 1 is the mirror image.
        weight: share of each cell on the object, times 255.
    """

    keys: Int8[np.ndarray, "N 2 K h h"]
    weight: UInt8[np.ndarray, "N 2 h h"]

    def unit_vectors(self, rows: Int64[np.ndarray, " B"], orientation: int) -> Float32[torch.Tensor, "B K h h"]:
        """Keys of some images."""
        return torch.from_numpy(self.keys[rows, orientation]).float() / 127


def read_key_grids(
    translator: PoseTranslator,
    patches: ImageArray,
    boxes: Sequence[PatchBox | None],
    masks: Sequence[PatchMask | None],
    *,
    device: torch.device,
    cache: DiskCache | None = None,
    progress: Progress = SILENT,
) -> KeyGrids:
    """Read the keys of images; arguments as of :class:`dagaug.augment.encode_references.ImageEncoder`."""
    reader = StructureReader(translator, device, cache)

    def structure(rows: slice, *, mirrored: bool) -> PoseStructure:
        step = -1 if mirrored else 1
        with torch.inference_mode(), autocast(device):
            found = reader.structure(
                patches[rows][:, :, ::step], mirror_boxes(boxes[rows]) if mirrored else boxes[rows]
            )
        given = [None if mask is None else mask[:, ::step] for mask in masks[rows]]
        return with_masks(found, given) if translator.takes_given_masks else found

    keys, weight = [], []
    with progress.task("Reading poses", len(patches), "images") as task:
        for first in range(0, len(patches), _BATCH):
            rows = slice(first, min(first + _BATCH, len(patches)))
            found = structure(rows, mirrored=False)
            if isinstance(found, FrozenStructure):
                both = [(found.keys, found.object), (found.mirrored, found.object.flip(-1))]
            else:
                other = structure(rows, mirrored=True)
                both = [(found.keys, found.object), (other.keys, other.object)]
            pooled = [_pooled(*one) for one in both]
            keys.append(np.stack([one for one, _ in pooled], 1))
            weight.append(np.stack([one for _, one in pooled], 1))
            task.advance(rows.stop - rows.start)
    return KeyGrids(np.concatenate(keys), np.concatenate(weight))


def _pooled(
    keys: Float[torch.Tensor, "B K g g"], object_: Float[torch.Tensor, "B 1 H W"]
) -> tuple[Int8[np.ndarray, "B K h h"], UInt8[np.ndarray, "B h h"]]:
    side = min(keys.shape[-1], _GRID)
    pooled = F.normalize(F.adaptive_avg_pool2d(keys.float(), side), dim=1)
    weight = resize(object_.float(), side)[:, 0].clamp(0, 1)
    return (127 * pooled).round().to(torch.int8).cpu().numpy(), (255 * weight).round().to(torch.uint8).cpu().numpy()


@dataclass(frozen=True)
class Poses:
    """Poses of N images and of their mirror images, with P parts.

    Attributes:
        place: mean place of each part, x and y in [0, 1].
        area: share of each part in the object.
    """

    place: Float32[np.ndarray, "N 2 P 2"]
    area: Float32[np.ndarray, "N 2 P"]

    def distances(self, rows: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, " N"]:
        """Distance of each image from the nearest of some images or of their mirror images, as a share of the side.

        It is the root mean square of the distances of the parts, which count by their areas.
        """
        nearest = np.full(len(self.area), np.inf, np.float32)
        for row in rows.tolist():
            for place, area in zip(self.place[row], self.area[row], strict=True):
                weight = np.sqrt(area * self.area[:, 0])
                apart = np.square(place - self.place[:, 0]).sum(-1)
                mean = (weight * apart).sum(-1) / np.maximum(weight.sum(-1), 1e-6)
                nearest = np.minimum(nearest, np.sqrt(mean))
        return nearest.astype(np.float32)


def find_poses(grids: KeyGrids) -> Poses:
    """Poses of images from their keys."""
    centres = _find_parts(grids)
    side = grids.keys.shape[-1]
    line = ((np.arange(side) + 0.5) / side).astype(np.float32)
    place = np.zeros((len(grids.keys), 2, len(centres), 2), np.float32)
    area = np.zeros(place.shape[:3], np.float32)
    for row, (keys, weight) in enumerate(zip(grids.keys, grids.weight, strict=True)):
        scores = np.einsum("okhw,pk->ophw", keys.astype(np.float32) / 127, centres)
        scores -= np.square(centres).sum(1)[:, None, None] / 2  # the largest score is that of the nearest centre
        kind = scores.argmax(1)
        shares = (kind[:, None] == np.arange(len(centres))[:, None, None]) * (weight[:, None].astype(np.float32) / 255)
        area[row] = shares.sum((-1, -2))
        total = np.maximum(area[row], 1e-6)
        place[row] = np.stack([(shares * line).sum((-1, -2)), (shares * line[:, None]).sum((-1, -2))], -1)
        place[row] /= total[..., None]
    return Poses(place, area / np.maximum(area.sum(-1, keepdims=True), 1e-6))


def _find_parts(grids: KeyGrids) -> Float32[np.ndarray, "P K"]:
    """Mean key of each kind of cells on objects."""
    chosen = np.flatnonzero(grids.weight.ravel() > 127)
    if not len(chosen):
        return np.zeros((1, grids.keys.shape[2]), np.float32)
    if len(chosen) > _TOKENS:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, _TOKENS, replace=False))
    image, orientation, y, x = np.unravel_index(chosen, grids.weight.shape)
    tokens = grids.keys[image, orientation, :, y, x].astype(np.float32) / 127
    cv2.setRNGSeed(0)
    rounds = (cv2.TERM_CRITERIA_COUNT, 20, 0.0)
    none = np.zeros((0, 0), np.int32)
    return np.asarray(cv2.kmeans(tokens, min(_PARTS, len(tokens)), none, rounds, 2, cv2.KMEANS_PP_CENTERS)[2])


class MissingPoses:
    """Draws references with poses that the classes of their sources lack.

    Args:
        grids: keys of all images.
        labels: their classes.

    Attributes:
        distance: of each image (column) from the nearest pose of each class (row), as a share of the side.
    """

    def __init__(self, grids: KeyGrids, labels: Int64[np.ndarray, " N"]) -> None:
        poses = find_poses(grids)
        self._grids, self._labels = grids, labels
        self.distance: Float32[np.ndarray, "C N"] = np.stack(
            [poses.distances(np.flatnonzero(labels == label)) for label in range(int(labels.max()) + 1)]
        )

    def draw(self, source: int, count: int, luck: Float[np.ndarray, " N"]) -> list[int]:
        """Draw references of a source: all different, and never the source itself.

        Args:
            source: row of the source.
            count: number of references, less than N.
            luck: random number of each image, uniform in [0, 1).
        """
        distance = np.maximum(self.distance[self._labels[source]], _NEAREST)
        order = np.log(-np.log(np.clip(luck, 1e-12, 1 - 1e-12))) - _POWER * np.log(distance)
        order[source] = np.inf
        drawn = np.argsort(order, kind="stable")[: min(_DRAWN * count, len(order) - 1)]
        best = np.argsort(-self._correspondence(source, drawn), kind="stable")[:count]
        return drawn[np.sort(best)].tolist()

    def _correspondence(self, source: int, references: Int64[np.ndarray, " B"]) -> Float32[np.ndarray, " B"]:
        """Share of mutual nearest neighbours with the source or its mirror image, whichever is larger, in [0, 1]."""
        keys = self._grids.unit_vectors(references, 0)
        weight = torch.from_numpy(self._grids.weight[references, 0]).float().flatten(1) / 255
        rows = np.full(len(references), source)
        both = [similarities(keys, self._grids.unit_vectors(rows, orientation)) for orientation in (0, 1)]
        return torch.maximum(*(mutual_share(scores, weight) for scores in both)).numpy()

    def mean_distances(
        self, source: Int64[np.ndarray, " M"], reference: Int64[np.ndarray, " M"]
    ) -> tuple[float, float]:
        """Mean distance of chosen references from the poses of their sources' classes, and that of all images."""
        chosen = self.distance[self._labels[source], reference].mean()
        count = self.distance.shape[1]
        return float(chosen), float(self.distance[self._labels[source]].sum(1).mean() / (count - 1))
