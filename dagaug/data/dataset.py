"""Data sets on disk: which images there are, what they show and on which side of the split they stand.

Only lists and file names are read here; no image is decoded. Three layouts of labelled images are recognised
by what lies in the folder, and all become one :class:`Dataset` of :class:`Sample` records:

- ``cub``: CUB-200-2011, that is ``images.txt``, ``image_class_labels.txt``, ``classes.txt`` and, when there,
  ``train_test_split.txt``, ``bounding_boxes.txt``, ``parts/part_locs.txt`` and captions
  (``captions/``, ``text_c10/`` or ``text/`` with one ``.txt`` an image, one caption a line);
- ``csv``: a file, or a folder that holds exactly one, with the header ``path,label`` or with ``path``, ``label``,
  ``split`` among others;
- ``imagefolder``: ``root/<class>/…``, or ``root/train/<class>/…`` with ``test``, ``val`` or ``valid``
  beside it (``val`` is left out where there is a ``test``).

Two unpaired folders (``trainA`` and ``trainB``, or ``A`` and ``B``) are read by :func:`read_domains`.

Hidden files are left out, the order is stable, a class without images is none. A list file never leads out of
the data folder: absolute paths, ``..`` and links that leave it are refused.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dagaug.runtime.errors import DataError, UsageError

__all__ = ["IMAGE_SUFFIXES", "Box", "Dataset", "Domains", "Sample", "Split"]

Box = tuple[float, float, float, float]
"""x, y, width and height in pixels of the upright image."""

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""File names that are taken for images where a folder is walked (the same as in ``images``)."""

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes:
        path: its file, relative to :attr:`Dataset.root`.
        label: index into :attr:`Dataset.classes`.
        split: ``train`` or ``test``.
        box: where the object is, or None.
        parts: visible parts as (number, x, y), in pixels of the upright image.
        captions: sentences about the image.
    """

    path: Path
    label: int
    split: Split
    box: Box | None = None
    parts: tuple[tuple[int, float, float], ...] = ()
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """All samples of a data folder, in a stable order.

    Attributes:
        root: the folder that sample paths are relative to.
        layout: one of :data:`LAYOUTS`.
        classes: names; a label is an index into them.
        samples: training and test images together.
        split_origin: ``given`` by the folder, or ``drawn`` here from the seed.
        split_seed: the seed that drew the split; None where it was given.
    """

    root: Path
    layout: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    split_origin: Literal["given", "drawn"]
    split_seed: int | None = None

    @property
    def train(self) -> tuple[Sample, ...]:
        """The training images."""
        return tuple(sample for sample in self.samples if sample.split == "train")

    @property
    def test(self) -> tuple[Sample, ...]:
        """The test images."""
        return tuple(sample for sample in self.samples if sample.split == "test")

    def file(self, sample: Sample) -> Path:
        """The sample's file, with the root before it."""
        return self.root / sample.path

    def subset(self, per_class: int | None) -> Dataset:
        """Only the first ``per_class`` training images of each class, and all test images; None: all."""
        if per_class is None:
            return self
        if per_class < 1:
            raise UsageError(f"--per-class {per_class}: give at least 1")
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
        """Write a CSV ``path,label,split``; lying in the data folder, it is read back as the same split.

        It appears under its name only when it is whole.

        Raises:
            DataError: it cannot be written.
        """
        temporary = path.with_name(path.name + ".tmp")
        try:
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerow(("path", "label", "split"))
                for sample in self.samples:
                    writer.writerow((sample.path.as_posix(), self.classes[sample.label], sample.split))
            temporary.replace(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror})") from error


@dataclass(frozen=True)
class Domains:
    """Two unpaired sets of images, for translation from source to target.

    Attributes:
        source: training images of the source domain, sorted, with their folder before them.
        target: training images of the target domain.
        source_test: test images of the source domain; may be empty.
        target_test: test images of the target domain; may be empty.
    """

    source: tuple[Path, ...]
    target: tuple[Path, ...]
    source_test: tuple[Path, ...] = ()
    target_test: tuple[Path, ...] = ()
