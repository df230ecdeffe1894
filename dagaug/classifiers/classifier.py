"""A trained classifier: class probabilities of images, saving and loading.

The same class serves as a judge of morphs (:mod:`dagaug.classifiers.cross_fit`) and as the classifier of the downstream
experiment of ``score``. Images are uint8 RGB NHWC, or float NCHW in [-1, 1] on the classifier's device.

A file of classifiers is one safetensors file with JSON in its header. It appears under its name only when it is
complete.
"""

from __future__ import annotations

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

from dagaug.classifiers.backbones import Network, first_line, input_size_for
from dagaug.classifiers.pretrained_networks import create_again
from dagaug.compute.tensors import to_tensor
from dagaug.runtime.errors import CheckpointError, UsageError
from dagaug.runtime.files import atomic_replace
from dagaug.runtime.streamed_array import ImageArray, StreamedArray, batches, hash_rows

__all__ = [
    "Classifier",
    "hash_images",
    "read_classifiers",
    "untrained",
    "write_classifiers",
]

_FORMAT = "dagaug-classifier"
_VERSION = 1


class Classifier:
    """A trained network, its class names, its image size, and hashes of its training images.

    Attributes:
        network: the network, in evaluation mode.
        classes: class names, in the order of the logits.
        size: side in pixels of the training images; the network resizes other images.
        trained_on: sorted 64-bit hashes (:func:`hash_images`) of the training images, real and synthetic.
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
        """Device of the network's weights."""
        return self.network.mean.device

    def to(self, device: torch.device | str) -> Classifier:
        """Move the network to a device, in place."""
        self.network.to(device)
        return self

    @torch.inference_mode()
    def probabilities_of_tensor(self, images: Float[Tensor, "B 3 H W"]) -> Float32[Tensor, "B K"]:
        """Class probabilities of images in [-1, 1] that are on the network's device."""
        images = images.to(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.network(images)
        return logits.float().softmax(dim=1)

    def probabilities(self, images: ImageArray, *, batch_size: int = 256) -> Float32[np.ndarray, "N K"]:
        """Class probabilities of uint8 RGB images; each row sums to 1."""
        out = np.zeros((len(images), len(self.classes)), dtype=np.float32)
        for start, part in zip(range(0, len(images), batch_size), batches(images, batch_size), strict=True):
            batch = to_tensor(part, self.device)
            out[start : start + batch_size] = self.probabilities_of_tensor(batch).cpu().numpy()
        return out

    def accuracy(self, images: ImageArray, labels: Integer[np.ndarray, " N"]) -> float:
        """Top-1 accuracy in [0, 1]; NaN if there are no images."""
        if not len(images):
            return math.nan
        return float((self.probabilities(images).argmax(axis=1) == labels).mean())

    def saw(self, images: ImageArray) -> Bool[np.ndarray, " N"]:
        """For each image, whether an image of exactly the same pixels was in the training set."""
        return np.isin(hash_images(images), self.trained_on)

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically.

        Raises:
            OSError: the file cannot be written.
        """
        write_classifiers(path, [self])

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> Classifier:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: the file is missing, corrupt, not a classifier of dagaug, or of another version.
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
    """A classifier with random weights, to measure the speed of a network; arguments as in :func:`build`."""
    return Classifier(create_again(name, len(classes), input_size_for(name, size)), classes, size)


def hash_images(images: UInt8[np.ndarray, "N H W C"] | StreamedArray) -> Int64[np.ndarray, " N"]:
    """64-bit BLAKE2b hash of each image's pixels."""
    return images.hashes() if isinstance(images, StreamedArray) else hash_rows(images)


def write_classifiers(
    path: Path,
    classifiers: Sequence[Classifier],
    tensors: Mapping[str, Tensor] | None = None,
    header: Mapping[str, object] | None = None,
) -> None:
    """Write classifiers as one safetensors file, atomically.

    Args:
        path: the file; its folder is created if it is missing.
        classifiers: the tensors of each have its position in this list as prefix of their names.
        tensors, header: further content of the file.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    described = {
        "format": _FORMAT, "version": _VERSION, "classifiers": [one._header() for one in classifiers], **(header or {}),
    }  # fmt: skip
    own = {f"{n}.{key}": tensor for n, one in enumerate(classifiers) for key, tensor in one._tensors().items()}
    plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in (own | dict(tensors or {})).items()}
    own_temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # two runs may train the same judges at once
    with atomic_replace(path, own_temporary) as temporary:
        save_file(plain, temporary, metadata={"dagaug": json.dumps(described, ensure_ascii=False)})


def read_classifiers(path: Path) -> tuple[list[Classifier], dict[str, Tensor], dict]:
    """Read what :func:`write_classifiers` wrote.

    Returns:
        the classifiers on the CPU, all tensors of the file by name, and its header.

    Raises:
        CheckpointError: the file is missing, corrupt, not a classifier of dagaug, or of another version.
    """
    tensors, header = _read(path)
    classifiers = _classifiers(path, tensors, header)
    if not classifiers:
        raise CheckpointError(f"{path}: holds no classifier")
    return classifiers, tensors, header


def _read(path: Path) -> tuple[dict[str, Tensor], dict]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        header = json.loads(metadata.get("dagaug", "null"))
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a readable file of classifiers ({first_line(error)})") from error
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: not a classifier of dagaug")
    if header.get("version") != _VERSION:
        raise CheckpointError(f"{path}: has version {header.get('version')}; this dagaug reads version {_VERSION}")
    return tensors, header


def _classifiers(path: Path, tensors: dict[str, Tensor], header: dict) -> list[Classifier]:
    """Rebuild the classifiers of a file."""
    classifiers = []
    try:
        for number, described in enumerate(header["classifiers"]):
            own = {
                key.removeprefix(f"{number}."): tensor
                for key, tensor in tensors.items()
                if key.startswith(f"{number}.")
            }
            name, classes, size = described["name"], tuple(described["classes"]), int(described["size"])
            network = create_again(name, len(classes), int(described["input_size"]))
            state = {key.removeprefix("model."): value for key, value in own.items() if key.startswith("model.")}
            network.model.load_state_dict(state)
            classifiers.append(Classifier(network, classes, size, own["trained_on"].numpy()))
    except (KeyError, TypeError, ValueError, RuntimeError, UsageError) as error:
        raise CheckpointError(f"{path}: a classifier in it is damaged ({first_line(error)})") from error
    return classifiers
