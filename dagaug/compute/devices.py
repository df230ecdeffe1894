"""Where networks compute in bf16: on processors that multiply in it, about twice as fast as in 32 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from dagaug.runtime.errors import UsageError

__all__ = ["autocast", "batch_size_for", "computes_in_bf16", "fitting", "pick_device", "pick_devices"]


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device itself multiplies in bf16, and does not merely emulate it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def autocast(device: torch.device) -> torch.autocast:
    """A context in which convolutions and products are computed in bf16 where the device does that."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bf16(device))


def pick_devices(text: str | None, device: torch.device, *, every: bool) -> tuple[torch.device, ...]:
    """The devices to train on.

    Args:
        text: their names with commas between them; a name may come several times, for as many processes.
        device: the one to use if there is no text.
        every: take all visible GPUs instead, where ``device`` is one and there are several.

    Raises:
        UsageError: this machine has none such.
    """
    if text is None:
        count = torch.cuda.device_count() if every and device.type == "cuda" else 0
        return tuple(torch.device("cuda", number) for number in range(count)) if count > 1 else (device,)
    found = []
    for name in text.split(","):
        try:
            one = torch.device(name.strip())
        except RuntimeError as error:
            named = f"--devices {text}: {name.strip()!r}"
            raise UsageError(f"{named} is no device; write cuda:0,cuda:1 or cpu,cpu") from error
        if one.type != "cpu" and not (one.type == "cuda" and (one.index or 0) < torch.cuda.device_count()):
            raise UsageError(f"--devices {text}: {one} is not on this machine; it has {torch.cuda.device_count()} GPUs")
        found.append(one)
    return tuple(found)


_CPU_BATCH = 32  # larger ones leave the caches and gain nothing


_MOST = 512


_SHARE = 0.5  # of the free memory of a GPU

_Result = TypeVar("_Result")


def pick_device(name: str) -> torch.device:
    """The device of that name; ``auto`` takes a GPU where there is one.

    Raises:
        UsageError: this machine has none such.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name in ("cuda", "gpu") and torch.cuda.is_available():
        return torch.device("cuda")
    if name == "cpu":
        return torch.device("cpu")
    raise UsageError(f"--device {name}: not on this machine; choose auto or cpu")


def fitting(compute: Callable[[int, int], _Result], start: int, stop: int, device: torch.device) -> list[_Result]:
    """``compute(start, stop)``; where memory does not suffice, its halves."""
    try:
        return [compute(start, stop)]
    except (torch.OutOfMemoryError, MemoryError):
        if stop - start < 2:
            raise
    if device.type == "cuda":
        torch.cuda.empty_cache()
    middle = (start + stop) // 2
    return fitting(compute, start, middle, device) + fitting(compute, middle, stop, device)


def batch_size_for(device: torch.device, attempt: Callable[[int], None]) -> int:
    """Candidates to compute at a time: what half of a GPU's free memory holds, by what few of them took.

    Args:
        device: where they are computed.
        attempt: computes so many.
    """
    if device.type != "cuda":
        return _CPU_BATCH
    few = 8
    attempt(few)  # libraries load and choose their algorithms
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    attempt(few)
    each = max((torch.cuda.max_memory_allocated(device) - before) / few, 1.0)
    free, _ = torch.cuda.mem_get_info(device)
    fits = int(_SHARE * free / each)
    return max(min(1 << max(fits, 1).bit_length() - 1, _MOST), few)
