"""Classifiers that are trained from one seed and asked for probabilities.

One classifier serves twice: cross-fitted on the real training split it judges morphs (:mod:`dagaug.judges`), and
trained on real or on real + synthetic images it is the downstream experiment of ``score``. Images come in as uint8 RGB
NHWC or, on a device, as float NCHW in [-1, 1].

A saved classifier is one safetensors file whose header holds the rest as JSON, so that a file is whole or
absent.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations would ask the network for its newest version

import albumentations as A
import cv2
import numpy as np
import timm
import timm.optim
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64, Integer, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dagaug import plainnet
from dagaug.backbones import Network, build, create, first_line
from dagaug.errors import CheckpointError, TrainingError, UsageError
from dagaug.precision import autocast
from dagaug.progress import SILENT, Progress

__all__ = [
    "FORMAT",
    "LEARNING_RATES",
    "VERSION",
    "Augment",
    "Classifier",
    "FitOptions",
    "augmented",
    "fit",
    "hash_images",
    "identity_of",
    "read_classifiers",
    "untrained",
    "write_classifiers",
]

FORMAT = "dagaug-classifier"
VERSION = 1


# One classifier


class Classifier:
    """A network with what is needed to use it: class names, image size, the images it learned from.

    Attributes:
        network: the :class:`Network`, in evaluation mode.
        classes: names of its outputs.
        size: side of the images in pixels that it was trained on; others are resized to the network's input.
        trained_on: sorted 64-bit hashes (:func:`hash_images`) of its training images, real and synthetic.
    """

    def __init__(
        self,
        network: Network,
        classes: Sequence[str],
        size: int,
        trained_on: Int64[np.ndarray, " N"] | None = None,
    ) -> None:
        self.network = network
        self.classes = tuple(classes)
        self.size = size
        self.trained_on = np.unique(trained_on if trained_on is not None else np.zeros(0, np.int64))

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return self.network.mean.device

    def to(self, device: torch.device | str) -> Classifier:
        """Move the network to a device, in place."""
        self.network.to(device)
        return self

    @torch.inference_mode()
    def probabilities_of_tensor(self, images: Float[Tensor, "B 3 H W"]) -> Float32[Tensor, "B K"]:
        """Class probabilities of images in [-1, 1], which must be on the network's device."""
        images = images.to(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.network(images)
        return logits.float().softmax(dim=1)

    def probabilities(
        self, images: UInt8[np.ndarray, "N H W 3"], *, batch_size: int = 256
    ) -> Float32[np.ndarray, "N K"]:
        """Class probabilities of uint8 RGB images; each row sums to 1."""
        out = np.zeros((len(images), len(self.classes)), dtype=np.float32)
        for start in range(0, len(images), batch_size):
            batch = _to_device(images[start : start + batch_size], self.device)
            out[start : start + batch_size] = self.probabilities_of_tensor(batch).cpu().numpy()
        return out

    def accuracy(self, images: UInt8[np.ndarray, "N H W 3"], labels: Integer[np.ndarray, " N"]) -> float:
        """Share of images whose top-1 class is their label; NaN without images."""
        if not len(images):
            return math.nan
        return float((self.probabilities(images).argmax(axis=1) == labels).mean())

    def saw(self, images: UInt8[np.ndarray, "N H W 3"]) -> Bool[np.ndarray, " N"]:
        """Tell for each image whether exactly these pixels were among the training images."""
        return np.isin(hash_images(images), self.trained_on)

    def save(self, path: Path) -> None:
        """Write one safetensors file; the name appears only when it is whole."""
        write_classifiers(path, [self])

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> Classifier:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: missing, corrupt, not a classifier of this package, or of another version.
        """
        classifiers, _, _ = read_classifiers(path)
        return classifiers[0].to(device)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{key}": value for key, value in self.network.model.state_dict().items()}
        return tensors | {"trained_on": torch.from_numpy(self.trained_on)}

    def _header(self) -> dict[str, object]:
        return {
            "name": self.network.name,
            "classes": self.classes,
            "size": self.size,
            "input_size": self.network.input_size,
        }


def untrained(name: str, classes: Sequence[str], *, size: int) -> Classifier:
    """A classifier with random weights, to measure how fast it is."""
    return Classifier(build(name, len(classes), size=size), classes, size)


def hash_images(images: UInt8[np.ndarray, "N H W C"]) -> Int64[np.ndarray, " N"]:
    """Hash each image's pixels (BLAKE2b, 64 bits), to tell whether a classifier has seen it."""
    digests = (hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)


def _to_device(images: UInt8[np.ndarray, "B H W 3"], device: torch.device) -> Float32[Tensor, "B 3 H W"]:
    """Move uint8 NHWC to the device and turn it into float NCHW in [-1, 1] (channels last in memory)."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device, non_blocking=True)
    return tensor.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def write_classifiers(
    path: Path,
    classifiers: Sequence[Classifier],
    tensors: Mapping[str, Tensor] | None = None,
    header: Mapping[str, object] | None = None,
) -> None:
    """Write classifiers and what else belongs to them as one safetensors file; the name appears only when it is whole.

    Args:
        path: the file; its folder is made where it is not there.
        classifiers: each is written under its number as prefix.
        tensors, header: what else the file holds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    described = {
        "format": FORMAT, "version": VERSION, "classifiers": [one._header() for one in classifiers], **(header or {}),
    }  # fmt: skip
    own = {f"{n}.{key}": tensor for n, one in enumerate(classifiers) for key, tensor in one._tensors().items()}
    plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in (own | dict(tensors or {})).items()}
    try:
        save_file(plain, partial, metadata={"dagaug": json.dumps(described, ensure_ascii=False)})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_classifiers(path: Path) -> tuple[list[Classifier], dict[str, Tensor], dict]:
    """Read what :func:`write_classifiers` wrote: the classifiers, all tensors, and the header.

    Raises:
        CheckpointError: missing, corrupt, not a classifier of this package, or of another version.
    """
    tensors, header = _read(path)
    classifiers = _classifiers(path, tensors, header)
    if not classifiers:
        raise CheckpointError(f"{path}: holds no classifier; delete it to train anew")
    return classifiers, tensors, header


def _read(path: Path) -> tuple[dict[str, Tensor], dict]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no classifier there")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        header = json.loads(metadata.get("dagaug", "null"))
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: not a readable classifier ({first_line(error)}); delete it to train anew"
        ) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a classifier saved by dagaug; use it as --weights if it is a state dict")
    if header.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: version {header.get('version')}, this dagaug reads {VERSION}; delete it to train anew"
        )
    return tensors, header


def _classifiers(path: Path, tensors: dict[str, Tensor], header: dict) -> list[Classifier]:
    """Rebuild the classifiers of a file, each under its number as prefix."""
    classifiers = []
    try:
        for number, described in enumerate(header["classifiers"]):
            own = {
                key.removeprefix(f"{number}."): tensor
                for key, tensor in tensors.items()
                if key.startswith(f"{number}.")
            }
            name, classes, size = described["name"], tuple(described["classes"]), int(described["size"])
            network = create(name, len(classes), int(described["input_size"]))
            state = {key.removeprefix("model."): value for key, value in own.items() if key.startswith("model.")}
            network.model.load_state_dict(state)
            classifiers.append(Classifier(network, classes, size, own["trained_on"].numpy()))
    except (KeyError, TypeError, ValueError, RuntimeError, UsageError) as error:
        raise CheckpointError(f"{path}: a damaged classifier ({first_line(error)}); delete it to train anew") from error
    return classifiers


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
                x = _to_device(np.stack([augment(image=i)["image"] for part in batch for i in part]), device)
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
