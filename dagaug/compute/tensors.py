"""Conversions between uint8 pixels and float tensors."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

__all__ = ["stacked_to_tensor", "to_bytes", "to_pixels", "to_tensor"]


def to_tensor(images: UInt8[np.ndarray, "B H W 3"], device: torch.device) -> Float[Tensor, "B 3 H W"]:
    """From bytes, channels last, to [-1, 1], channels first."""
    whole = np.ascontiguousarray(images)
    tensor = torch.from_numpy(whole if whole.flags.writeable else whole.copy())
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_bytes(images: Float[Tensor, "B 3 H W"]) -> UInt8[Tensor, "B H W 3"]:
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def stacked_to_tensor(images: UInt8[np.ndarray, "B H W 3"], device: torch.device) -> Float[torch.Tensor, "B 3 H W"]:
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(images: Float[Tensor, "*B 3 H W"]) -> UInt8[np.ndarray, "*B H W 3"]:
    """From [-1, 1], channels first, to bytes, channels last."""
    scaled = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return scaled.movedim(-3, -1).cpu().numpy()
