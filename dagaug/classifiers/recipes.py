"""Recipes: default learning rate and its schedule, augmentation and steps of each way to train a classifier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import timm

from dagaug.classifiers.augmentation import Augment
from dagaug.classifiers.backbones import LITE0, network_for
from dagaug.classifiers.plain_net import PLAIN
from dagaug.classifiers.pretrained_networks import names_weights

__all__ = ["MODE_WORDS", "RECIPES", "Mode", "Recipe", "suit_images", "suitable_size"]

Mode = Literal["scratch", "finetune", "linear-probe"]
"""How a classifier is trained: all weights from random ones, from pretrained ones, or only a linear layer on frozen
pretrained features."""


@dataclass(frozen=True)
class Recipe:
    """Defaults of one way to train. All use AdamW, whose learning rate follows half a cosine to zero after its warm-up.

    Attributes:
        learning_rate: peak learning rate.
        layer_decay: factor of the learning rate from each layer to the one before it (timm's groups of layers); None
            for the same rate in all layers.
        warmup: share of the steps over which the learning rate rises linearly to its peak, in [0, 1).
        augment: augmentation of the training images.
        epochs: passes over the real images that the number of steps amounts to.
        fewest_steps: lower bound of the number of steps.
        most_steps: upper bound of the number of steps.
        rates: peak learning rates of networks that need another one, by name.
    """

    learning_rate: float
    layer_decay: float | None
    warmup: float
    augment: Augment
    epochs: int
    fewest_steps: int
    most_steps: int
    rates: Mapping[str, float]

    def steps_for(self, images: int, batch_size: int) -> int:
        """Default number of steps for a number of real images."""
        return min(max(math.ceil(self.epochs * images / batch_size), self.fewest_steps), self.most_steps)

    def rate_factor(self, step: int, steps: int) -> float:
        """Factor of the peak learning rate in a step, counted from 0, of a training of ``steps`` steps."""
        warm = max(int(self.warmup * steps), 1) if self.warmup else 0
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))

    def rate_for(self, name: str) -> float:
        """Default peak learning rate of a network."""
        return self.rates.get(name, self.learning_rate)


RECIPES: Mapping[Mode, Recipe] = {
    "scratch": Recipe(
        learning_rate=2e-3, layer_decay=None, warmup=0.1, augment="standard",
        epochs=160, fewest_steps=1_200, most_steps=20_000, rates={PLAIN: 3e-3, "test_resnet": 1e-2},
    ),
    "finetune": Recipe(
        learning_rate=2e-3, layer_decay=None, warmup=0.1, augment="crop",
        epochs=20, fewest_steps=200, most_steps=10_000, rates={},
    ),
    "linear-probe": Recipe(
        learning_rate=3e-3, layer_decay=None, warmup=0.0, augment="standard",
        epochs=160, fewest_steps=1_200, most_steps=20_000, rates={},
    ),
}  # fmt: skip
"""The recipe of each mode; chosen on held-out training images, see examples/experiments.md."""

MODE_WORDS: Mapping[Mode, str] = {
    "scratch": "trained from scratch",
    "finetune": "fine-tuned from pretrained weights",
    "linear-probe": "linear probe on frozen pretrained features",
}
"""How a message names each mode."""

_USUAL = 224  # px
_LARGEST_ON_CPU = 128  # px; a third of the time of 224, and the largest patches that train makes on a CPU
_PHOTOGRAPHS = 96  # px; objects of this size and more are worth a pretrained network


def suit_images(mode: Mode | Literal["auto"], classifier: str, size: int) -> tuple[Mode, str]:
    """Choose mode and network of a score where the user left them open.

    Args:
        mode: ``auto`` fine-tunes where patches are large enough for pretrained networks or the classifier's name stands
            for certain weights, else trains from scratch.
        classifier: name of a network; ``auto`` stands for ``lite0`` with pretrained weights, and from scratch for what
            :func:`dagaug.classifiers.backbones.network_for` names.
        size: side of the morphs' patches in pixels.
    """
    if mode == "auto":
        pretrained = names_weights(classifier) or (size >= _PHOTOGRAPHS and classifier != PLAIN)
        mode = "finetune" if pretrained else "scratch"
    if mode == "scratch":
        return mode, network_for(classifier, size)
    return mode, LITE0 if classifier == "auto" else classifier


def suitable_size(mode: Mode, name: str, patch: int, device: str) -> int:
    """Side of the images of a score in pixels, where the user names none.

    Args:
        mode: pretrained networks see the size that they were trained for, on a CPU 128 px at most; networks from
            scratch the patches' size.
        name: of the network.
        patch: side of the morphs' patches in pixels.
        device: type of the device, for example ``cpu``.
    """
    if mode == "scratch":
        return patch
    config = timm.get_pretrained_cfg("tf_efficientnet_lite0" if name == LITE0 else name, allow_unregistered=True)
    own = config.input_size[-1] if config is not None else _USUAL
    return min(own, _LARGEST_ON_CPU) if device == "cpu" else own
