"""Image augmentation for training classifiers: flips, shifts, colour, RandAugment operations, MixUp and CutMix."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import albumentations as A
import cv2
import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

__all__ = ["BATCH_MIXING", "Augment", "augment_images", "cutmix", "image_augmentation", "mix_batch", "mixup"]

Augment = Literal["none", "standard", "strong", "cutmix", "mixup"]
"""``standard``: flip and shift. ``cutmix``, ``mixup``: also CutMix or MixUp of every batch. ``strong``: also scale,
rotation, colour, two RandAugment operations, MixUp or CutMix."""


def image_augmentation(augment: Augment, seed: int) -> A.Compose:
    """Augmentation of single images, uint8 RGB HWC in and out, with its own random numbers from ``seed``."""
    edge = {"border_mode": cv2.BORDER_REPLICATE}
    # Every operation that was tried in addition lowered accuracy at ten images a class (examples/experiments.md).
    standard = [
        A.HorizontalFlip(p=0.5),
        A.Affine(scale=(1, 1), translate_percent=(-0.1, 0.1), p=0.9, **edge),
    ]
    usual = [
        A.HorizontalFlip(p=0.5),
        A.Affine(scale=(0.8, 1.2), translate_percent=(-0.1, 0.1), rotate=(-10, 10), p=0.9, **edge),
        A.ColorJitter(brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.02, 0.02), p=0.8),
    ]
    # Two random operations of RandAugment (Cubuk et al. 2020) at its usual strength.
    randaugment = A.SomeOf(
        [
            A.Affine(shear=(-17, 17), p=1, **edge),
            A.Affine(rotate=(-30, 30), p=1, **edge),
            A.Affine(translate_percent=(-0.2, 0.2), p=1, **edge),
            A.AutoContrast(p=1),
            A.Equalize(p=1),
            A.Posterize(num_bits=(4, 6), p=1),
            A.Solarize(threshold_range=(0.5, 1.0), p=1),
            A.ColorJitter(brightness=(0.4, 1.6), contrast=(0.4, 1.6), saturation=(0.4, 1.6), hue=(0, 0), p=1),
            A.Sharpen(p=1),
        ],
        n=2,
        p=1,
    )
    operations: dict[Augment, list] = {"none": [], "strong": [*usual, randaugment]}
    return A.Compose(operations.get(augment, standard), seed=seed)


def augment_images(
    images: UInt8[np.ndarray, "N H W 3"], augment: Augment, seeds: Sequence[int]
) -> UInt8[np.ndarray, "N H W 3"]:
    """One augmented copy of each RGB image, from a seed for each; MixUp and CutMix are not applied."""
    change = image_augmentation(augment, 0)
    copies = images.copy()
    for row, seed in enumerate(seeds):
        change.set_random_seed(seed)
        copies[row] = change(image=images[row])["image"]
    return copies


def mixup(
    images: Float[Tensor, "B 3 H W"], targets: Float[Tensor, "B K"], rng: np.random.Generator
) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B K"]]:
    """MixUp of a batch with its reverse (Zhang et al. 2018); the weight is drawn from Beta(0.2, 0.2).

    Args:
        images: a batch.
        targets: class probabilities, for example one-hot labels.
        rng: decides on the weight.
    """
    keep = float(rng.beta(0.2, 0.2))
    return _weighted(images, keep), _weighted(targets, keep)


def cutmix(
    images: Float[Tensor, "B 3 H W"], targets: Float[Tensor, "B K"], rng: np.random.Generator
) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B K"]]:
    """CutMix of a batch with its reverse (Yun et al. 2019); the rectangle's share is drawn from Beta(1, 1).

    Args:
        images: a batch.
        targets: class probabilities; they are mixed by the share of pixels.
        rng: decides on the rectangle, the same for the whole batch.
    """
    height, width = images.shape[-2:]
    side = math.sqrt(1 - rng.beta(1.0, 1.0))
    cy, cx = rng.integers(height), rng.integers(width)
    top, bottom = (int(np.clip(cy + sign * side * height / 2, 0, height)) for sign in (-1, 1))
    left, right = (int(np.clip(cx + sign * side * width / 2, 0, width)) for sign in (-1, 1))
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
    return mixed, _weighted(targets, 1 - (bottom - top) * (right - left) / (height * width))


def mix_batch(
    images: Float[Tensor, "B 3 H W"], targets: Float[Tensor, "B K"], rng: np.random.Generator
) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B K"]]:
    """Mix a batch by :func:`mixup` or :func:`cutmix`, each half of the time."""
    return (mixup if rng.random() < 0.5 else cutmix)(images, targets, rng)


def _weighted(batch: Tensor, keep: float) -> Tensor:
    """Mean of a batch and its reverse, with the weight ``keep`` of the batch."""
    return keep * batch + (1 - keep) * batch.flip(0)


BATCH_MIXING: Mapping[Augment, Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]] = {
    "strong": mix_batch,
    "cutmix": cutmix,
    "mixup": mixup,
}
"""The augmentations that mix the images of a batch; a linear probe, which reads single images, cannot apply this."""
