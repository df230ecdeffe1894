"""What the arms of a score are made of: images whole, at the score's size, and the guards against leaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer, UInt8

from dagaug.augment.provenance import backgrounds_of
from dagaug.classifiers.classifier import hash_images
from dagaug.data import image_files as imaging
from dagaug.data import loading, regions
from dagaug.data.dataset import Dataset
from dagaug.hdf5.reader import Store
from dagaug.runtime.errors import DataError
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["ImageSet", "MorphSet", "load_folder", "load_other", "load_real", "load_store", "whole"]


@dataclass(frozen=True)
class ImageSet:
    """Images, RGB, and their labels."""

    images: UInt8[np.ndarray, "N S S 3"]
    labels: Int64[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def hashes(self) -> Int64[np.ndarray, " N"]:
        """Of the pixels."""
        return hash_images(self.images)

    def take(self, rows: Integer[np.ndarray, " M"]) -> ImageSet:
        """Some of them."""
        return ImageSet(self.images[rows], self.labels[rows])


@dataclass(frozen=True)
class MorphSet(ImageSet):
    """Synthetic images with the files that each was made from, relative to the data folder."""

    origins: tuple[tuple[str, ...], ...]


def whole(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "S S 3"]:
    """An image as classifiers see it: all of it, in a square."""
    return regions.cut(image, regions.region_of(*image.shape[:2], box=None, fit="letterbox"), size)


def load_real(
    dataset: Dataset, size: int, progress: Progress = SILENT
) -> tuple[MorphSet, ImageSet, tuple[tuple[str, str], ...]]:
    """Read training and test images whole.

    Returns:
        The training images (each its own origin), the test images, and path and reason of those that cannot be read.

    Raises:
        DataError: there are no training or no test images.
    """
    sets, skipped = [], []
    for name, samples in (("training", dataset.train), ("test", dataset.test)):
        if not samples:
            raise DataError(f"{dataset.root}: no {name} images; a score needs a training and a test split")
        paths = [dataset.file(sample) for sample in samples]
        loaded = loading.load(paths, size=size, fit="letterbox", progress=progress)
        labels = np.array([samples[row].label for row in loaded.kept], np.int64)
        origins = tuple((samples[row].path.as_posix(),) for row in loaded.kept)
        sets.append(MorphSet(loaded.images, labels, origins))
        skipped += [(str(one.path), one.reason) for one in loaded.skipped]
    return sets[0], sets[1], tuple(skipped)


def load_store(path: Path, dataset: Dataset, size: int, progress: Progress = SILENT) -> MorphSet:
    """Read the synthetic images of an HDF5 file, once it is sure that they fit the data and leak no test.

    Raises:
        StoreError: the file cannot be read.
        DataError: it is for other classes, has no synthetic images, or they were made from anything but the
            training images in use.
    """
    with Store(path) as store:
        _check_classes(path, store.classes, dataset)
        rows = np.flatnonzero(store.images.synthetic)
        if not len(rows):
            raise DataError(f"{path}: no synthetic images in it; make some: dagaug augment {dataset.root}")
        _check_origin(path, store, rows, dataset, progress)
        out = np.empty((len(rows), size, size, 3), dtype=np.uint8)
        with progress.task("Reading synthetic", len(rows), "images") as task:
            for start in range(0, len(rows), 256):
                chosen = rows[start : start + 256]
                for place, image in enumerate(store.read(chosen.tolist()), start):
                    out[place] = whole(image, size)
                task.advance(len(chosen))
        files, table, behind = store.header.files, store.images, backgrounds_of(store)
        origins = tuple(
            tuple(dict.fromkeys(files[row] for row in those if row >= 0))
            for those in zip(*(one[rows].tolist() for one in (table.source, table.reference, behind)), strict=True)
        )
        return MorphSet(out, table.label[rows].astype(np.int64), origins)


def load_folder(path: Path, dataset: Dataset, size: int, progress: Progress = SILENT) -> ImageSet:
    """Read a folder of synthetic images with a sub-folder for each class.

    Raises:
        DataError: there is no such folder, a sub-folder is none of the data set's classes, or there are no images.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no HDF5 file and no folder of class folders")
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for folder in folders:
        if folder.name not in dataset.classes:
            raise DataError(f"{folder}: {dataset.root} has no class of this name; its first is {dataset.classes[0]!r}")
    found = [
        (file, dataset.classes.index(folder.name))
        for folder in folders
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in imaging.IMAGE_SUFFIXES and not file.name.startswith(".")
    ]
    if not found:
        raise DataError(f"{path}: no images in sub-folders that are named after the classes of {dataset.root}")
    if len(folders) < len(dataset.classes):
        progress.say(f"{path}: images of {len(folders)} of the {len(dataset.classes)} classes")
    loaded = loading.load([file for file, _ in found], size=size, fit="letterbox", progress=progress)
    return ImageSet(loaded.images, np.array([found[row][1] for row in loaded.kept], np.int64))


def load_other(path: Path, dataset: Dataset, size: int, progress: Progress = SILENT) -> ImageSet:
    """Read what ``--arm NAME=PATH`` names: an HDF5 file or a folder."""
    return (load_store if path.is_file() else load_folder)(path, dataset, size, progress)


def _check_classes(path: Path, classes: tuple[str, ...], dataset: Dataset) -> None:
    if classes == dataset.classes:
        return
    if set(classes) == set(dataset.classes):
        what = "the same classes in another order"
    else:
        what = f"{_listed(path, classes, dataset.classes)}; {_listed(dataset.root, dataset.classes, classes)}"
    raise DataError(f"{path} does not fit {dataset.root}: {what}; give the data that it was made from")


def _listed(where: Path, classes: Sequence[str], others: Sequence[str]) -> str:
    """How many classes there are, and one that the others lack."""
    alone = sorted(set(classes) - set(others))
    return f"{where} has {len(classes)} classes" + (f", {alone[0]!r} only there" if alone else "")


def _check_origin(
    path: Path, store: Store, rows: Integer[np.ndarray, " N"], dataset: Dataset, progress: Progress
) -> None:
    """Refuse synthetic images that were made from anything but the training images in use.

    A source or reference from the test split leaks the test; one from a training image that the real arm does
    not have (another ``--per-class``) gives the other arm more real information.
    """
    header, table = store.header, store.images
    train = {sample.path.as_posix() for sample in dataset.train}
    test = {sample.path.as_posix() for sample in dataset.test}
    origins = np.union1d(table.source[rows], table.reference[rows])
    used = [(int(row), header.files[row]) for row in origins if row >= 0]
    for row, file in used:
        if file in test or header.files_split[row] != 0:
            raise DataError(f"{path}: made from the test image {file}; a score would be false")
        if file not in train:
            raise DataError(
                f"{path}: made from {file}, which is not among the {len(train)} training "
                f"images in use of {dataset.root}; give the data folder and --per-class that it was made with"
            )
    if (table.split[rows] != 0).any():
        raise DataError(f"{path}: some synthetic images stand in the test split; a score would be false")
    if len(used) < len(train):
        progress.say(f"{path}: made from {len(used)} of the {len(train)} real training images")
