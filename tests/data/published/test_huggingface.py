from __future__ import annotations

from pathlib import Path

import pytest
from making_datasets import touch
from making_published import write_huggingface, write_lines

from dagaug.data.layouts import read_dataset
from dagaug.runtime.errors import DataError


def test_both_forms_of_the_table_are_the_same_data_set(tmp_path: Path) -> None:
    first = read_dataset(write_huggingface(tmp_path / "csv"))
    second = read_dataset(write_huggingface(tmp_path / "jsonl", "jsonl"))
    assert first.samples == second.samples
    assert first.samples[0].captions == ("Image 3.",)
    assert first.left_out == {"images of validation": 2}


def test_one_table_of_all_images_may_name_splits_boxes_and_masks(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(4)]
    touch(tmp_path, *names, "masks/0.png")
    rows = [f"{name},{'ab'[n % 2]},{'train' if n < 2 else 'test'}," for n, name in enumerate(names)]
    write_lines(
        tmp_path / "metadata.csv", "file_name,category,split,mask_file_name", f"{rows[0]}masks/0.png", *rows[1:]
    )
    data = read_dataset(tmp_path)
    assert (data.layout, data.classes, len(data.test)) == ("huggingface", ("a", "b"), 2)
    assert data.masks == tmp_path / "masks"
    write_lines(
        tmp_path / "metadata.csv", "file_name,label", *(f"{name},{'ab'[n % 2]}" for n, name in enumerate(names))
    )
    assert read_dataset(tmp_path).split_origin == "drawn"


def test_a_table_without_labels_leaves_class_folders_what_they_are(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    write_lines(tmp_path / "metadata.csv", "file_name,text", "a/1.png,an a")
    assert read_dataset(tmp_path).layout == "imagefolder"
    with pytest.raises(DataError, match=r"metadata\.csv, line 2: has no label; its columns are file_name, text"):
        read_dataset(tmp_path, layout="huggingface")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (['{"file_name": "1.png", "label": "a"}', "[1]"], "line 2: expected an object"),
        (['{"file_name": "1.png", "label": "a"}', "{"], "near line 2: not a table"),
        (['{"file_name": "1.png", "label": "a"}', '{"label": "a"}'], "line 2: has no file_name"),
        (['{"file_name": "1.png", "label": "a", "bbox": [1, 2, 3]}'], "line 1: expected bbox as x, y, width, height"),
        (['{"file_name": "1.png", "label": "a", "split": "dev"}'], "line 1: split 'dev' is neither train nor test"),
        (['{"file_name": "1.png", "label": "a"}'] * 2, r"1\.png: is listed twice"),
    ],
)
def test_malformed_tables_are_refused(tmp_path: Path, rows: list[str], message: str) -> None:
    write_lines(tmp_path / "metadata.jsonl", *rows)
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)
