"""List files of data sets: their lines, the numbers and boxes in them, and what to say if a file is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from dagaug.data.dataset_records import Box
from dagaug.runtime.errors import DataError

__all__ = ["box_of", "box_of_corners", "finite_numbers", "lines_of", "need"]


def need(path: Path, owner: str, archive: str) -> Path:
    """The path of a file or folder that a layout cannot do without.

    Args:
        path: a file or folder.
        owner: name of the data set.
        archive: where the data set has it.

    Raises:
        DataError: it is missing.
    """
    if not path.exists():
        raise DataError(f"{path}: missing; {owner} has it in {archive}")
    return path


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The non-blank lines of a text file as (line number, text without blanks at both ends).

    Raises:
        DataError: the file is not UTF-8.
        OSError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8 ({error.reason})") from error
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            yield line, content.strip()


def finite_numbers(words: Sequence[object], count: int) -> list[float] | None:
    """``count`` finite numbers from texts or numbers; None if they are something else."""
    try:
        values = [float(word) for word in words]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return values if len(values) == count and all(math.isfinite(value) for value in values) else None


def box_of(x: float, y: float, width: float, height: float, where: str) -> Box:
    """A bounding box.

    Raises:
        DataError: the box is empty; ``where`` names file and line.
    """
    if width <= 0 or height <= 0:
        raise DataError(f"{where}: the box is empty ({width:g} × {height:g})")
    return x, y, width, height


def box_of_corners(xmin: float, ymin: float, xmax: float, ymax: float, where: str) -> Box:
    """A bounding box from its first and last pixel, counted from 1, as MATLAB does.

    Raises:
        DataError: the box is empty; ``where`` names file and line.
    """
    return box_of(xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1, where)
