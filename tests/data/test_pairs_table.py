from __future__ import annotations

from pathlib import Path

import pytest

from dagaug.data.pairs_table import FileIndex, read_pairs_table
from dagaug.runtime.errors import DataError


def test_columns_are_known_by_either_name_and_others_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("\ufeffs,reference,note,gt\n a.png ,b.png,x,c.png\nb.png,a.png,y,\n", encoding="utf-8")
    table = read_pairs_table(path)
    assert (table.path, table.columns) == (path, {"source", "reference", "truth"})
    assert [row.line for row in table.rows] == [2, 3]
    assert table.rows[0].values == {"source": "a.png", "reference": "b.png", "truth": "c.png"}
    assert table.rows[1].values["truth"] == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a readable table"),
        (b"", "the header must contain the columns source and reference"),
        (b"source,target\na,b\n", "the header must contain the columns source and reference"),
        (b"source,reference\n", "contains no pairs"),
        (b"source,reference\n\xff,a\n", "not a readable table"),
    ],
)
def test_malformed_tables_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "pairs.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"pairs\.csv: {message}"):
        read_pairs_table(path)


def test_files_are_found_by_their_path_or_its_end() -> None:
    index = FileIndex(["1.png", "wren/1.png", "tit/1.png", "tit/12.png"])
    assert index.rows("wren/1.png") == [1]
    assert index.rows("12.png") == [3]
    assert index.rows("1.png") == [0]  # a whole path, although two others end in it
    assert index.rows("2.png") == index.rows("") == []
    assert FileIndex(["a/1.png", "b/1.png"]).rows("1.png") == [0, 1]


def test_case_spaces_byte_order_marks_and_windows_separators_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("﻿Source , REFERENCE\na\\1.png,b\\2.png\n", encoding="utf-8")
    table = read_pairs_table(path)
    index = FileIndex(["train/a/1.png", "train/b/2.png"])
    assert [index.rows(table.rows[0].values[name]) for name in ("source", "reference")] == [[0], [1]]


def test_a_header_of_other_columns_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("source;reference\na;b\n")
    with pytest.raises(DataError, match="separated by commas; it contains source;reference"):
        read_pairs_table(path)
