"""Fine-tuning of a network's last stages: the first ones keep their pretrained weights, which makes a step cheaper."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.models import group_modules, group_parameters
from torch import nn

from dagaug.classifiers.backbones import Network, create_network, input_size_for
from dagaug.classifiers.recipes import Mode
from dagaug.runtime.errors import UsageError

__all__ = ["freeze_stages", "suitable_frozen_stages"]

_ANY_SIZE = 224  # px; the groups of layers do not depend on it
_TRAINED_ON_CPU = 2  # last stages that are trained on a CPU, besides the last layer; less than half the time of all


def suitable_frozen_stages(mode: Mode, name: str, device: str) -> int:
    """Number of first stages to freeze where the user names none: all but the last two on a CPU, else none.

    Args:
        mode: only fine-tuning freezes stages.
        name: of the network.
        device: type of the device, for example ``cpu``.

    Raises:
        UsageError: timm does not know the network.
    """
    if mode != "finetune" or device != "cpu" or name.startswith(("hf-hub:", "local-dir:")):
        return 0
    with torch.device("meta"):
        model = cast(Any, create_network(name, 2, input_size_for(name, _ANY_SIZE)).model)
    if not hasattr(model, "group_matcher"):
        return 0
    return max(len(_stages(model)) - _TRAINED_ON_CPU, 0)


def _stages(model: Any) -> list[Any]:
    """Names of timm's coarse groups of layers, without the last one, the head."""
    return sorted(group_parameters(model, model.group_matcher(coarse=True)))[:-1]


def freeze_stages(network: Network, count: int) -> None:
    """Freeze the first stages of a network in place: no gradients, and batch norm in evaluation mode.

    Args:
        network: a network in training mode; a later ``train()`` would set the statistics of batch norm free again.
        count: number of stages, timm's coarse groups of layers; the stem is the first one. 0 freezes nothing.

    Raises:
        UsageError: the network has fewer stages, the last layers not counted, or timm does not group its layers.
    """
    if not count:
        return
    model = cast(Any, network.model)
    if not hasattr(model, "group_matcher"):
        raise UsageError(f"{network.name} has no stages", option="frozen_stages", value=count)
    matcher = model.group_matcher(coarse=True)
    parameters, modules = group_parameters(model, matcher), group_modules(model, matcher)
    stages = _stages(model)
    if count > len(stages):
        raise UsageError(f"{network.name} has {len(stages)} stages", option="frozen_stages", value=count)
    for stage in stages[:count]:
        for name in parameters[stage]:
            model.get_parameter(name).requires_grad_(False)
        for name in modules.get(stage, ()):
            module: nn.Module = model.get_submodule(name)
            module.eval()
