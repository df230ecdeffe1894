"""Image sets of a score, from data sets, HDF5 files and folders: whole images, letterboxed to its size, or patches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer, UInt8
from pydantic import ValidationError

from dagaug.augment.stored_image_check import check_stored_images
from dagaug.augment.stored_morph_backgrounds import backgrounds_of
from dagaug.classifiers.classifier import hash_images
from dagaug.data import patch_loading as loading
from dagaug.data.dataset_records import Dataset, class_mismatch, is_image_name
from dagaug.data.object_patches import Framing
from dagaug.data.square_crops import letterboxed
from dagaug.hdf5.image_reader import ImageReader
from dagaug.hdf5.reader import Store
from dagaug.hub.download import local_file
from dagaug.runtime.errors import DataError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.progress import Progress
from dagaug.runtime.streamed_array import ImageArray, StreamedArray, select

__all__ = [
    "ImageSet",
    "TracedImageSet",
    "check_origin",
    "framing_of",
    "load_folder",
    "load_other",
    "load_real",
    "load_store",
]


@dataclass(frozen=True)
class ImageSet:
    """Images (uint8 RGB, N × S × S × 3) and their labels."""

    images: ImageArray
    labels: Int64[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def hashes(self) -> Int64[np.ndarray, " N"]:
        """Hash of each image's pixels."""
        return hash_images(self.images)

    def take(self, rows: Integer[np.ndarray, " M"]) -> ImageSet:
        """The set of these rows."""
        return ImageSet(select(self.images, rows), self.labels[rows])


@dataclass(frozen=True)
class TracedImageSet(ImageSet):
    """Images with known origins.

    Attributes:
        origins: the files that each image was made from, relative to the data folder; a real image's own file.
    """

    origins: tuple[tuple[str, ...], ...]


def framing_of(path: Path) -> Framing | None:
    """How the patches that an HDF5 file holds were cut; None if it holds whole images.

    Raises:
        DataError: the file does not say it.
    """
    with Store(path) as store:
        provenance = store.header.provenance
    if provenance.frame == "whole":
        return None
    try:
        return Framing.model_validate(provenance.framing)
    except ValidationError as error:
        raise DataError(f"{path}: does not say how its patches were cut; make it again with dagaug augment") from error


def load_real(
    dataset: Dataset, size: int, framing: Framing | None = None, *, execution: Execution = Execution()
) -> tuple[TracedImageSet, TracedImageSet, tuple[tuple[str, str], ...]]:
    """Read the real training and test images.

    Args:
        dataset: the real images.
        size: side of the results in pixels.
        framing: how patches are cut; None for whole, letterboxed images.
        execution: how to read images; its progress receives the number of images read.

    Returns:
        the training images, the test images, and path and reason of each image that cannot be read.

    Raises:
        DataError: there are no training or no test images.
    """
    sets, skipped = [], []
    transparent = 0
    cut = framing or Framing(crop="none", fit="letterbox")
    for name, samples in (("training", dataset.train), ("test", dataset.test)):
        if not samples:
            raise DataError(f"{dataset.root}: no {name} images; a score needs a training and a test split")
        paths = [dataset.file(sample) for sample in samples]
        boxes = [sample.box if cut.crop == "box" else None for sample in samples]
        loaded = loading.load(paths, size=size, boxes=boxes, margin=cut.margin, fit=cut.fit, execution=execution)
        labels = np.array([samples[row].label for row in loaded.kept], np.int64)
        origins = tuple((samples[row].path.as_posix(),) for row in loaded.kept)
        sets.append(TracedImageSet(loaded.images, labels, origins))
        skipped += [(str(one.path), one.reason) for one in loaded.skipped]
        transparent += loaded.transparent
    loading.say_transparent(transparent, sum(map(len, sets)), execution.progress)
    return sets[0], sets[1], tuple(skipped)


def load_store(path: Path, dataset: Dataset, size: int, *, execution: Execution = Execution()) -> TracedImageSet:
    """Read the synthetic images of an HDF5 file, after checking that they fit the data set and leak no test image.

    Args:
        path: the file.
        dataset: the data set that it was made from.
        size: side of the results in pixels.
        execution: how to read images; its progress receives the number of images read.

    Raises:
        StoreError: the file cannot be read.
        DataError: the file has other classes or no synthetic images, or one was made from an image that is not
            among the training images in use.
    """
    with Store(path) as store:
        if mismatch := class_mismatch(path, store.classes, dataset):
            raise DataError(f"{mismatch}; give the data folder that it was made from")
        rows = np.flatnonzero(store.images.synthetic)
        if not len(rows):
            raise DataError(f"{path}: no synthetic images in it; make some: dagaug augment {dataset.root}")
        check_origin(path, store, rows, dataset, execution.progress)
        images = StreamedArray(
            len(rows), (size, size, 3), _StoredImages(store.image_reader, rows, size), execution=execution
        )
        with execution.progress.task("Reading synthetic", len(rows), "images") as task:
            images.hashes(task)  # needed later, and unreadable images are found now
        files, table, backgrounds = store.header.files, store.images, backgrounds_of(store)
        origins = tuple(
            tuple(dict.fromkeys(files[row] for row in those if row >= 0))
            for those in zip(
                *(column[rows].tolist() for column in (table.source, table.reference, backgrounds)), strict=True
            )
        )
        return TracedImageSet(images, table.label[rows].astype(np.int64), origins)


@dataclass(frozen=True)
class _StoredImages:
    """Reads letterboxed images of ``size`` pixels from some rows of an HDF5 file."""

    reader: ImageReader
    rows: Int64[np.ndarray, " N"]
    size: int

    def __call__(self, row: int) -> UInt8[np.ndarray, "S S 3"]:
        return letterboxed(self.reader.decoded([int(self.rows[row])])[0], self.size)


def load_folder(path: Path, dataset: Dataset, size: int, *, execution: Execution = Execution()) -> ImageSet:
    """Read a folder of synthetic images with a sub-folder for each class, or with these in ``train/``.

    Hidden files and folders are left out, and so are ``test/`` and ``val/`` beside ``train/``.

    Raises:
        DataError: the folder does not exist or has no images, or a sub-folder has not the name of a class.
    """
    if not path.is_dir():
        raise DataError(f"{path}: neither an HDF5 file nor a folder of class folders")
    if (path / "train").is_dir() and "train" not in dataset.classes:
        path = path / "train"
        execution.progress.say(f"{path}: only this split of the folder is read")
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for folder in folders:
        if folder.name not in dataset.classes:
            first = dataset.classes[0]
            raise DataError(f"{folder}: {dataset.root} has no class of this name; its first class is {first!r}")
    found = [
        (file, dataset.classes.index(folder.name))
        for folder in folders
        for file in sorted(folder.rglob("*"))
        if is_image_name(file.name) and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    if not found:
        raise DataError(f"{path}: no images in sub-folders with the names of the classes of {dataset.root}")
    if len(folders) < len(dataset.classes):
        execution.progress.say(f"{path}: has images of {len(folders)} of the {len(dataset.classes)} classes")
    loaded = loading.load([file for file, _ in found], size=size, fit="letterbox", execution=execution)
    return ImageSet(loaded.images, np.array([found[row][1] for row in loaded.kept], np.int64))


def load_other(path: Path, dataset: Dataset, size: int, *, execution: Execution = Execution()) -> ImageSet:
    """Read the images of a further arm: an HDF5 file (:func:`load_store`) or a folder (:func:`load_folder`).

    The HDF5 file may be on the hub.

    Raises:
        DataError: see these functions; or the file holds other real images than the data set under the same names.
        HubError: the file is on the hub and cannot be downloaded.
    """
    path = local_file(path)
    if path.is_file():
        with Store(path) as store:
            check_stored_images(store, dataset)
        return load_store(path, dataset, size, execution=execution)
    return load_folder(path, dataset, size, execution=execution)


def check_origin(
    path: Path, store: Store, rows: Integer[np.ndarray, " N"], dataset: Dataset, progress: Progress
) -> None:
    """Refuse synthetic images made from other images than the training images in use.

    A source or reference from the test split leaks test information. One that the real arm does not train on (another
    ``per_class``) gives the synthetic arms more real information than the real arm.

    Raises:
        DataError: see above.
    """
    header, table = store.header, store.images
    train = {sample.path.as_posix() for sample in dataset.train}
    test = {sample.path.as_posix() for sample in dataset.test}
    rows_of_files = np.union1d(table.source[rows], table.reference[rows])
    used = [(int(row), header.files[row]) for row in rows_of_files if row >= 0]
    for row, file in used:
        if file in test or header.files_split[row] != 0:
            raise DataError(f"{path}: made from the test image {file}; the score would be contaminated")
        if file not in train:
            raise DataError(
                f"{path}: made from {file}, which is not among the {len(train)} training images in use of "
                f"{dataset.root}; give the data folder that it was made from",
                remedies={"per_class": None},
            )
    if (table.split[rows] != 0).any():
        raise DataError(f"{path}: some synthetic images are in the test split; the score would be contaminated")
    if len(used) < len(train):
        progress.say(f"{path}: made from {len(used)} of the {len(train)} real training images")
