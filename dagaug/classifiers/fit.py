"""Training of a classifier: options, learning-rate schedule, augmentation, optimisation loop."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import albumentations as A
import cv2
import numpy as np
import timm.optim
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Integer, UInt8
from torch import Tensor

from dagaug.classifiers import plain_net as plainnet
from dagaug.classifiers.backbones import build
from dagaug.classifiers.classifier import Classifier, hash_images, to_device
from dagaug.compute.devices import autocast
from dagaug.runtime.errors import TrainingError, UsageError
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["LEARNING_RATES", "Augment", "FitOptions", "augmented", "fit", "identity_of"]


# Training


Augment = Literal["none", "standard", "strong"]

LEARNING_RATES = {"": 2e-3, plainnet.NAME: 3e-3, "test_resnet": 1e-2}
"""Peak rates that suited 10 images a class, by the network's name; the empty name stands for all others."""


@dataclass(frozen=True)
class FitOptions:
    """How a classifier is trained; everything but the data and the seed.

    Attributes:
        name: timm name, ``lite0`` or ``plain``.
        size: side of the training images in pixels.
        steps: optimiser steps; None for as many as suit the number of images (:meth:`resolved`).
        batch_size: images a step.
        learning_rate: peak of the schedule (warm-up of a tenth, then cosine to zero) for AdamW; None for the
            network's entry in :data:`LEARNING_RATES`.
        weight_decay: of AdamW, for weights that are no biases or norms.
        label_smoothing: share of each label spread over all classes.
        augment: ``standard`` is flip and shift; ``strong`` adds scale, rotation, colour and harder ones, MixUp and
            CutMix.
        synthetic_share: share of each batch drawn from the synthetic images where there are any.
        weights: file of weights to start from.
    """

    name: str = plainnet.NAME
    size: int = 64
    steps: int | None = None
    batch_size: int = 32
    learning_rate: float | None = None
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    augment: Augment = "standard"
    synthetic_share: float = 0.5
    weights: Path | None = None

    def __post_init__(self) -> None:
        checks = (
            (self.size >= 8, f"--size {self.size}: at least 8 pixels"),
            (self.steps is None or self.steps >= 1, f"--steps {self.steps}: at least 1"),
            (self.batch_size >= 2, f"--batch-size {self.batch_size}: at least 2, which batch norm needs"),
            (
                self.learning_rate is None or self.learning_rate > 0,
                f"--learning-rate {self.learning_rate}: greater than 0",
            ),
            (0 <= self.label_smoothing < 1, f"--label-smoothing {self.label_smoothing:g}: in [0, 1)"),
            (0 < self.synthetic_share < 1, f"--synthetic-share {self.synthetic_share:g}: between 0 and 1"),
            (
                self.augment in get_args(Augment),
                f"augment {self.augment}: one of {', '.join(get_args(Augment))}",
            ),
        )
        for holds, message in checks:
            if not holds:
                raise UsageError(message)

    def resolved(self, images: int) -> FitOptions:
        """Fill in what is None: 160 epochs of ``images``, within 1,200 and 20,000 steps, and the learning rate."""
        steps = self.steps or min(max(math.ceil(160 * images / self.batch_size), 1_200), 20_000)
        rate = self.learning_rate or LEARNING_RATES.get(self.name, LEARNING_RATES[""])
        return replace(self, steps=steps, learning_rate=rate)

    def as_dict(self) -> dict[str, object]:
        """Give the options as JSON can hold them."""
        return asdict(self) | {"weights": None if self.weights is None else str(self.weights)}


def fit(
    images: UInt8[np.ndarray, "N H W 3"],
    labels: Integer[np.ndarray, " N"],
    classes: Sequence[str],
    options: FitOptions,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    synthetic: tuple[UInt8[np.ndarray, "M H W 3"], Integer[np.ndarray, " M"]] | None = None,
    progress: Progress = SILENT,
    title: str = "training the classifier",
) -> Classifier:
    """Train a classifier; on a CPU the result depends on the arguments alone.

    Initial weights, order of the real images, order of the synthetic ones and augmentation come from streams
    of their own of one seed, so that runs with and without synthetic images are paired. Steps and batch size
    are the same for both: synthetic images take the place of real ones in ``synthetic_share`` of each batch.

    Args:
        images: real training images, RGB.
        labels: their classes, indices into ``classes``.
        classes: class names.
        options: see :class:`FitOptions`.
        seed: any non-negative integer.
        device: where to train; the classifier stays there.
        synthetic: images and labels to mix in; of the same size as ``images``.
        progress: told of each step.
        title: name of the task in ``progress``.

    Raises:
        TrainingError: no images, or a loss that is not finite.
        UsageError: a name or size that timm refuses.
    """
    if len(images) == 0:
        raise TrainingError("no training images for the classifier; check the training split of the data")
    options = options.resolved(len(images))
    steps, peak = options.steps or 0, options.learning_rate or 0.0  # resolved: neither is None
    device = torch.device(device)
    streams = [np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(4)]
    real_order = _endless_order(len(images), streams[0])
    extra = 0
    if synthetic is not None and len(synthetic[0]):
        extra = min(max(round(options.batch_size * options.synthetic_share), 1), options.batch_size - 1)
        synthetic_order = _endless_order(len(synthetic[0]), streams[1])
    augment = _augmentation(options, int(streams[2].integers(2**31)))

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        network = build(options.name, len(classes), size=options.size, weights=options.weights).to(device)
        network = network.to(memory_format=torch.channels_last)
        optimiser = timm.optim.create_optimizer_v2(
            network.model, opt="adamw", lr=peak, weight_decay=options.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
        network.train()
        with progress.task(title, steps, "steps") as task:
            for step in range(steps):
                rows = _take(real_order, options.batch_size - extra)
                batch, targets = [images[rows]], [labels[rows]]
                if extra and synthetic is not None:
                    rows = _take(synthetic_order, extra)
                    batch, targets = [*batch, synthetic[0][rows]], [*targets, synthetic[1][rows]]
                x = to_device(np.stack([augment(image=i)["image"] for part in batch for i in part]), device)
                y = torch.from_numpy(np.concatenate(targets).astype(np.int64)).to(device)
                y = F.one_hot(y, len(classes)).float()
                if options.augment == "strong":
                    x, y = _mix(x, y, streams[3])
                with autocast(device):
                    logits = network(x)
                loss = F.cross_entropy(logits.float(), y, label_smoothing=options.label_smoothing)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
                optimiser.step()
                schedule.step()
                last = step + 1 == steps
                if last or step % 20 == 0:  # reading the loss waits for the device
                    value = loss.item()
                    if not math.isfinite(value):
                        raise TrainingError(
                            f"the classifier's loss is not finite at step {step + 1} of {steps}; "
                            f"try a --learning-rate below {peak:g}"
                        )
                    task.advance(1, f"loss {value:.3f}")
                else:
                    task.advance(1)
    seen = [hash_images(images)] + ([hash_images(synthetic[0])] if extra and synthetic is not None else [])
    return Classifier(network.eval(), classes, options.size, np.concatenate(seen))


def _endless_order(count: int, rng: np.random.Generator) -> Iterator[int]:
    """Give row numbers for ever, each of them once before any comes again."""
    while True:
        yield from rng.permutation(count).tolist()


def _take(order: Iterator[int], count: int) -> list[int]:
    return [next(order) for _ in range(count)]


def _rate(step: int, steps: int) -> float:
    """Factor of the learning rate: linear warm-up over a tenth of the steps, then half a cosine to zero."""
    warm = max(steps // 10, 1)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


def _augmentation(options: FitOptions, seed: int) -> A.Compose:
    """Build the augmentation of single images, uint8 RGB to uint8 RGB, with random numbers of its own."""
    edge = {"border_mode": cv2.BORDER_REPLICATE}
    # What more was added to these cost accuracy at ten images a class (examples/experiments.md).
    standard = [
        A.HorizontalFlip(p=0.5),
        A.Affine(scale=(1, 1), translate_percent=(-0.1, 0.1), p=0.9, **edge),
    ]
    usual = [
        A.HorizontalFlip(p=0.5),
        A.Affine(scale=(0.8, 1.2), translate_percent=(-0.1, 0.1), rotate=(-10, 10), p=0.9, **edge),
        A.ColorJitter(brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.02, 0.02), p=0.8),
    ]
    # Two random ones of RandAugment's operations (Cubuk et al. 2020) at its usual strength.
    harder = A.SomeOf(
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
    chains: dict[Augment, list] = {"none": [], "standard": standard, "strong": [*usual, harder]}
    return A.Compose(chains[options.augment], seed=seed)


def augmented(
    images: UInt8[np.ndarray, "N H W 3"], augment: Augment, seeds: Sequence[int]
) -> UInt8[np.ndarray, "N H W 3"]:
    """One augmented copy of each image by a seed of its own, as training sees them but for MixUp and CutMix."""
    change = _augmentation(FitOptions(augment=augment), 0)
    copies = images.copy()
    for row, seed in enumerate(seeds):
        change.set_random_seed(seed)
        copies[row] = change(image=images[row])["image"]
    return copies


def _mix(
    images: Float[Tensor, "B 3 H W"], targets: Float[Tensor, "B K"], rng: np.random.Generator
) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B K"]]:
    """Mix a batch with its reverse: MixUp (Zhang et al. 2018) or CutMix (Yun et al. 2019), at random."""
    height, width = images.shape[-2:]
    if rng.random() < 0.5:
        keep = float(rng.beta(0.2, 0.2))
        mixed = keep * images + (1 - keep) * images.flip(0)
    else:
        side = math.sqrt(1 - rng.beta(1.0, 1.0))
        cy, cx = rng.integers(height), rng.integers(width)
        top, bottom = (int(np.clip(cy + sign * side * height / 2, 0, height)) for sign in (-1, 1))
        left, right = (int(np.clip(cx + sign * side * width / 2, 0, width)) for sign in (-1, 1))
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
        keep = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, keep * targets + (1 - keep) * targets.flip(0)


def identity_of(
    hashes: Int64[np.ndarray, " N"],
    labels: Integer[np.ndarray, " N"],
    classes: Sequence[str],
    options: FitOptions,
    *more: int | str,
) -> str:
    """Name (in hexadecimal) everything that a training depends on; its seed belongs among ``more``."""
    digest = hashlib.sha256(hashes.tobytes())
    digest.update(np.ascontiguousarray(labels, dtype=np.int64).tobytes())
    if options.weights is not None and options.weights.is_file():
        digest.update(options.weights.read_bytes())
    rest = [list(classes), options.as_dict(), more, timm.__version__, torch.__version__]
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()
