"""Memory for decoded images: how much of it a command may hold, shared by all its images."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from dagaug.runtime.errors import UsageError
from dagaug.runtime.progress import Progress

__all__ = ["ImageCache", "Lease", "parse_size", "scratch_folder"]

_SHARE = 0.5  # of the memory that is available
_UNITS = {"K": 1, "M": 2, "G": 3, "T": 4}
_GROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def parse_size(text: str) -> int:
    """Bytes of a size such as ``2GB`` (powers of 1000), ``512MiB`` (powers of 1024) or ``0``.

    Raises:
        UsageError: it is no such size; the option is named ``cache``.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])(i?)B?", text.strip(), re.IGNORECASE)
    if found is None:
        if text.strip() == "0":
            return 0
        raise UsageError("give a number with MB or GB, for example 2GB", option="cache", value=text)
    number, unit, binary = found.groups()
    return round(float(number) * (1024 if binary else 1000) ** _UNITS[unit.upper()])


def scratch_folder() -> Path:
    """Folder for large temporary files: ``TMPDIR`` if it is set, else /var/tmp, since /tmp may lie in memory."""
    usual = Path("/var/tmp")
    if os.environ.get("TMPDIR") or not os.access(usual, os.W_OK):
        return Path(tempfile.gettempdir())
    return usual


def _available_memory() -> int:
    """Bytes that this process may still use, by the system and by its control group."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    if not found:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in _GROUP_LIMITS:
        with suppress(OSError, ValueError):  # there is no such file, or it holds "max"
            found.append(int(Path(path).read_text()))
    return min(found)


class ImageCache:
    """The memory that the decoded images of a command may take together. It does not change results.

    Can be pickled; the copy has the same limit and is empty.

    Args:
        limit: in bytes; None for half of the memory that is available at the first use.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._given, self._lock = limit, threading.Lock()
        self._wanted = self._taken = 0
        self._told = False

    @classmethod
    def of_size(cls, text: str | None) -> ImageCache:
        """A cache of a size as of :func:`parse_size`; None for the default."""
        return cls(None if text is None else parse_size(text))

    def __reduce__(self) -> tuple[type[ImageCache], tuple[int | None]]:
        return ImageCache, (self._given,)

    @cached_property
    def limit(self) -> int:
        """Bytes that may be taken."""
        return int(_SHARE * _available_memory()) if self._given is None else self._given

    def divided(self, parts: int) -> ImageCache:
        """The cache of each of several processes."""
        return ImageCache(self.limit // parts)

    def tell(self, progress: Progress) -> None:
        """Say once, in one line, that the cache does not hold all images that it is asked to hold."""
        if self._told or self._wanted <= self.limit:
            return
        self._told = True
        progress.say(
            f"Decoded images take up to {_written(self._wanted)}: {_written(self.limit)} are kept in memory, the "
            f"others in temporary files in {scratch_folder()} as far as there is room"
        )

    def _change(self, *, wanted: int = 0, taken: int = 0) -> None:
        with self._lock:
            self._wanted += wanted
            self._taken += taken

    def _take(self, count: int, each: int) -> int:
        with self._lock:
            granted = min(count, max(0, self.limit - self._taken) // max(each, 1))
            self._taken += granted * each
        return granted


class Lease:
    """What one set of images takes of a cache.

    Args:
        cache: the cache.
        count: number of images.
        each: bytes of an image.
    """

    def __init__(self, cache: ImageCache, count: int, each: int) -> None:
        self._cache, self._count, self._each, self._granted = cache, count, each, 0
        cache._change(wanted=count * each)

    def take(self) -> int:
        """Reserve memory for as many of the images as possible; returns their number."""
        self._granted = self._cache._take(self._count, self._each)
        return self._granted

    def release(self) -> None:
        """Give everything back."""
        self._cache._change(wanted=-self._count * self._each, taken=-self._granted * self._each)
        self._count = self._granted = 0


def _written(size: int) -> str:
    for bytes_of_unit, unit in ((1e9, "GB"), (1e6, "MB")):
        if size >= bytes_of_unit:
            return f"{size / bytes_of_unit:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"
