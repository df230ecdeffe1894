"""Reader of the layout ``flowers``: Oxford Flowers-102 (Nilsback and Zisserman 2008) as downloaded.

::

    jpg/image_00001.jpg              102flowers.tgz
    imagelabels.mat                  labels: the class of each image, from 1 to 102
    setid.mat                        trnid, valid, tstid: numbers of the images of each split
    segmim/segmim_00001.jpg          102segmentations.tgz, optional: the flowers before pure blue

The files give no names of classes, so these are ``001`` to ``102``. As in published results, the training split has the
images of ``trnid`` and ``valid`` (10 + 10 a class); the files' own order keeps the first 10 of each class those of
``trnid``. The segmentations are masks.
"""

from __future__ import annotations

from pathlib import Path

from dagaug.data.dataset_records import Listing, Sample, Split
from dagaug.data.list_files import need
from dagaug.data.published.matlab_files import read_matlab, whole_number
from dagaug.runtime.errors import DataError

__all__ = ["is_flowers", "read_flowers"]

_NAME = "Oxford Flowers-102"
_CLASSES = 102
_PARTS: tuple[tuple[str, Split], ...] = (("trnid", "train"), ("valid", "train"), ("tstid", "test"))


def is_flowers(root: Path) -> bool:
    """Whether a folder looks like Oxford Flowers-102."""
    lists = (root / "setid.mat").is_file() or (root / "imagelabels.mat").is_file()
    return lists or (root / "jpg" / "image_00001.jpg").is_file()


def read_flowers(root: Path) -> Listing:
    """Read the lists of Oxford Flowers-102.

    Raises:
        DataError: a file is missing or malformed.
        OSError: a file cannot be read.
    """
    need(root / "jpg", _NAME, "102flowers.tgz")
    label_file = need(root / "imagelabels.mat", _NAME, "imagelabels.mat, a file of its own")
    split_file = need(root / "setid.mat", _NAME, "setid.mat, a file of its own")
    (labels,) = read_matlab(label_file, ["labels"])
    label_of = [whole_number(label, _CLASSES) for label in labels.tolist()]
    masks = root / "segmim"
    seen: set[int] = set()
    samples = []
    sets = read_matlab(split_file, [name for name, _ in _PARTS])
    for (name, split), numbers in zip(_PARTS, sets, strict=True):
        for entry in numbers.tolist():
            number = whole_number(entry, len(label_of))
            if number is None or number in seen:
                raise DataError(f"{split_file}: {name} holds {entry}; expected 1 to {len(label_of)}, each once")
            label = label_of[number - 1]
            if label is None:
                raise DataError(f"{label_file}: the class of image {number} is not one of 1 to {_CLASSES}")
            seen.add(number)
            mask = masks / f"segmim_{number:05d}.jpg"
            samples.append(
                Sample(
                    Path("jpg", f"image_{number:05d}.jpg"),
                    label - 1,
                    split,
                    mask=mask if mask.is_file() else None,
                    mask_values="blue background",
                )
            )
    classes = [f"{label:03d}" for label in range(1, _CLASSES + 1)]
    return Listing(classes, samples, has_split=True, masks=masks)
