"""Conversions between uint8 pixels in [0, 255] and float tensors in [-1, 1].

On disk and in NumPy, images are uint8 RGB with channels last (HWC). In networks they are float with channels first
(NCHW) in [-1, 1].
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

__all__ = ["quantize", "scale_pixels", "to_bytes", "to_pixels", "to_tensor"]


def scale_pixels(pixels: UInt8[Tensor, "*shape"] | Float32[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """From [0, 255] to [-1, 1], in any layout."""
    return pixels.float() / 127.5 - 1


def quantize(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """From [-1, 1] to [0, 255], rounded and clamped, in any layout."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_tensor(images: UInt8[np.ndarray, "B H W 3"], device: torch.device) -> Float32[Tensor, "B 3 H W"]:
    """Pixels as a tensor on a device, in [-1, 1]; channels first in the shape, channels last in memory."""
    contiguous = np.ascontiguousarray(images)
    tensor = torch.from_numpy(contiguous if contiguous.flags.writeable else contiguous.copy())
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # so that the copy does not block
    return scale_pixels(tensor.to(device, non_blocking=True).permute(0, 3, 1, 2))


def to_bytes(images: Float[Tensor, "B 3 H W"]) -> UInt8[Tensor, "B H W 3"]:
    """Images in [-1, 1] as pixels that stay on their device."""
    return quantize(images).permute(0, 2, 3, 1)


def to_pixels(images: Float[Tensor, "*B 3 H W"]) -> UInt8[np.ndarray, "*B H W 3"]:
    """Images in [-1, 1] as pixels in NumPy."""
    return quantize(images).movedim(-3, -1).cpu().numpy()
