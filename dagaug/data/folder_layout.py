"""Reader of the layout ``imagefolder``: one folder per class, in folders of splits or without a split.

``root/<class>/…``, or ``root/train/<class>/…`` beside ``test``, ``val`` or ``valid``; ``val`` is ignored if there is a
``test``. Images may lie in folders inside a class folder. Hidden files and folders are ignored.
"""

from __future__ import annotations

import os
from pathlib import Path

from dagaug.data.dataset_records import Sample, Split, is_image_name
from dagaug.runtime.errors import DataError

__all__ = ["TEST_NAMES", "TRAIN_NAMES", "class_of", "images_in", "read_imagefolder"]

TRAIN_NAMES = ("train", "training")
"""Names of the training split, in lower case."""

TEST_NAMES = ("test", "testing", "val", "valid", "validation")
"""Names of the test split, in lower case; of several folders, the first in this order is used."""


def read_imagefolder(root: Path) -> tuple[list[str], list[Sample], bool]:
    """Class names, samples, and whether the folder gives a split (else all samples are training samples).

    Raises:
        DataError: ``root`` is a file.
        OSError: a folder cannot be read.
    """
    if root.is_file():
        raise DataError(f"{root}: a file; the layout imagefolder needs a folder of class folders")
    parents = _parents_of_class_folders(root)
    has_split = len({split for _, split in parents}) == 2
    folders = [(folder, split) for parent, split in parents for folder in _folders_in(parent)]
    classes = sorted({folder.name for folder, _ in folders})
    label_of = {name: label for label, name in enumerate(classes)}
    samples = []
    for folder, split in folders:
        label = label_of[folder.name]
        samples += [Sample(path.relative_to(root), label, split) for path in images_in(folder)]
    return classes, samples, has_split


def class_of(path: str, otherwise: str) -> tuple[str, Split]:
    """Class name and split of an image by its path in a folder of this layout.

    Args:
        path: relative to the data folder, with ``/`` between folders.
        otherwise: the class name of an image that lies in no folder.
    """
    folders = path.split("/")[:-1]
    split: Split = "train"
    if len(folders) > 1 and folders[0].lower() in (*TRAIN_NAMES, *TEST_NAMES):
        split = "test" if folders[0].lower() in TEST_NAMES else "train"
        folders = folders[1:]
    return (folders[0] if folders else otherwise), split


def images_in(folder: Path) -> tuple[Path, ...]:
    """All image files in a folder and its folders, sorted; hidden ones are ignored, links to folders not followed.

    Raises:
        OSError: a folder cannot be read; a missing ``folder`` holds no images.
    """

    def fail(error: OSError) -> None:
        raise error

    paths: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=fail if folder.is_dir() else None):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(parent, name) for name in files if is_image_name(name)]
    return tuple(sorted(paths))


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())


def _parents_of_class_folders(root: Path) -> list[tuple[Path, Split]]:
    """The folders of the splits, or the root itself."""
    named = {folder.name.lower(): folder for folder in _folders_in(root)}
    # A folder "train" without folders in it is a class of vehicles.
    train = [named[name] for name in TRAIN_NAMES if name in named and _folders_in(named[name])]
    test = [named[name] for name in TEST_NAMES if name in named and _folders_in(named[name])]
    if not train:
        return [(root, "train")]
    return [(train[0], "train"), *((folder, "test") for folder in test[:1])]  # type: ignore[list-item]
