"""Each layout is recognised and read; bad lists are refused with file and line; splits never leak."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagaug.data.dataset import Dataset, Sample
from dagaug.data.layouts import class_of, read_dataset, read_domains
from dagaug.runtime.errors import DataError, UsageError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"not read here")


def cub(root: Path) -> Path:
    """Six images of two classes; the ids start at 3, the classes' at 5."""
    root.mkdir(exist_ok=True)
    files = [f"00{1 + number // 3}.Häher_{number // 3}/{number}.jpg" for number in range(6)]
    (root / "images.txt").write_text("".join(f"{3 + n} {name}\n" for n, name in enumerate(files)))
    (root / "image_class_labels.txt").write_text("".join(f"{3 + n} {5 + n // 3}\n" for n in range(6)))
    (root / "classes.txt").write_text("5 001.Häher_0\n6 002.Häher_1\n")
    (root / "train_test_split.txt").write_text("3 1\n4 1\n5 0\n6 1\n7 1\n8 0\n")
    (root / "bounding_boxes.txt").write_text("".join(f"{3 + n} {n}.5 2.0 30.0 40.0\n" for n in range(6)))
    (root / "parts").mkdir(exist_ok=True)
    (root / "parts" / "part_locs.txt").write_text("3 1 4.5 6.0 1\n3 2 0.0 0.0 0\n3 3 7.0 8.0 1\n")
    touch(root, *("images/" + name for name in files))
    (root / "text" / "001.Häher_0").mkdir(parents=True, exist_ok=True)
    (root / "text" / "001.Häher_0" / "0.txt").write_text("A blue bird.\n\nIt sits.\n")
    return root


def split_of(data: Dataset) -> dict[str, str]:
    return {sample.path.as_posix(): sample.split for sample in data.samples}


# CUB-200-2011


def test_cub_lists_become_samples(tmp_path: Path) -> None:
    data = read_dataset(cub(tmp_path))
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
    cub(tmp_path)
    for name in ("train_test_split.txt", "bounding_boxes.txt", "parts/part_locs.txt"):
        (tmp_path / name).unlink()
    data = read_dataset(tmp_path)
    assert data.split_origin == "drawn"
    assert {sample.box for sample in data.samples} == {None}
    assert Counter((sample.label, sample.split) for sample in data.samples) == {
        (label, split): count for label in (0, 1) for split, count in (("train", 2), ("test", 1))
    }


def test_classes_without_images_are_left_out(tmp_path: Path) -> None:
    cub(tmp_path)
    (tmp_path / "classes.txt").write_text("4 000.None\n5 001.A\n6 002.B\n7 003.None\n")
    data = read_dataset(tmp_path)
    assert data.classes == ("001.A", "002.B")
    assert {sample.label for sample in data.samples} == {0, 1}


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("images.txt", "4 001", "x 001", r"images\.txt, line 2: expected a number and a value"),
        ("images.txt", "4 001", "3 001", r"images\.txt, line 2: number 3 stands in line 1 already"),
        ("images.txt", "/1.jpg", "/0.jpg", r"images\.txt, line 2: .* stands in line 1 already"),
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
    path = cub(tmp_path) / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)


def test_a_missing_or_binary_list_is_named(tmp_path: Path) -> None:
    cub(tmp_path)
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"classes\.txt: not a text file in UTF-8"):
        read_dataset(tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"classes\.txt: missing"):
        read_dataset(tmp_path)


def test_links_that_leave_the_folder_are_refused_and_others_are_not(tmp_path: Path) -> None:
    root = cub(tmp_path / "data")
    image = root / "images" / "001.Häher_0" / "1.jpg"
    image.unlink()
    touch(tmp_path, "secret.jpg", "data/objects/1.jpg")
    image.symlink_to(root / "objects" / "1.jpg")
    assert len(read_dataset(root).samples) == 6
    image.unlink()
    image.symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(DataError, match=r"images\.txt, line 2: .* through a link"):
        read_dataset(root)


# Class folders


def test_class_folders_with_a_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/b/2.png", "train/b/deep/1.JPG", "train/a/鸟.webp", "test/a/x.tif", "test/b/y.bmp")
    touch(tmp_path, "train/a/notes.txt", "train/a/.hidden.png", "train/.cache/1.png", "val/a/left-out.png")
    data = read_dataset(tmp_path)
    assert data.layout == "imagefolder"
    assert data.classes == ("a", "b")
    assert data.split_origin == "given"
    assert split_of(data) == {
        "train/a/鸟.webp": "train",
        "train/b/2.png": "train",
        "train/b/deep/1.JPG": "train",
        "test/a/x.tif": "test",
        "test/b/y.bmp": "test",
    }


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "TEST"])
def test_other_names_of_the_test_folder(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "train/a/1.png", "train/b/2.png", f"{name}/a/3.png")
    assert split_of(read_dataset(tmp_path))[f"{name}/a/3.png"] == "test"


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_class_folders_without_a_split_are_split_here(tmp_path: Path, prefix: str) -> None:
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


def test_a_class_of_the_test_folder_alone_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.png", "train/b/2.png", "test/c/3.png")
    with pytest.raises(DataError, match=r"test/c/3\.png: class c has no training images"):
        read_dataset(tmp_path)


# CSV


def test_csv_with_and_without_a_split(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text('﻿Path,label,split\n"a,1.png",rot,train\nb/2.png,grün,train\n3.png,rot,val\n', "utf-8")
    for root in (tmp_path, table):
        data = read_dataset(root)
        assert (data.layout, data.root, data.classes) == ("csv", tmp_path, ("grün", "rot"))
        assert split_of(data) == {"a,1.png": "train", "b/2.png": "train", "3.png": "test"}
        assert [sample.label for sample in data.samples] == [1, 0, 1]
    table.write_text("label,path\nx,1.png\nx,2.png\ny,3.png\ny,4.png\n")
    assert Counter(split_of(read_dataset(tmp_path)).values()) == {"train": 2, "test": 2}


def test_tables_with_other_headers_do_not_make_a_folder_a_csv_layout(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "provenance.csv").write_text("path,label,source\na/1.png,a,0\n")
    assert read_dataset(tmp_path).layout == "imagefolder"
    with pytest.raises(DataError, match=r"0 CSV files with the header path,label"):
        read_dataset(tmp_path, layout="csv")
    (tmp_path / "one.csv").write_text("path,label\na/1.png,a\nb/1.png,b\n")
    assert read_dataset(tmp_path).layout == "csv"
    assert read_dataset(tmp_path, layout="imagefolder").layout == "imagefolder"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the header must be path,label"),
        ("file,label\n1.png,a\n", "line 1: the header must be path,label"),
        ("path,label\n1.png,a\n2.png\n", "line 3: path or label is empty"),
        ("path,label\n1.png,a\n2.png,b,c\n", "line 3: more values than the header names"),
        ("path,label\n1.png,a\n1.png,b\n", r"line 3: 1\.png stands in line 2 already"),
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
    with pytest.raises(DataError, match=r"list\.csv, near line \d+: not a CSV in UTF-8"):
        read_dataset(tmp_path / "list.csv")


# Bad folders and arguments


def test_folders_that_hold_no_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: no such data folder; .*dagaug sample-data"):
        read_dataset(tmp_path / "gone")
    with pytest.raises(DataError, match="no images found"):
        read_dataset(tmp_path)
    touch(tmp_path, "a/1.png", "a/2.png", "b/readme.txt")
    with pytest.raises(DataError, match=r"all images are of one class \(a\)"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match="neither a data folder nor a CSV file"):
        read_dataset(tmp_path / "a" / "1.png")


def test_arguments_out_of_range_are_usage_errors(tmp_path: Path) -> None:
    cub(tmp_path)
    for options in ({"layout": "coco"}, {"test_fraction": 1.0}, {"seed": -1}, {"per_class": 0}):
        with pytest.raises(UsageError):
            read_dataset(tmp_path, **options)


def test_file_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    try:
        (tmp_path / os.fsdecode(b"a/\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    with pytest.raises(DataError, match="is not UTF-8; rename it"):
        read_dataset(tmp_path)


# Splits and subsets


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    seed=st.integers(0, 2**63),
    fraction=st.floats(0.01, 0.99),
)
def test_drawn_splits_are_stratified_and_leave_a_training_image(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], seed: int, fraction: float
) -> None:
    table = tmp_path_factory.mktemp("drawn") / "list.csv"
    rows = [f"{label}-{number}.png,{label}" for label, count in enumerate(counts) for number in range(count)]
    table.write_text("\n".join(["path,label", *rows]))
    data = read_dataset(table, seed=seed, test_fraction=fraction)
    assert data == read_dataset(table, seed=seed, test_fraction=fraction)
    assert len(data.train) + len(data.test) == sum(counts)
    assert not {sample.path for sample in data.train} & {sample.path for sample in data.test}
    for label, count in enumerate(counts):
        tested = sum(sample.label == label for sample in data.test)
        assert tested < count
        assert abs(tested - count * fraction) <= 1
        assert tested >= 1 or count == 1


def test_the_seed_decides_the_drawn_split_and_other_classes_do_not(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{number}.png" for name in "bc" for number in range(20)))
    first = split_of(read_dataset(tmp_path, seed=1))
    assert first != split_of(read_dataset(tmp_path, seed=2))
    touch(tmp_path, *(f"a/{number}.png" for number in range(7)))
    assert first.items() <= split_of(read_dataset(tmp_path, seed=1)).items()


def test_subset_takes_the_first_training_images_and_all_test_images(tmp_path: Path) -> None:
    data = read_dataset(cub(tmp_path))
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


# Two domains


def test_two_domains_in_one_folder_or_two(tmp_path: Path) -> None:
    touch(tmp_path, "trainA/2.png", "trainA/1.png", "trainB/x.jpg", "testA/t.png")
    domains = read_domains(tmp_path)
    assert [path.name for path in domains.source] == ["1.png", "2.png"]
    assert domains.target == (tmp_path / "trainB" / "x.jpg",)
    assert domains.source_test == (tmp_path / "testA" / "t.png",)
    assert domains.target_test == ()
    assert read_domains(tmp_path / "trainA", tmp_path / "trainB").source == domains.source
    touch(tmp_path, "plain/A/1.png", "plain/B/deep/2.png")
    assert read_domains(tmp_path / "plain").target == (tmp_path / "plain" / "B" / "deep" / "2.png",)


def test_folders_that_are_no_domains_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "A/1.png", "C/readme.txt")
    for source, target, message in (
        (tmp_path, None, "not two domains"),
        (tmp_path / "gone", None, "no such data folder"),
        (tmp_path / "A", tmp_path / "C", "C: no images found"),
        (tmp_path / "A", tmp_path / "gone", "gone: no such folder"),
    ):
        with pytest.raises(DataError, match=message):
            read_domains(source, target)


# Real folders


@pytest.mark.skipif(not (SHARED / "aircraft").is_dir(), reason="the aircraft data set is not here")
def test_aircraft_are_read() -> None:
    data = read_dataset(SHARED / "aircraft", per_class=10)
    assert (data.layout, len(data.classes), len(data.train), len(data.test)) == ("cub", 30, 300, 900)
    assert all(sample.box is not None and len(sample.parts) > 0 for sample in data.samples)


@pytest.mark.skipif(not (SHARED / "digits-uci").is_dir(), reason="the digits are not here")
def test_digits_are_read() -> None:
    data = read_dataset(SHARED / "digits-uci")
    assert (data.layout, len(data.classes), len(data.train), len(data.test)) == ("imagefolder", 10, 1352, 445)


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
def test_class_and_split_are_told_by_the_folders_of_a_path(path: str, expected: tuple[str, str]) -> None:
    assert class_of(path, "all") == expected
