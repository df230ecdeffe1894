"""Batch norm of frozen layers folded into the convolutions before it: the same numbers with less work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["fold_batch_norm", "folded_frozen_layers"]

_TOLERANCE = 1e-3  # of the largest output; folding rounds in another order


def fold_batch_norm(module: nn.Module, size: int) -> Callable[[], None]:
    """Fold frozen batch norms of a network into the convolutions whose outputs they read, in place.

    Only batch norms in evaluation mode without gradients are folded. If the network's output changes by more than
    rounding, nothing is folded: a convolution's output may be used twice.

    Args:
        module: takes images (1 × 3 × size × size) in [-1, 1] and returns one tensor.
        size: side of the images in pixels.

    Returns:
        A function that puts the original layers back.
    """
    modes = {part: part.training for part in module.modules()}
    weight = next(module.parameters())
    image = torch.linspace(-3, 3, 3 * size * size, device=weight.device, dtype=weight.dtype).sin()
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    with torch.no_grad(), _evaluating(module):
        with _watching(module, pairs, frozen={part for part, training in modes.items() if not training}):
            before: Float[Tensor, "1 ..."] = module(image.view(1, 3, size, size))
        if not pairs:
            return lambda: None
        undo = _replace(module, pairs)
        after: Float[Tensor, "1 ..."] = module(image.view(1, 3, size, size))
    if (after - before).abs().max() > _TOLERANCE * before.abs().max():
        undo()
        return lambda: None
    return undo


@contextmanager
def folded_frozen_layers(module: nn.Module, size: int) -> Iterator[None]:
    """Fold the frozen batch norms of a network while it trains (:func:`fold_batch_norm`), and restore them after it."""
    undo = fold_batch_norm(module, size)
    try:
        yield
    finally:
        undo()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def _watching(
    module: nn.Module, pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]], *, frozen: set[nn.Module]
) -> Iterator[None]:
    """Add to ``pairs`` each frozen batch norm with the convolution whose output it reads."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # tensors are kept, so that no identity is used again

    def after_convolution(layer: nn.Module, inputs: object, output: Tensor) -> None:
        del inputs
        outputs[id(output)] = cast(nn.Conv2d, layer), output

    def before_norm(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found = outputs.get(id(inputs[0]))
        if found is not None and not any(layer is norm or found[0] is conv for conv, norm in pairs):
            pairs.append((found[0], cast(nn.BatchNorm2d, layer)))

    hooks = []
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            hooks.append(part.register_forward_hook(after_convolution))
        elif isinstance(part, nn.BatchNorm2d) and part in frozen and not any(
            one.requires_grad for one in part.parameters()
        ):  # fmt: skip
            hooks.append(part.register_forward_pre_hook(before_norm))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _replace(module: nn.Module, pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]]) -> Callable[[], None]:
    """Put the folded layers in place of the pairs, and return a function that puts the pairs back."""
    places = {part: (parent, name) for parent in module.modules() for name, part in parent.named_children()}
    originals: list[tuple[nn.Module, str, nn.Module]] = []
    for conv, norm in pairs:
        frozen = not any(one.requires_grad for one in conv.parameters())
        if not frozen or norm.running_mean is None or conv not in places or norm not in places:
            continue
        folded = fuse_conv_bn_eval(conv, norm).requires_grad_(False)
        if conv.weight.is_contiguous(memory_format=torch.channels_last):
            folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        rest = nn.Sequential(*(part for part in norm.children() if not isinstance(part, nn.Identity)))
        rest.train(norm.training)  # timm's batch norm has its activation inside
        for layer, new in ((conv, folded), (norm, rest)):
            parent, name = places[layer]
            originals.append((parent, name, layer))
            setattr(parent, name, new)

    def undo() -> None:
        for parent, name, layer in originals:
            setattr(parent, name, layer)

    return undo
