"""Networks with pretrained weights by timm's names: from timm's hub, any hub repository, a local folder or a file.

timm fetches weights of plain names, of names with a tag (``vit_small_patch14_dinov2.lvd142m``) and of
``hf-hub:OWNER/NAME`` from the hub, and keeps them in the hub's cache. ``local-dir:FOLDER`` reads config.json and
model.safetensors of a folder, as ``timm.models.save_for_hf`` writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import timm
import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import logging as hub_logging
from torch import Tensor, nn

from dagaug.classifiers.backbones import (
    LITE0,
    Network,
    build,
    close_names,
    create_network,
    first_line,
    input_size_for,
    load_weights,
    read_weights,
)
from dagaug.runtime.errors import CheckpointError, DagaugError, UsageError

__all__ = ["absolute_name", "build_pretrained", "check_name", "create_again", "licence_of", "names_weights"]

_SOURCES = ("hf-hub:", "local-dir:")
_FOLDER = "local-dir:"
_LICENCES = {LITE0: "Apache-2.0; trained on ImageNet, whose images are for non-commercial research"}
_OF_FEATURES = {"weights": "feature_weights", "classifier": "features"}
_OF_CLASSIFIERS = {own: others for others, own in _OF_FEATURES.items()}
_REMEDIES = {"feature_weights": "FILE", "features": f"{_FOLDER}FOLDER"}


def create_again(name: str, num_classes: int, input_size: int) -> Network:
    """Create a network with random weights for the weights of one that was saved; arguments as of that one."""
    if name.startswith(_SOURCES):
        return build_pretrained(name, num_classes, input_size=input_size, pretrained=False)
    return create_network(name, num_classes, input_size)


def absolute_name(name: str) -> str:
    """A network's name with the full path of its folder, if it names one."""
    return f"{_FOLDER}{Path(name.removeprefix(_FOLDER)).absolute()}" if name.startswith(_FOLDER) else name


def licence_of(network: Network, weights: Path | None) -> str:
    """Licence of a network's weights, for display; nothing is known about a file of weights."""
    if weights is None:
        known = _LICENCES.get(network.name) or cast(Any, network.model).pretrained_cfg.get("license")
        if known:
            return str(known)
    return "unknown; see the source of the weights"


def build_pretrained(
    name: str,
    num_classes: int = 0,
    *,
    input_size: int,
    weights: Path | None = None,
    pretrained: bool = True,
    for_features: bool = True,
) -> Network:
    """Build a network with a classifier layer of random weights, or none, in evaluation mode.

    Networks with a fixed grid (vision transformers) are built for the multiple of their patch size that is nearest to
    ``input_size``; timm resamples their tables of positions.

    Args:
        name: ``lite0``; a timm name with or without a tag; ``hf-hub:OWNER/NAME``; ``local-dir:FOLDER``.
        num_classes: number of logits; 0 for pooled features instead of logits.
        input_size: side in pixels to which images are resized.
        weights: a .safetensors file or a torch state dict, in place of the weights that belong to the name.
        pretrained: False for random weights.
        for_features: whether errors name the options of frozen features; if not, those of the classifier.

    Raises:
        UsageError: the network is unknown, or cannot take images of this size.
        CheckpointError: the weights cannot be fetched or read, or are those of another network.
        MissingExtraError: the package with the weights of ``lite0`` is not installed.
    """
    with _options_named(_OF_FEATURES if for_features else _OF_CLASSIFIERS):
        if name == LITE0:
            return build(LITE0, num_classes, size=input_size, weights=weights)
        check_name(name)
        with torch.device("meta"):
            outline = _create(name, pretrained=False, num_classes=0)
        side, grid = _fitting_size(outline, input_size_for(name, input_size))
        if weights is not None:
            model = _with_weights(name, outline, read_weights(weights), weights, grid)
        else:
            model = _create(name, pretrained=pretrained, **grid)
        cast(Any, model).reset_classifier(num_classes)
        return Network(name, model.eval(), side)


@contextmanager
def _options_named(names: Mapping[str, str]) -> Iterator[None]:
    """Replace the names of options in errors."""
    try:
        yield
    except DagaugError as error:
        error.option = names.get(error.option, error.option)
        error.remedies = {names.get(option, option): value for option, value in error.remedies.items()}
        raise


def names_weights(name: str) -> bool:
    """Whether a name stands for certain weights: a hub's repository, a folder, or a timm name with a tag."""
    return name.startswith(_SOURCES) or "." in name


def check_name(name: str, *, for_features: bool = True) -> None:
    """Check a network's name without building it.

    Raises:
        UsageError: timm knows neither the network nor its tag.
    """
    if name == LITE0 or name.startswith(_SOURCES):
        return
    with _options_named(_OF_FEATURES if for_features else _OF_CLASSIFIERS):
        _check_known(name)


def _check_known(name: str) -> None:
    if not timm.is_model(name):
        raise UsageError(
            f"timm has no model of this name; {close_names(name)}; other sources: hf-hub:OWNER/NAME, {_FOLDER}FOLDER",
            option="features", value=name,
        )  # fmt: skip
    architecture, dot, tag = name.partition(".")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if dot and tag not in tags:
        raise UsageError(
            f"timm has no weights of this tag; tags of {architecture}: {', '.join(tags) or 'none'}",
            option="features", value=name,
        )  # fmt: skip


def _fitting_size(outline: nn.Module, input_size: int) -> tuple[int, dict[str, Any]]:
    """The side of the input that a network can take, and how to build it for that side."""
    config, model = cast(Any, outline).pretrained_cfg, cast(Any, outline)
    fixed = bool(config.get("fixed_input_size"))
    if not fixed and not hasattr(model, "num_prefix_tokens"):
        return input_size, {}
    step = max((int(stage["reduction"]) for stage in getattr(model, "feature_info", [])), default=1)
    side = max(round(input_size / step), 1) * step
    return side, {"img_size": side} if fixed else {}


def _create(name: str, **options: Any) -> nn.Module:
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()  # no warning at each try: the error says it once
    try:
        return cast(nn.Module, timm.create_model(name, **options))
    except Exception as error:  # timm, the hub and readers of weights raise errors of many types
        raise _explained(error, name) from error
    finally:
        hub_logging.set_verbosity(verbosity)


def _explained(error: Exception, name: str) -> DagaugError:
    fetched = not name.startswith(_FOLDER)
    if isinstance(error, LocalEntryNotFoundError) or (fetched and isinstance(error, ConnectionError | TimeoutError)):
        reason = "the hub cannot be reached, and its cache on this machine does not hold them"
    elif isinstance(error, GatedRepoError):
        reason = "the hub asks to accept their licence first"
    elif isinstance(error, RepositoryNotFoundError):
        reason = "the hub has no such repository, or it is private"
    elif isinstance(error, HfHubHTTPError) or (fetched and isinstance(error, OSError)):
        reason = first_line(error)
    elif "No pretrained weights" in str(error):
        reason = "there are none on the hub"
    elif isinstance(error, OSError | KeyError) or "checkpoints found" in str(error):
        return CheckpointError(
            f"holds no network that timm saved (config.json and model.safetensors): {first_line(error)}",
            option="features",
            value=name,
        )
    elif "state_dict" in str(error):
        return CheckpointError("its weights are those of another network", option="features", value=name)
    else:
        return UsageError(f"timm cannot build it ({first_line(error)})", option="features", value=name)
    return CheckpointError(
        f"its weights cannot be fetched: {reason}", remedies=_REMEDIES, option="features", value=name
    )


def _with_weights(
    name: str, outline: nn.Module, tensors: Mapping[str, Tensor], file: Path, grid: dict[str, Any]
) -> nn.Module:
    """A network with the weights of a file; a classifier layer in it is ignored."""
    own = outline.state_dict()
    head = cast(Any, outline).pretrained_cfg.get("classifier") or ()
    prefixes = tuple(f"{layer}." for layer in ((head,) if isinstance(head, str) else head))
    kept = {key: tensor for key, tensor in tensors.items() if key in own or not key.startswith(prefixes)}
    # With 0 classes on both sides timm loads strictly, after it has resampled the tables of positions.
    overlay = {"state_dict": dict(kept), "source": None, "num_classes": 0, "label_offset": 0}
    try:
        options: dict[str, Any] = {"pretrained_cfg_overlay": overlay, **grid}
        model: Any = timm.create_model(name, pretrained=True, num_classes=0, **options)
    except Exception as error:  # also from timm's conversions of old formats
        load_weights(outline, kept, file)  # counts what does not fit
        raise CheckpointError(
            f"made for another network ({first_line(error)})", option="weights", value=file
        ) from error
    model.pretrained_cfg.pop("state_dict", None)
    return cast(nn.Module, model)
