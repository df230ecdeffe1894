"""Reading of labelled data sets in any layout: recognition, checks of the lists, and the drawn split.

Each layout has a reader: :mod:`~dagaug.data.cub_layout`, :mod:`~dagaug.data.folder_layout`,
:mod:`~dagaug.data.csv_layout`, and one module each in :mod:`dagaug.data.published`. Only names and list files are read;
no image is decoded. The order of samples is stable. Classes without images are left out.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dagaug.data.csv_layout import other_tables_in, read_csv, tables_in
from dagaug.data.cub_layout import SEGMENTATIONS, is_nabirds, read_cub, read_nabirds
from dagaug.data.dataset_records import Dataset, Listing, Sample
from dagaug.data.folder_layout import folders_in, read_imagefolder
from dagaug.data.published.aircraft import is_aircraft, read_aircraft
from dagaug.data.published.cars import is_cars, read_cars
from dagaug.data.published.coco import is_coco, read_coco
from dagaug.data.published.dogs import is_dogs, read_dogs
from dagaug.data.published.flowers import is_flowers, read_flowers
from dagaug.data.published.huggingface import is_huggingface, read_huggingface
from dagaug.data.published.pets import is_pets, read_pets
from dagaug.data.published.voc import is_voc, read_voc
from dagaug.runtime.errors import DataError, UsageError

__all__ = ["LAYOUTS", "read_dataset"]

_READERS: dict[str, Callable[[Path], Listing]] = {
    "cub": read_cub,
    "csv": read_csv,
    "nabirds": read_nabirds,
    "aircraft": read_aircraft,
    "cars": read_cars,
    "dogs": read_dogs,
    "pets": read_pets,
    "flowers": read_flowers,
    "voc": read_voc,
    "coco": read_coco,
    "huggingface": read_huggingface,
}

_PUBLISHED: dict[str, Callable[[Path], bool]] = {
    "nabirds": is_nabirds,
    "aircraft": is_aircraft,
    "cars": is_cars,
    "dogs": is_dogs,
    "pets": is_pets,
    "flowers": is_flowers,
    "voc": is_voc,
    "coco": is_coco,
    "huggingface": is_huggingface,
}
"""What recognises a folder; the first that does, counts."""

_MOST_FOLDERS = 20  # in which a data set is looked for; class folders are more

LAYOUTS = ("cub", "imagefolder", "csv", *_PUBLISHED)
"""Names of the layouts that :func:`read_dataset` can read, without ``auto``."""


def read_dataset(
    root: Path | str,
    *,
    layout: str = "auto",
    seed: int = 0,
    test_fraction: float = 0.2,
    per_class: int | None = None,
) -> Dataset:
    """List the samples of a data set.

    Args:
        root: the data folder, or a CSV file.
        layout: one of :data:`LAYOUTS`, or ``auto`` to recognise it.
        seed: random seed of the split, where the folder gives none; 0 or more.
        test_fraction: fraction of each class in a drawn test split, between 0 and 1; at least one training image
            per class remains.
        per_class: keep only the first training images of each class; None keeps all.

    Raises:
        DataError: the folder is missing, cannot be read, holds no images or only one class, or a list file is
            malformed.
        UsageError: an argument is out of its range.
    """
    root = Path(root)
    if layout not in ("auto", *LAYOUTS):
        raise UsageError(f"choose one of auto, {', '.join(LAYOUTS)}", option="layout", value=layout)
    if not 0 < test_fraction < 1:
        raise UsageError("give a number between 0 and 1", option="test_fraction", value=test_fraction)
    if seed < 0:
        raise UsageError("give 0 or more", option="seed", value=seed)
    try:
        if not root.exists():
            raise DataError(f"{root}: no such data folder; to make one: dagaug sample-data {root}")
        found = _recognise(root) if layout == "auto" else layout
        left_out: Counter[str] = Counter()
        if found == "imagefolder":
            listing = read_imagefolder(root, sure=layout == found)
            left_out.update(f"table {told}" for told in other_tables_in(root))
        else:
            listing = _READERS[found](root)
    except OSError as error:
        where = error.filename or root
        raise DataError(f"{where}: cannot be read ({error.strerror}); check its permissions") from error
    left_out.update(listing.left_out)
    classes, samples = _without_empty_classes(listing.classes, listing.samples)
    _check(root, classes, samples, left_out)
    if not listing.has_split:
        samples = _draw_split(samples, classes, seed, test_fraction)
    dataset = Dataset(
        root=root.parent if root.is_file() else root,
        layout=found,
        classes=tuple(classes),
        samples=tuple(samples),
        split_origin="given" if listing.has_split else "drawn",
        split_seed=None if listing.has_split else seed,
        masks=listing.masks if any(sample.mask for sample in samples) else None,
        left_out=dict(left_out),
        extracted=listing.extracted,
    )
    return dataset.subset(per_class)


def _recognise(root: Path) -> str:
    if root.is_file():
        if root.suffix.lower() != ".csv":
            raise DataError(f"{root}: neither a data folder nor a CSV file")
        return "csv"
    if (root / "images.txt").is_file():
        return "nabirds" if is_nabirds(root) else "cub"
    inside = [path.parent for path in sorted(root.glob("*/images.txt"))]
    if len(inside) == 1:
        masks = f" with masks={root / SEGMENTATIONS}" if (root / SEGMENTATIONS).is_dir() else ""
        raise DataError(
            f"{root}: the lists of CUB-200-2011 or NABirds are one folder further in; give {inside[0]}{masks}"
        )
    if (root / "trainA").is_dir() and (root / "trainB").is_dir():
        raise DataError(
            f"{root}: holds two domains (trainA and trainB), not classes; choose a preset for translation",
            remedies={"preset": None},
        )
    if len(tables_in(root)) == 1:
        return "csv"
    for name, recognises in _PUBLISHED.items():
        if recognises(root):
            return name
    below = list(_published_below(root))
    if below:
        raise DataError(
            f"{root}: the data set is further in; give {' or '.join(map(str, below))}",
            remedies={"layout": "imagefolder"},
        )
    return "imagefolder"


def _published_below(root: Path, depth: int = 2) -> Iterator[Path]:
    """The folders in a folder, and in these, that hold a published data set, as archives have them."""
    folders = folders_in(root)
    for folder in folders if len(folders) <= _MOST_FOLDERS else ():
        if any(recognises(folder) for recognises in _PUBLISHED.values()):
            yield folder
        elif depth > 1:
            yield from _published_below(folder, depth - 1)


def _without_empty_classes(classes: Sequence[str], samples: list[Sample]) -> tuple[list[str], list[Sample]]:
    """Drop classes without images, and renumber labels so that they have no gaps."""
    used = sorted({sample.label for sample in samples})
    if len(used) == len(classes):
        return list(classes), samples
    label_of = {old: new for new, old in enumerate(used)}
    return [classes[old] for old in used], [replace(sample, label=label_of[sample.label]) for sample in samples]


def _check(root: Path, classes: list[str], samples: list[Sample], left_out: Mapping[str, int]) -> None:
    if not samples:
        there = "; left out: " + ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        raise DataError(
            f"{root}: no images found; expected class folders, a CSV file, CUB-200-2011 lists or another published "
            f"data set{there * bool(left_out)}"
        )
    if len(classes) < 2:
        raise DataError(f"{root}: all images are of one class ({classes[0][:60]}); at least two are needed")
    for name in classes:
        if "\0" in name:
            raise DataError(f"{root}: the class name {name[:60]!r} holds a NUL character; rename the class")
    trained = {sample.label for sample in samples if sample.split == "train"}
    for sample in samples:
        if sample.label not in trained:
            name = classes[sample.label]
            raise DataError(f"{root / sample.path}: class {name} has no training images; give it some")
        try:
            str(sample.path).encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{root}: the file name {str(sample.path)!r} is not UTF-8; rename it") from error


def _draw_split(samples: list[Sample], classes: list[str], seed: int, test_fraction: float) -> list[Sample]:
    """A stratified random split: the rounded fraction of each class is tested, but never all of it."""
    rows_of: list[list[int]] = [[] for _ in classes]
    for row, sample in enumerate(samples):
        rows_of[sample.label].append(row)
    drawn = list(samples)
    for name, rows in zip(classes, rows_of, strict=True):
        # Each class has its own random stream, so that adding or removing a class changes no other.
        order = np.random.default_rng((seed, zlib.crc32(name.encode()))).permutation(len(rows))
        tested = min(len(rows) - 1, max(1, math.floor(len(rows) * test_fraction + 0.5)))
        for position in order[:tested]:
            drawn[rows[position]] = replace(samples[rows[position]], split="test")
    return drawn
