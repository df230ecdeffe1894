"""Marks of folders that dagaug wrote: hidden files by which later commands leave these folders out of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

__all__ = ["is_output", "mark_output"]

_MARK = ".dagaug-"
_KINDS = ("run", "demo", "cache", "export")  # an export has its manifest under this name


def mark_output(folder: Path, kind: Literal["run", "demo", "cache"]) -> None:
    """Mark a folder, which exists, as written by dagaug.

    Raises:
        OSError: the mark cannot be written.
    """
    mark = folder / f"{_MARK}{kind}"
    if not mark.exists():
        mark.write_text("Written by dagaug. Images in this folder are no training data of the folder above.\n")


def is_output(folder: Path) -> bool:
    """Whether a folder is a run, a demo, a cache or an export: it holds a mark, or files of a run of an older version.

    Folders of translated images are no such outputs: people train on them.
    """
    if any((folder / f"{_MARK}{kind}").exists() for kind in _KINDS):
        return True
    return (folder / "options.json").exists() and (folder / "metrics.jsonl").exists()
