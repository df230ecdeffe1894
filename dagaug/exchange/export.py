"""An HDF5 file as what other tools read: class folders, a table with image files, or tar shards.

What reads which form stands in :mod:`dagaug.formats`. Images are written byte for byte, raw ones as PNG of the same
pixels, each after its hash was checked. Class names and file names come from strangers: files get names that are safe
everywhere, and no two are the same; the true names stand in the tables. What no image file can hold goes into
``.dagaug-export`` (:mod:`dagaug.manifest`), with which ``dagaug import`` makes the same HDF5 file again. The folder is
written under a hidden name beside OUT and renamed when whole.
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
from dagaug.exchange.formats import FORMAT_WRITERS, SHARD_IMAGES, ExportedImage, ExportPlan, FormatWriter, ImageLocation
from dagaug.exchange.manifest import MANIFEST, select_images, write_manifest
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import ATTRIBUTES, SCHEMA
from dagaug.runtime.errors import DataError, OutputExistsError, StoreError, UsageError
from dagaug.runtime.files import explain_write_errors, locked
from dagaug.runtime.progress import SILENT, Progress
from dagaug.runtime.safe_names import safe_name
from dagaug.runtime.signals import Interrupted, Stop, stop_on_signals

__all__ = ["Exported", "Format", "SplitChoice", "export"]

Format = Literal["imagefolder", "webdataset", "csv"]


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
        to: its form.
        real, synthetic: how many images of each kind were written.
        train, test: how many of each split.
        renamed: true name of every class that has another in files and tables, and that.
        seconds: time it took.
    """

    out: Path
    to: str
    real: int
    synthetic: int
    train: int
    test: int
    renamed: tuple[tuple[str, str], ...]
    seconds: float

    @property
    def images(self) -> int:
        """All images that were written."""
        return self.real + self.synthetic


def export(
    store: Path,
    out: Path,
    *,
    to: Format = "imagefolder",
    synthetic_only: bool = False,
    split: SplitChoice = "all",
    shard_images: int | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Exported:
    """Write an HDF5 file's images for other tools: JPEG and PNG byte for byte, raw images as PNG.

    Args:
        store: the HDF5 file.
        out: folder to write; its parents are made.
        to: one of :data:`dagaug.formats.FORMAT_WRITERS`.
        synthetic_only: leave the data set's own images out.
        split: only images of that split.
        shard_images: images in one tar of a ``webdataset``.
        overwrite: replace an earlier export; a folder that holds anything else is never replaced.
        progress: is told of each image.

    Raises:
        StoreError: the file is corrupt, or ``out`` cannot be written.
        DataError: no image is to be exported.
        OutputExistsError, LockedError: ``out`` is there already, or being written.
        UsageError: an unknown form or split, ``shard_images`` where there are no tars, or ``out`` holds the file.
        Interrupted: stopped by a signal; nothing is left behind.
    """
    started = time.monotonic()
    if to not in FORMAT_WRITERS:
        raise UsageError(f"--to {to}: choose one of {', '.join(FORMAT_WRITERS)}")
    if shard_images is not None and (to != "webdataset" or shard_images < 1):
        raise UsageError(f"--shard-images {shard_images}: at least 1, and only with --to webdataset")
    if split not in ("all", *_SPLITS):
        raise UsageError(f"--split {split}: choose all, train or test")
    target = Path(os.path.realpath(out))  # a link stays, what it names is written
    hidden = target.parent / f".{target.name}.dagaug-export"
    with Store(store) as opened:
        chosen = _chosen(opened, synthetic_only, split)
        if not chosen.any():
            what = "synthetic " if synthetic_only else ""
            raise DataError(f"{store}: holds no {what}images of the split {split}; nothing to export")
        nothing = "nothing was exported"
        with explain_write_errors(out, nothing):
            _refuse_existing(out, target, store, overwrite)
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(target.parent / f".{target.name}.dagaug-lock", out), stop_on_signals() as stop:
                _refuse_existing(out, target, store, overwrite)
                try:
                    shutil.rmtree(hidden, ignore_errors=True)  # what a killed export left
                    hidden.mkdir()
                    both = len(np.unique(opened.images.split[chosen])) == len(_SPLITS)
                    plan = ExportPlan(hidden, opened.classes, both, shard_images or SHARD_IMAGES)
                    _write(opened, chosen, plan, FORMAT_WRITERS[to], stop, progress)
                    _move(hidden, target)
                except BaseException:
                    shutil.rmtree(hidden, ignore_errors=True)
                    raise
            names = plan.folders if to == "imagefolder" else plan.labels
        return _summary(out, to, opened, chosen, names, time.monotonic() - started)


def _chosen(store: Store, synthetic_only: bool, split: SplitChoice) -> Bool[np.ndarray, " N"]:
    chosen = np.ones(len(store), bool)
    if synthetic_only:
        chosen &= store.images.synthetic
    if split != "all":
        chosen &= store.images.split == _SPLITS.index(split)
    return chosen


def _refuse_existing(out: Path, target: Path, store: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise OutputExistsError(f"{out}: is a file; name a folder with --out")
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise OutputExistsError(f"{out} exists and is not empty; --overwrite replaces an earlier export")
    if not (target / MANIFEST).is_file():
        raise OutputExistsError(
            f"{out}: holds no export of dagaug's (no {MANIFEST}), so it is not replaced; choose another --out"
        )
    if Path(os.path.realpath(store)).is_relative_to(target):
        raise UsageError(f"{out}: holds {store} itself and cannot be replaced; choose another --out")


def _move(hidden: Path, target: Path) -> None:
    """Give the finished folder its name; an earlier export goes only afterwards."""
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
    store: Store, chosen: Bool[np.ndarray, " N"], plan: ExportPlan, form: FormatWriter, stop: Stop, progress: Progress
) -> None:
    rows = np.flatnonzero(chosen)
    order = np.arange(len(rows))
    if form.shuffled:
        order = np.random.default_rng(store.header.seed).permutation(order)
    places: list[ImageLocation | None] = [None] * len(rows)
    with (
        progress.task("Exporting", len(rows), "images") as task,
        closing(form.write(plan, _records(store, rows, order))) as written,  # type: ignore[type-var]
    ):
        for place in written:
            places[place.row] = place
            task.advance()
            if stop.requested:
                raise Interrupted("stopped; nothing was exported; run the same command again")
    found = [place for place in places if place is not None]
    stored = [name for name in SCHEMA if name not in ("images/data", "images/offset", "content_sha256")]
    columns = select_images({name: store.column(name) for name in stored}, chosen)
    columns |= {
        "images/path": np.array([os.fsencode(place.file) for place in found]),
        "images/start": np.array([place.start for place in found], "<i8"),
        "images/size": np.array([place.size for place in found], "<i8"),
    }
    write_manifest(plan.folder, {name: store.attributes[name] for name in ATTRIBUTES}, columns)


def _records(store: Store, rows: Int64[np.ndarray, " n"], order: Int64[np.ndarray, " n"]) -> Iterator[ExportedImage]:
    """The images of ``rows`` in ``order``, read in blocks of bounded size and checked against their hashes."""
    offset, hashes = store.column("images/offset"), store.column("images/sha256")
    header, table = store.header, store.images
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
                label=int(table.label[row]),
                split=_SPLITS[int(table.split[row])],
                synthetic=synthetic,
                stem="--".join(safe_name(part, _STEM_BYTES, "image") for part in parts),
                source=names[0],
                reference=names[1] if reference >= 0 else "",
                variant=variant,
                # The shortest decimal that gives the same 32 bits again.
                confidence=None if np.isnan(table.confidence[row]) else float(str(table.confidence[row])),
                predicted=predicted if predicted >= 0 else None,
            )


def _blocks(rows: np.ndarray, sizes: np.ndarray) -> Iterator[list[int]]:
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
    out: Path, to: str, store: Store, chosen: Bool[np.ndarray, " N"], names: list[str], seconds: float
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
        renamed=tuple((name, written) for label, (name, written) in pairs if label in used and name != written),
        seconds=seconds,
    )
