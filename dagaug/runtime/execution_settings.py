"""How a command runs on this machine: device, threads, reaction to unreadable images, progress, cache, memory."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from dagaug.runtime.errors import UsageError
from dagaug.runtime.image_cache import ImageCache
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["Execution"]

_MAX_THREADS = 8


@dataclass(frozen=True)
class Execution:
    """How a command runs on this machine; it does not change the results, but devices round differently.

    Attributes:
        device: name of the torch device, as for :func:`dagaug.compute.devices.pick_device`; ``auto`` takes a CUDA GPU
            if there is one, else the CPU.
        workers: number of threads that read and write images; None for one per processor, at most 8.
        strict: raise the error of an unreadable image, instead of skipping the image.
        progress: receives counts and messages.
        cache: folder that keeps masks and frozen features for later calls
            (:class:`dagaug.runtime.disk_cache.DiskCache`); None computes them anew.
        memory: for decoded images; by default half of what is available.

    Raises:
        UsageError: ``workers`` is below 1.
    """

    device: str = "auto"
    workers: int | None = None
    strict: bool = False
    progress: Progress = SILENT
    cache: Path | None = None
    memory: ImageCache = field(default_factory=ImageCache, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError("give at least 1", option="workers", value=self.workers)

    @property
    def threads(self) -> int:
        """Number of threads that read and write images."""
        return self.workers or min(_MAX_THREADS, os.cpu_count() or 1)
