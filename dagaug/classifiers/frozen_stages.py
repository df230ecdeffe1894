"""Fine-tuning of a network's last stages: the first ones keep their pretrained weights, which makes a step cheaper."""

from __future__ import annotations

from typing import Any, cast

from timm.models import group_modules, group_parameters
from torch import nn

from dagaug.classifiers.backbones import Network
from dagaug.runtime.errors import UsageError

__all__ = ["freeze_stages"]


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
    stages = sorted(parameters)[:-1]  # the last group is the head
    if count > len(stages):
        raise UsageError(f"{network.name} has {len(stages)} stages", option="frozen_stages", value=count)
    for stage in stages[:count]:
        for name in parameters[stage]:
            model.get_parameter(name).requires_grad_(False)
        for name in modules.get(stage, ()):
            module: nn.Module = model.get_submodule(name)
            module.eval()
