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
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Integer, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dagaug.classifiers.backbones import Network, build, create, first_line
from dagaug.runtime.errors import CheckpointError, UsageError

__all__ = [
    "FORMAT",
    "VERSION",
    "Classifier",
    "hash_images",
    "read_classifiers",
    "to_device",
    "untrained",
    "write_classifiers",
]

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations would ask the network for its newest version

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
            batch = to_device(images[start : start + batch_size], self.device)
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


def to_device(images: UInt8[np.ndarray, "B H W 3"], device: torch.device) -> Float32[Tensor, "B 3 H W"]:
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
