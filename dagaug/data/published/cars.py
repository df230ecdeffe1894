"""Reader of the layout ``cars``: Stanford Cars (Krause et al. 2013) as downloaded, in either of its two forms.

With a development kit, as torchvision and the copies of the data set have it::

    cars_train/00001.jpg                 (or cars_train/cars_train/00001.jpg)
    cars_test/00001.jpg
    devkit/cars_meta.mat                 class_names: 196 names
    devkit/cars_train_annos.mat          annotations: bbox_x1, bbox_y1, bbox_x2, bbox_y2, class, fname
    cars_test_annos_withlabels.mat       the same of the test images; beside devkit/ or in it

All in one, the older form::

    car_ims/000001.jpg
    cars_annos.mat                       class_names; annotations: relative_im_path, bbox_x1, …, class, test

Boxes are the first and last pixels, counted from 1; classes are counted from 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dagaug.data.dataset_records import Box, Listing, Sample, Split
from dagaug.data.list_files import box_of_corners, finite_numbers, need
from dagaug.data.published.matlab_files import read_matlab, records_of, whole_number
from dagaug.data.safe_paths import SafePaths
from dagaug.runtime.errors import DataError

__all__ = ["is_cars", "read_cars"]

_NAME, _KIT = "Stanford Cars", "car_devkit.tgz"
_BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def is_cars(root: Path) -> bool:
    """Whether a folder looks like Stanford Cars."""
    marks = ("cars_train", "cars_annos.mat", "car_ims", "devkit/cars_train_annos.mat", "devkit/cars_meta.mat")
    return any((root / name).exists() for name in marks)


def read_cars(root: Path) -> Listing:
    """Read the annotations of Stanford Cars.

    Raises:
        DataError: an annotation file is missing or malformed.
        OSError: a file cannot be read.
    """
    if (root / "car_ims").is_dir():
        return _read_all_in_one(root, need(root / "cars_annos.mat", _NAME, "cars_annos.mat, beside car_ims.tgz"))
    kit = root / "devkit"
    meta = need(kit / "cars_meta.mat", _NAME, _KIT)
    train = need(kit / "cars_train_annos.mat", _NAME, _KIT)
    in_kit = kit / "cars_test_annos_withlabels.mat"
    test = in_kit if in_kit.is_file() else root / in_kit.name
    need(test, _NAME, f"{in_kit.name}, a file of its own, since the cars_test_annos.mat of the kit has no labels")
    (names,) = read_matlab(meta, ["class_names"])
    classes = _names(meta, names)
    samples = _read_split(root, "cars_train", train, classes, "train")
    samples += _read_split(root, "cars_test", test, classes, "test")
    return Listing(classes, samples, has_split=True)


def _read_split(root: Path, folder: str, file: Path, classes: list[str], split: Split) -> list[Sample]:
    need(root / folder, _NAME, f"{folder}.tgz")
    below = f"{folder}/{folder}" if (root / folder / folder).is_dir() else folder
    paths = SafePaths(root, below)
    (annotations,) = read_matlab(file, ["annotations"])
    samples = []
    for number, (name, label, *corners) in enumerate(records_of(file, annotations, ("fname", "class", *_BOX)), 1):
        where = f"{file}, annotation {number}"
        path = Path(below) / paths.checked(str(name), where)
        samples.append(Sample(path, _label(label, classes, where), split, _box(corners, where)))
    return _without_twins(samples, file)


def _read_all_in_one(root: Path, file: Path) -> Listing:
    names, annotations = read_matlab(file, ["class_names", "annotations"])
    classes = _names(file, names)
    paths = SafePaths(root)
    samples = []
    fields = ("relative_im_path", "class", "test", *_BOX)
    for number, (name, label, test, *corners) in enumerate(records_of(file, annotations, fields), 1):
        where = f"{file}, annotation {number}"
        path = paths.checked(str(name), where)
        samples.append(Sample(path, _label(label, classes, where), "test" if test else "train", _box(corners, where)))
    return Listing(classes, _without_twins(samples, file), has_split=True)


def _names(file: Path, array: np.ndarray) -> list[str]:
    names = [str(name) for name in array.tolist()]
    if len(set(names)) < len(names):
        raise DataError(f"{file}: two classes have the same name")
    return names


def _label(value: object, classes: list[str], where: str) -> int:
    number = whole_number(value, len(classes))
    if number is None:
        raise DataError(f"{where}: class {str(value)[:60]} is not one of 1 to {len(classes)}")
    return number - 1


def _box(corners: Iterable[object], where: str) -> Box:
    values = finite_numbers(list(corners), 4)
    if values is None:
        raise DataError(f"{where}: its box is not 4 numbers")
    return box_of_corners(values[0], values[1], values[2], values[3], where)


def _without_twins(samples: list[Sample], file: Path) -> list[Sample]:
    seen: set[Path] = set()
    for sample in samples:
        if sample.path in seen:
            raise DataError(f"{file}: {sample.path} is annotated twice")
        seen.add(sample.path)
    return samples
