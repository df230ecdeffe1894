"""Torch devices: choosing them by name, bf16 where the hardware has it, and batches that fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from dagaug.runtime.errors import UsageError

__all__ = [
    "autocast",
    "batch_size_for",
    "computes_in_bf16",
    "last_bits",
    "pick_device",
    "pick_devices",
    "split_to_fit",
]

_Result = TypeVar("_Result")

_CPU_BATCH = 32  # larger batches do not fit into the caches and are not faster
_GREATEST_BATCH = 512
_TRIAL_BATCH = 8
_MEMORY_SHARE = 0.5  # of the free memory of a GPU


def pick_device(name: str, *, option: str = "device") -> torch.device:
    """The torch device of a name, if this machine has it.

    Args:
        name: ``auto`` (a CUDA GPU if there is one, else the CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or any other
            name of a torch device. ``gpu`` means ``cuda``.
        option: named in errors.

    Raises:
        UsageError: the name is not a device name, or this machine does not have the device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device("cuda" if name == "gpu" else name)
    except RuntimeError as error:
        choices = "choose auto, cpu, cuda, cuda:N, mps, or another torch device"
        raise UsageError(choices, option=option, value=name) from error
    if not _is_available(device):
        has = f"not on this machine, which has {torch.cuda.device_count()} CUDA GPUs"
        raise UsageError(f"{has}; choose auto or cpu", option=option, value=name)
    return device


def _is_available(device: torch.device) -> bool:
    if device.type == "cuda":  # counted, since a trial would take memory on the GPU
        return (device.index or 0) < torch.cuda.device_count()
    try:
        return torch.zeros(1, device=device).cpu().device.type == "cpu"
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        return False


def pick_devices(names: str | None, device: torch.device, *, every: bool) -> tuple[torch.device, ...]:
    """The devices for several trainings at once.

    Args:
        names: names of devices for :func:`pick_device`, separated by commas; a name given twice gets two processes.
        device: the only device if ``names`` is None.
        every: if ``names`` is None and ``device`` is a CUDA GPU, take all CUDA GPUs.

    Raises:
        UsageError: a name is not a device name, or this machine does not have the device.
    """
    if names is None:
        count = torch.cuda.device_count() if every and device.type == "cuda" else 0
        return tuple(torch.device("cuda", number) for number in range(count)) if count > 1 else (device,)
    return tuple(pick_device(name.strip(), option="devices") for name in names.split(","))


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device multiplies in bf16 itself, about twice as fast as in float32, rather than by emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def autocast(device: torch.device) -> torch.autocast:
    """A context that computes convolutions and matrix products in bf16 where :func:`computes_in_bf16` holds."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bf16(device))


def last_bits(device: torch.device) -> dict[str, object]:
    """What the last bits of a result depend on besides programs and inputs, as JSON values."""
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device)}
    kind = torch.backends.cpu.get_cpu_capability()
    return {"device": device.type, "processor": kind, "threads": torch.get_num_threads()}


def split_to_fit(compute: Callable[[int, int], _Result], start: int, stop: int, device: torch.device) -> list[_Result]:
    """``[compute(start, stop)]``; if memory runs out, the results of both halves, split further as needed.

    Raises:
        torch.OutOfMemoryError, MemoryError: the memory is too small for a single item.
    """
    try:
        return [compute(start, stop)]
    except (torch.OutOfMemoryError, MemoryError):
        if stop - start < 2:
            raise
    if device.type == "cuda":
        torch.cuda.empty_cache()
    middle = (start + stop) // 2
    return split_to_fit(compute, start, middle, device) + split_to_fit(compute, middle, stop, device)


def batch_size_for(device: torch.device, attempt: Callable[[int], None]) -> int:
    """The batch size that fills half of a GPU's free memory, a power of two up to 512; 32 on other devices.

    Args:
        device: where batches are computed.
        attempt: computes a batch of the given size; on a GPU it is called twice, to measure the memory per item.
    """
    if device.type != "cuda":
        return _CPU_BATCH
    attempt(_TRIAL_BATCH)  # libraries load and choose their algorithms
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    attempt(_TRIAL_BATCH)
    per_item = max((torch.cuda.max_memory_allocated(device) - before) / _TRIAL_BATCH, 1.0)
    free, _ = torch.cuda.mem_get_info(device)
    fits = int(_MEMORY_SHARE * free / per_item)
    return max(min(1 << max(fits, 1).bit_length() - 1, _GREATEST_BATCH), _TRIAL_BATCH)
