"""COCO and YOLO: what their readers find is what the HDF5 file holds."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from making_stores import MORPHS, REAL, SHARDS, SIZE, header, shard, with_objects, write
from torchvision.datasets import CocoDetection

from dagaug.data.layouts import read_dataset
from dagaug.exchange.export import Exported, Format, export
from dagaug.exchange.reimport import reimport
from dagaug.hdf5.object_masks import Objects
from dagaug.hdf5.reader import Store
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import ShardContent
from dagaug.hdf5.verify import verify
from dagaug.runtime.errors import DataError

TOTAL = REAL + 2 * MORPHS
CLASSES = ("wren", "robin: <b>")
UNKNOWN = (0, 3, 5)
"""Real images whose boxes :func:`partly_known` removes."""


def exported(tmp_path: Path, to: Format, **changes: object) -> Path:
    write(tmp_path / "x.h5", **({"classes": CLASSES} | changes))  # type: ignore[arg-type]
    export(tmp_path / "x.h5", tmp_path / "out", to=to)
    return tmp_path / "out"


def partly_known(tmp_path: Path, to: Format) -> Exported:
    """The same from a file that lacks the boxes of some real images."""

    def content(index: int) -> ShardContent:
        given = with_objects(index, shard(index))
        if index == 0:
            assert given.objects is not None
            boxes = given.objects.box.copy()
            boxes[list(UNKNOWN)] = np.nan
            object.__setattr__(given, "objects", Objects(boxes, given.objects.masks))
        return given

    with open_shard_folder(tmp_path / "x.h5", {}) as run:
        for index in range(SHARDS):
            run.write(index, content(index))
        run.merge(header(), SHARDS)
    return export(tmp_path / "x.h5", tmp_path / "out", to=to)


def test_coco_has_the_published_layout_with_one_file_for_each_split(tmp_path: Path) -> None:
    out = exported(tmp_path, "coco")
    seen = set()
    for split, count in (("train", TOTAL - 2), ("test", 2)):
        found = json.loads((out / "annotations" / f"instances_{split}.json").read_text(encoding="utf-8"))
        assert list(found) == ["info", "licenses", "categories", "images", "annotations"]
        assert [(one["id"], one["name"]) for one in found["categories"]] == [(1, CLASSES[0]), (2, CLASSES[1])]
        assert len(found["images"]) == len(found["annotations"]) == count
        for image, annotation in zip(found["images"], found["annotations"], strict=True):
            assert annotation["image_id"] == image["id"] > 0
            assert annotation["iscrowd"] == 0
            pixels = cv2.imread(str(out / split / image["file_name"]))
            assert pixels.shape == (image["height"], image["width"], 3) == (SIZE + 2, SIZE, 3)
            assert annotation["category_id"] in (1, 2)
            seen.add(image["id"])
    assert len(seen) == TOTAL
    assert not list(out.rglob("*.tmp"))


def test_pycocotools_reads_every_box_and_mask_of_coco(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    out = exported(tmp_path, "coco")
    with contextlib.redirect_stdout(io.StringIO()):
        read = coco.COCO(str(out / "annotations" / "instances_train.json"))
    rows = [*range(REAL - 2), *range(REAL, TOTAL)]
    with Store(tmp_path / "x.h5") as store:
        assert store.boxes is not None
        for row, (number, image) in zip(rows, sorted(read.imgs.items()), strict=True):
            (annotation,) = read.loadAnns(read.getAnnIds(number))
            assert annotation["category_id"] == store.images.label[row] + 1
            assert annotation["bbox"] == store.boxes[row].tolist()
            assert image["synthetic"] == store.images.synthetic[row]
            mask = store.mask(row)
            if mask is None:
                assert "segmentation" not in annotation
                assert annotation["area"] == pytest.approx(store.boxes[row][2:].prod())
            else:
                np.testing.assert_array_equal(read.annToMask(annotation), mask)
                assert annotation["area"] == mask.sum()


def test_torchvision_reads_coco(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools.coco")
    out = exported(tmp_path, "coco")
    with contextlib.redirect_stdout(io.StringIO()):
        read = CocoDetection(str(out / "test"), str(out / "annotations" / "instances_test.json"))
    assert len(read) == 2
    image, annotations = read[0]
    assert image.size == (SIZE, SIZE + 2)
    assert annotations[0]["bbox"] == [1.5, 2.0, 6.25, 4.0]


def test_dagaug_reads_coco_with_its_boxes(tmp_path: Path) -> None:
    data = read_dataset(exported(tmp_path, "coco"))
    assert (data.layout, len(data.train), len(data.test)) == ("coco", TOTAL - 2, 2)
    assert set(data.classes) == set(CLASSES)
    with Store(tmp_path / "x.h5") as store:
        assert store.boxes is not None
        box_of = {store.encoded(row): tuple(store.boxes[row].tolist()) for row in range(TOTAL)}
    assert [sample.box for sample in data.samples] == [box_of[data.file(one).read_bytes()] for one in data.samples]


def test_yolo_has_a_label_beside_each_image_and_settings_that_name_the_folders(tmp_path: Path) -> None:
    out = exported(tmp_path, "yolo")
    settings = yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8"))
    assert settings == {"train": "images/train", "val": "images/test", "test": "images/test",
                        "names": dict(enumerate(CLASSES))}  # fmt: skip
    images = sorted(path for path in (out / "images").rglob("*") if path.is_file())
    labels = sorted(path for path in (out / "labels").rglob("*") if path.is_file())
    # Ultralytics replaces /images/ by /labels/ and the ending by .txt.
    assert [Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt") for path in images] == labels
    assert len(labels) == TOTAL
    name, *shares = (out / "labels" / "test" / "4.txt").read_text().split()
    assert name == "0"
    x, y, width, height = (float(share) * side for share, side in zip(shares, (SIZE, SIZE + 2) * 2, strict=True))
    assert [x - width / 2, y - height / 2, width, height] == pytest.approx([1.5, 2, 6.25, 4], abs=1e-4)
    assert all(0 <= float(word) <= 1 for path in labels for word in path.read_text().split()[1:])


def test_yolo_without_test_images_names_no_validation_images(tmp_path: Path) -> None:
    write(tmp_path / "x.h5", classes=CLASSES)
    export(tmp_path / "x.h5", tmp_path / "out", to="yolo", synthetic_only=True)
    assert yaml.safe_load((tmp_path / "out" / "data.yaml").read_text()).keys() == {"train", "names"}


@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_images_without_a_known_box_are_left_out_and_counted(tmp_path: Path, to: Format) -> None:
    done = partly_known(tmp_path, to)
    assert (done.left_out, done.images, done.boxes) == (len(UNKNOWN), TOTAL - len(UNKNOWN), TOTAL - len(UNKNOWN))
    files = list((tmp_path / "out").rglob("*.png"))
    assert len(files) == done.images
    assert {"0", "3", "5"}.isdisjoint(path.stem for path in files)
    reimport(tmp_path / "out", tmp_path / "back.h5")
    found = verify(tmp_path / "back.h5")
    assert (found.images, found.boxes) == (done.images, done.images)


@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_a_file_without_boxes_is_refused_with_the_next_step(tmp_path: Path, to: Format) -> None:
    write(tmp_path / "x.h5", objects=False)
    with pytest.raises(DataError, match=rf"holds no boxes of these images' objects, which {to} needs; make the file"):
        export(tmp_path / "x.h5", tmp_path / "out", to=to)
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]


@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_images_of_equal_names_get_different_files(tmp_path: Path, to: Format) -> None:
    out = exported(tmp_path, to, files=tuple(f"{row}/same.jpg" for row in range(REAL)))
    assert len(list(out.rglob("*.png"))) == TOTAL
