"""Training of one classifier: options, batches, learning-rate schedule, optimisation."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import get_args

import numpy as np
import timm.optim
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, Integer, UInt8
from torch import Tensor

from dagaug.classifiers.augmentation import BATCH_MIXING, Augment, Mixing, image_augmentation
from dagaug.classifiers.backbones import Network, build
from dagaug.classifiers.classifier import Classifier, hash_images
from dagaug.classifiers.folded_batch_norm import folded_frozen_layers
from dagaug.classifiers.frozen_stages import freeze_stages
from dagaug.classifiers.plain_net import PLAIN
from dagaug.classifiers.pretrained_networks import build_pretrained
from dagaug.classifiers.recipes import RECIPES, Mode
from dagaug.compute.devices import autocast, pick_device
from dagaug.compute.tensors import to_tensor
from dagaug.runtime.errors import TrainingError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.prefetch import map_ahead
from dagaug.runtime.progress import Progress
from dagaug.runtime.streamed_array import ImageArray
from dagaug.runtime.versions import library_versions

__all__ = ["LIBRARIES", "FitOptions", "fit", "fit_identity", "starting_network"]

LIBRARIES = ("torch", "timm", "albumentations", "opencv-python", "numpy")
"""Libraries besides dagaug whose versions can change a trained classifier."""

_READ_AHEAD = 2  # batches


@dataclass(frozen=True)
class FitOptions:
    """Options of a classifier's training.

    Attributes:
        name: any timm name, ``lite0`` or ``plain``.
        size: side of the training images in pixels, at least 8.
        steps: optimiser steps.
        batch_size: images a step, at least 2.
        learning_rate: peak learning rate of AdamW; the mode's recipe has its schedule.
        layer_decay: factor of the learning rate from each layer to the one before it, in (0, 1].
        weight_decay: of AdamW; biases and norms have none.
        label_smoothing: share of each label that is spread over all classes, in [0, 1).
        augment: augmentation of the training images, see :data:`dagaug.classifiers.augmentation.Augment`.
        trivialaugment: whether TrivialAugment follows the augmentation.
        mixing: mixing of the images of a batch, see :data:`dagaug.classifiers.augmentation.Mixing`.
        synthetic_share: share of each batch that is drawn from the synthetic images, between 0 and 1.
        weights: file of weights to start from.
        head_only: whether only the last layer is fitted, on frozen features
            (:mod:`dagaug.classifiers.frozen_head`); for networks with pretrained weights.
        frozen_stages: number of first stages (timm's groups of layers; the stem is the first) whose weights and
            batch-norm statistics stay as they are; for networks with pretrained weights.
        mode: how the classifier is trained; its recipe (:data:`dagaug.classifiers.recipes.RECIPES`) gives steps,
            learning rate, its decay by layer, and augmentation where they are None.

    Raises:
        UsageError: a value is out of range.
    """

    name: str = PLAIN
    size: int = 64
    steps: int | None = None
    batch_size: int = 32
    learning_rate: float | None = None
    layer_decay: float | None = None
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    augment: Augment | None = None
    trivialaugment: bool = False
    mixing: Mixing = "none"
    synthetic_share: float = 0.5
    weights: Path | None = None
    head_only: bool = False
    frozen_stages: int = 0
    mode: Mode = "scratch"

    def __post_init__(self) -> None:
        checks = (
            ("size", self.size >= 8, "give at least 8 pixels"),
            ("steps", self.steps is None or self.steps >= 1, "give at least 1"),
            ("batch_size", self.batch_size >= 2, "give at least 2, which batch norm needs"),
            ("learning_rate", self.learning_rate is None or self.learning_rate > 0, "give a rate greater than 0"),
            ("frozen_stages", self.frozen_stages >= 0, "give at least 0"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "give a share in [0, 1)"),
            ("synthetic_share", 0 < self.synthetic_share < 1, "give a share between 0 and 1"),
            ("layer_decay", self.layer_decay is None or 0 < self.layer_decay <= 1, "give a factor in (0, 1]"),
            ("mode", self.mode in get_args(Mode), f"choose one of {', '.join(get_args(Mode))}"),
            ("mixing", self.mixing in get_args(Mixing), f"choose one of {', '.join(get_args(Mixing))}"),
            (
                "augment",
                self.augment is None or self.augment in get_args(Augment),
                f"choose one of {', '.join(get_args(Augment))}",
            ),
        )
        for option, holds, message in checks:
            if not holds:
                raise UsageError(message, option=option, value=getattr(self, option))

    def resolved(self, images: int) -> FitOptions:
        """These options with what is None filled in from the recipe, for a number of real training images."""
        recipe = RECIPES[self.mode]
        return replace(
            self,
            steps=self.steps or recipe.steps_for(images, self.batch_size),
            learning_rate=self.learning_rate or recipe.rate_for(self.name),
            layer_decay=self.layer_decay or recipe.layer_decay,
            augment=self.augment or recipe.augment,
        )

    def synthetic_count(self) -> int:
        """Number of synthetic images in a batch, where there are any: at least one, and not all."""
        return min(max(round(self.batch_size * self.synthetic_share), 1), self.batch_size - 1)

    def as_dict(self) -> dict[str, object]:
        """The options as JSON can store them."""
        return asdict(self) | {"weights": None if self.weights is None else str(self.weights)}


def fit(
    images: ImageArray,
    labels: Integer[np.ndarray, " N"],
    classes: Sequence[str],
    options: FitOptions,
    *,
    seed: int,
    synthetic: tuple[ImageArray, Integer[np.ndarray, " M"]] | None = None,
    title: str = "training the classifier",
    execution: Execution = Execution(),
) -> Classifier:
    """Train a classifier; on a CPU the result depends on the arguments alone.

    Initial weights, order of the real images, order of the synthetic images and augmentation have random streams of
    their own, all from one seed, so that trainings with and without synthetic images are paired. Both take the same
    number of steps of the same batch size: synthetic images replace real ones in ``synthetic_share`` of each batch.

    Args:
        images: real training images, RGB; streamed ones are read ahead of the steps.
        labels: their classes, indices into ``classes``.
        classes: class names.
        options: see :class:`FitOptions`.
        seed: any non-negative integer.
        synthetic: synthetic images, of the same size as ``images``, and their labels.
        title: name of the task in the progress.
        execution: where to train; the classifier stays there. Its progress receives each step.

    Raises:
        TrainingError: there are no images, or the loss is not finite.
        UsageError: timm refuses the network's name or the size.
    """
    if len(images) == 0:
        raise TrainingError("no training images for the classifier; check the training split of the data")
    options = options.resolved(len(images))
    device = pick_device(execution.device)
    streams = [np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(4)]
    sets = [(images, labels, options.batch_size)]
    if synthetic is not None and len(synthetic[0]):
        count = options.synthetic_count()
        sets = [(images, labels, options.batch_size - count), (*synthetic, count)]
    batches = _Batches(sets, options, streams, len(classes), device)
    with closing(batches), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        network = starting_network(options, len(classes)).to(device).to(memory_format=torch.channels_last)
        freeze_stages(network.train(), options.frozen_stages)
        with folded_frozen_layers(network, options.size):
            _optimise(network, batches, options, execution.progress, title)
    trained_on = np.concatenate([hash_images(pixels) for pixels, _, _ in sets])
    return Classifier(network.eval(), classes, options.size, trained_on)


def starting_network(options: FitOptions, num_classes: int) -> Network:
    """The network before its training: with random weights, or with pretrained ones and a new last layer.

    Args:
        options: name, size, weights and mode.
        num_classes: number of logits; 0 for pooled features instead of logits.

    Raises:
        UsageError: the network is unknown, or cannot take images of this size.
        CheckpointError: the weights cannot be fetched or read, or are those of another network.
        MissingExtraError: the package with the weights of ``lite0`` is not installed.
    """
    name, size, weights = options.name, options.size, options.weights
    if options.mode == "scratch" or name == PLAIN:
        return build(name, num_classes, size=size, weights=weights)
    return build_pretrained(name, num_classes, input_size=size, weights=weights, for_features=False)


class _Batches:
    """Endless augmented batches.

    Args:
        sets: real and, where there are any, synthetic images: pixels, labels, number of images in each batch.
        options: of the training, resolved: augmentation of images and mixing of batches.
        streams: random numbers for the orders of both sets, augmentation of images, mixing of batches.
        classes: number of classes.
        device: where the batches go.
    """

    def __init__(
        self,
        sets: Sequence[tuple[ImageArray, Integer[np.ndarray, " _"], int]],
        options: FitOptions,
        streams: Sequence[np.random.Generator],
        classes: int,
        device: torch.device,
    ) -> None:
        self._sets = sets
        self._orders = [
            (_endless_order(len(pixels), stream), count)
            for (pixels, _, count), stream in zip(sets, streams, strict=False)
        ]
        self._reader = ThreadPoolExecutor(1)
        self._read_ahead = map_ahead(self._read, self._rows(), self._reader, ahead=_READ_AHEAD)
        seed = int(streams[2].integers(2**31))
        _, height, width, _ = sets[0][0].shape
        self._change = image_augmentation(
            options.augment or "none", seed, (height, width), trivialaugment=options.trivialaugment
        )
        self._mix, self._mixing = BATCH_MIXING.get(options.mixing), streams[3]
        self._classes, self._device = classes, device

    def next(self) -> tuple[Float32[Tensor, "B 3 H W"], Float32[Tensor, "B K"]]:
        """Images in [-1, 1] and class probabilities."""
        parts = next(self._read_ahead)
        pixels, labels = [self._change(image) for images, _ in parts for image in images], [part[1] for part in parts]
        x = to_tensor(np.stack(pixels), self._device)
        y = torch.from_numpy(np.concatenate(labels).astype(np.int64)).to(self._device)
        y = F.one_hot(y, self._classes).float()
        return (x, y) if self._mix is None else self._mix(x, y, self._mixing)

    def close(self) -> None:
        """End the reading of further batches."""
        self._read_ahead.close()
        self._reader.shutdown()

    def _rows(self) -> Iterator[list[list[int]]]:
        """Rows of each set, batch after batch."""
        while True:
            yield [list(islice(order, count)) for order, count in self._orders]

    def _read(self, rows: list[list[int]]) -> list[tuple[UInt8[np.ndarray, "_ H W 3"], Integer[np.ndarray, " _"]]]:
        """Images of each set, before their augmentation, and their classes."""
        chosen = [np.array(of_set, np.int64) for of_set in rows]
        return [(images[some], labels[some]) for (images, labels, _), some in zip(self._sets, chosen, strict=True)]


def _endless_order(count: int, rng: np.random.Generator) -> Iterator[int]:
    """Row numbers in random order without end; each row comes once before any comes again."""
    while True:
        yield from rng.permutation(count).tolist()


def _optimise(network: Network, batches: _Batches, options: FitOptions, progress: Progress, title: str) -> None:
    """Train a network, which is in training mode, in place; ``options`` are resolved.

    Raises:
        TrainingError: the loss is not finite.
    """
    steps, peak = options.steps or 0, options.learning_rate or 0.0  # resolved: neither is None
    optimiser = timm.optim.create_optimizer_v2(
        network.model, opt="adamw", lr=peak, weight_decay=options.weight_decay, layer_decay=options.layer_decay
    )
    for group in optimiser.param_groups:
        group["lr"] = peak * group.get("lr_scale", 1.0)
    recipe = RECIPES[options.mode]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: recipe.rate_factor(step, steps))
    with progress.task(title, steps, "steps") as task:
        for step in range(steps):
            x, y = batches.next()
            with autocast(x.device):
                logits = network(x)
            loss = F.cross_entropy(logits.float(), y, label_smoothing=options.label_smoothing)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            note = ""
            if step + 1 == steps or step % 20 == 0:  # reading the loss waits for the device
                value = loss.item()
                if not math.isfinite(value):
                    raise TrainingError(
                        f"the classifier's loss is not finite at step {step + 1} of {steps} "
                        f"with learning rate {peak:g}",
                        remedies={"learning_rate": float(f"{peak / 10:g}")},
                    )
                note = f"loss {value:.3f}"
            task.advance(1, note)


def fit_identity(
    hashes: Int64[np.ndarray, " N"],
    labels: Integer[np.ndarray, " N"],
    classes: Sequence[str],
    options: FitOptions,
    *more: int | str,
) -> str:
    """Hash (hexadecimal) of everything that a trained classifier depends on, with the versions of the libraries.

    Args:
        hashes: of the training images, by :func:`hash_images`.
        labels: their classes.
        classes: class names.
        options: of the training; the content of ``weights`` counts, too.
        more: what else it depends on, for example the seed.
    """
    digest = hashlib.sha256(hashes.tobytes())
    digest.update(np.ascontiguousarray(labels, dtype=np.int64).tobytes())
    if options.weights is not None and options.weights.is_file():
        digest.update(options.weights.read_bytes())
    settings = options.as_dict()
    rest = [list(classes), settings, more, library_versions(*LIBRARIES)]
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()
