"""Reuse of freed memory: fewer requests to the operating system, so that steps on a CPU take less time."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_KEPT = 1 << 30  # bytes; larger arrays are still returned at once


def keep_freed_memory() -> bool:
    """Make glibc keep up to 1 GB of freed memory for the process's next arrays.

    By default glibc returns large arrays to the system as soon as they are freed, and the system clears each page that
    it hands out again. A training step allocates the same arrays again and again; on a virtual machine a quarter of its
    time went into clearing pages (tests/benchmarks/test_speed.py). In return the process may hold that much more memory
    than it uses.

    Returns:
        Whether the setting was accepted; False on systems without glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has none
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _KEPT) and mallopt(_TRIM_THRESHOLD, _KEPT))
