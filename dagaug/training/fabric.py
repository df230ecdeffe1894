"""Lightning Fabric for a training: one device, and its precision."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators import CPUAccelerator
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies import SingleDeviceStrategy

from dagaug.compute.devices import computes_in_bf16, pick_device
from dagaug.runtime.errors import UsageError
from dagaug.training.options import check_precision

__all__ = ["best_precision", "make_fabric"]


class _Autocast(MixedPrecision):
    """Mixed precision that does not convert inputs: pixels and sampling grids need more than the 8 bits of bf16."""

    def convert_input(self, data: Any) -> Any:
        return data


class _AnyAccelerator(CPUAccelerator):
    """Lets Fabric use a torch device that it has no accelerator for; the device needs no setup."""

    def setup_device(self, device: torch.device) -> None:
        pass


def best_precision(device: torch.device) -> Literal["bf16-mixed", "32-true"]:
    """bf16 where the device computes in it, else float32."""
    return "bf16-mixed" if computes_in_bf16(device) else "32-true"


def make_fabric(device: str, precision: str) -> Fabric:
    """Fabric on one device.

    Args:
        device: a name for :func:`dagaug.compute.devices.pick_device`.
        precision: auto, 32-true, bf16-mixed or 16-mixed.

    Raises:
        UsageError: the precision is unknown, or this machine does not have the device.
    """
    check_precision(precision)
    picked = pick_device(device)
    chosen = best_precision(picked) if precision == "auto" else precision
    plugins: Any = None if chosen == "32-true" else [_Autocast(chosen, picked.type)]  # type: ignore[arg-type]
    try:
        if picked.type in ("cpu", "cuda", "mps"):
            devices = [picked.index or 0] if picked.type == "cuda" else 1
            return Fabric(accelerator=picked.type, devices=devices, plugins=plugins)
        return Fabric(accelerator=_AnyAccelerator(), strategy=SingleDeviceStrategy(picked), plugins=plugins)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"training cannot use it ({error})", option="device", value=device) from error
