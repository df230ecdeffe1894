"""What holds for every published data set: recognition, the split, the files, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from making_published import (
    BOX,
    write_aircraft,
    write_cars,
    write_coco,
    write_dogs,
    write_flowers,
    write_huggingface,
    write_nabirds,
    write_old_cars,
    write_pets,
    write_voc,
)

from dagaug.data.layouts import read_dataset
from dagaug.runtime.errors import DataError

WRITERS: dict[str, Callable[[Path], Path]] = {
    "nabirds": write_nabirds,
    "aircraft": write_aircraft,
    "cars": write_cars,
    "dogs": write_dogs,
    "pets": write_pets,
    "flowers": write_flowers,
    "voc": write_voc,
    "coco": write_coco,
    "huggingface": write_huggingface,
}

CASES = [*WRITERS.items(), ("cars", write_old_cars)]


@pytest.mark.parametrize(("layout", "write"), CASES)
def test_it_is_recognised_and_read_with_its_split_and_boxes(
    tmp_path: Path, layout: str, write: Callable[[Path], Path]
) -> None:
    data = read_dataset(write(tmp_path / "data"))
    assert (data.layout, data.split_origin, len(data.classes)) == (layout, "given", 2)
    assert data == read_dataset(tmp_path / "data", layout=layout)
    for label in (0, 1):
        assert [sum(one.label == label for one in part) for part in (data.train, data.test)] == [3, 1]
    assert all(data.file(sample).is_file() for sample in data.samples)
    boxes = {sample.box for sample in data.samples}
    assert boxes == ({None} if layout in ("pets", "flowers") else {BOX})


@pytest.mark.parametrize(("layout", "write"), CASES)
def test_the_folder_above_is_refused_with_the_folder_to_give(
    tmp_path: Path, layout: str, write: Callable[[Path], Path]
) -> None:
    write(tmp_path / "downloads" / "archive")
    with pytest.raises(DataError, match=r"further in; give .*downloads/archive"):
        read_dataset(tmp_path / "downloads")


@pytest.mark.parametrize(
    ("layout", "part", "archive"),
    [
        ("aircraft", "data/variants.txt", r"fgvc-aircraft-2013b\.tar\.gz"),
        ("aircraft", "data/images_box.txt", r"fgvc-aircraft-2013b\.tar\.gz"),
        ("aircraft", "data/images_variant_test.txt", r"fgvc-aircraft-2013b\.tar\.gz"),
        ("cars", "devkit/cars_meta.mat", r"car_devkit\.tgz"),
        ("cars", "cars_test_annos_withlabels.mat", r"cars_test_annos_withlabels\.mat, a file of its own"),
        ("cars", "cars_train", r"cars_train\.tgz"),
        ("dogs", "test_list.mat", r"lists\.tar"),
        ("dogs", "Annotation", r"annotation\.tar"),
        ("pets", "annotations/trainval.txt", r"annotations\.tar\.gz"),
        ("pets", "images", r"images\.tar\.gz"),
        ("flowers", "setid.mat", r"setid\.mat, a file of its own"),
        ("flowers", "jpg", r"102flowers\.tgz"),
        ("voc", "ImageSets", r"VOCtrainval_\*\.tar"),
        ("voc", "JPEGImages", r"VOCtrainval_\*\.tar"),
        ("coco", "annotations", r"annotations_trainval2017\.zip"),
        ("coco", "val2017", r"val2017\.zip; without these images, remove annotations/instances_val2017\.json"),
    ],
)
def test_a_missing_part_is_named_with_its_archive(tmp_path: Path, layout: str, part: str, archive: str) -> None:
    root = WRITERS[layout](tmp_path)
    (root / part).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=rf"{Path(part).parts[0]}.*: missing; .* has it in {archive}"):
        read_dataset(root)


@pytest.mark.parametrize(
    ("layout", "file", "old"),
    [
        ("nabirds", "images.txt", "0295/"),
        ("aircraft", "data/images_variant_test.txt", "0000003"),
        ("pets", "annotations/test.txt", "Abyssinian_3"),
        ("voc", "ImageSets/Main/val.txt", "2007_000003"),
        ("coco", "annotations/instances_val2017.json", "000000000003"),
        ("huggingface", "test/metadata.csv", "0003"),
    ],
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, layout: str, file: str, old: str) -> None:
    root = WRITERS[layout](tmp_path)
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, f"../../../{old}", 1))
    if layout == "aircraft":
        boxes = root / "data" / "images_box.txt"
        boxes.write_text(boxes.read_text() + f"../../../{old} 1 1 9 9\n")
    with pytest.raises(DataError, match="leaves the data folder"):
        read_dataset(root)


@pytest.mark.parametrize(
    ("layout", "file", "message"),
    [
        ("cars", "devkit/cars_train_annos.mat", "not a MATLAB file"),
        ("flowers", "imagelabels.mat", "not a MATLAB file"),
        ("dogs", "train_list.mat", "not a MATLAB file"),
        ("dogs", "Annotation/n02085620-Chihuahua/n02085620_0", "not an XML file"),
        ("voc", "Annotations/2007_000000.xml", "not an XML file"),
        ("coco", "annotations/instances_train2017.json", "not annotations in the form of COCO"),
        ("aircraft", "data/images_box.txt", "line 1: expected an image and 4 numbers"),
        ("pets", "annotations/test.txt", "line 1: expected BREED_NUMBER and three numbers"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, layout: str, file: str, message: str) -> None:
    root = WRITERS[layout](tmp_path)
    (root / file).write_text("damaged")
    with pytest.raises(DataError, match=f"{Path(file).name}.*{message}"):
        read_dataset(root)
