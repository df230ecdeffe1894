"""LPIPS (Zhang et al. 2018), by torchmetrics, where the ImageNet weights of its network are at hand.

torchmetrics carries the few weights that LPIPS itself learned; those of the network below are a file of torchvision's,
which torchmetrics would download. Nothing is downloaded here: the file is named, or lies where torch keeps downloads.
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
"""torchvision's names of the files, in the order in which they are looked for; AlexNet is the usual one."""

_Net = Literal["alex", "vgg", "squeeze"]


_TELLING: tuple[tuple[str, _Net], ...] = (
    ("features.3.squeeze.weight", "squeeze"),
    ("features.28.weight", "vgg"),
    ("features.10.weight", "alex"),
)
"""A tensor that only this network and those below it have."""

_BATCH = 64


def find_weights() -> Path | None:
    """A file that an earlier download of torch's left on this machine."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


class Lpips:
    """Distances of pairs of images as LPIPS sees them.

    Args:
        weights: torchvision's ImageNet weights of AlexNet, VGG16 or SqueezeNet 1.1.
        device: where it computes.

    Attributes:
        name: which of the three.

    Raises:
        CheckpointError: the file is missing, corrupt, or for another network.
    """

    def __init__(self, weights: Path, device: torch.device | str = "cpu") -> None:
        tensors = _read(weights)
        found = next((name for key, name in _TELLING if key in tensors), None)
        if found is None:
            raise CheckpointError(
                f"--lpips {weights}: not torchvision's weights of AlexNet, VGG16 or SqueezeNet 1.1 ({', '.join(FILES)})"
            )
        self.name: str = found
        self._device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            network = _LPIPS(pretrained=True, net=found, pnet_rand=True)
        own = cast(nn.Module, network.net).state_dict()
        # torchmetrics cuts torchvision's `features` into slices but keeps their numbers: slice2.3.bias, slices.1.3.bias
        theirs = {key: tensors.get(re.sub(r"^slices?\.?\d+", "features", key)) for key in own}
        if any(theirs[key] is None or theirs[key].shape != own[key].shape for key in own):  # type: ignore[union-attr]
            raise CheckpointError(f"--lpips {weights}: its tensors are not those of torchvision's {found}")
        cast(nn.Module, network.net).load_state_dict({key: cast(Tensor, value) for key, value in theirs.items()})
        self._network = network.eval().to(self._device)

    @torch.inference_mode()
    def distances(
        self, first: UInt8[np.ndarray, "N H W 3"], second: UInt8[np.ndarray, "N H W 3"]
    ) -> Float64[np.ndarray, " N"]:
        """LPIPS of each image of ``first`` and its neighbour in ``second``; 0 for equal ones."""
        found = []
        for start in range(0, len(first), _BATCH):
            ours, theirs = (to_tensor(images[start : start + _BATCH], self._device) for images in (first, second))
            found.append(self._network(ours, theirs).flatten().double().cpu().numpy())
        return np.concatenate(found) if found else np.zeros(0)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"--lpips {path}: no such file")
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        raise CheckpointError(f"--lpips {path}: not a readable weights file") from error
    if not isinstance(tensors, dict):
        raise CheckpointError(f"--lpips {path}: holds no table of tensors")
    return tensors
