"""The forms of an export: class folders, one table with image files, tar shards of WebDataset.

A form takes images one by one, writes each into a folder that is its own, and says where its bytes lie, so that
``dagaug import`` finds them again. What the forms are read by:

- ``imagefolder``: ``train/<class>/…`` and ``test/<class>/…`` where images of both splits are exported, otherwise
  ``<class>/…``; torchvision's ``ImageFolder``, timm (``--class-map OUT/classes.txt`` numbers classes as the HDF5 file
  does, also where one has no images in a split), Hugging Face's ``imagefolder``, and dagaug itself;
- ``csv``: ``images.csv`` with the columns :data:`TABLE_COLUMNS` beside ``images/<class>/…``; dagaug itself, pandas,
  Hugging Face's ``csv``;
- ``webdataset``: ``train-000000.tar`` and so on, with ``.jpg`` or ``.png``, ``.cls`` and ``.json`` for each image;
  ``webdataset``, Hugging Face's ``webdataset`` and timm (``--dataset wds/``, by ``_info.json``).
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
"""Of ``provenance.csv``; what a real image has none of is empty."""

TABLE_COLUMNS = ("path", "label", "split", "synthetic", "source", "reference", "variant", "confidence", "predicted")
"""Of ``images.csv``; what a real image has none of is empty."""

PROVENANCE_FILE = "provenance.csv"


TABLE_FILE = "images.csv"


SHARD_IMAGES = 1000
"""Images in a tar, if not told otherwise."""

_CLASSES = "classes.txt"


# As a class folder directly below OUT, these would be taken for a split or meet another file there.
_RESERVED = frozenset(
    ("train", "training", "test", "val", "valid", "validation", "eval", "evaluation", PROVENANCE_FILE, _CLASSES)
)


@dataclass(frozen=True)
class ExportedImage:
    """One image as every form gets it.

    Attributes:
        row: among the exported images, in the order of the HDF5 file.
        data: a JPEG or PNG file's bytes.
        suffix: ``.jpg`` or ``.png``.
        label: row in the classes.
        split: ``train`` or ``test``.
        synthetic: a morph, not an image of the data set.
        stem: a readable, safe name, not necessarily the only one of its kind.
        source, reference: image files of the data set; no reference for a real image.
        variant: of the reference; empty for a real image.
        confidence: p(label), None for a real image.
        predicted: the classifier's first choice, a row in the classes; None for a real image.
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
    """Where the bytes of one image lie.

    Attributes:
        row: which image.
        file: relative to the export's folder, "/" between folders.
        start, size: its bytes in that file.
    """

    row: int
    file: str
    start: int
    size: int


@dataclass(frozen=True)
class ExportPlan:
    """What is known before the first image comes.

    Attributes:
        folder: to write into; empty.
        classes: names, by label.
        both: whether there are images of both splits.
        shard_images: how many images go into one tar.
    """

    folder: Path
    classes: Sequence[str]
    both: bool
    shard_images: int = SHARD_IMAGES

    @property
    def folders(self) -> list[str]:
        """A safe name for each class."""
        return safe_names(self.classes, _RESERVED)

    @property
    def labels(self) -> list[str]:
        """A name for each class that the readers of tables give back as it is: its own where it can be."""
        counts = Counter(self.classes)
        pairs = zip(self.classes, self.folders, strict=True)
        return [
            name if name and name.isprintable() and name == name.strip() and counts[name] == 1 else folder
            for name, folder in pairs
        ]


def _imagefolder(plan: ExportPlan, records: Iterator[ExportedImage]) -> Iterator[ImageLocation]:
    """Class folders, within folders of the splits where there are two, and ``provenance.csv``."""
    folders, files = plan.folders, _Files(plan.folder)
    (plan.folder / _CLASSES).write_text("".join(f"{name}\n" for name in folders), encoding="utf-8")
    with (plan.folder / PROVENANCE_FILE).open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(PROVENANCE_COLUMNS)
        for record in records:
            folder = folders[record.label]
            place = files.write(f"{record.split}/{folder}" if plan.both else folder, record)
            label, confidence = plan.classes[record.label], _number(record.confidence)
            table.writerow((place.file, label, record.source, record.reference, record.variant, confidence, "yes"))
            yield place


def _csv(plan: ExportPlan, records: Iterator[ExportedImage]) -> Iterator[ImageLocation]:
    """One table, whose first columns are those that dagaug reads, and the files that it names."""
    folders, labels, files = plan.folders, plan.labels, _Files(plan.folder)
    with (plan.folder / TABLE_FILE).open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(TABLE_COLUMNS)
        for record in records:
            place = files.write(f"images/{folders[record.label]}", record)
            table.writerow(
                (
                    place.file, labels[record.label], record.split, "yes" if record.synthetic else "no",
                    in_one_line(record.source), in_one_line(record.reference), in_one_line(record.variant),
                    _number(record.confidence),
                    "" if record.predicted is None else labels[record.predicted],
                )
            )  # fmt: skip
            yield place


class _Files:
    """Image files in folders that are made when they are needed; of equal names, the second gets a number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.taken: dict[str, dict[str, int]] = {}

    def write(self, parent: str, record: ExportedImage) -> ImageLocation:
        if parent not in self.taken:
            (self.folder / parent).mkdir(parents=True)
            self.taken[parent] = {}
        path = f"{parent}/{unique_name(record.stem, self.taken[parent])}{record.suffix}"
        (self.folder / path).write_bytes(record.data)
        return ImageLocation(record.row, path, 0, len(record.data))


def _number(value: float | None) -> str:
    return "" if value is None else str(value)


def _webdataset(plan: ExportPlan, records: Iterator[ExportedImage]) -> Iterator[ImageLocation]:
    """Tar shards of each split, and ``_info.json``, which tells timm how many images are where."""
    labels = plan.labels
    shards: dict[str, list[_Tar]] = {}
    with ExitStack() as opened:
        for record in records:
            of_split = shards.setdefault(record.split, [])
            if not of_split or of_split[-1].count == plan.shard_images:
                if of_split:
                    of_split[-1].close()
                of_split.append(_Tar(plan.folder / f"{record.split}-{len(of_split):06d}.tar"))
                opened.callback(of_split[-1].close)
            yield of_split[-1].add(record, labels)
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
    """One shard while it is written; it holds no times and no owners, so that equal exports are equal files."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self._stream = path.open("wb")
        self._tar = tarfile.TarFile(fileobj=self._stream, mode="w", format=tarfile.USTAR_FORMAT)

    def add(self, record: ExportedImage, labels: Sequence[str]) -> ImageLocation:
        key = f"{record.row:09d}"
        start = self._member(key + record.suffix, record.data)
        self._member(key + ".cls", str(record.label).encode())
        # The types are the same for every image, since readers infer them from the first few.
        about = {
            "label": labels[record.label],
            "split": record.split,
            "synthetic": record.synthetic,
            "source": in_one_line(record.source),
            "reference": in_one_line(record.reference),
            "variant": in_one_line(record.variant),
            "confidence": -1.0 if record.confidence is None else record.confidence,
            "predicted": "" if record.predicted is None else labels[record.predicted],
        }
        self._member(key + ".json", json.dumps(about).encode())
        self.count += 1
        return ImageLocation(record.row, self.path.name, start, len(record.data))

    def _member(self, name: str, data: bytes) -> int:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        start = self._stream.tell() + tarfile.BLOCKSIZE  # a short name's header is one block
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
    """How an export is written.

    Attributes:
        write: given what is known before and the images, writes each and says where it is.
        shuffled: images come in random order, since readers of tars shuffle only within a buffer.
    """

    write: Callable[[ExportPlan, Iterator[ExportedImage]], Iterator[ImageLocation]]
    shuffled: bool = False


FORMAT_WRITERS: dict[str, FormatWriter] = {
    "imagefolder": FormatWriter(_imagefolder),
    "webdataset": FormatWriter(_webdataset, shuffled=True),
    "csv": FormatWriter(_csv),
}
"""What can be written, by the name that ``--to`` takes."""
