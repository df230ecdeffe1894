"""Reader of the layout ``cub``: the list files of CUB-200-2011.

``images.txt``, ``image_class_labels.txt`` and ``classes.txt`` are required. ``train_test_split.txt``,
``bounding_boxes.txt``, ``parts/part_locs.txt``, captions and masks are optional. Captions are text files, one per image
and with one caption per line, in ``captions/``, ``text_c10/`` or ``text/``. Masks are PNG files in ``segmentations/``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from dagaug.data.dataset_records import Box, Sample, Split
from dagaug.data.safe_paths import SafePaths
from dagaug.runtime.errors import DataError

__all__ = ["SEGMENTATIONS", "read_cub"]

SEGMENTATIONS = "segmentations"
"""Folder of the objects' masks beside ``images``: the same names, ending in ``.png``."""

_CAPTION_FOLDERS = ("captions", "text_c10", "text")

_Rows = dict[int, tuple[int, str]]
"""A list file with lines "number text", as {number: (line, text)}."""


def read_cub(root: Path) -> tuple[list[str], list[Sample], bool]:
    """Class names, samples, and whether the folder gives a split (else all samples are training samples).

    Raises:
        DataError: a list file is missing or malformed.
        OSError: a file cannot be read.
    """
    for name in ("images.txt", "image_class_labels.txt", "classes.txt"):
        if not (root / name).is_file():
            raise DataError(f"{root / name}: missing; the CUB-200-2011 layout needs it")
    files = _read_files(root)
    classes = _read_rows(root / "classes.txt")
    names = [classes[number][1] for number in sorted(classes)]
    if len(set(names)) < len(names):
        raise DataError(f"{root / 'classes.txt'}: two classes have the same name")
    labels = _read_labels(root / "image_class_labels.txt", files, classes)
    split_file = root / "train_test_split.txt"
    has_split = split_file.is_file()
    splits = _read_splits(split_file, files) if has_split else {}
    boxes = _read_boxes(root / "bounding_boxes.txt", files)
    parts = _read_parts(root / "parts" / "part_locs.txt", files)
    captions = next((root / name for name in _CAPTION_FOLDERS if (root / name).is_dir()), None)
    samples = [
        Sample(
            "images" / path,
            labels[number],
            splits.get(number, "train"),
            boxes.get(number),
            tuple(parts.get(number, ())),
            _read_captions(captions, path),
            _find_mask(root / SEGMENTATIONS, path),
        )
        for number, path in sorted(files.items())
    ]
    return names, samples, has_split


def _read_files(root: Path) -> dict[int, Path]:
    """``images.txt``: the path of each image below ``images``."""
    paths = SafePaths(root, "images")
    files: dict[int, Path] = {}
    line_of: dict[Path, int] = {}
    for number, (line, text) in _read_rows(root / "images.txt").items():
        where = f"{root / 'images.txt'}, line {line}"
        path = paths.checked(text, where)
        if path in line_of:
            raise DataError(f"{where}: {path} is already in line {line_of[path]}")
        line_of[path] = line
        files[number] = path
    return files


def _read_labels(path: Path, files: dict[int, Path], classes: _Rows) -> dict[int, int]:
    label_of = {str(number): label for label, number in enumerate(sorted(classes))}
    labels = {}
    for number, (line, text) in _read_row_per_image(path, files).items():
        if text not in label_of:
            raise DataError(f"{path}, line {line}: class {text} is not in classes.txt")
        labels[number] = label_of[text]
    return labels


def _read_splits(path: Path, files: dict[int, Path]) -> dict[int, Split]:
    splits: dict[int, Split] = {}
    for number, (line, text) in _read_row_per_image(path, files).items():
        if text not in ("0", "1"):
            raise DataError(f"{path}, line {line}: expected 1 (training) or 0 (test), not {text[:60]!r}")
        splits[number] = "train" if text == "1" else "test"
    return splits


def _read_boxes(path: Path, files: dict[int, Path]) -> dict[int, Box]:
    boxes: dict[int, Box] = {}
    for number, (line, text) in (_read_rows(path) if path.is_file() else {}).items():
        x, y, width, height = _parse_four(path, line, number, text, files)
        if width <= 0 or height <= 0:
            raise DataError(f"{path}, line {line}: the box is empty ({width:g} × {height:g})")
        boxes[number] = (x, y, width, height)
    return boxes


def _read_parts(path: Path, files: dict[int, Path]) -> dict[int, list[tuple[int, float, float]]]:
    parts: dict[int, list[tuple[int, float, float]]] = {}
    for line, number, text in _numbered_lines(path) if path.is_file() else ():
        part, x, y, visible = _parse_four(path, line, number, text, files)
        if visible:
            parts.setdefault(number, []).append((int(part), x, y))
    return parts


def _read_captions(folder: Path | None, image: Path) -> tuple[str, ...]:
    if folder is None:
        return ()
    path = folder / image.with_suffix(".txt")
    return tuple(text for _, text in _lines(path)) if path.is_file() else ()


def _find_mask(folder: Path, image: Path) -> Path | None:
    path = folder / image.with_suffix(".png")
    try:
        return path if path.is_file() else None
    except OSError:  # the name is too long for a file
        return None


# List files


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The non-blank lines of a list file as (line number, text)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8 ({error.reason})") from error
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            yield line, content.strip()


def _numbered_lines(path: Path) -> Iterator[tuple[int, int, str]]:
    """The lines of a list file as (line number, first number, rest of the text)."""
    for line, content in _lines(path):
        words = content.split(maxsplit=1)
        if len(words) != 2 or not words[0].isdecimal() or len(words[0]) > 18:
            raise DataError(f"{path}, line {line}: expected a number and a value, not {content[:60]!r}")
        yield line, int(words[0]), words[1]


def _read_rows(path: Path) -> _Rows:
    """A list file in which no number occurs twice."""
    rows: _Rows = {}
    for line, number, text in _numbered_lines(path):
        if number in rows:
            raise DataError(f"{path}, line {line}: number {number} is already in line {rows[number][0]}")
        rows[number] = (line, text)
    return rows


def _read_row_per_image(path: Path, files: dict[int, Path]) -> _Rows:
    """A list file with exactly one row per image."""
    rows = _read_rows(path)
    for number, (line, _) in rows.items():
        if number not in files:
            raise DataError(f"{path}, line {line}: image {number} is not in images.txt")
    for number, name in files.items():
        if number not in rows:
            raise DataError(f"{path}: no row for image {number} ({name})")
    return rows


def _parse_four(path: Path, line: int, number: int, text: str, files: dict[int, Path]) -> list[float]:
    """The four numbers after the number of an image."""
    if number not in files:
        raise DataError(f"{path}, line {line}: image {number} is not in images.txt")
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    if len(values) != 4 or not all(math.isfinite(value) for value in values):
        raise DataError(f"{path}, line {line}: expected 4 numbers after the image number, not {text[:60]!r}")
    return values
