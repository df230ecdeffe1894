"""Reader of the layouts ``cub`` and ``nabirds``: the list files of CUB-200-2011, and those of NABirds in the same form.

``images.txt``, ``image_class_labels.txt`` and ``classes.txt`` are required. ``train_test_split.txt``,
``bounding_boxes.txt``, ``parts/part_locs.txt``, captions and masks are optional. Captions are text files, one per image
and with one caption per line, in ``captions/``, ``text_c10/`` or ``text/``. Masks are PNG files in ``segmentations/``.

NABirds numbers its images by UUIDs: ``0000139e-21dc-4d0c-bfe1-4cae3c85c829 0817/0000139e21dc4d0cbfe14cae3c85c829.jpg``.
Its ``classes.txt`` names all 1,011 nodes of ``hierarchy.txt``, of which 555 have images. Other files are not read
(``hierarchy.txt``, ``sizes.txt``, ``photographers.txt``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dagaug.data.dataset_records import Box, Listing, Sample, Split
from dagaug.data.list_files import box_of, finite_numbers, lines_of
from dagaug.data.safe_paths import SafePaths
from dagaug.runtime.errors import DataError

__all__ = ["SEGMENTATIONS", "is_nabirds", "read_cub", "read_nabirds"]

SEGMENTATIONS = "segmentations"
"""Folder of the objects' masks beside ``images``: the same names, ending in ``.png``."""

_CAPTION_FOLDERS = ("captions", "text_c10", "text")

_Rows = dict[str, tuple[int, str]]
"""A list file with lines "key text", as {key: (line, text)}."""

_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_nabirds(root: Path) -> bool:
    """Whether the first line of ``images.txt`` begins with a UUID."""
    path = root / "images.txt"
    first = next(lines_of(path), (1, ""))[1] if path.is_file() else ""
    return _UUID.fullmatch(first.split(" ")[0]) is not None


def read_cub(root: Path) -> Listing:
    """Read the lists of CUB-200-2011.

    Raises:
        DataError: a list file is missing or malformed.
        OSError: a file cannot be read.
    """
    return _read(root, "CUB-200-2011")


def read_nabirds(root: Path) -> Listing:
    """Read the lists of NABirds.

    Raises:
        DataError: a list file is missing or malformed.
        OSError: a file cannot be read.
    """
    return _read(root, "NABirds")


def _read(root: Path, layout: str) -> Listing:
    for name in ("images.txt", "image_class_labels.txt", "classes.txt"):
        if not (root / name).is_file():
            raise DataError(f"{root / name}: missing; the {layout} layout needs it")
    files = _read_files(root)
    classes = _read_rows(root / "classes.txt")
    numbers = sorted(classes, key=_order)
    names = [classes[number][1] for number in numbers]
    labels = _read_labels(root / "image_class_labels.txt", files, numbers)
    if layout == "NABirds":  # its names are not unique
        count = Counter(names[label] for label in set(labels.values()))
        names = [f"{name} ({number})" if count[name] > 1 else name for name, number in zip(names, numbers, strict=True)]
    elif len(set(names)) < len(names):
        raise DataError(f"{root / 'classes.txt'}: two classes have the same name")
    split_file = root / "train_test_split.txt"
    has_split = split_file.is_file()
    splits = _read_splits(split_file, files) if has_split else {}
    boxes = _read_boxes(root / "bounding_boxes.txt", files)
    parts = _read_parts(root / "parts" / "part_locs.txt", files)
    captions = next((root / name for name in _CAPTION_FOLDERS if (root / name).is_dir()), None)
    samples = [
        Sample(
            "images" / path,
            labels[key],
            splits.get(key, "train"),
            boxes.get(key),
            tuple(parts.get(key, ())),
            _read_captions(captions, path),
            _find_mask(root / SEGMENTATIONS, path),
        )
        for key, path in sorted(files.items(), key=lambda item: _order(item[0]))
    ]
    return Listing(names, samples, has_split, masks=root / SEGMENTATIONS)


def _order(key: str) -> tuple[int, str]:
    """Sorts numbers by their value; all UUIDs are of one length."""
    return len(key), key


def _read_files(root: Path) -> dict[str, Path]:
    """``images.txt``: the path of each image below ``images``."""
    paths = SafePaths(root, "images")
    files: dict[str, Path] = {}
    line_of: dict[Path, int] = {}
    for key, (line, text) in _read_rows(root / "images.txt").items():
        where = f"{root / 'images.txt'}, line {line}"
        path = paths.checked(text, where)
        if path in line_of:
            raise DataError(f"{where}: {path} is already in line {line_of[path]}")
        line_of[path] = line
        files[key] = path
    return files


def _read_labels(path: Path, files: dict[str, Path], classes: list[str]) -> dict[str, int]:
    label_of = {number: label for label, number in enumerate(classes)}
    labels = {}
    for key, (line, text) in _read_row_per_image(path, files).items():
        if text not in label_of:
            raise DataError(f"{path}, line {line}: class {text} is not in classes.txt")
        labels[key] = label_of[text]
    return labels


def _read_splits(path: Path, files: dict[str, Path]) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    for key, (line, text) in _read_row_per_image(path, files).items():
        if text not in ("0", "1"):
            raise DataError(f"{path}, line {line}: expected 1 (training) or 0 (test), not {text[:60]!r}")
        splits[key] = "train" if text == "1" else "test"
    return splits


def _read_boxes(path: Path, files: dict[str, Path]) -> dict[str, Box]:
    boxes: dict[str, Box] = {}
    for key, (line, text) in (_read_rows(path) if path.is_file() else {}).items():
        x, y, width, height = _parse_four(path, line, key, text, files)
        boxes[key] = box_of(x, y, width, height, f"{path}, line {line}")
    return boxes


def _read_parts(path: Path, files: dict[str, Path]) -> dict[str, list[tuple[int, float, float]]]:
    parts: dict[str, list[tuple[int, float, float]]] = {}
    for line, key, text in _keyed_lines(path) if path.is_file() else ():
        part, x, y, visible = _parse_four(path, line, key, text, files)
        if visible:
            parts.setdefault(key, []).append((int(part), x, y))
    return parts


def _read_captions(folder: Path | None, image: Path) -> tuple[str, ...]:
    if folder is None:
        return ()
    path = folder / image.with_suffix(".txt")
    return tuple(text for _, text in lines_of(path)) if path.is_file() else ()


def _find_mask(folder: Path, image: Path) -> Path | None:
    path = folder / image.with_suffix(".png")
    try:
        return path if path.is_file() else None
    except OSError:  # the name is too long for a file
        return None


# List files


def _keyed_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """The lines of a list file as (line number, key, rest of the text)."""
    for line, content in lines_of(path):
        words = content.split(maxsplit=1)
        key = words[0] if _UUID.fullmatch(words[0]) else ""
        if _NUMBER.fullmatch(words[0]):
            key = str(int(words[0]))
        if len(words) != 2 or not key:
            raise DataError(f"{path}, line {line}: expected a number and a value, not {content[:60]!r}")
        yield line, key, words[1]


def _read_rows(path: Path) -> _Rows:
    """A list file in which no key occurs twice."""
    rows: _Rows = {}
    for line, key, text in _keyed_lines(path):
        if key in rows:
            raise DataError(f"{path}, line {line}: number {key} is already in line {rows[key][0]}")
        rows[key] = (line, text)
    return rows


def _read_row_per_image(path: Path, files: dict[str, Path]) -> _Rows:
    """A list file with exactly one row per image."""
    rows = _read_rows(path)
    for key, (line, _) in rows.items():
        if key not in files:
            raise DataError(f"{path}, line {line}: image {key} is not in images.txt")
    for key, name in files.items():
        if key not in rows:
            raise DataError(f"{path}: no row for image {key} ({name})")
    return rows


def _parse_four(path: Path, line: int, key: str, text: str, files: dict[str, Path]) -> list[float]:
    """The four numbers after the key of an image."""
    if key not in files:
        raise DataError(f"{path}, line {line}: image {key} is not in images.txt")
    values = finite_numbers(text.split(), 4)
    if values is None:
        raise DataError(f"{path}, line {line}: expected 4 numbers after the image number, not {text[:60]!r}")
    return values
