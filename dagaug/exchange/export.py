"""Export of an HDF5 file for other tools: class folders, a table with image files, tar shards, COCO, or YOLO.

:mod:`dagaug.exchange.format_writers` lists which tools read which format. JPEG and PNG images are written byte for
byte, raw images as PNG with the same pixels, each after a check of its hash. Class names and file names are not
trusted: exported files get unique names that are safe on every file system; the original names stand in the tables.
``README.md`` is the data card (:mod:`dagaug.exchange.data_card`).
The file ``.dagaug-export`` (:mod:`dagaug.exchange.non_image_content`) has all other content of the HDF5 file, so that
``dagaug import`` can restore it. The folder is written under a hidden name beside OUT and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64

from dagaug.data.image_files import encode
from dagaug.exchange.data_card import DATA_CARD, data_card
from dagaug.exchange.exported_images import SHARD_IMAGES, ExportedImage, ExportPlan, ImageLocation
from dagaug.exchange.format_writers import FORMAT_WRITERS, FormatWriter
from dagaug.exchange.non_image_content import MANIFEST, select_images, write_manifest
from dagaug.hdf5.object_masks import MaskReader
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import ATTRIBUTES, OBJECTS_SCHEMA, SCHEMA
from dagaug.runtime.errors import DataError, OutputExistsError, StoreError, UsageError
from dagaug.runtime.files import explain_write_errors, locked
from dagaug.runtime.progress import SILENT, Progress
from dagaug.runtime.safe_names import safe_name
from dagaug.runtime.signals import Interrupted, Stop, stop_on_signals
from dagaug.runtime.unedited_texts import stamped

__all__ = ["Exported", "Format", "SplitChoice", "export"]

Format = Literal["imagefolder", "webdataset", "csv", "coco", "yolo"]
SplitChoice = Literal["all", "train", "test"]

_SPLITS = ("train", "test")
_STEM_BYTES = 70
_BLOCK_BYTES = 1 << 25
_BLOCK_ROWS = 256


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        out: the folder.
        to: its format.
        real, synthetic: numbers of real and synthetic images.
        train, test: numbers of images of each split.
        boxes, masks: numbers of exported images whose object's box, whose object's mask is written.
        left_out: number of images that are left out because their object's box is unknown; only for formats that
            need it.
        renamed: name of each class that has another name in the export, and that name.
        seconds: duration.
    """

    out: Path
    to: str
    real: int
    synthetic: int
    train: int
    test: int
    boxes: int
    masks: int
    left_out: int
    renamed: tuple[tuple[str, str], ...]
    seconds: float

    @property
    def images(self) -> int:
        """Number of all images."""
        return self.real + self.synthetic


def export(
    store: Path,
    out: Path,
    *,
    to: Format = "imagefolder",
    synthetic_only: bool = False,
    split: SplitChoice = "all",
    shard_images: int | None = None,
    masks: bool = False,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Exported:
    """Write the images of an HDF5 file for other tools: JPEG and PNG byte for byte, raw images as PNG.

    Args:
        store: the HDF5 file.
        out: folder to write; missing parent folders are created.
        to: the format; see :mod:`dagaug.exchange.format_writers`.
        synthetic_only: leave out the real images.
        split: export only the images of this split.
        shard_images: number of images in one tar of a ``webdataset``; None for :data:`SHARD_IMAGES`.
        masks: write the objects' masks to the folder ``masks``, too; only for ``imagefolder`` and ``csv``.
        overwrite: replace an earlier export. A folder with other content is never replaced.
        progress: reports the exported images.

    Raises:
        StoreError: the file is damaged, or ``out`` cannot be written.
        DataError: there are no images to export, or the objects' boxes or masks are needed and unknown.
        OutputExistsError: ``out`` exists.
        LockedError: another process writes to ``out``.
        UsageError: an unknown format or split, ``shard_images`` without tars, ``masks`` with another format, or
            ``out`` contains ``store``.
        Interrupted: stopped by a signal; nothing was exported.
    """
    started = time.monotonic()
    _check_options(to, split, shard_images, masks)
    target = Path(os.path.realpath(out))  # a link is kept, and the folder that it names is written
    hidden = target.parent / f".{target.name}.dagaug-export"
    with Store(store) as opened:
        asked = _asked(opened, synthetic_only, split)
        chosen = _with_known_objects(opened, asked, to, masks)
        nothing = "nothing was exported"
        with explain_write_errors(out, nothing):
            _refuse_existing(out, target, store, overwrite)
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(target.parent / f".{target.name}.dagaug-lock", out), stop_on_signals() as stop:
                _refuse_existing(out, target, store, overwrite)
                try:
                    shutil.rmtree(hidden, ignore_errors=True)  # from an export that was killed
                    hidden.mkdir()
                    both = len(np.unique(opened.images.split[chosen])) == len(_SPLITS)
                    plan = ExportPlan(hidden, opened.classes, both, shard_images or SHARD_IMAGES, masks)
                    _write(opened, chosen, plan, FORMAT_WRITERS[to], stop, progress)
                    card = data_card(opened, np.flatnonzero(chosen), to)
                    (hidden / DATA_CARD).write_text(stamped(card), encoding="utf-8", errors="replace")
                    _move(hidden, target)
                except BaseException:
                    shutil.rmtree(hidden, ignore_errors=True)
                    raise
            names = plan.folders if to == "imagefolder" else plan.labels
        return _summary(out, to, opened, chosen, int(asked.sum()), masks, names, time.monotonic() - started)


def _check_options(to: str, split: str, shard_images: int | None, masks: bool) -> None:
    if to not in FORMAT_WRITERS:
        raise UsageError(f"choose one of {', '.join(FORMAT_WRITERS)}", option="to", value=to)
    if shard_images is not None and shard_images < 1:
        raise UsageError("give at least 1", option="shard_images", value=shard_images)
    if shard_images is not None and to != "webdataset":
        raise UsageError(
            f"the format {to} has no shards", option="shard_images", value=shard_images, remedies={"to": "webdataset"}
        )
    if split not in ("all", *_SPLITS):
        raise UsageError("choose all, train or test", option="split", value=split)
    if masks and not FORMAT_WRITERS[to].takes_masks:
        reason = "has the masks in its annotations" if to == "coco" else "has no masks"
        raise UsageError(f"the format {to} {reason}", option="masks", value=masks, remedies={"to": "imagefolder"})


def _asked(store: Store, synthetic_only: bool, split: SplitChoice) -> Bool[np.ndarray, " N"]:
    """The images that were asked for.

    Raises:
        DataError: there are none.
    """
    chosen = np.ones(len(store), bool)
    if synthetic_only:
        chosen &= store.images.synthetic
    if split != "all":
        chosen &= store.images.split == _SPLITS.index(split)
    if not chosen.any():
        kind = "synthetic " if synthetic_only else ""
        of_split = "" if split == "all" else f" in the split {split}"
        raise DataError(f"{store.path}: there are no {kind}images{of_split} to export")
    return chosen


def _with_known_objects(store: Store, asked: Bool[np.ndarray, " N"], to: str, masks: bool) -> Bool[np.ndarray, " N"]:
    """The images to export: all that were asked for, or those with a known box if the format needs it.

    Raises:
        DataError: the format needs boxes or masks, and none is known.
    """
    again = "make the file again with dagaug augment"
    if masks and not (_known_masks(store) & asked).any():
        raise DataError(f"{store.path}: holds no masks of these images' objects; {again}")
    if not FORMAT_WRITERS[to].needs_boxes:
        return asked
    chosen = asked & _known_boxes(store)
    if not chosen.any():
        raise DataError(f"{store.path}: holds no boxes of these images' objects, which {to} needs; {again}")
    return chosen


def _known_boxes(store: Store) -> Bool[np.ndarray, " N"]:
    return np.zeros(len(store), bool) if store.boxes is None else ~np.isnan(store.boxes).all(1)


def _known_masks(store: Store) -> Bool[np.ndarray, " N"]:
    return np.zeros(len(store), bool) if store.mask_reader is None else store.mask_reader.known


def _refuse_existing(out: Path, target: Path, store: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise OutputExistsError(f"{out} is a file, but the export is a folder", remedies={"out": None})
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise OutputExistsError(f"{out} exists and is not empty", remedies={"overwrite": True, "out": None})
    if not (target / MANIFEST).is_file():
        raise OutputExistsError(
            f"{out} is not an export (no {MANIFEST} in it) and is not replaced", remedies={"out": None}
        )
    if Path(os.path.realpath(store)).is_relative_to(target):
        raise UsageError(f"{out} contains {store} and cannot be replaced", remedies={"out": None})


def _move(hidden: Path, target: Path) -> None:
    """Give the finished folder its name, then remove the earlier export."""
    old = target.parent / f".{target.name}.dagaug-old"
    if target.is_dir() and any(target.iterdir()):
        if old.exists():
            shutil.rmtree(old)
        target.rename(old)
    try:
        hidden.rename(target)
    except OSError:
        with suppress(OSError):
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write(
    store: Store, chosen: Bool[np.ndarray, " N"], plan: ExportPlan, writer: FormatWriter, stop: Stop, progress: Progress
) -> None:
    rows = np.flatnonzero(chosen)
    order = np.arange(len(rows))
    if writer.shuffled:
        order = np.random.default_rng(store.header.seed).permutation(order)
    places: list[ImageLocation | None] = [None] * len(rows)
    with (
        progress.task("Exporting", len(rows), "images") as task,
        closing(writer.write(plan, _exported_images(store, rows, order))) as written,  # type: ignore[type-var]
    ):
        for place in written:
            places[place.row] = place
            task.advance()
            if stop.requested:
                raise Interrupted("stopped; nothing was exported; run the same command again")
    found = [place for place in places if place is not None]
    stored = [name for name in SCHEMA if name not in ("images/data", "images/offset", "content_sha256")]
    stored += OBJECTS_SCHEMA if store.has_objects else ()
    columns = select_images({name: store.column(name) for name in stored}, chosen)
    columns |= {
        "images/path": np.array([os.fsencode(place.file) for place in found]),
        "images/start": np.array([place.start for place in found], "<i8"),
        "images/size": np.array([place.size for place in found], "<i8"),
    }
    write_manifest(plan.folder, {name: store.attributes[name] for name in ATTRIBUTES}, columns)


def _exported_images(
    store: Store, rows: Int64[np.ndarray, " n"], order: Int64[np.ndarray, " n"]
) -> Iterator[ExportedImage]:
    """Read the images of ``rows`` in ``order``, in blocks of limited size, and check their hashes."""
    offset, hashes = store.column("images/offset"), store.column("images/sha256")
    header, table, boxes, masks = store.header, store.images, store.boxes, store.mask_reader
    number = np.empty(len(store), np.int64)
    number[rows] = np.arange(len(rows))
    for block in _blocks(rows[order], np.diff(offset)):
        for row, stored in zip(block, store.image_reader.encoded(block), strict=True):
            data = stored.tobytes()
            if hashlib.sha256(data).digest()[:16] != hashes[row].tobytes():
                raise StoreError(f"{store.path}: /images/data: image {row} is damaged (its hash differs)")
            if header.encoding == "raw":
                data = encode(stored.reshape(int(table.height[row]), int(table.width[row]), 3), "png")
            source, reference, code = int(table.source[row]), int(table.reference[row]), int(table.variant[row])
            synthetic, predicted = bool(table.synthetic[row]), int(table.predicted[row])
            variant = header.variants[code] if synthetic and code < len(header.variants) else ""
            names = [header.files[source]]
            names += [header.files[reference]] if reference >= 0 else []
            parts = [*(PurePosixPath(name).stem for name in names), *([variant] if variant else [])]
            yield ExportedImage(
                row=int(number[row]),
                data=data,
                suffix=".jpg" if header.encoding == "jpeg" else ".png",
                height=int(table.height[row]),
                width=int(table.width[row]),
                label=int(table.label[row]),
                split=_SPLITS[int(table.split[row])],
                synthetic=synthetic,
                stem="--".join(safe_name(part, _STEM_BYTES, "image") for part in parts),
                source=names[0],
                reference=names[1] if reference >= 0 else "",
                variant=variant,
                # The shortest decimal number that gives the same 32 bits.
                confidence=None if np.isnan(table.confidence[row]) else float(str(table.confidence[row])),
                predicted=predicted if predicted >= 0 else None,
                box=None if boxes is None or np.isnan(boxes[row]).any() else tuple(boxes[row].tolist()),
                encoded_mask=b"" if masks is None else _checked_mask(masks, row),
            )


def _checked_mask(masks: MaskReader, row: int) -> bytes:
    """The bytes of a mask, empty if it is not stored.

    Raises:
        StoreError: the mask is damaged.
    """
    masks.mask(row)
    return masks.encoded(row)


def _blocks(rows: np.ndarray, sizes: np.ndarray) -> Iterator[list[int]]:
    """Consecutive rows, at most :data:`_BLOCK_ROWS` and about :data:`_BLOCK_BYTES` at a time."""
    block: list[int] = []
    total = 0
    for row in rows.tolist():
        if block and (len(block) == _BLOCK_ROWS or total + int(sizes[row]) > _BLOCK_BYTES):
            yield block
            block, total = [], 0
        block.append(row)
        total += int(sizes[row])
    if block:
        yield block


def _summary(
    out: Path,
    to: str,
    store: Store,
    chosen: Bool[np.ndarray, " N"],
    asked: int,
    masks: bool,
    names: list[str],
    seconds: float,
) -> Exported:
    images, synthetic = int(chosen.sum()), int(store.images.synthetic[chosen].sum())
    test = int(store.images.split[chosen].sum())
    used = set(store.images.label[chosen].tolist())
    pairs = enumerate(zip(store.classes, names, strict=True))
    return Exported(
        out=out,
        to=to,
        real=images - synthetic,
        synthetic=synthetic,
        train=images - test,
        test=test,
        boxes=int((chosen & _known_boxes(store)).sum()) if FORMAT_WRITERS[to].needs_boxes else 0,
        masks=int((chosen & _known_masks(store)).sum()) if masks or to == "coco" else 0,
        left_out=asked - images,
        renamed=tuple((name, written) for label, (name, written) in pairs if label in used and name != written),
        seconds=seconds,
    )
