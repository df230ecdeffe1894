"""Where networks compute in bf16: on processors that multiply in it, about twice as fast as in 32 bits."""

from __future__ import annotations

import torch

__all__ = ["autocast", "computes_in_bf16"]


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device itself multiplies in bf16, and does not merely emulate it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def autocast(device: torch.device) -> torch.autocast:
    """A context in which convolutions and products are computed in bf16 where the device does that."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bf16(device))
