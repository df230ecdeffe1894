from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from making_datasets import touch, write_cub

from dagaug.data.dataset_records import class_mismatch, is_image_name
from dagaug.data.layouts import read_dataset
from dagaug.runtime.errors import DataError


def test_subset_takes_the_first_training_images_and_all_test_images(tmp_path: Path) -> None:
    data = read_dataset(write_cub(tmp_path))
    few = read_dataset(tmp_path, per_class=1)
    assert few == data.subset(1)
    assert [sample.path.name for sample in few.train] == ["0.jpg", "3.jpg"]
    assert few.test == data.test
    assert data.subset(None) == data == data.subset(100)


def test_a_written_split_is_read_back(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{number}.png" for name in ("a, b", "Häher") for number in range(9)))
    data = read_dataset(tmp_path, seed=3)
    data.write_split(tmp_path / "split.csv")
    again = read_dataset(tmp_path, seed=4)
    assert (again.layout, again.split_origin, again.classes) == ("csv", "given", data.classes)
    assert again.samples == data.samples
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Häher", "a, b", "split.csv"]
    with pytest.raises(DataError, match="cannot be written"):
        data.write_split(tmp_path / "gone" / "split.csv")


@pytest.mark.parametrize(("name", "expected"), [("1.JPG", True), ("a.b.webp", True), (".1.jpg", False), ("jpg", False)])
def test_image_files_are_known_by_their_ending(name: str, expected: bool) -> None:
    assert is_image_name(name) == expected


def test_the_difference_of_classes_names_both_sides(tmp_path: Path) -> None:
    data = replace(read_dataset(write_cub(tmp_path)), classes=("tit", "wren"), root=Path("data"))
    assert class_mismatch("file.h5", ["tit", "wren"], data) == ""
    order = "file.h5 does not fit data: the same classes in another order"
    assert class_mismatch("file.h5", ("wren", "tit"), data) == order
    assert class_mismatch("file.h5", ("crow", "owl", "tit"), data) == (
        "file.h5 does not fit data: file.h5 has 3 classes, 'crow' only there; data has 2 classes, 'wren' only there"
    )
    fewer = "file.h5 does not fit data: file.h5 has 1 classes; data has 2 classes, 'wren' only there"
    assert class_mismatch("file.h5", ("tit",), data) == fewer
