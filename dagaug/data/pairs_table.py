"""Reader of tables of pairs: CSV files with the columns ``source`` and ``reference``, and optional true answers."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dagaug.runtime.errors import DataError

__all__ = ["COLUMNS", "FileIndex", "PairRow", "PairsTable", "read_pairs_table"]

COLUMNS = {
    "source": ("source", "s"),
    "reference": ("reference", "t"),
    "truth": ("truth", "gt"),
    "truth_mask": ("truth_mask", "gt_mask"),
    "reference_mask": ("reference_mask", "t_mask"),
}
"""The columns that are read, each with its accepted names; only the first two are required."""


@dataclass(frozen=True)
class PairRow:
    """One row of a table of pairs.

    Attributes:
        line: line number in the file, for errors.
        values: texts by the first name of their column in :data:`COLUMNS`; "" where the cell is empty.
    """

    line: int
    values: Mapping[str, str]


@dataclass(frozen=True)
class PairsTable:
    """A table of pairs.

    Attributes:
        path: the CSV file.
        columns: the columns that it has, by their first names in :data:`COLUMNS`.
        rows: at least one.
    """

    path: Path
    columns: frozenset[str]
    rows: tuple[PairRow, ...]


def read_pairs_table(path: Path) -> PairsTable:
    """Read a table of pairs; case and spaces in the header do not matter.

    Raises:
        DataError: the file is missing, no CSV in UTF-8, lacks a required column, or has no rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            header = reader.fieldnames = [(name or "").strip().lower() for name in reader.fieldnames or ()]
            name_of = {own: name for own, names in COLUMNS.items() for name in names[::-1] if name in header}
            if not {"source", "reference"} <= name_of.keys():
                found = ", ".join(header)[:80] or "nothing"
                raise DataError(
                    f"{path}: the header must contain the columns source and reference (or s and t), separated by "
                    f"commas; it contains {found}"
                )
            rows = tuple(
                PairRow(reader.line_num, {own: (row[name] or "").strip() for own, name in name_of.items()})
                for row in reader
            )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table ({error})") from error
    if not rows:
        raise DataError(f"{path}: contains no pairs")
    return PairsTable(path, frozenset(name_of), rows)


class FileIndex:
    """Finds files by their path, or by the end of it (whole names: ``wren/1.jpg`` or ``1.jpg``).

    Args:
        files: paths with ``/`` between names.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._files = files
        self._rows_of: dict[str, list[int]] = {}
        for row, file in enumerate(files):
            names = file.split("/")
            for first in range(len(names)):
                self._rows_of.setdefault("/".join(names[first:]), []).append(row)

    def rows(self, text: str) -> list[int]:
        """The indices of all files that the text may mean; a whole path means its file only.

        Windows separates names by backslashes, which are tried where a text is not found.
        """
        rows = self._rows_of.get(text) or self._rows_of.get(text.replace("\\", "/"), [])
        return [row for row in rows if self._files[row] == text] or rows
