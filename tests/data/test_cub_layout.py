from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from making_datasets import touch, write_cub
from making_published import write_nabirds

from dagaug.data.dataset_records import Sample
from dagaug.data.layouts import read_dataset
from dagaug.runtime.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_cub_lists_become_samples(tmp_path: Path) -> None:
    data = read_dataset(write_cub(tmp_path))
    assert data.layout == "cub"
    assert data.classes == ("001.Häher_0", "002.Häher_1")
    assert data.split_origin == "given"
    assert data.samples[0] == Sample(
        path=Path("images/001.Häher_0/0.jpg"),
        label=0,
        split="train",
        box=(0.5, 2.0, 30.0, 40.0),
        parts=((1, 4.5, 6.0), (3, 7.0, 8.0)),
        captions=("A blue bird.", "It sits."),
    )
    assert [sample.label for sample in data.samples] == [0, 0, 0, 1, 1, 1]
    assert [sample.split for sample in data.samples] == ["train", "train", "test"] * 2
    assert all(data.file(sample).is_file() for sample in data.samples)


def test_cub_needs_neither_split_nor_boxes_nor_parts(tmp_path: Path) -> None:
    write_cub(tmp_path)
    for name in ("train_test_split.txt", "bounding_boxes.txt", "parts/part_locs.txt"):
        (tmp_path / name).unlink()
    data = read_dataset(tmp_path)
    assert data.split_origin == "drawn"
    assert {sample.box for sample in data.samples} == {None}
    assert Counter((sample.label, sample.split) for sample in data.samples) == {
        (label, split): count for label in (0, 1) for split, count in (("train", 2), ("test", 1))
    }


def test_masks_beside_the_images_are_found(tmp_path: Path) -> None:
    data = read_dataset(write_cub(tmp_path))
    assert data.masks is None
    touch(tmp_path, "segmentations/001.Häher_0/1.png", "segmentations/001.Häher_0/2.jpg")
    data = read_dataset(tmp_path)
    assert data.masks == tmp_path / "segmentations"
    masks = {sample.path.stem: sample.mask for sample in data.samples}
    assert masks.pop("1") == tmp_path / "segmentations" / "001.Häher_0" / "1.png"
    assert set(masks.values()) == {None}


def test_classes_without_images_are_left_out(tmp_path: Path) -> None:
    write_cub(tmp_path)
    (tmp_path / "classes.txt").write_text("4 000.None\n5 001.A\n6 002.B\n7 003.None\n")
    data = read_dataset(tmp_path)
    assert data.classes == ("001.A", "002.B")
    assert {sample.label for sample in data.samples} == {0, 1}


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("images.txt", "4 001", "x 001", r"images\.txt, line 2: expected a number and a value"),
        ("images.txt", "4 001", "3 001", r"images\.txt, line 2: number 3 is already in line 1"),
        ("images.txt", "/1.jpg", "/0.jpg", r"images\.txt, line 2: .* is already in line 1"),
        ("images.txt", "4 ", f"{'9' * 5000} ", r"images\.txt, line 2: expected a number"),
        (
            "images.txt",
            "001.Häher_0/1.jpg",
            "../../secret.jpg",
            r"images\.txt, line 2: .* leaves the data folder",
        ),
        (
            "images.txt",
            "001.Häher_0/1.jpg",
            "/etc/secret.jpg",
            r"images\.txt, line 2: .* leaves the data folder",
        ),
        ("image_class_labels.txt", "4 5", "4 9", r"labels\.txt, line 2: class 9 is not in classes\.txt"),
        ("image_class_labels.txt", "4 5\n", "", r"labels\.txt: no row for image 4 \(001\.Häher_0/1\.jpg\)"),
        ("image_class_labels.txt", "4 5\n", "4 5\n40 5\n", r"line 3: image 40 is not in images\.txt"),
        ("train_test_split.txt", "4 1\n", "", r"split\.txt: no row for image 4"),
        ("train_test_split.txt", "4 1", "4 2", r"split\.txt, line 2: expected 1 \(training\) or 0 \(test\)"),
        (
            "train_test_split.txt",
            "3 1\n4 1\n5 0",
            "3 0\n4 0\n5 0",
            r"class 001\.Häher_0 has no training images",
        ),
        ("bounding_boxes.txt", "1.5 2.0", "1.5 left", r"boxes\.txt, line 2: expected 4 numbers"),
        ("bounding_boxes.txt", "1.5 2.0", "1.5 nan", r"boxes\.txt, line 2: expected 4 numbers"),
        ("bounding_boxes.txt", "4 1.5 2.0 30.0", "4 1.5 2.0 0", r"boxes\.txt, line 2: the box is empty"),
        (
            "parts/part_locs.txt",
            "3 3 7.0",
            "99 3 7.0",
            r"part_locs\.txt, line 3: image 99 is not in images\.txt",
        ),
        ("classes.txt", "002.Häher_1", "001.Häher_0", r"classes\.txt: two classes have the same name"),
    ],
)
def test_malformed_lists_are_refused_with_file_and_line(
    tmp_path: Path, name: str, old: str, new: str, message: str
) -> None:
    path = write_cub(tmp_path) / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)


def test_a_missing_or_binary_list_is_named(tmp_path: Path) -> None:
    write_cub(tmp_path)
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"classes\.txt: not a text file in UTF-8"):
        read_dataset(tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"classes\.txt: missing"):
        read_dataset(tmp_path)


def test_links_that_leave_the_folder_are_refused_and_others_are_not(tmp_path: Path) -> None:
    root = write_cub(tmp_path / "data")
    image = root / "images" / "001.Häher_0" / "1.jpg"
    image.unlink()
    touch(tmp_path, "secret.jpg", "data/objects/1.jpg")
    image.symlink_to(root / "objects" / "1.jpg")
    assert len(read_dataset(root).samples) == 6
    image.unlink()
    image.symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(DataError, match=r"images\.txt, line 2: .* through a link"):
        read_dataset(root)


def test_nabirds_are_numbered_by_uuids_and_names_of_several_classes_get_their_numbers(tmp_path: Path) -> None:
    data = read_dataset(write_nabirds(tmp_path))
    assert (data.layout, data.classes) == ("nabirds", ("Blue Jay", "Oak Titmouse"))
    assert data.samples[0].path == Path("images/0295/0000139e21dc4d0cbfe14cae3c85c800.jpg")
    assert data.samples[0].parts == ((0, 12.0, 13.0),)
    classes = tmp_path / "classes.txt"
    classes.write_text(classes.read_text().replace("Oak Titmouse", "Blue Jay"))
    assert read_dataset(tmp_path).classes == ("Blue Jay (295)", "Blue Jay (817)")


@pytest.mark.skipif(not (SHARED / "aircraft").is_dir(), reason="the aircraft data set is not here")
def test_aircraft_are_read() -> None:
    data = read_dataset(SHARED / "aircraft", per_class=10)
    assert (data.layout, len(data.classes), len(data.train), len(data.test)) == ("cub", 30, 300, 900)
    assert all(sample.box is not None and len(sample.parts) > 0 for sample in data.samples)
