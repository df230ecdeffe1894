"""Feature maps of a frozen, pretrained timm network: E of the paper's Sec. 3.1.

The paper leaves the encoder E open. On photographs a network that was pretrained on ImageNet finds corresponding parts
of two objects at once, which training on a few hundred images does not (examples/experiments.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dagaug.classifiers.backbones import LITE0, Network, build
from dagaug.runtime.errors import UsageError

__all__ = ["FeatureExtractor", "build_extractor", "joined"]

_LITE0_LAYERS = ("blocks.4", "blocks.5", "blocks.6")
_COARSEST = 16  # stride in pixels from which a layer's features carry meaning rather than edges


class FeatureExtractor(nn.Module):
    """Feature maps of some layers of a frozen network.

    Args:
        network: a timm network; it is put into evaluation mode and its weights are frozen.
        layers: names of the modules whose outputs are read; for a vision transformer numbers of its blocks.

    Attributes:
        layers: as given.
        channels: channels of each layer's map.
    """

    def __init__(self, network: Network, layers: Sequence[str]) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.layers = tuple(layers)
        self._maps: dict[str, Tensor] = {}
        if not _is_transformer(network.model):
            modules = dict(network.model.named_modules())
            for name in self.layers:
                modules[name].register_forward_hook(partial(_keep, self._maps, name))
        with torch.inference_mode():
            side = network.input_size
            self.channels = tuple(found.shape[1] for found in self(torch.zeros(1, 3, side, side)))

    def sha256(self) -> str:
        """Hash (hexadecimal) of the network's weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.model.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """The maps of images in [-1, 1], in the order of the layers; each is channels × height × width."""
        prepared = self.network.prepare(images)
        model = cast(Any, self.network.model)
        if _is_transformer(model):
            indices = [int(layer) for layer in self.layers]
            return list(model.forward_intermediates(prepared, indices, norm=True, intermediates_only=True))
        model.forward_features(prepared)
        maps = [self._maps.pop(name) for name in self.layers]
        return [found.permute(0, 3, 1, 2) if _channels_behind(model) else found for found in maps]


def _keep(maps: dict[str, Tensor], name: str, module: nn.Module, inputs: object, output: Tensor) -> None:
    del module, inputs
    maps[name] = output


def _is_transformer(model: nn.Module) -> bool:
    return hasattr(model, "num_prefix_tokens") and hasattr(model, "forward_intermediates")


def _channels_behind(model: nn.Module) -> bool:
    return getattr(model, "output_fmt", "NCHW") == "NHWC"


def build_extractor(name: str = LITE0, *, input_size: int = 384, weights: Path | None = None) -> FeatureExtractor:
    """Build a frozen network and choose the layers that find corresponding parts best.

    EfficientNet-Lite0: its last three stages (measured, examples/experiments.md). Other convolutional networks: every
    stage of stride 16 and more. Vision transformers: the blocks at two thirds of the depth and at its end.

    Args:
        name: any timm name, or ``lite0``.
        input_size: side in pixels to which images are resized.
        weights: a file of weights, as in :func:`dagaug.classifiers.backbones.build`.

    Raises:
        UsageError: the network is unknown, or has no maps to read.
    """
    network = build(name, 0, size=input_size, weights=weights)
    return FeatureExtractor(network, _LITE0_LAYERS if name == LITE0 else _layers_of(name, network))


def _layers_of(name: str, network: Network) -> tuple[str, ...]:
    model = cast(Any, network.model)
    if _is_transformer(model):
        depth = len(model.blocks)
        return tuple(str(index) for index in sorted({max(0, 2 * depth // 3 - 1), depth - 1}))
    stages = [stage for stage in getattr(model, "feature_info", []) if "module" in stage]
    deep = tuple(str(stage["module"]) for stage in stages if stage["reduction"] >= _COARSEST)
    if not deep:
        raise UsageError(
            "has no feature maps that can be read; choose a convolutional network or a ViT",
            option="features",
            value=name,
        )
    return deep


def joined(
    maps: Sequence[Float[Tensor, "B _ _ _"]],
    means: Sequence[Float[Tensor, " _"]],
    deviations: Sequence[Float[Tensor, " _"]],
    weights: Sequence[float],
    grid: int,
) -> Float[Tensor, "B C {grid} {grid}"]:
    """Maps of several layers as one map of unit vectors.

    Each channel is standardised, each layer resized to the grid and scaled to unit length at every cell; a layer's
    share of the cosine similarity of two cells is its weight over the sum of the weights.

    Args:
        maps: of each layer.
        means, deviations: of each layer's channels over the training images.
        weights: of each layer.
        grid: side of the result in cells.
    """
    pieces = []
    for found, mean, deviation, weight in zip(maps, means, deviations, weights, strict=True):
        standard = (found.float() - mean[:, None, None]) / deviation[:, None, None]
        resized = F.interpolate(standard, (grid, grid), mode="bilinear", align_corners=False)
        pieces.append(F.normalize(resized, dim=1) * weight**0.5)
    return F.normalize(torch.cat(pieces, 1), dim=1)
