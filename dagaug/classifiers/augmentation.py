"""Image augmentation for training classifiers: flips, shifts, crops, TrivialAugment, MixUp and CutMix."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import albumentations as A
import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms import v2

__all__ = ["BATCH_MIXING", "Augment", "Mixing", "augment_images", "cutmix", "image_augmentation", "mixup"]

Augment = Literal["none", "standard", "crop"]
"""``standard``: flip and shift. ``crop``: random resized crop and flip."""

Mixing = Literal["none", "cutmix", "mixup"]
"""How the images of a batch are mixed with each other."""

_ImageChange = Callable[[UInt8[np.ndarray, "H W 3"]], UInt8[np.ndarray, "H W 3"]]

_SMALLEST_CROP = 0.35  # share of the image's area


class _TrivialAugment:
    """torchvision's TrivialAugmentWide with random numbers of its own."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._transform = v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global generator
            torch.manual_seed(int(self._rng.integers(2**63)))
            changed = self._transform(torch.from_numpy(image).permute(2, 0, 1))
        return np.ascontiguousarray(changed.permute(1, 2, 0).numpy())


def image_augmentation(
    augment: Augment, seed: int, size: tuple[int, int], *, trivialaugment: bool = False
) -> _ImageChange:
    """Augmentation of single images, uint8 RGB HWC in and out, with its own random numbers from ``seed``.

    Args:
        augment: kind of augmentation.
        seed: any non-negative integer.
        size: height and width of the images in pixels, which stay as they are.
        trivialaugment: whether one random operation of random strength follows (TrivialAugment, Müller & Hutter 2021).
    """
    # Every operation that was tried in addition to flip and shift lowered accuracy of networks trained from scratch at
    # ten images a class (examples/experiments.md).
    flip = A.HorizontalFlip(p=0.5)
    standard = [
        flip,
        A.Affine(scale=(1, 1), translate_percent=(-0.1, 0.1), p=0.9, border_mode=cv2.BORDER_REPLICATE),
    ]
    crop = [A.RandomResizedCrop(size, scale=(_SMALLEST_CROP, 1), p=1), flip]
    operations = {"none": [], "standard": standard, "crop": crop}[augment]
    compose = A.Compose(operations, seed=seed)

    def change(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        return compose(image=image)["image"]

    if not trivialaugment:
        return change
    then = _TrivialAugment(seed)
    return lambda image: then(change(image))


def augment_images(
    images: UInt8[np.ndarray, "N H W 3"], augment: Augment, seeds: Sequence[int], *, trivialaugment: bool = False
) -> UInt8[np.ndarray, "N H W 3"]:
    """One augmented copy of each RGB image, from a seed for each."""
    copies, size = images.copy(), images.shape[1:3]
    for row, seed in enumerate(seeds):
        copies[row] = image_augmentation(augment, seed, size, trivialaugment=trivialaugment)(images[row])
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


def _weighted(batch: Tensor, keep: float) -> Tensor:
    """Mean of a batch and its reverse, with the weight ``keep`` of the batch."""
    return keep * batch + (1 - keep) * batch.flip(0)


BATCH_MIXING: Mapping[Mixing, Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]] = {
    "cutmix": cutmix,
    "mixup": mixup,
}
"""The ways to mix a batch; a linear probe, which reads single images, has none."""
