"""Reader of the layout ``aircraft``: FGVC-Aircraft (Maji et al. 2013, arXiv:1306.5151) as downloaded.

The folder ``fgvc-aircraft-2013b``, or the ``data`` in it::

    data/images/0034309.jpg
    data/variants.txt                    one of 100 names in each line
    data/images_variant_trainval.txt     "1025794 707-320"; or images_variant_train.txt and images_variant_val.txt
    data/images_variant_test.txt
    data/images_box.txt                  "1025794 xmin ymin xmax ymax", pixels counted from 1

Classes are the variants; families and manufacturers are not read. Training and validation images are the training
split. The lowest 20 pixels of each image are a banner with the photographer's name. No box reaches into it, but the
margin round a box may, and whole images hold it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dagaug.data.dataset_records import Box, Listing, Sample, Split
from dagaug.data.list_files import box_of_corners, finite_numbers, lines_of, need
from dagaug.data.safe_paths import SafePaths
from dagaug.runtime.errors import DataError

__all__ = ["is_aircraft", "read_aircraft"]

_NAME, _ARCHIVE = "FGVC-Aircraft", "fgvc-aircraft-2013b.tar.gz"


def is_aircraft(root: Path) -> bool:
    """Whether a folder looks like FGVC-Aircraft."""
    below = root / _data_in(root)
    return any(below.glob("images_variant_*.txt")) or (below / "images_box.txt").is_file()


def read_aircraft(root: Path) -> Listing:
    """Read the lists of FGVC-Aircraft.

    Raises:
        DataError: a list file is missing or malformed.
        OSError: a file cannot be read.
    """
    below = _data_in(root)
    need(root / below / "images", _NAME, _ARCHIVE)
    classes = [name for _, name in lines_of(need(root / below / "variants.txt", _NAME, _ARCHIVE))]
    label_of = {name: label for label, name in enumerate(classes)}
    boxes = _read_boxes(need(root / below / "images_box.txt", _NAME, _ARCHIVE))
    paths = SafePaths(root, below)
    samples: dict[str, Sample] = {}
    for split, file in _split_files(root / below):
        for line, text in lines_of(file):
            where = f"{file}, line {line}"
            image, _, variant = text.partition(" ")
            if variant.strip() not in label_of:
                raise DataError(f"{where}: the variant {variant[:60]!r} is not in variants.txt")
            if image in samples:
                raise DataError(f"{where}: image {image} is listed twice")
            if image not in boxes:
                raise DataError(f"{where}: image {image} has no row in images_box.txt")
            path = paths.checked(f"images/{image}.jpg", where)
            samples[image] = Sample(Path(below) / path, label_of[variant.strip()], split, boxes[image])
    return Listing(classes, list(samples.values()), has_split=True)


def _data_in(root: Path) -> str:
    return "data" if (root / "data").is_dir() else "."


def _split_files(folder: Path) -> Iterator[tuple[Split, Path]]:
    both = folder / "images_variant_trainval.txt"
    for name in ("trainval",) if both.is_file() else ("train", "val"):
        yield "train", need(folder / f"images_variant_{name}.txt", _NAME, _ARCHIVE)
    yield "test", need(folder / "images_variant_test.txt", _NAME, _ARCHIVE)


def _read_boxes(path: Path) -> dict[str, Box]:
    boxes = {}
    for line, text in lines_of(path):
        image, _, numbers = text.partition(" ")
        corners = finite_numbers(numbers.split(), 4)
        if corners is None:
            raise DataError(f"{path}, line {line}: expected an image and 4 numbers, not {text[:60]!r}")
        boxes[image] = box_of_corners(corners[0], corners[1], corners[2], corners[3], f"{path}, line {line}")
    return boxes
