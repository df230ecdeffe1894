from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from making_datasets import splits_of, touch

from dagaug.data.layouts import read_dataset
from dagaug.runtime.errors import DataError


def test_csv_with_and_without_a_split(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text('﻿Path,label,split\n"a,1.png",rot,train\nb/2.png,grün,train\n3.png,rot,val\n', "utf-8")
    for root in (tmp_path, table):
        data = read_dataset(root)
        assert (data.layout, data.root, data.classes) == ("csv", tmp_path, ("grün", "rot"))
        assert splits_of(data) == {"a,1.png": "train", "b/2.png": "train", "3.png": "test"}
        assert [sample.label for sample in data.samples] == [1, 0, 1]
    table.write_text("label,path\nx,1.png\nx,2.png\ny,3.png\ny,4.png\n")
    assert Counter(splits_of(read_dataset(tmp_path)).values()) == {"train": 2, "test": 2}


def test_tables_with_other_headers_do_not_make_a_folder_a_csv_layout(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "provenance.csv").write_text("path,label,source\na/1.png,a,0\n")
    assert read_dataset(tmp_path).layout == "imagefolder"
    with pytest.raises(DataError, match=r"0 CSV files with the header path,label"):
        read_dataset(tmp_path, layout="csv")
    (tmp_path / "one.csv").write_text("path,label\na/1.png,a\nb/1.png,b\n")
    assert read_dataset(tmp_path).layout == "csv"
    assert read_dataset(tmp_path, layout="imagefolder").layout == "imagefolder"


def test_a_table_with_a_split_may_have_further_columns(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    lines = [f"{name[0]},0.5,{split},{name}" for name, split in zip(
        ("a/1.png", "a/2.png", "b/1.png", "b/2.png"), ("train", "test") * 2, strict=True
    )]  # fmt: skip
    (tmp_path / "images.csv").write_text("\n".join(["label,confidence,split,path", *lines]))
    dataset = read_dataset(tmp_path)
    assert (dataset.layout, len(dataset.train), len(dataset.test)) == ("csv", 2, 2)
    # Without a split it is some other table, and the class folders count.
    (tmp_path / "images.csv").write_text("path,label,confidence\na/1.png,x,0.5\n")
    assert read_dataset(tmp_path).layout == "imagefolder"


def test_a_table_may_have_boxes_masks_and_captions(tmp_path: Path) -> None:
    lines = [
        "path,label,box,mask,caption",
        '1.png,a,"1, 2.5,30,40",masks/x.png,"A bird, blue."',
        "2.png,b,,,",
        '3.png,a,"0,0,1,1",more/y.png,',
        "4.png,b,,,",
    ]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    touch(tmp_path, "masks/x.png")
    data = read_dataset(tmp_path)
    first, second = data.samples[:2]
    assert (first.box, first.mask, first.captions) == ((1, 2.5, 30, 40), tmp_path / "masks/x.png", ("A bird, blue.",))
    assert (second.box, second.mask, second.captions) == (None, None, ())
    assert data.masks == tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('path,label,box\n1.png,a,"1,2,3"\n', 'line 2: expected a box as "x,y,width,height"'),
        ('path,label,box\n1.png,a,"1,2,3,0"\n', "line 2: the box is empty"),
        ("path,label,mask\n1.png,a,../m.png\n", "line 2: .* leaves the data folder"),
        ("", "line 1: the header must be path,label"),
        ("file,label\n1.png,a\n", "line 1: the header must be path,label"),
        ("path,label\n1.png,a\n2.png\n", "line 3: path or label is empty"),
        ("path,label\n1.png,a\n2.png,b,c\n", "line 3: more values than columns"),
        ("path,label\n1.png,a\n1.png,b\n", r"line 3: 1\.png is already in line 2"),
        ("path,label\n1.png,a\n../2.png,b\n", r"line 3: .* leaves the data folder"),
        ("path,label,split\n1.png,a,train\n2.png,b,dev\n", "line 3: split 'dev' is neither train nor test"),
        ("path,label,split\n1.png,a,train\n2.png,b,\n", "some rows have no split"),
        ("path,label,split\n1.png,a,train\n2.png,b,test\n", "class b has no training images"),
        ("path,label\n", "no images found"),
        ("path,label\n1.png,a\n2.png,a\n", r"all images are of one class \(a\)"),
    ],
)
def test_malformed_csv_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "list.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=message):
        read_dataset(table)


def test_a_csv_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("path,label\n1.png,a\n2.png,grün\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"list\.csv, near line \d+: not a CSV file in UTF-8"):
        read_dataset(tmp_path / "list.csv")


def test_a_table_that_is_not_taken_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path;label\na.png;x\n")
    with pytest.raises(
        DataError, match=r"left out: 1 table labels\.csv \(its header, 'path;label', is separated by semi"
    ):
        read_dataset(tmp_path)
    touch(tmp_path, *(f"{name}/{number}.png" for name in "ab" for number in range(3)))
    (tmp_path / "notes.csv").write_text("file,class\n")
    left_out = read_dataset(tmp_path).left_out
    assert set(left_out.values()) == {1}
    assert [reason.split(" (")[0] for reason in sorted(left_out)] == ["table labels.csv", "table notes.csv"]
