from __future__ import annotations

from pathlib import Path

from making_published import write_aircraft, write_lines

from dagaug.data.layouts import read_dataset


def test_the_inner_folder_is_read_too_and_unseen_variants_are_no_classes(tmp_path: Path) -> None:
    root = write_aircraft(tmp_path)
    inner = read_dataset(root / "data")
    assert inner.layout == "aircraft"
    assert [Path("data", sample.path) for sample in inner.samples] == [one.path for one in read_dataset(root).samples]
    assert inner.classes == ("707-320", "Boeing 717")


def test_training_and_validation_images_are_the_training_split_without_the_joint_list_too(tmp_path: Path) -> None:
    root = write_aircraft(tmp_path)
    joint = read_dataset(root)
    (root / "data" / "images_variant_trainval.txt").unlink()
    assert {one.path for one in read_dataset(root).train} == {one.path for one in joint.train}


def test_boxes_end_above_the_banner_where_the_list_says_so(tmp_path: Path) -> None:
    root = write_aircraft(tmp_path)
    write_lines(root / "data" / "images_box.txt", *(f"{n:07d} 1 1 48 28" for n in range(8)))
    assert {sample.box for sample in read_dataset(root).samples} == {(0, 0, 48, 28)}
