"""Reading of labelled data sets in any layout: recognition, checks of the lists, and the drawn split.

Each layout has a reader: :mod:`~dagaug.data.cub_layout`, :mod:`~dagaug.data.folder_layout` and
:mod:`~dagaug.data.csv_layout`. Only names and list files are read; no image is decoded. The order of samples is
stable. Classes without images are left out.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dagaug.data.csv_layout import other_tables_in, read_csv, tables_in
from dagaug.data.cub_layout import SEGMENTATIONS, read_cub
from dagaug.data.dataset_records import Dataset, Sample
from dagaug.data.folder_layout import read_imagefolder
from dagaug.runtime.errors import DataError, UsageError

__all__ = ["LAYOUTS", "read_dataset"]

_READERS = {"cub": read_cub, "csv": read_csv}

LAYOUTS = ("cub", "imagefolder", "csv")
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
            classes, samples, has_split = read_imagefolder(root, left_out, sure=layout == found)
            left_out.update(f"table {told}" for told in other_tables_in(root))
        else:
            classes, samples, has_split = _READERS[found](root)
    except OSError as error:
        where = error.filename or root
        raise DataError(f"{where}: cannot be read ({error.strerror}); check its permissions") from error
    classes, samples = _without_empty_classes(classes, samples)
    _check(root, classes, samples, left_out)
    if not has_split:
        samples = _draw_split(samples, classes, seed, test_fraction)
    dataset = Dataset(
        root=root.parent if root.is_file() else root,
        layout=found,
        classes=tuple(classes),
        samples=tuple(samples),
        split_origin="given" if has_split else "drawn",
        split_seed=None if has_split else seed,
        masks=root / SEGMENTATIONS if any(sample.mask for sample in samples) else None,
        left_out=dict(left_out),
    )
    return dataset.subset(per_class)


def _recognise(root: Path) -> str:
    if root.is_file():
        if root.suffix.lower() != ".csv":
            raise DataError(f"{root}: neither a data folder nor a CSV file")
        return "csv"
    if (root / "images.txt").is_file():
        return "cub"
    inside = [path.parent for path in sorted(root.glob("*/images.txt"))]
    if len(inside) == 1:
        masks = f" with masks={root / SEGMENTATIONS}" if (root / SEGMENTATIONS).is_dir() else ""
        raise DataError(f"{root}: CUB-200-2011's lists are one folder further in; give {inside[0]}{masks}")
    if (root / "trainA").is_dir() and (root / "trainB").is_dir():
        raise DataError(
            f"{root}: holds two domains (trainA and trainB), not classes; choose a preset for translation",
            remedies={"preset": None},
        )
    return "csv" if len(tables_in(root)) == 1 else "imagefolder"


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
            f"{root}: no images found; expected class folders, a CSV file or CUB-200-2011 lists{there * bool(left_out)}"
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
