"""Writers of the formats of object detection: COCO's annotations and the folders of YOLO (Ultralytics).

- ``coco``: images in ``train/`` and ``test/``, and ``annotations/instances_train.json`` and ``instances_test.json`` in
  the layout of https://cocodataset.org/#format-data. Read by pycocotools, torchvision's ``CocoDetection``, Detectron2
  and MMDetection. A mask is compressed RLE, exact to the pixel; an image whose box alone is known has no segmentation.
- ``yolo``: images in ``images/train/`` and ``images/test/``, for each a text file in ``labels/`` of the same name with
  one line ``label x y width height`` (the box's centre and size as fractions of the image's width and height), and
  ``data.yaml``. Read by Ultralytics.

Every image has one object, of the image's class. Images without a known box are no part of such an export.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from dagaug.exchange.exported_images import ExportedImage, ExportPlan, ImageFiles, ImageLocation
from dagaug.runtime.errors import in_one_line

__all__ = ["write_coco", "write_yolo"]


def write_coco(plan: ExportPlan, images: Iterator[ExportedImage]) -> Iterator[ImageLocation]:
    """Write images in folders of the splits, and one JSON file of annotations for each split."""
    files = ImageFiles(plan.folder)
    tables: dict[str, _CocoTable] = {}
    (plan.folder / "annotations").mkdir()
    with ExitStack() as opened:
        for image in images:
            place = files.write(image.split, image)
            if image.split not in tables:
                path = plan.folder / "annotations" / f"instances_{image.split}.json"
                tables[image.split] = opened.enter_context(_CocoTable(path, plan.labels))
            tables[image.split].add(Path(place.file).name, image)
            yield place


class _CocoTable:
    """A JSON file of annotations that is being written, image by image; use it in a ``with`` block.

    The list of annotations follows the list of images, so it is kept in a second file until the end.
    """

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        self._path, self._labels, self._separator = path, labels, "\n"
        self._second = path.with_name(path.name + ".tmp")

    def __enter__(self) -> _CocoTable:
        self._images = self._path.open("w", encoding="utf-8")
        self._annotations = self._second.open("w+", encoding="utf-8")
        categories = [
            {"id": label + 1, "name": name, "supercategory": "object"} for label, name in enumerate(self._labels)
        ]
        info = {"description": "Exported by dagaug; the source of each image is in its entry", "version": "1.0"}
        self._images.write(f'{{"info": {json.dumps(info)},\n"licenses": [],\n"categories": ')
        self._images.write(f'{json.dumps(categories, ensure_ascii=False)},\n"images": [')
        return self

    def add(self, name: str, image: ExportedImage) -> None:
        assert image.box is not None
        number = image.row + 1  # COCO's numbers begin with 1
        entry = {
            "id": number,
            "file_name": name,
            "width": image.width,
            "height": image.height,
            "synthetic": image.synthetic,
            "source": in_one_line(image.source),
            "reference": in_one_line(image.reference),
            "variant": in_one_line(image.variant),
        }
        box = [round(value, 3) for value in image.box]
        annotation: dict[str, object] = {
            "id": number,
            "image_id": number,
            "category_id": image.label + 1,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        if image.encoded_mask:
            annotation["area"] = int(image.mask().sum())
            annotation["segmentation"] = {
                "size": [image.height, image.width],
                "counts": image.encoded_mask.decode("ascii"),
            }
        self._write(self._images, entry)
        self._write(self._annotations, annotation)
        self._separator = ",\n"

    def _write(self, stream: IO[str], entry: dict[str, object]) -> None:
        stream.write(self._separator + json.dumps(entry, ensure_ascii=False))

    def __exit__(self, *exception: object) -> None:
        with self._images, self._annotations:
            self._images.write('],\n"annotations": [')
            self._annotations.seek(0)
            shutil.copyfileobj(self._annotations, self._images)
            self._images.write("]}\n")
        self._second.unlink()


def write_yolo(plan: ExportPlan, images: Iterator[ExportedImage]) -> Iterator[ImageLocation]:
    """Write images and their labels in folders of the splits, and ``data.yaml``."""
    files, splits = ImageFiles(plan.folder), set()
    for image in images:
        place = files.write(f"images/{image.split}", image)
        label = (plan.folder / "labels" / Path(place.file).relative_to("images")).with_suffix(".txt")
        if image.split not in splits:
            label.parent.mkdir(parents=True)
            splits.add(image.split)
        label.write_text(_yolo_line(image), encoding="ascii")
        yield place
    (plan.folder / "data.yaml").write_text(_yolo_settings(plan, splits), encoding="utf-8")


def _yolo_line(image: ExportedImage) -> str:
    assert image.box is not None
    x, y, width, height = image.box
    shares = (x + width / 2) / image.width, (y + height / 2) / image.height, width / image.width, height / image.height
    return " ".join([str(image.label), *(f"{min(share, 1.0):.6f}" for share in shares)]) + "\n"


def _yolo_settings(plan: ExportPlan, splits: set[str]) -> str:
    """The content of ``data.yaml``; its paths are relative to it. A JSON text is a YAML text, too."""
    lines = ["# Exported by dagaug"]
    lines.append("train: images/train" if "train" in splits else "# train: no training image was exported")
    if "test" in splits:
        lines += ["val: images/test", "test: images/test"]
    else:
        lines.append("# val: no test image was exported; name a folder of your own images")
    names = (f"  {label}: {json.dumps(name, ensure_ascii=False)}" for label, name in enumerate(plan.labels))
    return "\n".join([*lines, "names:", *names]) + "\n"
