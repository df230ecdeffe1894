"""Reader of the layout ``coco``: COCO (Lin et al. 2014) as downloaded, and other data in its form.

::

    annotations/instances_train2017.json    annotations_trainval2017.zip; images, annotations with bbox, categories
    annotations/instances_val2017.json
    train2017/000000000009.jpg              train2017.zip; or images/train2017/
    val2017/000000000139.jpg

The end of an annotation file's name (``train2017``) names the folder of its images, which may also be ``images/``. A
name that begins with ``train`` is the training split; the test split begins with ``test`` or else ``val``. Without
both, all annotated images get a drawn split. An image is one sample, with the box (x, y, width, height) and the
category of its largest object; crowds (``iscrowd``) are no objects.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dagaug.data.dataset_records import Listing, Sample, Split
from dagaug.data.list_files import finite_numbers, need
from dagaug.data.published.object_annotations import SMALLER_OBJECTS, AnnotatedObject, largest_of
from dagaug.data.safe_paths import SafePaths
from dagaug.runtime.errors import DataError

__all__ = ["is_coco", "read_coco"]

_NAME, _ARCHIVE = "COCO", "annotations_trainval2017.zip"


def is_coco(root: Path) -> bool:
    """Whether a folder looks like COCO."""
    return any((root / "annotations").glob("instances_*.json")) or (root / "train2017").is_dir()


def read_coco(root: Path) -> Listing:
    """Read the annotations of COCO.

    Raises:
        DataError: a file is missing or malformed.
        OSError: a file cannot be read.
    """
    need(root / "annotations", _NAME, _ARCHIVE)
    left_out: Counter[str] = Counter()
    found: dict[Path, tuple[AnnotatedObject, Split]] = {}
    files = _split_files(root / "annotations", left_out)
    for split, file in files:
        below = _images_of(root, file)
        paths = SafePaths(root, below)
        for number, (name, objects) in enumerate(_read_images(file), 1):
            path = Path(below) / paths.checked(name, f"{file}, image {number}")
            if path in found:
                raise DataError(f"{file}, image {number}: {path} is listed twice")
            if objects:
                found[path] = largest_of(objects), split
                left_out[SMALLER_OBJECTS] += len(objects) - 1
            left_out["images without an object"] += not objects
    classes = sorted({one.name for one, _ in found.values()})
    label_of = {name: label for label, name in enumerate(classes)}
    samples = [Sample(path, label_of[one.name], split, one.box) for path, (one, split) in found.items()]
    return Listing(classes, samples, has_split=len(files) == 2, left_out=+left_out)


def _split_files(folder: Path, left_out: Counter[str]) -> list[tuple[Split, Path]]:
    """The annotation files of the training and the test split, or the only one of all images."""
    files = sorted(folder.glob("instances_*.json"))
    train = [file for file in files if _ending(file).startswith("train")]
    test = [file for file in files if _ending(file).startswith("test")]
    valid = [file for file in files if _ending(file).startswith("val")]
    if test and valid:
        left_out.update(f"annotation file {file.name}" for file in valid)
    chosen: list[list[Path]] = [train, test or valid]
    if not any(chosen):
        chosen = [files]
    for several in chosen:
        if len(several) > 1:
            names = " and ".join(file.name for file in several)
            raise DataError(f"{folder}: holds {names}, which are of one split; keep one of them")
    if not files:
        raise DataError(f"{folder}: holds no instances_*.json; {_NAME} has them in {_ARCHIVE}")
    if len(chosen) == 2 and train and chosen[1]:
        return [("train", train[0]), ("test", chosen[1][0])]
    return [("train", next(several[0] for several in chosen if several))]


def _ending(file: Path) -> str:
    return file.stem.removeprefix("instances_")


def _images_of(root: Path, file: Path) -> str:
    """The folder of the images of an annotation file, relative to the root."""
    name = _ending(file)
    for below in (name, f"images/{name}", "images"):
        if (root / below).is_dir():
            return below
    need(root / name, _NAME, f"{name}.zip; without these images, remove {file.relative_to(root)}")
    return name


def _read_images(file: Path) -> Iterator[tuple[str, list[AnnotatedObject]]]:
    """File name and objects of each image."""
    try:
        content: Any = json.loads(file.read_bytes())
        names = {category["id"]: str(category["name"]) for category in content["categories"]}
        objects: dict[object, list[AnnotatedObject]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            box = finite_numbers(annotation["bbox"], 4)
            # Some published boxes are empty.
            if box is not None and box[2] > 0 and box[3] > 0 and not annotation.get("iscrowd"):
                x, y, width, height = box
                one = AnnotatedObject(names[annotation["category_id"]], (x, y, width, height))
                objects[annotation["image_id"]].append(one)
        for image in content["images"]:
            yield str(image["file_name"]), objects[image["id"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)[:80]
        raise DataError(f"{file}: not annotations in the form of COCO ({reason})") from error
