"""Reader of the layout ``pets``: Oxford-IIIT Pets (Parkhi et al. 2012) as downloaded.

::

    images/Abyssinian_100.jpg                  images.tar.gz
    annotations/trainval.txt, test.txt         annotations.tar.gz; "Abyssinian_100 1 1 1": image, class, species, breed
    annotations/trimaps/Abyssinian_100.png     1 is the pet, 2 the background, 3 the border between them

The class is the name of the image without its number. Trimaps are masks; of the border, the half that is nearer to the
pet belongs to it. ``annotations/list.txt`` is not needed, and the boxes in ``annotations/xmls`` are not read: they hold
heads, of training images alone.
"""

from __future__ import annotations

from pathlib import Path

from dagaug.data.dataset_records import Listing, Sample, Split
from dagaug.data.list_files import lines_of, need
from dagaug.data.safe_paths import SafePaths
from dagaug.runtime.errors import DataError

__all__ = ["is_pets", "read_pets"]

_NAME, _ARCHIVE = "Oxford-IIIT Pets", "annotations.tar.gz"
_FILES: tuple[tuple[Split, str], ...] = (("train", "trainval.txt"), ("test", "test.txt"))


def is_pets(root: Path) -> bool:
    """Whether a folder looks like Oxford-IIIT Pets."""
    marks = [root / "annotations" / name for name in ("trainval.txt", "test.txt", "trimaps")]
    return any(mark.exists() for mark in marks)


def read_pets(root: Path) -> Listing:
    """Read the lists of Oxford-IIIT Pets.

    Raises:
        DataError: a list file is missing or malformed.
        OSError: a file cannot be read.
    """
    need(root / "images", _NAME, "images.tar.gz")
    trimaps = root / "annotations" / "trimaps"
    paths = SafePaths(root, "images")
    found: dict[Path, tuple[str, Split]] = {}
    for split, name in _FILES:
        file = need(root / "annotations" / name, _NAME, _ARCHIVE)
        for line, text in lines_of(file):
            where = f"{file}, line {line}"
            image = text.split()[0]
            breed, _, number = image.rpartition("_")
            if not breed or not number.isdecimal():
                raise DataError(f"{where}: expected BREED_NUMBER and three numbers, not {text[:60]!r}")
            path = paths.checked(f"{image}.jpg", where)
            if path in found:
                raise DataError(f"{where}: image {image} is listed twice")
            found[path] = breed, split
    classes = sorted({breed for breed, _ in found.values()})
    label_of = {breed: label for label, breed in enumerate(classes)}
    samples = []
    for path, (breed, split) in found.items():
        trimap = trimaps / path.with_suffix(".png")
        samples.append(
            Sample(
                "images" / path,
                label_of[breed],
                split,
                mask=trimap if trimap.is_file() else None,
                mask_values="trimap",
            )
        )
    return Listing(classes, samples, has_split=True, masks=trimaps)
