"""Reader of the layout ``dogs``: Stanford Dogs (Khosla et al. 2011) as downloaded.

::

    Images/n02085620-Chihuahua/n02085620_10074.jpg       images.tar
    Annotation/n02085620-Chihuahua/n02085620_10074       annotation.tar; XML as of PASCAL VOC, without an ending
    train_list.mat, test_list.mat                        lists.tar; file_list: "n02085620-Chihuahua/n02085620_5927.jpg"

The class is the breed in the name of the folder (``Chihuahua``). Where an image has several dogs, which are of one
breed, the box is that of the largest.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from dagaug.data.dataset_records import Listing, Sample, Split
from dagaug.data.list_files import need
from dagaug.data.published.matlab_files import read_matlab
from dagaug.data.published.object_annotations import SMALLER_OBJECTS, largest_of, read_objects
from dagaug.data.safe_paths import SafePaths
from dagaug.runtime.errors import DataError

__all__ = ["is_dogs", "read_dogs"]

_NAME = "Stanford Dogs"


def is_dogs(root: Path) -> bool:
    """Whether a folder looks like Stanford Dogs."""
    lists = (root / "train_list.mat").is_file() or (root / "test_list.mat").is_file()
    return lists or any(
        (root / name).is_dir() and any((root / name).glob("n0*-*")) for name in ("Images", "Annotation")
    )


def read_dogs(root: Path) -> Listing:
    """Read the lists and boxes of Stanford Dogs.

    Raises:
        DataError: a file is missing or malformed.
        OSError: a file cannot be read.
    """
    need(root / "Images", _NAME, "images.tar")
    need(root / "Annotation", _NAME, "annotation.tar")
    paths = SafePaths(root, "Images")
    found: dict[Path, tuple[str, Split]] = {}
    splits: tuple[Split, Split] = ("train", "test")
    for split in splits:
        file = need(root / f"{split}_list.mat", _NAME, "lists.tar")
        (names,) = read_matlab(file, ["file_list"])
        for number, name in enumerate(names.tolist(), 1):
            path = paths.checked(str(name), f"{file}, file {number}")
            if path in found or len(path.parts) != 2:
                raise DataError(f"{file}, file {number}: expected each BREED/IMAGE.jpg once, not {str(name)[:60]!r}")
            found[path] = path.parts[0].partition("-")[2] or path.parts[0], split
    classes = sorted({breed for breed, _ in found.values()})
    label_of = {breed: label for label, breed in enumerate(classes)}
    left_out: Counter[str] = Counter()
    samples = []
    for path, (breed, split) in found.items():
        annotation = root / "Annotation" / path.with_suffix("")
        dogs = read_objects(annotation)
        if not dogs:
            raise DataError(f"{annotation}: holds no object")
        left_out[SMALLER_OBJECTS] += len(dogs) - 1
        samples.append(Sample("Images" / path, label_of[breed], split, largest_of(dogs).box))
    return Listing(classes, samples, has_split=True, left_out=+left_out)
