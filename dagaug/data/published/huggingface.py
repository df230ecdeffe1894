"""Reader of the layout ``huggingface``: image data sets of the Hugging Face Hub as downloaded.

Either an image folder with one table in it, or one in each of its split folders
(https://huggingface.co/docs/datasets/image_dataset)::

    train/metadata.csv               or metadata.jsonl; "file_name,label", paths relative to the table
    train/0001.png
    test/metadata.csv

or Parquet files with the images in them, which need ``pip install 'dagaug[parquet]'`` once
(:mod:`dagaug.data.published.parquet_images`)::

    data/train-00000-of-00001.parquet
    data/test-00000-of-00001.parquet

The label is the first of the columns ``label``, ``labels``, ``class`` and ``category``. Optional columns are
``split``, ``bbox`` (x, y, width, height in pixels), ``text`` or ``caption``, and ``mask_file_name``. The split is that
of the column, else of the folder; its names are those of the layout ``imagefolder``, and ``validation`` is left out if
there is a ``test``.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dagaug.data.csv_layout import common_folder, split_named
from dagaug.data.dataset_records import Box, Listing, Sample, Split
from dagaug.data.folder_layout import TEST_NAMES, TRAIN_NAMES
from dagaug.data.list_files import box_of, finite_numbers
from dagaug.data.published.parquet_images import EXTRACTED, extract_images, has_split_files, parquet_files
from dagaug.data.safe_paths import SafePaths
from dagaug.runtime.errors import DataError

__all__ = ["is_huggingface", "read_huggingface"]

_TABLES = ("metadata.csv", "metadata.jsonl")
_LABELS = ("label", "labels", "class", "category")
_Row = dict[str, object]


def is_huggingface(root: Path) -> bool:
    """Whether a folder holds a table with file names and labels, or Parquet files."""
    tables = _tables(root)
    if not tables:
        return has_split_files(root)
    try:
        _, row = next(_rows(tables[0]), ("", {}))
    except DataError:  # some other table of this name
        return False
    return "file_name" in row and _label_column(row) is not None


def read_huggingface(root: Path) -> Listing:
    """Read the tables of an image folder; extract images from Parquet files first.

    Raises:
        DataError: there is no table, it is malformed, or images cannot be extracted.
        OSError: a file cannot be read.
    """
    tables = _tables(root)
    extracted = None
    if not tables:
        if not any(parquet_files(root)):
            raise DataError(f"{root}: holds neither metadata.csv nor metadata.jsonl nor Parquet files with images")
        extracted = extract_images(root)
        tables = _tables(extracted)
    entries = [entry for table in tables for entry in _entries(root, table)]
    tests = {entry.folder for entry in entries if entry.split == "test"}
    chosen = next((name for name in TEST_NAMES if name in tests), "")
    left_out = Counter(f"images of {name}" for e in entries if (name := e.folder) in tests - {chosen})
    entries = [entry for entry in entries if entry.folder not in tests - {chosen}]
    classes = sorted({entry.label for entry in entries})
    label_of = {name: label for label, name in enumerate(classes)}
    samples = [
        Sample(
            entry.path,
            label_of[entry.label],
            entry.split or "train",
            entry.box,
            captions=(entry.caption,) if entry.caption else (),
            mask=entry.mask,
        )
        for entry in entries
    ]
    has_split = {entry.split for entry in entries} == {"train", "test"}
    if len({sample.path for sample in samples}) < len(samples):
        twice, _ = Counter(sample.path for sample in samples).most_common(1)[0]
        raise DataError(f"{root / twice}: is listed twice")
    return Listing(classes, samples, has_split, common_folder(samples), left_out, extracted)


@dataclass(frozen=True)
class _Entry:
    """A row of a table: an image, its class, its split, and the name of the test split that it is from."""

    path: Path
    label: str
    split: Split | None
    folder: str
    box: Box | None
    caption: str
    mask: Path | None


def _tables(root: Path) -> list[Path]:
    """The tables in a folder and its folders; those of one folder only once."""
    found: dict[Path, Path] = {}
    for name in _TABLES:
        for path in sorted([*root.glob(name), *root.glob(f"*/{name}")]):
            if path.parent.name != EXTRACTED:
                found.setdefault(path.parent, path)
    return list(found.values())


def _entries(root: Path, table: Path) -> Iterator[_Entry]:
    below = table.parent.relative_to(root)
    paths = SafePaths(root, below.as_posix())
    for where, row in _rows(table):
        name, column = row.get("file_name"), _label_column(row)
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{where}: has no file_name")
        if column is None or row[column] in (None, ""):
            raise DataError(f"{where}: has no label; its columns are {', '.join(map(str, row))[:80]}")
        path = below / paths.checked(name, where)
        folder = next((part.lower() for part in path.parts[:-1] if part.lower() in (*TRAIN_NAMES, *TEST_NAMES)), "")
        if row.get("split"):
            folder = str(row["split"]).strip().lower()
        mask = row.get("mask_file_name")
        yield _Entry(
            path,
            str(row[column]),
            split_named(folder, where),
            folder,
            _box(row.get("bbox"), where),
            str(row.get("text") or row.get("caption") or ""),
            table.parent / paths.checked(str(mask), where) if mask else None,
        )


def _label_column(row: _Row) -> str | None:
    return next((name for name in _LABELS if name in row), None)


def _rows(table: Path) -> Iterator[tuple[str, _Row]]:
    """The rows of a table, each with file and line for errors."""
    with table.open(encoding="utf-8-sig", newline="") as stream:
        line = 1
        try:
            if table.suffix == ".csv":
                reader = csv.DictReader(stream)
                for cells in reader:
                    line = reader.line_num
                    yield f"{table}, line {line}", dict(cells)
                return
            for line, text in enumerate(stream, 1):
                if text.strip():
                    row = json.loads(text)
                    if not isinstance(row, dict):
                        raise DataError(f"{table}, line {line}: expected an object, not {text[:60].strip()!r}")
                    yield f"{table}, line {line}", row
        except (ValueError, csv.Error, RecursionError) as error:
            raise DataError(f"{table}, near line {line}: not a table in UTF-8 ({str(error)[:80]})") from error


def _box(value: object, where: str) -> Box | None:
    if value in (None, "", []):
        return None
    words = value.strip("[] ").split(",") if isinstance(value, str) else value
    values = finite_numbers(words, 4) if isinstance(words, list) else None
    if values is None:
        raise DataError(f"{where}: expected bbox as x, y, width, height, not {str(value)[:60]!r}")
    return box_of(values[0], values[1], values[2], values[3], where)
