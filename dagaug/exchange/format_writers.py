"""Writers of the export formats: class folders, one table with image files, tar shards of WebDataset.

A writer takes images one by one, writes each to the export's folder and returns the location of its bytes, which
``dagaug import`` reads. The formats and the tools that read them:

- ``imagefolder``: ``train/<class>/…`` and ``test/<class>/…`` if images of both splits are exported, otherwise
  ``<class>/…``. Read by torchvision's ``ImageFolder``, timm, Hugging Face's ``imagefolder``, and dagaug. With timm, use
  ``--class-map OUT/classes.txt``: it numbers the classes as the HDF5 file does, even if a split lacks a class.
- ``csv``: ``images.csv`` with the columns :data:`TABLE_COLUMNS`, and ``images/<class>/…``. Read by dagaug, pandas and
  Hugging Face's ``csv``.
- ``webdataset``: ``train-000000.tar`` and so on, with ``.jpg`` or ``.png``, ``.cls`` and ``.json`` for each image. Read
  by ``webdataset``, Hugging Face's ``webdataset`` and timm (``--dataset wds/``, which reads ``_info.json``).
"""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dagaug.runtime.errors import in_one_line
from dagaug.runtime.safe_names import safe_names, unique_name

__all__ = [
    "FORMAT_WRITERS",
    "PROVENANCE_COLUMNS",
    "PROVENANCE_FILE",
    "SHARD_IMAGES",
    "TABLE_COLUMNS",
    "TABLE_FILE",
    "ExportPlan",
    "ExportedImage",
    "FormatWriter",
    "ImageLocation",
]

PROVENANCE_COLUMNS = ("path", "label", "source", "reference", "variant", "confidence", "kept")
"""Columns of ``provenance.csv``. Cells that do not apply to real images are empty."""

TABLE_COLUMNS = ("path", "label", "split", "synthetic", "source", "reference", "variant", "confidence", "predicted")
"""Columns of ``images.csv``. Cells that do not apply to real images are empty."""

PROVENANCE_FILE = "provenance.csv"
TABLE_FILE = "images.csv"
SHARD_IMAGES = 1000
"""Default number of images in a tar."""

_CLASSES = "classes.txt"

# A class folder with one of these names would be read as a split, or there is a file of that name.
_RESERVED = frozenset(
    ("train", "training", "test", "val", "valid", "validation", "eval", "evaluation", PROVENANCE_FILE, _CLASSES)
)


@dataclass(frozen=True)
class ExportedImage:
    """One image, as all writers get it.

    Attributes:
        row: number among the exported images, in the order of the HDF5 file.
        data: bytes of a JPEG or PNG file.
        suffix: ``.jpg`` or ``.png``.
        label: index of the class.
        split: ``train`` or ``test``.
        synthetic: true for a morph, false for a real image.
        stem: readable, safe file name without suffix; not always unique.
        source, reference: image files of the data set; the reference of a real image is empty.
        variant: variant of the reference; empty for a real image.
        confidence: p(label) of the classifier, in [0, 1]; None for a real image.
        predicted: index of the classifier's top-1 class; None for a real image.
    """

    row: int
    data: bytes
    suffix: str
    label: int
    split: str
    synthetic: bool
    stem: str
    source: str
    reference: str
    variant: str
    confidence: float | None
    predicted: int | None


@dataclass(frozen=True)
class ImageLocation:
    """Location of the bytes of one image.

    Attributes:
        row: number of the image among the exported images.
        file: file relative to the export's folder, "/" between folders.
        start, size: position and number of the bytes in this file.
    """

    row: int
    file: str
    start: int
    size: int


@dataclass(frozen=True)
class ExportPlan:
    """Settings of an export, known before the first image.

    Attributes:
        folder: empty folder to write to.
        classes: names of the classes; a label is an index.
        both: whether images of both splits are exported.
        shard_images: number of images in one tar.
    """

    folder: Path
    classes: Sequence[str]
    both: bool
    shard_images: int = SHARD_IMAGES

    @property
    def folders(self) -> list[str]:
        """Unique, safe folder name of each class."""
        return safe_names(self.classes, _RESERVED)

    @property
    def labels(self) -> list[str]:
        """Name of each class in tables: its own if unique and printable, otherwise the folder name."""
        counts = Counter(self.classes)
        pairs = zip(self.classes, self.folders, strict=True)
        return [
            name if name and name.isprintable() and name == name.strip() and counts[name] == 1 else folder
            for name, folder in pairs
        ]


def _imagefolder(plan: ExportPlan, images: Iterator[ExportedImage]) -> Iterator[ImageLocation]:
    """Write class folders, below folders of the splits if there are two, and ``provenance.csv``."""
    folders, files = plan.folders, _Files(plan.folder)
    (plan.folder / _CLASSES).write_text("".join(f"{name}\n" for name in folders), encoding="utf-8")
    with (plan.folder / PROVENANCE_FILE).open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(PROVENANCE_COLUMNS)
        for image in images:
            folder = folders[image.label]
            place = files.write(f"{image.split}/{folder}" if plan.both else folder, image)
            label, confidence = plan.classes[image.label], _number(image.confidence)
            table.writerow((place.file, label, image.source, image.reference, image.variant, confidence, "yes"))
            yield place


def _csv(plan: ExportPlan, images: Iterator[ExportedImage]) -> Iterator[ImageLocation]:
    """Write image files and one table. Its first columns are those that dagaug reads."""
    folders, labels, files = plan.folders, plan.labels, _Files(plan.folder)
    with (plan.folder / TABLE_FILE).open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(TABLE_COLUMNS)
        for image in images:
            place = files.write(f"images/{folders[image.label]}", image)
            table.writerow(
                (
                    place.file, labels[image.label], image.split, "yes" if image.synthetic else "no",
                    in_one_line(image.source), in_one_line(image.reference), in_one_line(image.variant),
                    _number(image.confidence),
                    "" if image.predicted is None else labels[image.predicted],
                )
            )  # fmt: skip
            yield place


class _Files:
    """Writes image files, creates their folders, and numbers files with equal names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.taken: dict[str, dict[str, int]] = {}

    def write(self, parent: str, image: ExportedImage) -> ImageLocation:
        if parent not in self.taken:
            (self.folder / parent).mkdir(parents=True)
            self.taken[parent] = {}
        path = f"{parent}/{unique_name(image.stem, self.taken[parent])}{image.suffix}"
        (self.folder / path).write_bytes(image.data)
        return ImageLocation(image.row, path, 0, len(image.data))


def _number(value: float | None) -> str:
    return "" if value is None else str(value)


def _webdataset(plan: ExportPlan, images: Iterator[ExportedImage]) -> Iterator[ImageLocation]:
    """Write tar shards of each split, and ``_info.json`` with their numbers of images, which timm reads."""
    labels = plan.labels
    shards: dict[str, list[_Tar]] = {}
    with ExitStack() as opened:
        for image in images:
            of_split = shards.setdefault(image.split, [])
            if not of_split or of_split[-1].count == plan.shard_images:
                if of_split:
                    of_split[-1].close()
                of_split.append(_Tar(plan.folder / f"{image.split}-{len(of_split):06d}.tar"))
                opened.callback(of_split[-1].close)
            yield of_split[-1].add(image, labels)
    splits = {
        split: {
            "name": split,
            "num_samples": sum(tar.count for tar in tars),
            "filenames": [tar.path.name for tar in tars],
            "shard_lengths": [tar.count for tar in tars],
        }
        for split, tars in sorted(shards.items())
    }
    (plan.folder / "_info.json").write_text(json.dumps({"splits": splits}, indent=1), encoding="utf-8")
    (plan.folder / _CLASSES).write_text("".join(f"{name}\n" for name in labels), encoding="utf-8")


class _Tar:
    """A tar that is being written. It has no times and owners, so that equal exports are equal files."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self._stream = path.open("wb")
        self._tar = tarfile.TarFile(fileobj=self._stream, mode="w", format=tarfile.USTAR_FORMAT)

    def add(self, image: ExportedImage, labels: Sequence[str]) -> ImageLocation:
        key = f"{image.row:09d}"
        start = self._member(key + image.suffix, image.data)
        self._member(key + ".cls", str(image.label).encode())
        # All images have the same types, because readers infer them from the first few images.
        about = {
            "label": labels[image.label],
            "split": image.split,
            "synthetic": image.synthetic,
            "source": in_one_line(image.source),
            "reference": in_one_line(image.reference),
            "variant": in_one_line(image.variant),
            "confidence": -1.0 if image.confidence is None else image.confidence,
            "predicted": "" if image.predicted is None else labels[image.predicted],
        }
        self._member(key + ".json", json.dumps(about).encode())
        self.count += 1
        return ImageLocation(image.row, self.path.name, start, len(image.data))

    def _member(self, name: str, data: bytes) -> int:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        start = self._stream.tell() + tarfile.BLOCKSIZE  # the header of a short name is one block
        self._tar.addfile(entry, io.BytesIO(data))
        return start

    def close(self) -> None:
        if self._stream.closed:
            return
        with self._stream:
            self._tar.close()
            self._stream.flush()
            os.fsync(self._stream.fileno())


@dataclass(frozen=True)
class FormatWriter:
    """How a format is written.

    Attributes:
        write: writes the images and yields the location of each.
        shuffled: images are written in random order, because readers of tars shuffle only within a buffer.
    """

    write: Callable[[ExportPlan, Iterator[ExportedImage]], Iterator[ImageLocation]]
    shuffled: bool = False


FORMAT_WRITERS: dict[str, FormatWriter] = {
    "imagefolder": FormatWriter(_imagefolder),
    "webdataset": FormatWriter(_webdataset, shuffled=True),
    "csv": FormatWriter(_csv),
}
"""The formats, by name."""
