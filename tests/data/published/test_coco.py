from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from making_published import write_coco

from dagaug.data.layouts import read_dataset
from dagaug.runtime.errors import DataError


def test_crowds_and_empty_boxes_are_no_objects_and_smaller_ones_are_counted(tmp_path: Path) -> None:
    data = read_dataset(write_coco(tmp_path))
    assert data.classes == ("cat", "dog")
    assert data.left_out == {"images without an object": 2, "smaller objects in the same images": 8}


def test_images_may_lie_in_a_folder_of_images(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    (root / "images").mkdir()
    for name in ("train2017", "val2017"):
        (root / name).rename(root / "images" / name)
    data = read_dataset(root)
    assert data.samples[0].path == Path("images/train2017/000000000000.jpg")
    assert all(data.file(sample).is_file() for sample in data.samples)


def test_one_annotation_file_of_all_images_gets_a_drawn_split(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    (root / "train2017").rename(root / "images")
    (root / "annotations" / "instances_train2017.json").rename(root / "annotations" / "instances_default.json")
    (root / "annotations" / "instances_val2017.json").unlink()
    data = read_dataset(root)
    assert (data.split_origin, len(data.train), len(data.test)) == ("drawn", 4, 2)


def test_two_files_of_one_split_are_refused_and_a_validation_file_beside_a_test_file_is_left_out(
    tmp_path: Path,
) -> None:
    root = write_coco(tmp_path)
    annotations = root / "annotations"
    shutil.copy(annotations / "instances_val2017.json", annotations / "instances_test2017.json")
    (root / "val2017").rename(root / "test2017")
    assert read_dataset(root).left_out["annotation file instances_val2017.json"] == 1
    shutil.copy(annotations / "instances_train2017.json", annotations / "instances_train2014.json")
    with pytest.raises(DataError, match=r"instances_train2014\.json and instances_train2017\.json, .*keep one"):
        read_dataset(root)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_file_without_a_list_is_named_with_the_list(tmp_path: Path, key: str) -> None:
    file = write_coco(tmp_path) / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    del content[key]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"instances_train2017\.json: .*\(no '{key}'\)"):
        read_dataset(tmp_path)
