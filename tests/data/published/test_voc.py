from __future__ import annotations

from pathlib import Path

import pytest
from making_published import write_lines, write_objects, write_voc

from dagaug.data.layouts import read_dataset
from dagaug.runtime.errors import DataError


def test_an_image_is_its_largest_object_and_the_others_are_counted(tmp_path: Path) -> None:
    data = read_dataset(write_voc(tmp_path))
    assert data.classes == ("cat", "dog")
    assert data.left_out == {
        "difficult objects": 9,
        "images without an easy object": 1,
        "smaller objects in the same images": 8,
    }
    assert "left out: 9 difficult objects, 1 images without" in data.describe()


def test_the_test_list_counts_where_its_images_are_annotated(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    lists = root / "ImageSets" / "Main"
    write_lines(lists / "test.txt", "2012_000001")
    assert len(read_dataset(root).test) == 2
    write_lines(lists / "test.txt", "2007_000003")
    write_lines(lists / "trainval.txt", *(f"2007_{n:06d}" for n in (0, 1, 4, 5)))
    data = read_dataset(root)
    assert ([one.path.stem for one in data.test], len(data.train)) == (["2007_000003"], 4)


def test_without_a_test_list_the_split_is_drawn(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    for name in ("train", "val"):
        (root / "ImageSets" / "Main" / f"{name}.txt").unlink()
    data = read_dataset(root)
    assert (data.split_origin, len(data.train), len(data.test)) == ("drawn", 6, 2)


def test_an_image_without_annotation_and_an_object_without_box_are_named(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    annotation = root / "Annotations" / "2007_000001.xml"
    write_objects(annotation, ("cat", (9, 9, 3, 3), 0))
    with pytest.raises(DataError, match=r"2007_000001\.xml: the box is empty"):
        read_dataset(root)
    write_lines(annotation, "<annotation><object><name>cat</name></object></annotation>")
    with pytest.raises(DataError, match=r"2007_000001\.xml: an object has no name, or no bndbox"):
        read_dataset(root)
    annotation.unlink()
    with pytest.raises(DataError, match=r"2007_000001\.xml: missing"):
        read_dataset(root)
