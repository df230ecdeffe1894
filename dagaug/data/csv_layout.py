"""Reader of the layout ``csv``: one table with the columns ``path``, ``label`` and, optionally, some others.

``split`` is ``train`` or ``test``; ``box`` is the object's bounding box, ``"x,y,width,height"`` in pixels (CSV needs
the quotes); ``mask`` is the path of the object's mask, of which the values above half of the range are the object;
``caption`` is a sentence about the image. Cells of the last three may be empty. The data set is the table itself, or a
folder with exactly one table whose header names ``path``, ``label`` and no columns but these, or at least ``path``,
``label`` and ``split``; further columns are then ignored. Paths are relative to the folder of the table.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dagaug.data.dataset_records import Box, Listing, Sample, Split
from dagaug.data.folder_layout import TEST_NAMES, TRAIN_NAMES
from dagaug.data.list_files import box_of, finite_numbers
from dagaug.data.safe_paths import SafePaths
from dagaug.runtime.errors import DataError

__all__ = ["common_folder", "other_tables_in", "read_csv", "split_named", "tables_in"]

_COLUMNS = {"path", "label", "split", "box", "mask", "caption"}


def tables_in(folder: Path) -> list[Path]:
    """The CSV files of a folder that are tables of a data set, by their header."""
    return [path for path, header in _headers_in(folder) if _is_header(header)]


def other_tables_in(folder: Path) -> list[str]:
    """The other CSV files of a folder, each with the reason why it is no table of a data set."""
    others = []
    for path, header in _headers_in(folder):
        if not _is_header(header):
            semicolons = _is_header(header.replace(";", ","))
            reason = "is separated by semicolons, not commas" if semicolons else "is not path,label[,split,…]"
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
    return names >= {"path", "label", "split"} or _COLUMNS >= names >= {"path", "label"}


def read_csv(root: Path) -> Listing:
    """Read the table of a data set.

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
    samples = [replace(sample, label=label_of[label], split=split or "train") for sample, label, split in rows]
    return Listing(classes, samples, has_split, masks=common_folder(samples))


def common_folder(samples: list[Sample]) -> Path | None:
    """The folder that holds the masks of all samples; None without masks."""
    folders = {sample.mask.parent for sample in samples if sample.mask is not None}
    return Path(os.path.commonpath(folders)) if folders else None


def _read_rows(table: Path, base: Path) -> Iterator[tuple[Sample, str, Split | None]]:
    """The samples, still without label and split, with their class names and splits."""
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
                cells = {name: (row.get(name) or "").strip() for name in _COLUMNS}
                if not cells["path"] or not cells["label"]:
                    raise DataError(f"{where}: path or label is empty")
                path = paths.checked(cells["path"], where)
                if path in line_of:
                    raise DataError(f"{where}: {path} is already in line {line_of[path]}")
                line_of[path] = reader.line_num
                sample = Sample(
                    path,
                    0,
                    "train",
                    _parse_box(cells["box"], where),
                    captions=(cells["caption"],) if cells["caption"] else (),
                    mask=base / paths.checked(cells["mask"], where) if cells["mask"] else None,
                )
                yield sample, cells["label"], split_named(cells["split"], where)
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{table}, near line {reader.line_num}: not a CSV file in UTF-8 ({error})") from error


def _parse_box(text: str, where: str) -> Box | None:
    if not text:
        return None
    values = finite_numbers(text.split(","), 4)
    if values is None:
        raise DataError(f'{where}: expected a box as "x,y,width,height", not {text[:60]!r}')
    return box_of(values[0], values[1], values[2], values[3], where)


def split_named(text: str, where: str) -> Split | None:
    """The split that a name in a table stands for; None for an empty text.

    Raises:
        DataError: it is none of the known names; ``where`` names file and line.
    """
    name = text.strip().lower()
    if not name:
        return None
    if name in TRAIN_NAMES:
        return "train"
    if name in TEST_NAMES:
        return "test"
    raise DataError(f"{where}: split {name!r} is neither train nor test")
