"""Reader of the layout ``imagefolder``: one folder per class, in folders of splits or without a split.

``root/<class>/…``, or ``root/train/<class>/…`` beside ``test``, ``val`` or ``valid``; ``val`` is ignored if there is a
``test``. Images may lie in folders inside a class folder. Hidden files and folders are ignored.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dagaug.data.dataset_records import Listing, Sample, Split, is_image_name
from dagaug.runtime.errors import DataError
from dagaug.runtime.output_marks import is_output

__all__ = ["TEST_NAMES", "TRAIN_NAMES", "class_of", "folders_in", "images_in", "read_imagefolder"]

TRAIN_NAMES = ("train", "training", "train_set", "training_set", "seg_train")
"""Names of the training split, in lower case."""

TEST_NAMES = ("test", "testing", "test_set", "testing_set", "seg_test", "val", "valid", "validation", "seg_val")
"""Names of the test split, in lower case; of several folders, the first in this order is used."""

_OUTPUTS = "folders written by dagaug"


def read_imagefolder(root: Path, *, sure: bool = True) -> Listing:
    """List the images of class folders.

    Args:
        root: the data folder.
        sure: whether the folders are known to be classes.

    Raises:
        DataError: ``root`` is a file, or its class folders hold nothing but folders of the same names.
        OSError: a folder cannot be read.
    """
    if root.is_file():
        raise DataError(f"{root}: a file; the layout imagefolder needs a folder of class folders")
    left_out: Counter[str] = Counter()
    parents = _parents_of_class_folders(root, left_out)
    has_split = len({split for _, split in parents}) == 2
    folders = [(folder, split) for parent, split in parents for folder in folders_in(parent, left_out)]
    if not sure:
        _refuse_classes_of_folders(root, [folder for folder, _ in folders])
    classes = sorted({folder.name for folder, _ in folders})
    label_of = {name: label for label, name in enumerate(classes)}
    samples = []
    for folder, split in folders:
        label = label_of[folder.name]
        samples += [Sample(path.relative_to(root), label, split) for path in images_in(folder, left_out)]
    return Listing(classes, samples, has_split, left_out=left_out)


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


def images_in(folder: Path, left_out: Counter[str] | None = None) -> tuple[Path, ...]:
    """All image files in a folder and its folders, sorted.

    Hidden files and folders are left out, links to folders are not followed, and nor are folders that dagaug wrote
    (:mod:`dagaug.runtime.output_marks`).

    Args:
        folder: where to look.
        left_out: receives the number of files and folders that are left out, by reason.

    Raises:
        OSError: a folder cannot be read; a missing ``folder`` holds no images.
    """

    def fail(error: OSError) -> None:
        raise error

    paths: list[Path] = []
    counts: Counter[str] = Counter()
    for parent, folders, files in os.walk(folder, onerror=fail if folder.is_dir() else None):
        if Path(parent) != folder and is_output(Path(parent)):
            folders.clear()
            counts[_OUTPUTS] += 1
            continue
        counts["links to folders"] += sum(Path(parent, name).is_symlink() for name in folders)
        counts["hidden"] += sum(name.startswith(".") for name in (*folders, *files))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if is_image_name(name):
                paths.append(Path(parent, name))
            elif not name.startswith("."):
                counts[f"files ending in {Path(name).suffix.lower()}" if Path(name).suffix else "without ending"] += 1
    if left_out is not None:
        left_out += +counts
    return tuple(sorted(paths))


def folders_in(folder: Path, left_out: Counter[str] | None = None) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones and those that dagaug wrote.

    Args:
        folder: where to look.
        left_out: receives the number of folders that dagaug wrote.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(folder) as entries:  # no look-up for each of many images
        found = sorted(Path(entry) for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    outputs = [path for path in found if is_output(path)]
    if left_out is not None and outputs:
        left_out[_OUTPUTS] += len(outputs)
    return [path for path in found if path not in outputs]


def _refuse_classes_of_folders(root: Path, folders: Sequence[Path]) -> None:
    """Ask back where the class folders hold no images themselves, but all the same several folders.

    Raises:
        DataError: see above.
    """
    if len(folders) < 2:
        return
    names: set[str] | None = None
    for folder in folders:
        inner = {path.name for path in folders_in(folder)}
        if len(inner) < 2 or (names is not None and inner != names):
            return
        if any(is_image_name(path.name) for path in folder.iterdir()):
            return
        names = inner
    shown = ", ".join(sorted(names or ())[:4])
    raise DataError(
        f"{root}: its folders ({folders[0].name}, {folders[1].name}, …) all hold the same folders ({shown}), so it is "
        "unclear which are the classes; give a folder of class folders, or train/CLASS and test/CLASS",
        remedies={"layout": "imagefolder"},
    )


def _without_repetition(folder: Path) -> Path:
    """The folder itself, or the only one in it if that has the same name, as some archives repeat it."""
    inner = folders_in(folder)
    return inner[0] if [path.name for path in inner] == [folder.name] else folder


def _parents_of_class_folders(root: Path, left_out: Counter[str] | None = None) -> list[tuple[Path, Split]]:
    """The folders of the splits, or the root itself; ``left_out`` counts the images of further splits."""
    splits = (*TRAIN_NAMES, *TEST_NAMES)
    named = {
        folder.name.lower(): _without_repetition(folder) for folder in folders_in(root) if folder.name.lower() in splits
    }
    # A folder "train" without folders in it is a class of vehicles.
    train = [named[name] for name in TRAIN_NAMES if name in named and folders_in(named[name])]
    test = [named[name] for name in TEST_NAMES if name in named and folders_in(named[name])]
    if not train:
        return [(root, "train")]
    if left_out is not None:
        for folder in test[1:]:
            left_out[f"images in {folder.name}/"] += len(images_in(folder))
    return [(train[0], "train"), *((folder, "test") for folder in test[:1])]  # type: ignore[list-item]
