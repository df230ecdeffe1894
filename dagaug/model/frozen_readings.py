"""Masks and frozen features of images: read once, one image at a time, and kept in a cache that commands share.

What is read depends on the image, the frozen network and the statistics of the training images, but on nothing that a
training changes. So a training, the augmentations with its result and their scores share it. Each image is read alone,
since the last bits of a result may depend on how many are computed at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor

from dagaug.compute.devices import last_bits
from dagaug.compute.tensors import to_tensor
from dagaug.data.grabcut_and_inpainting import PatchBox
from dagaug.model.training_free import FrozenEncoder, FrozenTranslator, PoseStructure, PoseTranslator
from dagaug.runtime.disk_cache import DiskCache, cache_key
from dagaug.runtime.versions import library_versions

__all__ = ["FrozenReader", "FrozenReading", "StructureReader", "computed_by"]

_VERSION = 1  # of what is read


def computed_by(device: torch.device) -> dict[str, object]:
    """Programs and machine that frozen features and masks depend on, for keys of a cache."""
    return {
        "version": _VERSION,
        **library_versions("torch", "timm", "opencv-python", "numpy"),
        **last_bits(device),
    }


@dataclass(frozen=True)
class FrozenReading:
    """What a frozen network says about one image.

    Attributes:
        components: principal components of its features.
        mirrored: the same of the mirror image.
        mask: the estimated mask of the object, in [0, 255].
    """

    components: Float16[np.ndarray, "C g g"]
    mirrored: Float16[np.ndarray, "C g g"]
    mask: UInt8[np.ndarray, "S S"]


class FrozenReader:
    """Reads images, or takes from the cache what was read before.

    Args:
        encoder: the frozen network with its statistics, on ``device`` when an image is read.
        device: where to compute.
        cache: None reads every image anew.
    """

    def __init__(self, encoder: FrozenEncoder, device: torch.device, cache: DiskCache | None = None) -> None:
        self._encoder, self._device, self._cache = encoder, device, cache

    @cached_property
    def _identity(self) -> str:
        """Hash of all that a reading depends on besides the image."""
        reduction = self._encoder.reduction
        tensors = [value.cpu().numpy() for _, value in sorted(reduction.state_dict().items())]
        settings = [reduction.channels, reduction.weights, reduction.grid]
        return cache_key("reading", computed_by(self._device), self._encoder.extractor.identity(), settings, *tensors)

    def read(self, patch: UInt8[np.ndarray, "S S 3"], box: PatchBox | None) -> FrozenReading:
        """Read one image.

        Args:
            patch: RGB.
            box: of the object, which ends there, as fractions of the side; None where unknown.
        """
        if self._cache is None:
            return self._computed(patch, box)
        key = cache_key(self._identity, patch, box)
        known = self._cache.read(key)
        if known is not None:
            return FrozenReading(**known)
        reading = self._computed(patch, box)
        self._cache.write(key, {"components": reading.components, "mirrored": reading.mirrored, "mask": reading.mask})
        return reading

    def _computed(self, patch: UInt8[np.ndarray, "S S 3"], box: PatchBox | None) -> FrozenReading:
        with torch.inference_mode():
            image = to_tensor(patch[None], self._device)
            components, coarse = self._encoder.components(torch.cat([image, image.flip(-1)]))
            mask = self._encoder.refined(image, coarse[:1], [box])
            # Contiguous, as the cache gives them: the order in memory decides the last bits of the keys.
            plain, mirrored = components.half().contiguous().cpu().numpy()
            return FrozenReading(plain, mirrored, (255 * mask[0, 0]).round().to(torch.uint8).cpu().numpy())


class StructureReader:
    """Structures and masks of images by either kind of pose model; frozen features are taken from the cache.

    Args:
        translator: the model, in evaluation mode, on ``device`` when images are read.
        device: where to compute.
        cache: keeps what frozen networks say; None reads every image anew.
    """

    def __init__(self, translator: PoseTranslator, device: torch.device, cache: DiskCache | None = None) -> None:
        self._translator, self._device = translator, device
        self._frozen = FrozenReader(translator.dae, device, cache) if isinstance(translator, FrozenTranslator) else None

    def structure(self, patches: UInt8[np.ndarray, "B S S 3"], boxes: Sequence[PatchBox | None]) -> PoseStructure:
        """Structures of images, RGB, with the boxes of their objects (fractions of the side, None where unknown)."""
        if not isinstance(self._translator, FrozenTranslator):
            return self._translator.structure(to_tensor(patches, self._device), boxes)
        readings = self._readings(patches, boxes)
        plain = self._float(np.stack([one.components for one in readings]))
        mirrored = self._float(np.stack([one.mirrored for one in readings]))
        return self._translator.structure_of(plain, mirrored, self._masks(readings))

    def masks(
        self, patches: UInt8[np.ndarray, "B S S 3"], boxes: Sequence[PatchBox | None]
    ) -> Float[Tensor, "B 1 S S"]:
        """Estimated masks of the objects, in [0, 1]; arguments as of :meth:`structure`."""
        if self._frozen is None:
            return self.structure(patches, boxes).object
        return self._masks(self._readings(patches, boxes))

    def _readings(self, patches: UInt8[np.ndarray, "B S S 3"], boxes: Sequence[PatchBox | None]) -> list[FrozenReading]:
        assert self._frozen is not None
        known: dict[str, FrozenReading] = {}  # blocks are padded with copies of their last image
        readings = []
        for patch, box in zip(patches, boxes, strict=True):
            key = cache_key(patch, box)
            if key not in known:
                known[key] = self._frozen.read(patch, box)
            readings.append(known[key])
        return readings

    def _masks(self, readings: Sequence[FrozenReading]) -> Float[Tensor, "B 1 S S"]:
        return self._float(np.stack([one.mask for one in readings])[:, None]) / 255

    def _float(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device).float()
