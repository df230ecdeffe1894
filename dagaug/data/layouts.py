"""Layouts of data sets: CUB-200-2011, class folders, CSV tables, two domains."""

from __future__ import annotations

import csv
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from dagaug.data.dataset import IMAGE_SUFFIXES, Box, Dataset, Domains, Sample, Split
from dagaug.runtime.errors import DataError, UsageError

__all__ = ["LAYOUTS", "Inside", "class_of", "read_dataset", "read_domains"]

LAYOUTS = ("cub", "imagefolder", "csv")
"""The layouts that :func:`read_dataset` knows, beside ``auto``."""

_TRAIN_NAMES = ("train", "training")


_TEST_NAMES = ("test", "testing", "val", "valid", "validation")


_CAPTION_FOLDERS = ("captions", "text_c10", "text")


def read_dataset(
    root: Path | str,
    *,
    layout: str = "auto",
    seed: int = 0,
    test_fraction: float = 0.2,
    per_class: int | None = None,
) -> Dataset:
    """Read a data set's lists.

    Args:
        root: the data folder, or a CSV file.
        layout: one of :data:`LAYOUTS`, or ``auto`` to go by what is there.
        seed: draws the split where the folder gives none.
        test_fraction: share of each class that goes to the test split then, in (0, 1); at least one training
            image stays in each class.
        per_class: keep only the first so many training images of each class.

    Raises:
        DataError: the folder is missing, holds no images or one class only, or a list file is malformed.
        UsageError: an argument is out of its range.
    """
    root = Path(root)
    if layout not in ("auto", *LAYOUTS):
        raise UsageError(f"--layout {layout}: choose one of auto, {', '.join(LAYOUTS)}")
    if not 0 < test_fraction < 1:
        raise UsageError(f"--test-fraction {test_fraction:g}: give a number between 0 and 1")
    if seed < 0:
        raise UsageError(f"--seed {seed}: give 0 or more")
    try:
        if not root.exists():
            raise DataError(f"{root}: no such data folder; to make one: dagaug sample-data {root}")
        found = _recognise(root) if layout == "auto" else layout
        classes, samples, given = _READERS[found](root)
    except OSError as error:
        raise _unreadable(error, root) from error
    classes, samples = _only_used(classes, samples)
    _check(root, classes, samples)
    if not given:
        samples = _draw_split(samples, classes, seed, test_fraction)
    base = root.parent if root.is_file() else root
    dataset = Dataset(
        base, found, tuple(classes), tuple(samples), "given" if given else "drawn", None if given else seed
    )
    return dataset.subset(per_class)


def class_of(path: str, otherwise: str) -> tuple[str, Split]:
    """Class folder and split of an image by its path, "/" between folders, as in the layout ``imagefolder``.

    Args:
        path: relative to the data folder.
        otherwise: the class of an image that lies in no folder.
    """
    folders = path.split("/")[:-1]
    split: Split = "train"
    if len(folders) > 1 and folders[0].lower() in (*_TRAIN_NAMES, *_TEST_NAMES):
        split = "test" if folders[0].lower() in _TEST_NAMES else "train"
        folders = folders[1:]
    return (folders[0] if folders else otherwise), split


def read_domains(source: Path | str, target: Path | str | None = None) -> Domains:
    """Read two unpaired folders.

    Args:
        source: the source domain's folder; or, without ``target``, a folder that holds ``trainA`` and
            ``trainB`` (``testA`` and ``testB`` are read when there) or ``A`` and ``B``.
        target: the target domain's folder.

    Raises:
        DataError: a folder is missing or holds no images.
    """
    source = Path(source)
    try:
        if target is not None:
            return Domains(_domain(source), _domain(Path(target)))
        if not source.is_dir():
            raise DataError(f"{source}: no such data folder; give one that holds trainA and trainB")
        if (source / "trainA").is_dir() and (source / "trainB").is_dir():
            tests = [_images_below(source / name) for name in ("testA", "testB")]
            return Domains(_domain(source / "trainA"), _domain(source / "trainB"), *tests)
        if (source / "A").is_dir() and (source / "B").is_dir():
            return Domains(_domain(source / "A"), _domain(source / "B"))
    except OSError as error:
        raise _unreadable(error, source) from error
    raise DataError(f"{source}: not two domains; it must hold the folders trainA and trainB, or A and B")


def _domain(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder of one domain's images")
    paths = _images_below(folder)
    if not paths:
        raise DataError(f"{folder}: no images found ({', '.join(IMAGE_SUFFIXES)})")
    return paths


# Checks of every layout


def _unreadable(error: OSError, root: Path) -> DataError:
    return DataError(f"{error.filename or root}: cannot be read ({error.strerror}); check its permissions")


def _only_used(classes: Sequence[str], samples: list[Sample]) -> tuple[list[str], list[Sample]]:
    """Leave out classes without images, so that labels have no gaps."""
    used = sorted({sample.label for sample in samples})
    if len(used) == len(classes):
        return list(classes), samples
    label_of = {old: new for new, old in enumerate(used)}
    return [classes[old] for old in used], [replace(sample, label=label_of[sample.label]) for sample in samples]


def _check(root: Path, classes: list[str], samples: list[Sample]) -> None:
    if not samples:
        raise DataError(f"{root}: no images found; expected class folders, a CSV file or CUB-200-2011 lists")
    if len(classes) < 2:
        raise DataError(f"{root}: all images are of one class ({classes[0][:60]}); at least two are needed")
    for name in classes:
        if "\0" in name:
            raise DataError(f"{root}: the class name {name[:60]!r} holds a NUL character; rename the class")
    trained = {sample.label for sample in samples if sample.split == "train"}
    for sample in samples:
        if sample.label not in trained:
            name = classes[sample.label]
            raise DataError(f"{root / sample.path}: class {name} has no training images; give it some")
        try:
            str(sample.path).encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{root}: the file name {str(sample.path)!r} is not UTF-8; rename it") from error


def _draw_split(samples: list[Sample], classes: list[str], seed: int, test_fraction: float) -> list[Sample]:
    """A stratified split: of each class that fraction, rounded, is tested, but never all of it."""
    rows_of: list[list[int]] = [[] for _ in classes]
    for row, sample in enumerate(samples):
        rows_of[sample.label].append(row)
    drawn = list(samples)
    for name, rows in zip(classes, rows_of, strict=True):
        # Each class draws from a stream of its own, so that a class added or left out changes no other.
        order = np.random.default_rng((seed, zlib.crc32(name.encode()))).permutation(len(rows))
        tested = min(len(rows) - 1, max(1, math.floor(len(rows) * test_fraction + 0.5)))
        for position in order[:tested]:
            drawn[rows[position]] = replace(samples[rows[position]], split="test")
    return drawn


# Folders


def _images_below(folder: Path) -> tuple[Path, ...]:
    """All image files below a folder, sorted; hidden ones left out, linked folders not entered."""

    def fail(error: OSError) -> None:
        raise error

    paths: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=fail if folder.is_dir() else None):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(parent, name) for name in files if _is_image_name(name)]
    return tuple(sorted(paths))


def _is_image_name(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())


def _recognise(root: Path) -> str:
    if root.is_file():
        if root.suffix.lower() != ".csv":
            raise DataError(f"{root}: neither a data folder nor a CSV file")
        return "csv"
    if (root / "images.txt").is_file():
        return "cub"
    return "csv" if len(_tables(root)) == 1 else "imagefolder"


def _read_imagefolder(root: Path) -> tuple[list[str], list[Sample], bool]:
    if root.is_file():
        raise DataError(f"{root}: a file; --layout imagefolder needs a folder that holds class folders")
    found = _split_folders(root)
    samples = []
    given = len({split for _, split in found}) == 2
    folders = [(inner, split) for folder, split in found for inner in _folders(folder)]
    classes = sorted({folder.name for folder, _ in folders})
    label_of = {name: label for label, name in enumerate(classes)}
    for folder, split in folders:
        label = label_of[folder.name]
        samples += [Sample(path.relative_to(root), label, split) for path in _images_below(folder)]
    return classes, samples, given


def _split_folders(root: Path) -> list[tuple[Path, Split]]:
    """The folders that hold class folders: those of the splits, or the root itself."""
    named = {folder.name.lower(): folder for folder in _folders(root)}
    # A folder "train" of images alone is a class of vehicles.
    train = [named[name] for name in _TRAIN_NAMES if name in named and _folders(named[name])]
    test = [named[name] for name in _TEST_NAMES if name in named and _folders(named[name])]
    if not train:
        return [(root, "train")]
    return [(train[0], "train"), *((folder, "test") for folder in test[:1])]  # type: ignore[list-item]


# CSV


def _tables(folder: Path) -> list[Path]:
    """The CSV files of a folder whose header is ``path,label``, or names path, label and split among others."""
    tables = []
    for path in sorted(folder.glob("*.[cC][sS][vV]")):
        if path.name.startswith(".") or not path.is_file():
            continue
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            names = {name.strip().strip('"').lower() for name in stream.readline(4096).split(",")}
        if names == {"path", "label"} or names >= {"path", "label", "split"}:
            tables.append(path)
    return tables


def _read_csv(root: Path) -> tuple[list[str], list[Sample], bool]:
    table, base = root, root.parent
    if not root.is_file():
        tables = _tables(root)
        if len(tables) != 1:
            raise DataError(f"{root}: {len(tables)} CSV files with the header path,label[,split]; give the path of one")
        table, base = tables[0], root
    rows = list(_csv_rows(table, base))
    splits = {split for _, _, split in rows}
    given = splits != {None}
    if given and None in splits:
        raise DataError(f"{table}: some rows have no split; give train or test in each, or no such column")
    classes = sorted({label for _, label, _ in rows})
    label_of = {label: number for number, label in enumerate(classes)}
    return classes, [Sample(path, label_of[label], split or "train") for path, label, split in rows], given


def _csv_rows(table: Path, base: Path) -> Iterator[tuple[Path, str, Split | None]]:
    seen: dict[Path, int] = {}
    inside = Inside(base)
    with table.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        try:
            names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
            if "path" not in names or "label" not in names:
                raise DataError(f"{table}, line 1: the header must be path,label or path,label,split")
            reader.fieldnames = names
            for row in reader:
                where = f"{table}, line {reader.line_num}"
                if None in row:
                    raise DataError(f"{where}: more values than the header names; quote commas")
                label = (row["label"] or "").strip()
                if not (row["path"] or "").strip() or not label:
                    raise DataError(f"{where}: path or label is empty")
                path = inside(row["path"], where)
                if path in seen:
                    raise DataError(f"{where}: {path} stands in line {seen[path]} already")
                seen[path] = reader.line_num
                yield path, label, _split_of(row.get("split"), where)
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{table}, near line {reader.line_num}: not a CSV in UTF-8 ({error})") from error


def _split_of(text: str | None, where: str) -> Split | None:
    name = (text or "").strip().lower()
    if not name:
        return None
    if name in _TRAIN_NAMES:
        return "train"
    if name in _TEST_NAMES:
        return "test"
    raise DataError(f"{where}: split {name!r} is neither train nor test")


# CUB-200-2011

# A list file of "number text" as {number: (line, text)}.
_Rows = dict[int, tuple[int, str]]


def _read_cub(root: Path) -> tuple[list[str], list[Sample], bool]:
    for name in ("images.txt", "image_class_labels.txt", "classes.txt"):
        if not (root / name).is_file():
            raise DataError(f"{root / name}: missing; the CUB-200-2011 layout needs it")
    files = _cub_files(root)
    classes = _rows(root / "classes.txt")
    names = [classes[number][1] for number in sorted(classes)]
    if len(set(names)) < len(names):
        raise DataError(f"{root / 'classes.txt'}: two classes have the same name")
    labels = _cub_labels(root / "image_class_labels.txt", files, classes)
    split_file = root / "train_test_split.txt"
    given = split_file.is_file()
    splits = _cub_splits(split_file, files) if given else {}
    boxes = _cub_boxes(root / "bounding_boxes.txt", files)
    parts = _cub_parts(root / "parts" / "part_locs.txt", files)
    captions = next((root / name for name in _CAPTION_FOLDERS if (root / name).is_dir()), None)
    samples = [
        Sample(
            "images" / path,
            labels[number],
            splits.get(number, "train"),
            boxes.get(number),
            tuple(parts.get(number, ())),
            _cub_captions(captions, path),
        )
        for number, path in sorted(files.items())
    ]
    return names, samples, given


def _cub_files(root: Path) -> dict[int, Path]:
    """images.txt: each image's path below ``images``."""
    inside = Inside(root, "images")
    files: dict[int, Path] = {}
    seen: dict[Path, int] = {}
    for number, (line, text) in _rows(root / "images.txt").items():
        where = f"{root / 'images.txt'}, line {line}"
        path = inside(text, where)
        if path in seen:
            raise DataError(f"{where}: {path} stands in line {seen[path]} already")
        seen[path] = line
        files[number] = path
    return files


def _cub_labels(path: Path, files: dict[int, Path], classes: _Rows) -> dict[int, int]:
    label_of = {str(number): label for label, number in enumerate(sorted(classes))}
    labels = {}
    for number, (line, text) in _rows_of_all(path, files).items():
        if text not in label_of:
            raise DataError(f"{path}, line {line}: class {text} is not in classes.txt")
        labels[number] = label_of[text]
    return labels


def _cub_splits(path: Path, files: dict[int, Path]) -> dict[int, Split]:
    splits: dict[int, Split] = {}
    for number, (line, text) in _rows_of_all(path, files).items():
        if text not in ("0", "1"):
            raise DataError(f"{path}, line {line}: expected 1 (training) or 0 (test), not {text[:60]!r}")
        splits[number] = "train" if text == "1" else "test"
    return splits


def _cub_boxes(path: Path, files: dict[int, Path]) -> dict[int, Box]:
    boxes: dict[int, Box] = {}
    for number, (line, text) in (_rows(path) if path.is_file() else {}).items():
        x, y, width, height = _numbers(path, line, number, text, files)
        if width <= 0 or height <= 0:
            raise DataError(f"{path}, line {line}: the box is empty ({width:g} × {height:g})")
        boxes[number] = (x, y, width, height)
    return boxes


def _cub_parts(path: Path, files: dict[int, Path]) -> dict[int, list[tuple[int, float, float]]]:
    parts: dict[int, list[tuple[int, float, float]]] = {}
    for line, number, text in _numbered(path) if path.is_file() else ():
        part, x, y, visible = _numbers(path, line, number, text, files)
        if visible:
            parts.setdefault(number, []).append((int(part), x, y))
    return parts


def _cub_captions(folder: Path | None, image: Path) -> tuple[str, ...]:
    if folder is None:
        return ()
    path = folder / image.with_suffix(".txt")
    return tuple(text for _, text in _lines(path)) if path.is_file() else ()


# List files


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a list file that are not blank, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8 ({error.reason})") from error
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            yield line, content.strip()


def _numbered(path: Path) -> Iterator[tuple[int, int, str]]:
    """The lines of a list file as (line, number, rest)."""
    for line, content in _lines(path):
        words = content.split(maxsplit=1)
        if len(words) != 2 or not words[0].isdecimal() or len(words[0]) > 18:
            raise DataError(f"{path}, line {line}: expected a number and a value, not {content[:60]!r}")
        yield line, int(words[0]), words[1]


def _rows(path: Path) -> _Rows:
    """A list file in which each number stands once."""
    rows: _Rows = {}
    for line, number, text in _numbered(path):
        if number in rows:
            raise DataError(f"{path}, line {line}: number {number} stands in line {rows[number][0]} already")
        rows[number] = (line, text)
    return rows


def _rows_of_all(path: Path, files: dict[int, Path]) -> _Rows:
    """A list file that must have a row for each image, and for nothing else."""
    rows = _rows(path)
    for number, (line, _) in rows.items():
        if number not in files:
            raise DataError(f"{path}, line {line}: image {number} is not in images.txt")
    for number, name in files.items():
        if number not in rows:
            raise DataError(f"{path}: no row for image {number} ({name})")
    return rows


def _numbers(path: Path, line: int, number: int, text: str, files: dict[int, Path]) -> list[float]:
    """The four numbers that stand behind an image's."""
    if number not in files:
        raise DataError(f"{path}, line {line}: image {number} is not in images.txt")
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    if len(values) != 4 or not all(math.isfinite(value) for value in values):
        raise DataError(f"{path}, line {line}: expected 4 numbers after the image's, not {text[:60]!r}")
    return values


class Inside:
    """Paths from a list file, refused where they lead out of the data folder.

    Attributes:
        base: the folder that paths are relative to: ``root``, or a folder in it.
    """

    def __init__(self, root: Path, below: str = ".") -> None:
        self.base = root / below
        self._allowed = (root.resolve(), self.base.resolve())

    def __call__(self, text: str, where: str) -> Path:
        """The path relative to the base; ``where`` names file and line in the error."""
        pure, path = PurePosixPath(text.strip()), Path(text.strip())
        if "\0" in text or pure.is_absolute() or path.is_absolute() or ".." in (*pure.parts, *path.parts):
            raise DataError(f"{where}: {text!r} leaves the data folder; give paths below {self.base}")
        target = Path(os.path.realpath(self.base / path))
        if not any(target.is_relative_to(folder) for folder in self._allowed):
            raise DataError(f"{where}: {text!r} leaves the data folder through a link; copy the file there")
        return path


_READERS = {"cub": _read_cub, "imagefolder": _read_imagefolder, "csv": _read_csv}
