"""Marks of folders that dagaug wrote: hidden files by which later commands leave these folders out of the data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["is_output", "mark_output"]

_PREFIX = ".dagaug-"


def mark_output(folder: Path, kind: str) -> None:
    """Mark a folder, which exists, as written by dagaug; ``kind`` is part of the mark's name, for example ``run``.

    Raises:
        OSError: the mark cannot be written.
    """
    mark = folder / f"{_PREFIX}{kind}"
    if not mark.exists():
        mark.write_text("Written by dagaug. Images in this folder are no training data of the folder above.\n")


def is_output(folder: Path, names: Iterable[str] | None = None) -> bool:
    """Whether dagaug wrote a folder: it holds a mark, or the files of a run of an older version.

    Args:
        folder: any folder.
        names: names of its files, if they are known.

    Raises:
        OSError: the folder cannot be read.
    """
    found = set((path.name for path in folder.iterdir()) if names is None else names)
    return any(name.startswith(_PREFIX) for name in found) or {"options.json", "metrics.jsonl"} <= found
