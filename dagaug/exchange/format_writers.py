"""Writers of the export formats: class folders, one table with image files, tar shards of WebDataset, COCO, YOLO.

A writer takes images one by one, writes each to the export's folder and returns the location of its bytes, which
``dagaug import`` reads. The formats and the tools that read them:

- ``imagefolder``: ``train/<class>/…`` and ``test/<class>/…`` if images of both splits are exported, otherwise
  ``<class>/…``. Read by torchvision's ``ImageFolder``, timm, Hugging Face's ``imagefolder``, and dagaug. With timm, use
  ``--class-map OUT/classes.txt``: it numbers the classes as the HDF5 file does, even if a split lacks a class. Beside
  the class folders of each split lies ``metadata.csv``, which Hugging Face joins to the images.
- ``csv``: ``images.csv`` with the columns :data:`TABLE_COLUMNS`, and ``images/<class>/…``. Read by dagaug, pandas and
  Hugging Face's ``csv``.
- ``webdataset``: ``train-000000.tar`` and so on, with ``.jpg`` or ``.png``, ``.cls`` and ``.json`` for each image. Read
  by ``webdataset``, Hugging Face's ``webdataset`` and timm (``--dataset wds/``, which reads ``_info.json``).
- ``coco``, ``yolo``: see :mod:`dagaug.exchange.detection_writers`.

``imagefolder`` and ``csv`` may have the objects' masks, too: ``masks/<class>/…``, PNG files with the images' names and
255 on the object. dagaug reads them as given masks. ``imagefolder`` then always has folders of splits.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dagaug.exchange.detection_writers import write_coco, write_yolo
from dagaug.exchange.exported_images import ExportedImage, ExportPlan, ImageFiles, ImageLocation
from dagaug.runtime.errors import in_one_line

__all__ = [
    "FORMAT_WRITERS",
    "METADATA_COLUMNS",
    "METADATA_FILE",
    "PROVENANCE_COLUMNS",
    "PROVENANCE_FILE",
    "TABLE_COLUMNS",
    "TABLE_FILE",
    "FormatWriter",
]

PROVENANCE_COLUMNS = ("path", "label", "source", "reference", "variant", "confidence", "kept")
"""Columns of ``provenance.csv``. Cells that do not apply to real images are empty."""

METADATA_COLUMNS = (
    "file_name", "label", "class_id", "synthetic", "source", "reference", "variant", "confidence",
)  # fmt: skip
"""Columns of ``metadata.csv``. The label is the name of the class folder, ``class_id`` its line in ``classes.txt``
(from 0). Of a real image, reference and variant are "none" and the confidence is -1."""

TABLE_COLUMNS = (
    "path", "label", "split", "synthetic", "source", "reference", "variant", "confidence", "predicted", "box", "mask",
)  # fmt: skip
"""Columns of ``images.csv``; box ("x,y,width,height" in pixels) and mask as :mod:`dagaug.data.csv_layout` reads them.
Cells that do not apply to real images, boxes that are unknown, and masks that are not written are empty."""

METADATA_FILE = "metadata.csv"
PROVENANCE_FILE = "provenance.csv"
TABLE_FILE = "images.csv"
_CLASSES = "classes.txt"
_NONE = "none"  # an empty cell would make readers guess another type


def _imagefolder(plan: ExportPlan, images: Iterator[ExportedImage]) -> Iterator[ImageLocation]:
    """Write class folders, below folders of the splits if there are two, ``provenance.csv`` and ``metadata.csv``."""
    folders, files = plan.folders, ImageFiles(plan.folder)
    (plan.folder / _CLASSES).write_text("".join(f"{name}\n" for name in folders), encoding="utf-8")
    with ExitStack() as opened:
        table = _Table(plan.folder / PROVENANCE_FILE, PROVENANCE_COLUMNS, opened)
        metadata: dict[str, _Table] = {}
        for image in images:
            folder = folders[image.label]
            # Masks need folders of splits: beside class folders, their folder would count as a class.
            top = image.split if plan.both or plan.masks else ""
            masks = f"masks/{folder}" if plan.masks else None
            place = files.write(f"{top}/{folder}" if top else folder, image, mask_parent=masks)
            label, confidence = plan.classes[image.label], _number(image.confidence)
            table.add(place.file, label, image.source, image.reference, image.variant, confidence, "yes")
            if top not in metadata:
                metadata[top] = _Table(plan.folder / top / METADATA_FILE, METADATA_COLUMNS, opened)
            metadata[top].add(
                place.file.removeprefix(f"{top}/"), folder, image.label, image.synthetic,
                *(in_one_line(text) or _NONE for text in (image.source, image.reference, image.variant)),
                -1.0 if image.confidence is None else image.confidence,
            )  # fmt: skip
            yield place


class _Table:
    """A CSV file that is being written; ``opened`` closes it."""

    def __init__(self, path: Path, columns: Sequence[str], opened: ExitStack) -> None:
        stream = opened.enter_context(path.open("w", encoding="utf-8", errors="surrogateescape", newline=""))
        self._writer = csv.writer(stream, lineterminator="\n")
        self._writer.writerow(columns)

    def add(self, *cells: object) -> None:
        self._writer.writerow(cells)


def _csv(plan: ExportPlan, images: Iterator[ExportedImage]) -> Iterator[ImageLocation]:
    """Write image files and one table. Its first columns are those that dagaug reads."""
    folders, labels, files = plan.folders, plan.labels, ImageFiles(plan.folder)
    with (plan.folder / TABLE_FILE).open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(TABLE_COLUMNS)
        for image in images:
            folder = folders[image.label]
            place = files.write(f"images/{folder}", image, mask_parent=f"masks/{folder}" if plan.masks else None)
            table.writerow(
                (
                    place.file, labels[image.label], image.split, "yes" if image.synthetic else "no",
                    in_one_line(image.source), in_one_line(image.reference), in_one_line(image.variant),
                    _number(image.confidence),
                    "" if image.predicted is None else labels[image.predicted],
                    "" if image.box is None else ",".join(_number(round(value, 3)) for value in image.box),
                    f"masks/{folder}/{Path(place.file).stem}.png" if plan.masks and image.encoded_mask else "",
                )
            )  # fmt: skip
            yield place


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
        needs_boxes: images without a known box are left out; listed without one, they would count as background.
        takes_masks: the objects' masks can be written beside the images.
    """

    write: Callable[[ExportPlan, Iterator[ExportedImage]], Iterator[ImageLocation]]
    shuffled: bool = False
    needs_boxes: bool = False
    takes_masks: bool = False


FORMAT_WRITERS: dict[str, FormatWriter] = {
    "imagefolder": FormatWriter(_imagefolder, takes_masks=True),
    "webdataset": FormatWriter(_webdataset, shuffled=True),
    "csv": FormatWriter(_csv, takes_masks=True),
    "coco": FormatWriter(write_coco, needs_boxes=True),
    "yolo": FormatWriter(write_yolo, needs_boxes=True),
}
"""The formats, by name."""
