"""Linear classifiers on the features of a frozen network: each image passes through it a few times, not every step.

An image is seen in a few augmented copies (:data:`VIEWS`). A seed decides about initial weights, order, and which half
of the copies it learns from, so that seeds vary less than in trainings of their own. The copies depend on an image's
pixels alone: the same image in two sets brings nothing new. MixUp and CutMix, which make new images of every batch,
have no part in it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor, nn

from dagaug.classifiers.backbones import build
from dagaug.classifiers.fit import Augment, FitOptions, augmented
from dagaug.compute.tensors import to_tensor
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["RATE", "VIEWS", "Features", "Probe"]

VIEWS = 6
"""Augmented copies of each training image; a seed learns from half of them."""

RATE = 3e-3
"""Peak learning rate of AdamW on standardised features."""

_BATCH = 128


@dataclass(frozen=True)
class Features:
    """Features of images in V views, and their labels."""

    values: Float32[Tensor, "V N D"]
    labels: Int64[np.ndarray, " N"]


class Probe:
    """A frozen network and the features that it has given so far.

    Args:
        options: name, size and weights of the network.
        device: where it computes.
        progress: is told of images.
    """

    def __init__(self, options: FitOptions, *, device: torch.device | str = "cpu", progress: Progress = SILENT) -> None:
        self._device, self._progress = torch.device(device), progress
        self._network = build(options.name, 0, size=options.size, weights=options.weights).to(self._device).eval()
        self._known: dict[tuple[bytes, str, int], Float32[Tensor, "V N D"]] = {}

    def features(
        self,
        images: UInt8[np.ndarray, "N S S 3"],
        labels: Int64[np.ndarray, " N"],
        hashes: Int64[np.ndarray, " N"],
        augment: Augment = "none",
    ) -> Features:
        """Features of images; without augmentation in one view. ``hashes`` say which images they are."""
        views = 1 if augment == "none" else VIEWS
        key = hashlib.sha256(hashes.tobytes()).digest(), augment, views
        if key not in self._known:
            with self._progress.task(f"Reading features, {augment}", views * len(images), "images") as task:
                seen = []
                for view in range(views):
                    for start in range(0, len(images), _BATCH):
                        part = slice(start, start + _BATCH)
                        seeds = [(number + view) % 2**32 for number in hashes[part].tolist()]
                        seen.append(self._read(augmented(images[part], augment, seeds)))
                        task.advance(len(seeds))
            self._known[key] = torch.cat(seen).unflatten(0, (views, len(images)))
        return Features(self._known[key], labels)

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
        """Train a linear classifier and give its class probabilities of the test images.

        As in :func:`dagaug.classifier.fit`, all arms make the same number of steps of the same size, and synthetic
        images take the place of real ones in ``synthetic_share`` of a batch.
        """
        steps = options.steps or 500
        mean, spread = train.values.mean((0, 1)), train.values.std((0, 1)) + 1e-6
        streams = [np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(3)]
        head = nn.Linear(train.values.shape[-1], classes)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(streams[2].normal(0, 0.01, tuple(head.weight.shape))))
            head.bias.zero_()
        optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=options.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        extra = 0
        if synthetic is not None:
            extra = min(max(round(options.batch_size * options.synthetic_share), 1), options.batch_size - 1)
        views = streams[2].permutation(len(train.values))[: max(1, len(train.values) // 2)]
        parts = [(Features(train.values[views], train.labels), options.batch_size - extra, streams[0])]
        if synthetic is not None:
            parts.append((Features(synthetic.values[views], synthetic.labels), extra, streams[1]))
        for _ in range(steps):
            drawn = [_draw(features, count, stream) for features, count, stream in parts]
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
    views, images = features.values.shape[:2]
    rows = stream.integers(images, size=count)
    return features.values[stream.integers(views, size=count), rows], features.labels[rows]
