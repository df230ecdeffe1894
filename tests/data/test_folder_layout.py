from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from making_datasets import splits_of, touch

from dagaug.data.folder_layout import class_of
from dagaug.data.layouts import read_dataset
from dagaug.runtime.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_class_folders_with_a_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/b/2.png", "train/b/deep/1.JPG", "train/a/鸟.webp", "test/a/x.tif", "test/b/y.bmp")
    touch(tmp_path, "train/a/notes.txt", "train/a/.hidden.png", "train/.cache/1.png", "val/a/left-out.png")
    data = read_dataset(tmp_path)
    assert data.layout == "imagefolder"
    assert data.classes == ("a", "b")
    assert data.split_origin == "given"
    assert splits_of(data) == {
        "train/a/鸟.webp": "train",
        "train/b/2.png": "train",
        "train/b/deep/1.JPG": "train",
        "test/a/x.tif": "test",
        "test/b/y.bmp": "test",
    }


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "TEST"])
def test_other_names_of_the_test_folder(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "train/a/1.png", "train/b/2.png", f"{name}/a/3.png")
    assert splits_of(read_dataset(tmp_path))[f"{name}/a/3.png"] == "test"


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_class_folders_without_a_split_get_a_drawn_one(tmp_path: Path, prefix: str) -> None:
    touch(tmp_path, *(f"{prefix}{name}/{number}.png" for name in "abc" for number in range(10)))
    data = read_dataset(tmp_path)
    assert data.classes == ("a", "b", "c")
    assert data.split_origin == "drawn"
    assert Counter((sample.label, sample.split) for sample in data.samples) == {
        (label, split): count for label in range(3) for split, count in (("train", 8), ("test", 2))
    }


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    touch(tmp_path, "bus/1.png", "train/1.png", "car/1.png")
    assert read_dataset(tmp_path).classes == ("bus", "car", "train")


def test_a_class_without_training_images_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.png", "train/b/2.png", "test/c/3.png")
    with pytest.raises(DataError, match=r"test/c/3\.png: class c has no training images"):
        read_dataset(tmp_path)


@pytest.mark.skipif(not (SHARED / "digits-uci").is_dir(), reason="the digits are not here")
def test_digits_are_read() -> None:
    data = read_dataset(SHARED / "digits-uci")
    assert (data.layout, len(data.classes), len(data.train), len(data.test)) == ("imagefolder", 10, 1352, 445)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("x.png", ("all", "train")),
        ("a/x.png", ("a", "train")),
        ("a/b/x.png", ("a", "train")),
        ("test/x.png", ("test", "train")),
        ("Test/a/x.png", ("a", "test")),
        ("val/a/deep/x.png", ("a", "test")),
        ("training/a/x.png", ("a", "train")),
    ],
)
def test_class_and_split_follow_from_the_folders_of_a_path(path: str, expected: tuple[str, str]) -> None:
    assert class_of(path, "all") == expected


# ---- what is left out is told


def test_what_is_left_out_is_counted_and_told_in_one_line(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.png", "train/a/2.gif", "train/a/.hidden.png", "train/b/3.jfif", "test/a/4.png")
    touch(tmp_path, "test/b/5.png", "val/a/6.png", "train/b/notes")
    (tmp_path / "train" / "b" / "link").symlink_to(tmp_path / "train" / "a")
    data = read_dataset(tmp_path)
    assert data.left_out == {
        "files ending in .gif": 1, "hidden": 1, "images in val/": 1, "links to folders": 1, "without ending": 1,
    }  # fmt: skip
    assert data.describe() == (
        f"{tmp_path}: class folders, 2 classes, 2 training and 2 test images (split given by the data); left out: "
        "1 files ending in .gif, 1 hidden, 1 images in val/, 1 links to folders, 1 without ending"
    )


def test_own_outputs_in_the_data_are_no_data_and_change_nothing(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{number}.png" for name in "abc" for number in range(5)))
    before = read_dataset(tmp_path)
    touch(tmp_path, "runs/a-1/sheets/0001.png", "runs/a-1/.dagaug-run", "b/export/train/x/1.png")
    touch(tmp_path, "b/export/.dagaug-export", "old/options.json", "old/metrics.jsonl", "old/sheets/1.png")
    after = read_dataset(tmp_path)
    assert after == before
    assert after.left_out["folders written by dagaug"] == 3


@pytest.mark.parametrize(("train", "test"), [("seg_train", "seg_test"), ("training_set", "test_set")])
@pytest.mark.parametrize("repeated", [False, True])
def test_splits_as_published_are_recognised(tmp_path: Path, train: str, test: str, repeated: bool) -> None:
    outer = {name: f"{name}/{name}" if repeated else name for name in (train, test)}
    touch(tmp_path, *(f"{outer[split]}/{name}/1.png" for split in (train, test) for name in "ab"))
    data = read_dataset(tmp_path)
    assert data.classes == ("a", "b")
    assert (len(data.train), len(data.test), data.split_origin) == (2, 2, "given")


def test_folders_that_may_be_classes_or_splits_are_asked_back(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{split}/1.png" for name in ("cat", "dog") for split in ("train", "test")))
    with pytest.raises(DataError, match=r"all hold the same folders \(test, train\), so it is unclear"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, layout="imagefolder").classes == ("cat", "dog")


def test_two_domains_are_not_read_as_classes(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/1.png" for name in ("trainA", "trainB", "testA", "testB")))
    with pytest.raises(DataError, match=r"holds two domains \(trainA and trainB\), not classes"):
        read_dataset(tmp_path)


def test_the_outer_folder_of_a_cub_download_is_refused_with_the_inner_one(tmp_path: Path) -> None:
    touch(tmp_path, "CUB_200_2011/images.txt", "CUB_200_2011/images/a/1.png", "segmentations/a/1.png")
    with pytest.raises(DataError, match=r"one folder further in; give .*CUB_200_2011 with masks=.*segmentations"):
        read_dataset(tmp_path)
