"""Reader of the layout ``voc``: PASCAL VOC 2007 to 2012 as downloaded.

The folder ``VOCdevkit/VOC2012``::

    JPEGImages/2007_000027.jpg
    Annotations/2007_000027.xml      objects with name, difficult, and bndbox (pixels counted from 1)
    ImageSets/Main/train.txt, val.txt, trainval.txt, test.txt       "2007_000027" in each line

With ``test.txt`` and its annotations (VOC2007), the test split is that, and the training split is ``trainval.txt``;
otherwise they are ``val.txt`` and ``train.txt``. An image is one sample, with the box and the class of its largest
object that is not difficult.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dagaug.data.dataset_records import Listing, Sample, Split
from dagaug.data.list_files import lines_of, need
from dagaug.data.published.object_annotations import SMALLER_OBJECTS, AnnotatedObject, largest_of, read_objects
from dagaug.data.safe_paths import SafePaths
from dagaug.runtime.errors import DataError

__all__ = ["is_voc", "read_voc"]

_NAME, _ARCHIVE = "PASCAL VOC", "VOCtrainval_*.tar"


def is_voc(root: Path) -> bool:
    """Whether a folder looks like one year of PASCAL VOC."""
    return (root / "JPEGImages").is_dir() or (
        (root / "ImageSets" / "Main").is_dir() and (root / "Annotations").is_dir()
    )


def read_voc(root: Path) -> Listing:
    """Read the lists and annotations of PASCAL VOC.

    Raises:
        DataError: a file is missing or malformed.
        OSError: a file cannot be read.
    """
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        need(root / folder, _NAME, _ARCHIVE)
    paths = SafePaths(root, "JPEGImages")
    left_out: Counter[str] = Counter()
    found: dict[Path, tuple[AnnotatedObject, Split]] = {}
    for split, file in _split_files(root):
        for line, text in lines_of(file):
            image = text.split()[0]
            path = paths.checked(f"{image}.jpg", f"{file}, line {line}")
            if path in found:
                raise DataError(f"{file}, line {line}: image {image} is listed twice")
            objects = read_objects(root / "Annotations" / path.with_suffix(".xml"))
            easy = [one for one in objects if not one.difficult]
            if easy:
                found[path] = largest_of(easy), split
                left_out[SMALLER_OBJECTS] += len(easy) - 1
            left_out["difficult objects"] += len(objects) - len(easy)
            left_out["images without an easy object"] += not easy
    classes = sorted({one.name for one, _ in found.values()})
    label_of = {name: label for label, name in enumerate(classes)}
    samples = [Sample("JPEGImages" / path, label_of[one.name], split, one.box) for path, (one, split) in found.items()]
    return Listing(classes, samples, len({split for _, split in found.values()}) == 2, left_out=+left_out)


def _split_files(root: Path) -> Iterator[tuple[Split, Path]]:
    folder = root / "ImageSets" / "Main"
    test, both = folder / "test.txt", folder / "trainval.txt"
    if test.is_file() and _is_annotated(root, test):
        yield "train", need(both, _NAME, _ARCHIVE)
        yield "test", test
    elif (folder / "val.txt").is_file():
        yield "train", need(folder / "train.txt", _NAME, _ARCHIVE)
        yield "test", folder / "val.txt"
    else:
        yield "train", need(both, _NAME, _ARCHIVE)


def _is_annotated(root: Path, file: Path) -> bool:
    """Whether the first image of a list has its annotation; the test images of later years have none."""
    first = next(lines_of(file), (1, ""))[1].split(" ")[0]
    return bool(first) and "/" not in first and (root / "Annotations" / f"{first}.xml").is_file()
