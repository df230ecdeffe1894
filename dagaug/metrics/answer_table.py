"""The table of true answers: source, reference, and the image that their morph should be."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from dagaug.birds.dataset import true_morph
from dagaug.data.image_files import decode
from dagaug.runtime.errors import DataError

__all__ = ["COLUMNS", "FindTruth", "read_truths"]

COLUMNS = {
    "source": ("source", "s"),
    "reference": ("reference", "t"),
    "truth": ("truth", "gt"),
    "truth_mask": ("truth_mask", "gt_mask"),
    "reference_mask": ("reference_mask", "t_mask"),
}
"""Columns of a table of pairs, each with the names that it may have; only the first two must be there."""


# True answers


@dataclass(frozen=True)
class _Truth:
    """A true answer as large as its whole reference; masks in [0, 1]."""

    image: UInt8[np.ndarray, "H W 3"]
    mask: Float[np.ndarray, "H W"] | None
    reference_mask: Float[np.ndarray, "H W"] | None


FindTruth = Callable[[str, str], _Truth | None]
"""From the files of source and reference to the true answer; None for a pair that is not asked for."""


def _of_flock(root: Path) -> FindTruth:
    def find(source: str, reference: str) -> _Truth | None:
        true, shown = true_morph(root, source, reference), true_morph(root, reference, reference)
        return _Truth(true.image, true.mask, shown.mask)

    return find


@dataclass(frozen=True)
class _Row:
    """A line of a table of pairs, by our names of its columns."""

    line: int
    values: dict[str, str]


def _read_table(path: Path) -> tuple[list[_Row], set[str]]:
    """The lines of a table of pairs, and which of :data:`COLUMNS` it has."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream)
            names = table.fieldnames or ()
            found = {ours: name for ours, known in COLUMNS.items() for name in known[::-1] if name in names}
            if not {"source", "reference"} <= found.keys():
                raise DataError(f"{path}: its header must name the columns source and reference (or s and t)")
            rows = [
                _Row(line, {ours: (record[name] or "").strip() for ours, name in found.items()})
                for line, record in enumerate(table, 2)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table ({error})") from error
    if not rows:
        raise DataError(f"{path}: names no pairs")
    return rows, set(found)


class _OfTable:
    """True answers that a table names; a table that names none takes them from the built-in birds of ``root``."""

    def __init__(self, path: Path, files: Sequence[str], root: Path) -> None:
        self.path = path
        rows, columns = _read_table(path)
        self._birds = None if "truth" in columns else _of_flock(root)
        known: dict[str, set[str]] = {}
        for file in files:
            parts = file.split("/")
            for first in range(len(parts)):
                known.setdefault("/".join(parts[first:]), set()).add(file)
        self.pairs = {(self._file(row, "source", known), self._file(row, "reference", known)): row for row in rows}

    def _file(self, row: _Row, column: str, known: dict[str, set[str]]) -> str:
        """A file of the store by its path, or by an end of it that only one has."""
        text = row.values[column]
        found = known.get(text, set())
        if text in found:
            return text
        if len(found) > 1:
            raise DataError(f"{self.path}, line {row.line}: {text} is ambiguous")
        return next(iter(found), text)

    def __call__(self, source: str, reference: str) -> _Truth | None:
        row = self.pairs.get((source, reference))
        if row is None:
            return None
        if self._birds is not None:
            return self._birds(source, reference)
        image = self._read(row, "truth")
        if image is None:
            raise DataError(f"{self.path}, line {row.line}: names no true answer")
        masks = [self._read(row, column) for column in ("truth_mask", "reference_mask")]
        return _Truth(image, *(None if mask is None else mask.mean(-1, dtype=np.float32) / 255 for mask in masks))

    def _read(self, row: _Row, column: str) -> UInt8[np.ndarray, "H W 3"] | None:
        text = row.values.get(column, "")
        if not text:
            return None
        base = self.path.resolve().parent
        file = (base / text).resolve()
        if not file.is_relative_to(base):
            raise DataError(
                f"{self.path}, line {row.line}: {text!r} leaves the table's folder; give paths below {base}"
            )
        return decode(file)


def read_truths(truth: Path, files: Sequence[str], root: Path) -> tuple[FindTruth, int | None]:
    """Where true answers are found, and how many pairs are asked for (None: all that a file has)."""
    if truth.is_dir():
        return _of_flock(truth), None
    table = _OfTable(truth, files, root)
    return table, len(table.pairs)
