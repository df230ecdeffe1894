"""Reader of the layout ``csv``: one table with the columns ``path``, ``label`` and, optionally, ``split``.

The data set is the table itself, or a folder with exactly one table whose header is ``path,label`` or names at least
``path``, ``label`` and ``split``. Paths are relative to the folder of the table.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from dagaug.data.dataset_records import Sample, Split
from dagaug.data.folder_layout import TEST_NAMES, TRAIN_NAMES
from dagaug.data.safe_paths import SafePaths
from dagaug.runtime.errors import DataError

__all__ = ["other_tables_in", "read_csv", "tables_in"]


def tables_in(folder: Path) -> list[Path]:
    """The CSV files of a folder that are tables of a data set, by their header."""
    return [path for path, header in _headers_in(folder) if _is_header(header)]


def other_tables_in(folder: Path) -> list[str]:
    """The other CSV files of a folder, each with the reason why it is no table of a data set."""
    others = []
    for path, header in _headers_in(folder):
        if not _is_header(header):
            semicolons = _is_header(header.replace(";", ","))
            reason = "is separated by semicolons, not commas" if semicolons else "is not path,label[,split]"
            others.append(f"{path.name} (its header, {header[:60]!r}, {reason})")
    return others


def _headers_in(folder: Path) -> list[tuple[Path, str]]:
    """The CSV files of a folder with their first lines."""
    found = []
    for path in sorted(folder.glob("*.[cC][sS][vV]")):
        if not path.name.startswith(".") and path.is_file():
            with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
                found.append((path, stream.readline(4096).strip()))
    return found


def _is_header(line: str) -> bool:
    names = {name.strip().strip('"').lower() for name in line.split(",")}
    return names == {"path", "label"} or names >= {"path", "label", "split"}


def read_csv(root: Path) -> tuple[list[str], list[Sample], bool]:
    """Class names, samples, and whether the table gives a split (else all samples are training samples).

    Raises:
        DataError: the folder has no table or several, or the table is malformed.
        OSError: a file cannot be read.
    """
    table, base = root, root.parent
    if not root.is_file():
        tables = tables_in(root)
        if len(tables) != 1:
            raise DataError(f"{root}: {len(tables)} CSV files with the header path,label[,split]; give the path of one")
        table, base = tables[0], root
    rows = list(_read_rows(table, base))
    splits = {split for _, _, split in rows}
    has_split = splits != {None}
    if has_split and None in splits:
        raise DataError(f"{table}: some rows have no split; give train or test in each row, or remove the column")
    classes = sorted({label for _, label, _ in rows})
    label_of = {label: number for number, label in enumerate(classes)}
    return classes, [Sample(path, label_of[label], split or "train") for path, label, split in rows], has_split


def _read_rows(table: Path, base: Path) -> Iterator[tuple[Path, str, Split | None]]:
    line_of: dict[Path, int] = {}
    paths = SafePaths(base)
    with table.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        try:
            names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
            if "path" not in names or "label" not in names:
                raise DataError(f"{table}, line 1: the header must be path,label or path,label,split")
            reader.fieldnames = names
            for row in reader:
                where = f"{table}, line {reader.line_num}"
                if None in row:
                    raise DataError(f"{where}: more values than columns in the header; quote values with commas")
                label = (row["label"] or "").strip()
                if not (row["path"] or "").strip() or not label:
                    raise DataError(f"{where}: path or label is empty")
                path = paths.checked(row["path"], where)
                if path in line_of:
                    raise DataError(f"{where}: {path} is already in line {line_of[path]}")
                line_of[path] = reader.line_num
                yield path, label, _parse_split(row.get("split"), where)
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{table}, near line {reader.line_num}: not a CSV file in UTF-8 ({error})") from error


def _parse_split(text: str | None, where: str) -> Split | None:
    name = (text or "").strip().lower()
    if not name:
        return None
    if name in TRAIN_NAMES:
        return "train"
    if name in TEST_NAMES:
        return "test"
    raise DataError(f"{where}: split {name!r} is neither train nor test")
