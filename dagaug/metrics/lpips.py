"""LPIPS (Zhang et al. 2018), computed by torchmetrics with weights from a file.

torchmetrics contains the weights that LPIPS learned, but would download the ImageNet weights of the network below from
torchvision. Nothing is downloaded here: the weights file is given, or found in torch's download folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import _LPIPS

from dagaug.compute.tensors import to_tensor
from dagaug.runtime.errors import CheckpointError

__all__ = ["FILES", "Lpips", "find_weights"]

FILES = ("alexnet-owt-7be5be79.pth", "vgg16-397923af.pth", "squeezenet1_1-b8a52dc0.pth")
"""torchvision's file names, in the order of the search; LPIPS usually means AlexNet."""

_Net = Literal["alex", "vgg", "squeeze"]


_UNIQUE_TENSORS: tuple[tuple[str, _Net], ...] = (
    ("features.3.squeeze.weight", "squeeze"),
    ("features.28.weight", "vgg"),
    ("features.10.weight", "alex"),
)
"""Tensors that identify a network: the first that a file contains names its network."""

_BATCH = 64


def find_weights() -> Path | None:
    """A weights file in torch's download folder; None if there is none."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


class Lpips:
    """LPIPS distances of pairs of images.

    Args:
        weights: torchvision's ImageNet weights of AlexNet, VGG16 or SqueezeNet 1.1.
        device: where to compute.

    Attributes:
        name: ``alex``, ``vgg`` or ``squeeze``.

    Raises:
        CheckpointError: the file is missing, corrupt, or for another network.
    """

    def __init__(self, weights: Path, device: torch.device | str = "cpu") -> None:
        tensors = _read(weights)
        found = next((name for key, name in _UNIQUE_TENSORS if key in tensors), None)
        if found is None:
            raise CheckpointError(
                f"not torchvision's weights of AlexNet, VGG16 or SqueezeNet 1.1 ({', '.join(FILES)})",
                option="lpips",
                value=weights,
            )
        self.name: str = found
        self._device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            network = _LPIPS(pretrained=True, net=found, pnet_rand=True)
        own = cast(nn.Module, network.net).state_dict()
        # torchmetrics cuts torchvision's `features` into slices but keeps their numbers: slice2.3.bias, slices.1.3.bias
        theirs = {key: tensors.get(re.sub(r"^slices?\.?\d+", "features", key)) for key in own}
        if any(theirs[key] is None or theirs[key].shape != own[key].shape for key in own):  # type: ignore[union-attr]
            raise CheckpointError(f"its tensors are not those of torchvision's {found}", option="lpips", value=weights)
        cast(nn.Module, network.net).load_state_dict({key: cast(Tensor, value) for key, value in theirs.items()})
        self._network = network.eval().to(self._device)

    @torch.inference_mode()
    def distances(
        self, first: UInt8[np.ndarray, "N H W 3"], second: UInt8[np.ndarray, "N H W 3"]
    ) -> Float64[np.ndarray, " N"]:
        """LPIPS of each image of ``first`` (RGB) and the same row of ``second``; 0 for equal images."""
        found = []
        for start in range(0, len(first), _BATCH):
            ours, theirs = (to_tensor(images[start : start + _BATCH], self._device) for images in (first, second))
            found.append(self._network(ours, theirs).flatten().double().cpu().numpy())
        return np.concatenate(found) if found else np.zeros(0)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError("no such file", option="lpips", value=path)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds of errors on corrupt bytes
        raise CheckpointError("not a readable weights file", option="lpips", value=path) from error
    if not isinstance(tensors, dict):
        raise CheckpointError("contains no table of tensors", option="lpips", value=path)
    return tensors
