"""Records of data sets: labelled images with their split, and pairs of unpaired domains.

The readers in :mod:`dagaug.data.layouts` and :mod:`dagaug.data.domains_layout` make these records from folders and list
files. They decode no image.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from dagaug.runtime.errors import DataError, UsageError
from dagaug.runtime.files import write_atomically

__all__ = [
    "IMAGE_SUFFIXES",
    "Box",
    "Dataset",
    "Domains",
    "Listing",
    "MaskValues",
    "Sample",
    "Split",
    "class_mismatch",
    "is_image_name",
]

Box = tuple[float, float, float, float]
"""x, y, width and height of a bounding box, in pixels of the upright image."""

IMAGE_SUFFIXES = (".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of image file names, in lower case."""

Split = Literal["train", "test"]

MaskValues = Literal["upper half", "trimap", "blue background"]
"""What the values of a mask's file say; see :func:`dagaug.data.image_files.decode_mask`."""

_LAYOUT_WORDS = {
    "cub": "CUB-200-2011 lists",
    "imagefolder": "class folders",
    "csv": "CSV table",
    "nabirds": "NABirds",
    "aircraft": "FGVC-Aircraft",
    "cars": "Stanford Cars",
    "dogs": "Stanford Dogs",
    "pets": "Oxford-IIIT Pets",
    "flowers": "Oxford Flowers-102",
    "voc": "PASCAL VOC",
    "coco": "COCO",
    "huggingface": "Hugging Face images",
}


def is_image_name(name: str) -> bool:
    """Whether a file name is that of an image, by its ending; hidden files are none."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes:
        path: the image file, relative to :attr:`Dataset.root`.
        label: index into :attr:`Dataset.classes`.
        split: ``train`` or ``test``.
        box: bounding box of the object, or None.
        parts: visible key points as (number, x, y), in pixels of the upright image.
        captions: sentences about the image.
        mask: the file of the object's mask, or None; see :mod:`dagaug.data.mask_files`.
        mask_values: what the values of that file say.
    """

    path: Path
    label: int
    split: Split
    box: Box | None = None
    parts: tuple[tuple[int, float, float], ...] = ()
    captions: tuple[str, ...] = ()
    mask: Path | None = None
    mask_values: MaskValues = "upper half"


@dataclass(frozen=True)
class Listing:
    """What the reader of a layout found in a data folder.

    Attributes:
        classes: class names; a label is an index into them. Some may have no sample.
        samples: all samples; without a split, all are training samples.
        has_split: whether the folder gives a split.
        masks: the folder of the samples' masks; None without masks.
        left_out: number of files and objects that are no samples, by reason.
        extracted: the folder in the data folder to which images were extracted from Parquet files; else None.
    """

    classes: list[str]
    samples: list[Sample]
    has_split: bool
    masks: Path | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    extracted: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """All samples of a data folder, in a stable order.

    Attributes:
        root: the folder that sample paths are relative to.
        layout: one of :data:`dagaug.data.layouts.LAYOUTS`.
        classes: class names; a label is an index into them.
        samples: training and test samples.
        split_origin: ``given`` by the folder, or ``drawn`` at random.
        split_seed: the seed of a drawn split; None for a given one.
        masks: the folder that the samples' masks come from; None without masks.
        left_out: number of files and objects that are no samples, by reason.
        extracted: the folder to which images were extracted from Parquet files; else None.
    """

    root: Path
    layout: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    split_origin: Literal["given", "drawn"]
    split_seed: int | None = None
    masks: Path | None = None
    left_out: Mapping[str, int] = field(default_factory=dict, compare=False)
    extracted: Path | None = None

    def describe(self) -> str:
        """What was read, in one line: layout, classes, images, origin of the split, what was left out."""
        split = "given by the data" if self.split_origin == "given" else f"drawn with seed {self.split_seed}"
        line = (
            f"{self.root}: {_LAYOUT_WORDS.get(self.layout, self.layout)}, {len(self.classes):,} classes, "
            f"{len(self.train):,} training and {len(self.test):,} test images (split {split})"
        )
        if self.extracted is not None:
            line += f"; images extracted to {self.extracted}"
        left = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.left_out.items()))
        return f"{line}; left out: {left}" if left else line

    @property
    def train(self) -> tuple[Sample, ...]:
        """The training samples."""
        return tuple(sample for sample in self.samples if sample.split == "train")

    @property
    def test(self) -> tuple[Sample, ...]:
        """The test samples."""
        return tuple(sample for sample in self.samples if sample.split == "test")

    def file(self, sample: Sample) -> Path:
        """The path of the sample's file, including the root."""
        return self.root / sample.path

    def subset(self, per_class: int | None) -> Dataset:
        """The data set with only the first ``per_class`` training samples of each class; None keeps all.

        Raises:
            UsageError: ``per_class`` is below 1.
        """
        if per_class is None:
            return self
        if per_class < 1:
            raise UsageError("give at least 1", option="per_class", value=per_class)
        counts = [0] * len(self.classes)
        kept = []
        for sample in self.samples:
            if sample.split == "train":
                counts[sample.label] += 1
                if counts[sample.label] > per_class:
                    continue
            kept.append(sample)
        return replace(self, samples=tuple(kept))

    def write_split(self, path: Path) -> None:
        """Write a CSV file ``path,label,split``; from the data folder it is read back as the same split.

        Raises:
            DataError: the file cannot be written.
        """
        table = io.StringIO(newline="")
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(("path", "label", "split"))
        for sample in self.samples:
            writer.writerow((sample.path.as_posix(), self.classes[sample.label], sample.split))
        try:
            write_atomically(path, table.getvalue().encode())
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def class_mismatch(owner: Path | str, classes: Sequence[str], dataset: Dataset) -> str:
    """How the classes of a file differ from those of a data set, as the beginning of an error message.

    Args:
        owner: the file or folder that has these classes.
        classes: class names; their order matters, since labels are indices.
        dataset: the data set to compare with.

    Returns:
        An empty text if the classes are the same.
    """
    if tuple(classes) == dataset.classes:
        return ""
    if set(classes) == set(dataset.classes):
        return f"{owner} does not fit {dataset.root}: the same classes in another order"
    sides = ((owner, classes, dataset.classes), (dataset.root, dataset.classes, classes))
    counts = []
    for where, own, other in sides:
        alone = sorted(set(own) - set(other))
        counts.append(f"{where} has {len(own)} classes" + (f", {alone[0][:60]!r} only there" if alone else ""))
    return f"{owner} does not fit {dataset.root}: {'; '.join(counts)}"


@dataclass(frozen=True)
class Domains:
    """Two unpaired sets of images, for translation from source to target.

    Attributes:
        source: training images of the source domain, sorted, with their folder.
        target: training images of the target domain.
        source_test: test images of the source domain; may be empty.
        target_test: test images of the target domain; may be empty.
    """

    source: tuple[Path, ...]
    target: tuple[Path, ...]
    source_test: tuple[Path, ...] = ()
    target_test: tuple[Path, ...] = ()
