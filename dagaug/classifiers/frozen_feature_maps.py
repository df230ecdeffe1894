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

from dagaug.classifiers.backbones import LITE0, PLAIN, Network
from dagaug.classifiers.folded_batch_norm import fold_batch_norm
from dagaug.classifiers.pretrained_networks import build_pretrained
from dagaug.runtime.errors import UsageError

__all__ = ["FeatureExtractor", "build_extractor", "joined"]

_LITE0_LAYERS = ("blocks.4", "blocks.5", "blocks.6")
_COARSEST = 16  # stride in pixels from which a layer's features carry meaning rather than edges


class FeatureExtractor(nn.Module):
    """Feature maps of some layers of a frozen network.

    Args:
        network: a timm network; it is put into evaluation mode, its weights are frozen, and its batch norms are folded
            into its convolutions.
        layers: names of the modules whose outputs are read, or numbers of timm's intermediate maps (blocks of a vision
            transformer, stages of other networks).

    Attributes:
        layers: as given.
        channels: channels of each layer's map.
    """

    def __init__(self, network: Network, layers: Sequence[str | int]) -> None:
        super().__init__()
        # Channels last was measured on one CPU core: EfficientNet-Lite0 reads 384 px in 84 ms instead of 121.
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._sha256 = _hash_weights(network.model)
        fold_batch_norm(self.network, network.input_size)
        self.layers = tuple(layers)
        self._maps: dict[str, Tensor] = {}
        modules = dict(network.model.named_modules())
        for name in self.layers:
            if isinstance(name, str):
                modules[name].register_forward_hook(partial(_keep, self._maps, name))
        with torch.inference_mode():
            side = network.input_size
            self.channels = tuple(found.shape[1] for found in self(torch.zeros(1, 3, side, side)))
        self.register_state_dict_post_hook(_without_weights)
        self.register_load_state_dict_post_hook(_without_missing)

    def train(self, mode: bool = True) -> FeatureExtractor:
        """The network stays in evaluation mode."""
        del mode
        return super().train(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureExtractor:
        """The same object: its weights never change."""
        return self

    def sha256(self) -> str:
        """Hash (hexadecimal) of the network's weights, as they were given."""
        return self._sha256

    def identity(self) -> dict[str, object]:
        """What the maps depend on besides the images, as JSON values."""
        network = self.network
        norm = [buffer.flatten().tolist() for buffer in (network.mean, network.std)]
        return {
            "name": network.name, "weights": self.sha256(), "layers": self.layers, "size": network.input_size,
            "norm": norm,
        }  # fmt: skip

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """The maps of images in [-1, 1], in the order of the layers; each is channels × height × width."""
        prepared = self.network.prepare(images).contiguous(memory_format=torch.channels_last)
        model = cast(Any, self.network.model)
        numbers = [layer for layer in self.layers if isinstance(layer, int)]
        if numbers:  # timm leaves out prefix tokens and puts the channels first
            norm = _is_transformer(model)
            return list(model.forward_intermediates(prepared, numbers, norm=norm, intermediates_only=True))
        model.forward_features(prepared)
        return [self._maps.pop(str(name)) for name in self.layers]


def _hash_weights(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _without_weights(module: nn.Module, tensors: dict[str, Tensor], prefix: str, metadata: object) -> None:
    """State dicts leave the frozen weights out; models name them by their hash."""
    del module, metadata
    for name in [name for name in tensors if name.startswith(prefix + "network.")]:
        del tensors[name]


def _without_missing(module: nn.Module, incompatible: Any) -> None:
    own = {f"network.{name}" for name in cast(Any, module).network.state_dict()}
    missing = incompatible.missing_keys
    missing[:] = [key for key in missing if not any(key.endswith(name) for name in own)]


def _keep(maps: dict[str, Tensor], name: str, module: nn.Module, inputs: object, output: Tensor) -> None:
    del module, inputs
    maps[name] = output


def _is_transformer(model: nn.Module) -> bool:
    return hasattr(model, "num_prefix_tokens")


def build_extractor(
    name: str = LITE0, *, input_size: int = 384, weights: Path | None = None, pretrained: bool = True
) -> FeatureExtractor:
    """Build a frozen network and choose the layers that find corresponding parts best.

    EfficientNet-Lite0: its last three stages (measured, examples/experiments.md). Other convolutional networks: every
    stage of stride 16 and more. Vision transformers: the blocks at two thirds of the depth and at its end.

    Args:
        name: any name of :func:`dagaug.classifiers.pretrained_networks.build_pretrained`.
        input_size: side in pixels to which images are resized; rounded to a multiple of a transformer's patch size.
        weights: a file of weights in place of those that belong to the name.
        pretrained: False for random weights, which find nothing; for tests.

    Raises:
        UsageError: the network is unknown, or has no maps to read.
        CheckpointError: its weights cannot be fetched or read, or do not fit.
    """
    if name == PLAIN:
        raise _without_maps(name)
    network = build_pretrained(name, input_size=input_size, weights=weights, pretrained=pretrained)
    return FeatureExtractor(network, _LITE0_LAYERS if name == LITE0 else _layers_of(name, network))


def _layers_of(name: str, network: Network) -> tuple[int, ...]:
    model = cast(Any, network.model)
    if not hasattr(model, "forward_intermediates"):
        raise _without_maps(name)
    if _is_transformer(model):
        depth = len(model.blocks)
        return tuple(sorted({max(0, 2 * depth // 3 - 1), depth - 1}))
    deep = tuple(row for row, stage in enumerate(model.feature_info) if stage["reduction"] >= _COARSEST)
    if not deep:
        raise _without_maps(name)
    return deep


def _without_maps(name: str) -> UsageError:
    return UsageError(
        "has no feature maps that can be read; choose a convolutional network or a ViT", option="features", value=name
    )


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
