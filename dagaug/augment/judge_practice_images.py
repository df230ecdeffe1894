"""Practice images for the judges: objects cut out of real images, warped, and pasted on other backgrounds.

Morphs show poses and surroundings that no real image of their class has. A judge trained on real images alone takes
what is unusual for another class. Practice images reduce this error (examples/experiments.md, "The judges").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64

from dagaug.classifiers.cross_fit import SyntheticImages
from dagaug.compute.devices import autocast, pick_device
from dagaug.compute.tensors import scale_pixels
from dagaug.data.grabcut_and_inpainting import PatchBox, cut_out, fill_background
from dagaug.data.mask_files import PatchMask
from dagaug.model.frozen_readings import StructureReader
from dagaug.model.given_masks import with_given_masks
from dagaug.model.known_warps import random_warp, sample
from dagaug.model.mode_translators import as_sharp_as
from dagaug.model.training_free import PoseTranslator
from dagaug.runtime.disk_cache import cache_of
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.streamed_array import ImageArray, StreamedArray

__all__ = ["practice_images", "warp_objects"]

_COPIES = 4  # practice images of each real image
_BATCH = 64


def warp_objects(
    pixels: Float32[np.ndarray, "B S S 3"], masks: Float32[np.ndarray, "B S S"], seeds: Sequence[np.random.SeedSequence]
) -> tuple[Float32[np.ndarray, "B S S 3"], Float32[np.ndarray, "B S S"]]:
    """Apply random articulated warps (:func:`~dagaug.model.known_warps.random_warp`) to objects, and keep them sharp.

    Args:
        pixels: RGB images, in [0, 255].
        masks: object masks, in [0, 1].
        seeds: one for each warp.

    Returns:
        warped images in [0, 255] and warped masks in [0, 1].
    """
    image = scale_pixels(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    mask = torch.from_numpy(masks)[:, None]
    grids = []
    for row, seed in enumerate(seeds):
        state = seed.generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
        grids.append(random_warp(mask[row : row + 1], generator=generator))
    grid: Float[torch.Tensor, "B S S 2"] = torch.cat(grids)
    moved_mask = sample(mask, grid, padding="zeros")
    moved = as_sharp_as(image, mask, sample(image, grid), moved_mask)
    return (moved.permute(0, 2, 3, 1).numpy() + 1) * 127.5, moved_mask[:, 0].numpy()


def practice_images(
    translator: PoseTranslator,
    patches: ImageArray,
    labels: Int64[np.ndarray, " N"],
    *,
    seed: int,
    boxes: Sequence[PatchBox | None] | None = None,
    given: Sequence[PatchMask | None] | None = None,
    max_images: int = 10_000,
    execution: Execution = Execution(),
) -> SyntheticImages:
    """Make four practice images of each real image: its object, warped, on the background of a random real image.

    Args:
        translator: its structure encoder finds the objects.
        patches: real training images, RGB.
        labels: their classes.
        seed: random seed of warps and backgrounds.
        boxes: of the objects, as fractions of the patches' side; None where unknown.
        given: masks of the objects, in [0, 255]; the translator estimates those that are None.
        max_images: real images used at most, chosen at random; bounds what is kept (76 KB each at 64 px).
        execution: where to find the objects; its progress receives the number of finished images, its cache holds
            images.

    Returns:
        images, labels, and the rows of ``patches`` that each image was made from.
    """
    draws, others = (np.random.default_rng(np.random.SeedSequence([seed, stream])) for stream in (37, 43))
    chosen = np.sort(others.permutation(len(patches))[:max_images])
    count, side = len(chosen), patches.shape[1]
    chosen_boxes = [None if boxes is None else boxes[row] for row in chosen]
    device, before = pick_device(execution.device), next(translator.parameters()).device
    translator.to(device)
    reader = StructureReader(translator, device, cache_of(execution))
    masks = StreamedArray(count, (side, side), dtype=np.float32, execution=execution)
    backgrounds = StreamedArray(count, (side, side, 3), execution=execution)
    rows = np.tile(np.arange(count), _COPIES)
    behind = draws.integers(count, size=len(rows))
    images = StreamedArray(len(rows), (side, side, 3), execution=execution)
    execution.memory.tell(execution.progress)
    with execution.progress.task("Making practice images for the judges", count + len(rows), "images") as task:
        for start in range(0, count, _BATCH):
            part = slice(start, min(start + _BATCH, count))
            pixels = patches[chosen[part]]
            known = [None if given is None else given[row] for row in chosen[part]]
            with torch.inference_mode(), autocast(device):
                estimated = reader.masks(pixels, chosen_boxes[part])
                found = with_given_masks(estimated, known)[:, 0].float().cpu().numpy()
            masks.write(start, found)
            filled = [fill_background(image, mask)[0] for image, mask in zip(pixels, found, strict=True)]
            backgrounds.write(start, np.stack(filled))
            task.advance(part.stop - part.start)
        translator.to(before)  # other processes may get the translator, and must not use this GPU
        for start in range(0, len(rows), _BATCH):
            part = slice(start, min(start + _BATCH, len(rows)))
            seeds = [np.random.SeedSequence([seed, 41, row]) for row in range(part.start, part.stop)]
            pixels, moved = warp_objects(patches[chosen[rows[part]]].astype(np.float32), masks[rows[part]], seeds)
            beyond = np.zeros((len(moved), side, side), np.uint8)
            images.write(start, cut_out(pixels, moved, backgrounds[behind[part]], beyond)[0])
            task.advance(part.stop - part.start)
    return SyntheticImages(images, labels[chosen[rows]].astype(np.int64), chosen[np.stack([rows, behind], 1)])
