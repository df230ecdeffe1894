"""An HDF5 file as what other tools read: image files in class folders, and a table of where each comes from.

``imagefolder`` writes ``OUT/train/<class>/…`` and ``OUT/test/<class>/…`` where images of both splits are exported,
otherwise ``OUT/<class>/…``. torchvision's ``ImageFolder`` reads ``OUT/train`` and ``OUT/test``, or ``OUT``; timm's
``train.py OUT --val-split test`` finds the splits itself, and numbers classes as the HDF5 file does, also where one
has no images in a split, with ``--class-map OUT/classes.txt``.

Class names and file names come from strangers: folders get names that are safe everywhere, and no two are the same.
The true names stand in ``provenance.csv``. The folder is written under a hidden name beside OUT and renamed when whole.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from dagaug.errors import DataError, OutputExistsError, StoreError, UsageError
from dagaug.images import encode
from dagaug.interrupts import Interrupted, Stop, stop_on_signals
from dagaug.outputs import locked, telling_writes
from dagaug.progress import SILENT, Progress
from dagaug.store import Header, Store

__all__ = ["COLUMNS", "FORMATS", "Exported", "Format", "SplitChoice", "export", "safe_names"]

Format = Literal["imagefolder"]
SplitChoice = Literal["all", "train", "test"]

COLUMNS = ("path", "label", "source", "reference", "variant", "confidence", "kept")
"""Of ``provenance.csv``; what a real image has none of is empty."""

_PROVENANCE = "provenance.csv"
_CLASSES = "classes.txt"
_SPLITS = ("train", "test")
# As a class folder directly below OUT, these would be taken for a split or meet another file there.
_RESERVED = frozenset(
    ("train", "training", "test", "val", "valid", "validation", "eval", "evaluation", _PROVENANCE, _CLASSES)
)
_CLASS_BYTES = 200  # file systems take 255 for one name, numbers included
_STEM_BYTES = 70
_BLOCK_BYTES = 1 << 25
_BLOCK_ROWS = 256


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        out: the folder.
        real, synthetic: how many images of each kind were written.
        train, test: how many of each split.
        renamed: true name and folder of every class whose folder could not have its name.
        seconds: time it took.
    """

    out: Path
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


@dataclass(frozen=True)
class _Record:
    """One image as every format gets it.

    Attributes:
        data: a JPEG or PNG file's bytes.
        suffix: ``.jpg`` or ``.png``.
        label: row in the header's classes.
        split: ``train`` or ``test``.
        stem: a readable, safe name, not necessarily the only one of its kind.
        source, reference: image files of the data set; no reference for a real image.
        variant: of the reference; empty for a real image.
        confidence: p(label), empty for a real image.
    """

    data: bytes
    suffix: str
    label: int
    split: str
    stem: str
    source: str
    reference: str
    variant: str
    confidence: str


_Written = Iterator[tuple[_Record, str]]


def export(
    store: Path,
    out: Path,
    *,
    to: Format = "imagefolder",
    synthetic_only: bool = False,
    split: SplitChoice = "all",
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Exported:
    """Write an HDF5 file's images for other tools: JPEG and PNG byte for byte, raw images as PNG.

    Args:
        store: the HDF5 file.
        out: folder to write; its parents are made.
        to: one of :data:`FORMATS`.
        synthetic_only: leave the data set's own images out.
        split: only images of that split.
        overwrite: replace an earlier export; a folder that holds anything else is never replaced.
        progress: is told of each image.

    Raises:
        StoreError: the file is corrupt, or ``out`` cannot be written.
        DataError: no image is to be exported.
        OutputExistsError, LockedError: ``out`` is there already, or being written.
        UsageError: an unknown format or split, or ``out`` holds the file.
        Interrupted: stopped by a signal; nothing is left behind.
    """
    started = time.monotonic()
    if to not in FORMATS:
        raise UsageError(f"--to {to}: choose one of {', '.join(FORMATS)}")
    if split not in ("all", *_SPLITS):
        raise UsageError(f"--split {split}: choose all, train or test")
    target = Path(os.path.realpath(out))  # a link stays, what it names is written
    hidden = target.parent / f".{target.name}.dagaug-export"
    with Store(store) as opened:
        rows = _rows(opened, synthetic_only, split)
        if not len(rows):
            what = "synthetic " if synthetic_only else ""
            raise DataError(f"{store}: holds no {what}images of the split {split}; nothing to export")
        nothing = "nothing was exported"
        with telling_writes(out, nothing):
            _refuse_existing(out, target, store, overwrite)
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(target.parent / f".{target.name}.dagaug-lock", out), stop_on_signals() as stop:
                _refuse_existing(out, target, store, overwrite)
                try:
                    shutil.rmtree(hidden, ignore_errors=True)  # what a killed export left
                    hidden.mkdir()
                    _write(opened, rows, hidden, to, stop, progress)
                    _move(hidden, target)
                except BaseException:
                    shutil.rmtree(hidden, ignore_errors=True)
                    raise
        return _summary(out, opened, rows, time.monotonic() - started)


def _rows(store: Store, synthetic_only: bool, split: SplitChoice) -> np.ndarray:
    chosen = np.ones(len(store), bool)
    if synthetic_only:
        chosen &= store.images.synthetic
    if split != "all":
        chosen &= store.images.split == _SPLITS.index(split)
    return np.flatnonzero(chosen)


def _refuse_existing(out: Path, target: Path, store: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise OutputExistsError(f"{out}: is a file; name a folder with --out")
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise OutputExistsError(f"{out} exists and is not empty; --overwrite replaces an earlier export")
    if not _is_export(target):
        raise OutputExistsError(
            f"{out}: holds no export of dagaug's (no {_PROVENANCE}), so it is not replaced; choose another --out"
        )
    if Path(os.path.realpath(store)).is_relative_to(target):
        raise UsageError(f"{out}: holds {store} itself and cannot be replaced; choose another --out")


def _is_export(folder: Path) -> bool:
    try:
        with (folder / _PROVENANCE).open(encoding="utf-8", errors="replace") as stream:
            return stream.readline(200).strip() == ",".join(COLUMNS)
    except FileNotFoundError:
        return False


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


def _write(store: Store, rows: np.ndarray, folder: Path, to: Format, stop: Stop, progress: Progress) -> None:
    header = store.header
    both = len(set(store.images.split[rows].tolist())) == len(_SPLITS)
    with (
        progress.task("Exporting", len(rows), "images") as task,
        (folder / _PROVENANCE).open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(COLUMNS)
        for record, path in FORMATS[to](folder, header, both, _records(store, header, rows)):
            label = header.classes[record.label]
            row = (path, label, record.source, record.reference, record.variant, record.confidence, "yes")
            table.writerow(row)
            task.advance()
            if stop.requested:
                raise Interrupted("stopped; nothing was exported; run the same command again")


def _records(store: Store, header: Header, rows: np.ndarray) -> Iterator[_Record]:
    """The images of ``rows``, read in blocks of bounded size and checked against their hashes."""
    offset, hashes = store.column("images/offset"), store.column("images/sha256")
    table = store.images
    for block in _blocks(rows, np.diff(offset)):
        for row, stored in zip(block, store.pictures.encoded(block), strict=True):
            data = stored.tobytes()
            if hashlib.sha256(data).digest()[:16] != hashes[row].tobytes():
                raise StoreError(f"{store.path}: /images/data: image {row} is damaged (its hash differs)")
            if header.encoding == "raw":
                data = encode(stored.reshape(int(table.height[row]), int(table.width[row]), 3), "png")
            source, reference, code = int(table.source[row]), int(table.reference[row]), int(table.variant[row])
            variant = header.variants[code] if table.synthetic[row] and code < len(header.variants) else ""
            confidence = float(table.confidence[row])
            names = [header.files[source]]
            names += [header.files[reference]] if reference >= 0 else []
            parts = [*(PurePosixPath(name).stem for name in names), *([variant] if variant else [])]
            yield _Record(
                data=data,
                suffix=".jpg" if header.encoding == "jpeg" else ".png",
                label=int(table.label[row]),
                split=_SPLITS[int(table.split[row])],
                stem="--".join(_safe(part, _STEM_BYTES, "image") for part in parts),
                source=names[0],
                reference=names[1] if reference >= 0 else "",
                variant=variant,
                confidence="" if np.isnan(confidence) else str(np.float32(confidence)),
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


def _imagefolder(folder: Path, header: Header, both: bool, records: Iterator[_Record]) -> _Written:
    """Class folders, within folders of the splits where there are two; gives each image's path."""
    folders = safe_names(header.classes)
    text = "".join(f"{name}\n" for name in folders)
    (folder / _CLASSES).write_text(text, encoding="utf-8")
    taken: dict[str, dict[str, int]] = {}
    for record in records:
        parent = f"{record.split}/{folders[record.label]}" if both else folders[record.label]
        if parent not in taken:
            (folder / parent).mkdir(parents=True)
            taken[parent] = {}
        path = f"{parent}/{_unique(record.stem, taken[parent])}{record.suffix}"
        (folder / path).write_bytes(record.data)
        yield record, path


FORMATS: dict[str, Callable[[Path, Header, bool, Iterator[_Record]], _Written]] = {"imagefolder": _imagefolder}
"""What can be written: given the folder, the header, whether there are images of both splits, and the images, a
format writes each image and gives its path, as it stands in ``provenance.csv``."""


def _summary(out: Path, store: Store, rows: np.ndarray, seconds: float) -> Exported:
    synthetic, test = int(store.images.synthetic[rows].sum()), int(store.images.split[rows].sum())
    used = set(store.images.label[rows].tolist())
    pairs = enumerate(zip(store.classes, safe_names(store.classes), strict=True))
    return Exported(
        out=out,
        real=len(rows) - synthetic,
        synthetic=synthetic,
        train=len(rows) - test,
        test=test,
        renamed=tuple((name, folder) for label, (name, folder) in pairs if label in used and name != folder),
        seconds=seconds,
    )


# Names


def safe_names(names: Sequence[str]) -> list[str]:
    """A folder name for each class, its own where that is safe; no two are alike, upper and lower case being one.

    Separators, characters that some system refuses, control characters and what cannot be printed become ``_``; dots
    and blanks at both ends go, so that nothing is hidden and nothing leads upward; long names are cut.
    """
    cleaned = [_safe(name, _CLASS_BYTES, "class") for name in names]
    result = [""] * len(names)
    taken = dict.fromkeys(_RESERVED, 1)
    # Classes whose names are safe as they are have the first choice.
    for row in sorted(range(len(names)), key=lambda row: cleaned[row] != names[row]):
        result[row] = _unique(cleaned[row], taken)
    return result


def _safe(name: str, limit: int, otherwise: str) -> str:
    kept = "".join(sign if sign.isprintable() and sign not in '/\\<>:"|?*' else "_" for sign in name)
    return kept.strip(" .").encode()[:limit].decode(errors="ignore").strip(" .") or otherwise


def _unique(name: str, taken: dict[str, int]) -> str:
    """The name, with a number where it is taken already; ``taken`` knows the last number of each name."""
    result = name
    while _same(result) in taken:
        taken[_same(name)] += 1
        result = f"{name}--{taken[_same(name)]}"
    taken[_same(result)] = 1
    return result


def _same(name: str) -> str:
    """Equal for names that some file system holds to be the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
