"""Fits the statistics of a frozen model to training images: standardisation, principal components, foreground.

Nothing is trained by gradient descent on a task; all is closed form or Newton's method, and takes seconds beside the
network's one pass over the images. A cache keeps the result for other commands.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dagaug.classifiers.frozen_feature_maps import FeatureExtractor
from dagaug.compute.devices import pick_device
from dagaug.compute.tensors import to_tensor
from dagaug.data.grabcut_and_inpainting import PatchBox, grabcut_masks
from dagaug.data.mask_files import PatchMask
from dagaug.data.mask_refinement import inside_box
from dagaug.model.frozen_readings import computed_by
from dagaug.model.training_free import FrozenTranslator, Reduction
from dagaug.runtime.disk_cache import cache_key, cache_of
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.progress import Progress
from dagaug.runtime.streamed_array import ImageArray

__all__ = ["fit_foreground", "fit_frozen"]

_MOST = 400  # images that statistics are taken from
_BATCH = 8
_GRID = 32
_OBJECT, _BACKGROUND = 0.7, 0.05  # shares of a cell inside the mask
_FOREGROUND_DIMENSIONS = 192  # principal components that the foreground classifier reads
_CELLS_PER_IMAGE = 100  # of the object, and of the background
_RIDGE = 0.1


def fit_frozen(
    images: ImageArray,
    boxes: Sequence[PatchBox | None],
    extractor: FeatureExtractor,
    *,
    layer_weights: tuple[float, ...] | None = None,
    masks: Sequence[PatchMask | None] | None = None,
    dimensions: int = 48,
    execution: Execution = Execution(),
) -> FrozenTranslator:
    """A translator whose statistics are those of training images.

    Args:
        images: training patches, RGB.
        boxes: of the objects in the patches, or None where unknown.
        extractor: the frozen network.
        layer_weights: of each layer in the similarity of two cells; all equal if None.
        masks: given masks of the objects, in [0, 255]; GrabCut finds those that are None.
        dimensions: number of principal components.
        execution: where to compute; its progress receives the number of images read.
    """
    device = pick_device(execution.device)
    chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), _MOST)).astype(int))
    images, boxes = images[chosen], [boxes[row] for row in chosen]
    given = [None if masks is None else masks[row] for row in chosen]
    weights = layer_weights or (1.0,) * len(extractor.layers)
    reduction = Reduction(extractor.channels, weights, min(dimensions, sum(extractor.channels)), _GRID)
    cache, key = cache_of(execution), ""
    if cache is not None:
        known_masks = [b"" if mask is None else mask.tobytes() for mask in given]
        settings = [computed_by(device), extractor.identity(), weights, dimensions]
        key = cache_key("statistics", settings, images, boxes, *known_masks)
        known = cache.read(key)
        if known is not None:
            reduction.load_state_dict({name: torch.from_numpy(array) for name, array in known.items()})
            return _translator(extractor, reduction, device)
    _fit(reduction, extractor.to(device), images, boxes, given, device, execution)
    if cache is not None:
        cache.write(key, {name: tensor.numpy() for name, tensor in reduction.state_dict().items()})
    return _translator(extractor, reduction, device)


def _translator(extractor: FeatureExtractor, reduction: Reduction, device: torch.device) -> FrozenTranslator:
    return FrozenTranslator(extractor, reduction).to(device).eval().requires_grad_(False)


def _fit(
    reduction: Reduction,
    extractor: FeatureExtractor,
    images: UInt8[np.ndarray, "N S S 3"],
    boxes: Sequence[PatchBox | None],
    given: Sequence[PatchMask | None],
    device: torch.device,
    execution: Execution,
) -> None:
    """Fill in all statistics; arguments as of :func:`fit_frozen`."""
    maps = _maps(extractor, images, device, execution.progress)
    reduction.mean.copy_(torch.cat([layer.float().mean((0, 2, 3)) for layer in maps]))
    reduction.deviation.copy_(torch.cat([layer.float().std((0, 2, 3)) for layer in maps]).clamp_min(1e-6))
    directions = _fit_projection(reduction, maps)
    found = grabcut_masks(images, boxes, given=given, execution=execution)
    _fit_foreground(reduction, maps, directions, *_labelled_cells(found[:], boxes))


def _rows(count: int) -> list[slice]:
    return [slice(first, min(first + _BATCH, count)) for first in range(0, count, _BATCH)]


def _maps(
    extractor: FeatureExtractor, images: UInt8[np.ndarray, "N S S 3"], device: torch.device, progress: Progress
) -> list[Float[Tensor, "N _ _ _"]]:
    batches: list[list[Tensor]] = []
    with torch.inference_mode(), progress.task("Reading features", len(images), "images") as task:
        for rows in _rows(len(images)):
            batches.append([found.half().cpu() for found in extractor(to_tensor(images[rows], device))])
            task.advance(len(images[rows]))
    return [torch.cat(layer).clone() for layer in zip(*batches, strict=True)]


def _cells(reduction: Reduction, maps: list[Float[Tensor, "N _ _ _"]], rows: slice) -> Float[Tensor, "B g g C"]:
    return reduction.joined([layer[rows].float() for layer in maps]).permute(0, 2, 3, 1)


def _fit_projection(reduction: Reduction, maps: list[Float[Tensor, "N _ _ _"]]) -> Float[Tensor, "C D"]:
    """Principal components of the joined features of all cells; returns more of them than the reduction keeps."""
    count, total, moments = 0, torch.zeros(()), torch.zeros(())
    for rows in _rows(len(maps[0])):
        cells = _cells(reduction, maps, rows).flatten(0, 2).double()
        count, total, moments = count + len(cells), total + cells.sum(0), moments + cells.T @ cells
    mean = total / count
    directions = torch.linalg.eigh(moments / count - torch.outer(mean, mean)).eigenvectors.flip(1)
    reduction.centre.copy_(mean)
    reduction.projection.copy_(directions[:, : reduction.projection.shape[1]])
    return directions[:, :_FOREGROUND_DIMENSIONS].float()


def _fit_foreground(
    reduction: Reduction,
    maps: list[Float[Tensor, "N _ _ _"]],
    directions: Float[Tensor, "C D"],
    object_: Bool[Tensor, "N g g"],
    background: Bool[Tensor, "N g g"],
) -> None:
    """The linear classifier of cells, in the space of some principal components, as weights of joined features."""
    generator = torch.Generator().manual_seed(0)
    tokens, truth = [], []
    for rows in _rows(len(object_)):
        cells = (_cells(reduction, maps, rows) - reduction.centre) @ directions
        for where, value in ((object_[rows], 1.0), (background[rows], 0.0)):
            found = cells[where]
            few = found[torch.randperm(len(found), generator=generator)[: _CELLS_PER_IMAGE * len(cells)]]
            tokens.append(few)
            truth.append(torch.full((len(few),), value))
    fitted = fit_foreground(torch.cat(tokens), torch.cat(truth), ridge=_RIDGE)
    weights = directions @ fitted[:-1]
    reduction.foreground.copy_(torch.cat([weights, fitted[-1:] - reduction.centre @ weights]))


def _labelled_cells(
    masks: UInt8[np.ndarray, "N S S"], boxes: Sequence[PatchBox | None]
) -> tuple[Bool[Tensor, "N g g"], Bool[Tensor, "N g g"]]:
    """Cells that show the object by its mask, and cells that do not: outside the box, or outside the mask."""
    object_, background = [], []
    for mask, box in zip(masks, boxes, strict=True):
        share = cv2.resize(mask, (_GRID, _GRID), interpolation=cv2.INTER_AREA) / 255.0
        inside = inside_box(_GRID, box)
        object_.append((share > _OBJECT) & inside)
        background.append((share < _BACKGROUND) | ~inside)
    return torch.from_numpy(np.stack(object_)), torch.from_numpy(np.stack(background))


def fit_foreground(
    tokens: Float[Tensor, "N K"], truth: Float[Tensor, " N"], *, ridge: float = 1e-3, rounds: int = 8
) -> Float[Tensor, " K1"]:
    """Logistic regression by Newton's method; object and background weigh the same.

    Args:
        tokens: features.
        truth: 1 on the object, 0 off it.
        ridge: penalty on the weights of standardised features.
        rounds: Newton steps.

    Returns:
        K weights and the bias.
    """
    spread = tokens.std(0).clamp_min(1e-6)
    inputs = torch.cat([tokens / spread, torch.ones_like(tokens[:, :1])], 1)
    share = truth.mean().clamp(1e-3, 1 - 1e-3)
    balance = truth * (0.5 / share) + (1 - truth) * (0.5 / (1 - share))
    penalty = ridge * torch.eye(inputs.shape[1])
    weights = torch.zeros(inputs.shape[1])
    for _ in range(rounds):
        guess = torch.sigmoid(inputs @ weights)
        slope = inputs.T @ (balance * (guess - truth)) / len(inputs) + penalty @ weights
        curve = (inputs * (balance * guess * (1 - guess))[:, None]).T @ inputs / len(inputs) + penalty
        weights = weights - torch.linalg.solve(curve, slope)
    return torch.cat([weights[:-1] / spread, weights[-1:]])
