"""Linear probe: a linear classifier on the features of a frozen network.

The network reads each image in a few augmented copies (:data:`COPIES_PER_IMAGE`) once, not in every step. A seed
decides on initial weights, order, and the half of the copies that is trained on; therefore seeds vary less than in full
trainings. The copies depend on an image's pixels only, so a duplicate image adds nothing new. MixUp and CutMix, which
make new images in every batch, are not used.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor, nn

from dagaug.classifiers.augmentation import Augment, augment_images
from dagaug.classifiers.fit import FitOptions, starting_network
from dagaug.classifiers.recipes import RECIPES
from dagaug.compute.devices import pick_device
from dagaug.compute.tensors import to_tensor
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.streamed_array import ImageArray, batches

__all__ = ["COPIES_PER_IMAGE", "Features", "LinearProbe"]

COPIES_PER_IMAGE = 6
"""Augmented copies of each training image; a seed trains on half of them."""

_BATCH = 128


@dataclass(frozen=True)
class Features:
    """Features of N images in V augmented copies, and the images' labels."""

    values: Float32[Tensor, "V N D"]
    labels: Int64[np.ndarray, " N"]


class LinearProbe:
    """A frozen network with a cache of the features that it has read.

    Args:
        options: name, size and weights of the network.
        execution: where to compute features; its progress receives the number of images read.
    """

    def __init__(self, options: FitOptions, *, execution: Execution = Execution()) -> None:
        self._device, self._progress = pick_device(execution.device), execution.progress
        self._network = starting_network(options, 0).to(self._device).eval()
        self._cache: dict[tuple[bytes, str, int], Float32[Tensor, "V N D"]] = {}

    def features(
        self,
        images: ImageArray,
        labels: Int64[np.ndarray, " N"],
        hashes: Int64[np.ndarray, " N"],
        augment: Augment = "none",
        *,
        trivialaugment: bool = False,
    ) -> Features:
        """Features of images, from the cache if the same images were read before.

        Args:
            images: RGB.
            labels: their classes.
            hashes: of the images, by :func:`dagaug.classifiers.classifier.hash_images`.
            augment: augmentation of the copies; ``none`` gives one copy, the image itself.
            trivialaugment: whether TrivialAugment follows.
        """
        copies = 1 if augment == "none" else COPIES_PER_IMAGE
        kind = f"{augment} and TrivialAugment" if trivialaugment else augment
        key = hashlib.sha256(hashes.tobytes()).digest(), kind, copies
        if key not in self._cache:
            with self._progress.task(f"Reading features, {kind}", copies * len(images), "images") as task:
                seen = []
                for copy in range(copies):
                    starts = range(0, len(images), _BATCH)
                    for start, part in zip(starts, batches(images, _BATCH), strict=True):
                        seeds = [(number + copy) % 2**32 for number in hashes[start : start + _BATCH].tolist()]
                        changed = augment_images(part, augment, seeds, trivialaugment=trivialaugment)
                        seen.append(self._read(changed))
                        task.advance(len(seeds))
            self._cache[key] = torch.cat(seen).unflatten(0, (copies, len(images)))
        return Features(self._cache[key], labels)

    @torch.inference_mode()
    def _read(self, images: UInt8[np.ndarray, "B S S 3"]) -> Float32[Tensor, "B D"]:
        x = to_tensor(images, self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            return self._network(x).float().cpu()

    def probabilities(
        self,
        train: Features,
        synthetic: Features | None,
        test: Features,
        classes: int,
        options: FitOptions,
        *,
        seed: int,
    ) -> Float32[np.ndarray, "M K"]:
        """Train a linear classifier; returns its class probabilities of the test images.

        As in :func:`dagaug.classifiers.fit.fit`, trainings with and without synthetic images take the same number of
        steps of the same batch size; synthetic images replace real ones in ``synthetic_share`` of a batch.

        Args:
            train, synthetic, test: features of the real training images, of synthetic ones if any, of test images.
            classes: number of classes.
            options: resolved; steps, learning rate, batch size, synthetic share, weight decay, label smoothing count.
            seed: of everything random.
        """
        steps, rate = options.steps or 0, options.learning_rate or 0.0  # resolved: neither is None
        mean, spread = train.values.mean((0, 1)), train.values.std((0, 1)) + 1e-6
        streams = [np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(3)]
        head = nn.Linear(train.values.shape[-1], classes)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(streams[2].normal(0, 0.01, tuple(head.weight.shape))))
            head.bias.zero_()
        optimiser = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=options.weight_decay)
        recipe = RECIPES["linear-probe"]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: recipe.rate_factor(step, steps))
        extra = 0 if synthetic is None else options.synthetic_count()
        copies = streams[2].permutation(len(train.values))[: max(1, len(train.values) // 2)]
        sets = [(Features(train.values[copies], train.labels), options.batch_size - extra, streams[0])]
        if synthetic is not None:
            sets.append((Features(synthetic.values[copies], synthetic.labels), extra, streams[1]))
        for _ in range(steps):
            drawn = [_draw(features, count, stream) for features, count, stream in sets]
            logits = head((torch.cat([x for x, _ in drawn]) - mean) / spread)
            labels = torch.from_numpy(np.concatenate([y for _, y in drawn]))
            loss = F.cross_entropy(logits, labels, label_smoothing=options.label_smoothing)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            return head((test.values[0] - mean) / spread).softmax(1).numpy()


def _draw(
    features: Features, count: int, stream: np.random.Generator
) -> tuple[Float32[Tensor, "B D"], Int64[np.ndarray, " B"]]:
    """Features and labels of random images, each from a random copy."""
    copies, images = features.values.shape[:2]
    rows = stream.integers(images, size=count)
    return features.values[stream.integers(copies, size=count), rows], features.labels[rows]
