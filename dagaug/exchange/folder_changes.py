"""Changes that were made by hand to the folder of an export: images that were moved, added, or deleted.

An image that lies in another class folder, or has another label in ``images.csv``, was relabelled. An image that the
manifest does not list is found again by its hash, or is new. Nothing is written here.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from dagaug.data.csv_layout import read_csv
from dagaug.data.folder_layout import images_in
from dagaug.data.image_files import Skipped, decode_bytes, decode_with_alpha, encode, is_plain_jpeg
from dagaug.data.safe_paths import SafePaths
from dagaug.exchange.export import Format
from dagaug.exchange.exported_images import ExportPlan
from dagaug.exchange.format_writers import TABLE_FILE
from dagaug.exchange.non_image_content import MANIFEST, Manifest
from dagaug.runtime.errors import DataError, ImageError

__all__ = ["AddedImage", "FolderChanges", "find_changes", "read_added"]

_SPLITS = ("train", "test")
_ANNOTATED = ("coco", "yolo")  # formats whose folders do not give the classes
_OWN_ENDINGS = (".csv", ".json", ".md", ".tar", ".txt", ".yaml")  # of the files of an export that are no images


@dataclass(frozen=True)
class AddedImage:
    """A new image, as the HDF5 file will store it.

    Attributes:
        path: relative to the folder, "/" between folders.
        label, split: class and split that its place in the folder, or its row in the table, gives.
        height, width: in pixels.
        size: number of the stored bytes.
        sha256: first 16 bytes of their hash.
        transparent: whether it has pixels that are not opaque; they are laid over white.
    """

    path: str
    label: int
    split: int
    height: int
    width: int
    size: int
    sha256: bytes
    transparent: bool


@dataclass(frozen=True)
class FolderChanges:
    """What was changed since the export.

    Attributes:
        present: for each exported image, whether it is in the folder and taken in.
        paths: for each exported image its file now, relative to the folder.
        label, split: for each exported image its class and split now.
        refused: number of exported images that are in the folder, but are left out.
        added: images that were not exported.
        left_out: files that are not taken in, with reasons.
    """

    present: Bool[np.ndarray, " N"]
    paths: tuple[str, ...]
    label: Int32[np.ndarray, " N"]
    split: UInt8[np.ndarray, " N"]
    refused: int
    added: tuple[AddedImage, ...]
    left_out: tuple[Skipped, ...]


@dataclass(frozen=True)
class _Place:
    """Class and split that an image's folder or its row in the table gives; a split of None is not given."""

    label: int
    split: int | None


def find_changes(folder: Path, manifest: Manifest) -> FolderChanges:
    """Compare the folder of an export with its manifest.

    Raises:
        DataError: the table of an export is malformed, the manifest names a file outside the folder, or a folder cannot
            be read.
    """
    try:
        return _Comparison(folder, manifest).changes()
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: cannot be read ({error.strerror}); check its permissions"
        ) from error


def read_added(path: Path, encoding: str, quality: int) -> tuple[bytes, tuple[int, int], bool]:
    """The bytes of a new image as the HDF5 file stores them, its height and width, and whether it is transparent.

    Args:
        path: the image file, of any format that can be read.
        encoding: ``jpeg``, ``png`` or ``raw``; a plain JPEG file is copied byte for byte.
        quality: JPEG quality, 1 to 100.

    Raises:
        ImageError: the file cannot be read.
    """
    image, opacity = decode_with_alpha(path)
    size, transparent = (image.shape[0], image.shape[1]), opacity is not None and int(opacity.min()) < 255
    if encoding == "raw":
        return image.tobytes(), size, transparent
    if encoding == "jpeg":
        data = _content(path)
        return data if is_plain_jpeg(data, image) else encode(image, encoding, quality), size, transparent
    return encode(image, encoding), size, transparent


class _Comparison:
    """The folder and its manifest; see :func:`find_changes`."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        columns = manifest.columns
        self.exported = [os.fsdecode(name) for name in columns["images/path"].tolist()]
        self.label, self.split = columns["images/label"].astype(np.int32), columns["images/split"].astype(np.uint8)
        splits = np.unique(self.split).tolist()
        self.only_split = splits[0] if len(splits) == 1 else None
        classes = [name.decode("utf-8", "surrogateescape") for name in columns["classes"].tolist()]
        self.plan = ExportPlan(folder, classes, both=self.only_split is None)
        self.label_of_folder = {name: label for label, name in enumerate(self.plan.folders)}
        self.form = _form(self.exported)
        # An export with masks has a folder of the split even if there is only one.
        self.split_folders = self.form == "imagefolder" and all(name.count("/") == 2 for name in self.exported)
        self.encoding, self.quality = str(manifest.attributes["encoding"]), int(manifest.attributes["quality"])
        self.safe = SafePaths(folder)
        self.left_out: list[Skipped] = []
        self.refused = 0

    def changes(self) -> FolderChanges:
        """See :func:`find_changes`."""
        where = str(self.folder / MANIFEST)
        names = dict.fromkeys(self.exported)
        there = {name: (self.folder / self.safe.checked(name, where)).is_file() for name in names}
        present = np.array([there[name] for name in self.exported], bool)
        moved, new = self._find_again(self._unlisted(), present)
        present[list(moved)] = True
        paths = [moved.get(row, name) for row, name in enumerate(self.exported)]
        table = self._table()
        for row in moved if table is None else np.flatnonzero(present).tolist():
            if table is not None and row not in moved and paths[row] not in table:
                present[row] = False  # its line was deleted
            else:
                present[row] = self._place(row, paths[row], table)
        added = [image for name in new if (image := self._added(name, table)) is not None]
        for name in sorted((table or {}).keys() - set(self.exported) - set(moved.values()) - set(new)):
            self._leave_out(name, f"is named in {TABLE_FILE}, but not there")
        return FolderChanges(
            present, tuple(paths), self.label, self.split, self.refused, tuple(added), tuple(self.left_out)
        )

    def _leave_out(self, name: str, reason: str) -> None:
        self.left_out.append(Skipped(self.folder / name, reason))

    # files

    def _unlisted(self) -> list[str]:
        """Image files in the folder that the manifest does not name; other files are left out."""
        counts: Counter[str] = Counter()
        listed = set(self.exported)
        found = [path.relative_to(self.folder).as_posix() for path in images_in(self.folder, counts)]
        for reason, count in sorted(counts.items()):
            if count and reason != "hidden" and not reason.endswith(_OWN_ENDINGS):
                self._leave_out("", f"{count} {reason}")
        if self.form == "webdataset":
            for path in sorted(self.folder.glob("*.tar")):
                if path.name not in listed:
                    self._leave_out(path.name, "is no part of the export")
        masks = "masks/" if self.split_folders or self.form == "csv" else None  # else it is a class folder
        return [name for name in found if name not in listed and not (masks and name.startswith(masks))]

    def _find_again(self, unlisted: Sequence[str], present: Bool[np.ndarray, " N"]) -> tuple[dict[int, str], list[str]]:
        """Rows of missing images that lie elsewhere now, with their files; and the files of new images."""
        moved: dict[int, str] = {}
        new: list[str] = []
        rows_of = self._rows_by_hash() if unlisted else {}
        for name in unlisted:
            try:
                rows = rows_of.get(self._hash(name), [])
            except ImageError as error:
                self._leave_out(name, error.reason)
                continue
            missing = [row for row in rows if not present[row] and row not in moved]
            if missing:
                same_name = (row for row in missing if _file_name(self.exported[row]) == _file_name(name))
                moved[next(same_name, missing[0])] = name
            elif rows:
                self._leave_out(name, f"is a copy of {moved.get(rows[0], self.exported[rows[0]])}")
            else:
                new.append(name)
        return moved, new

    def _rows_by_hash(self) -> dict[bytes, list[int]]:
        rows_of: dict[bytes, list[int]] = {}
        for row, stored in enumerate(self.manifest.columns["images/sha256"]):
            rows_of.setdefault(stored.tobytes(), []).append(row)
        return rows_of

    def _hash(self, name: str) -> bytes:
        """Hash of what the HDF5 file would hold, if the file were an exported image."""
        path = self.folder / name
        try:
            self.safe.checked(name, "")
        except DataError as error:
            raise ImageError(path, "is a link to a file outside the folder") from error
        data = _content(path)
        if self.encoding == "raw":
            data = decode_bytes(data, path).tobytes()
        return hashlib.sha256(data).digest()[:16]

    # classes and splits

    def _table(self) -> dict[str, _Place | None] | None:
        """Class and split of each line of ``images.csv``, None for an unknown class; None if there is no table."""
        path = self.folder / TABLE_FILE
        if self.form != "csv" or not path.is_file():
            return None
        listing = read_csv(path)
        label_of = {name: label for label, name in enumerate(self.plan.labels)}
        places: dict[str, _Place | None] = {}
        for sample in listing.samples:
            label = label_of.get(listing.classes[sample.label])
            split = _SPLITS.index(sample.split) if listing.has_split else None
            places[sample.path.as_posix()] = None if label is None else _Place(label, split)
        return places

    def _given(self, name: str, table: Mapping[str, _Place | None] | None) -> _Place | str:
        """Class and split of an image by its line in the table, or by its folders; or why there are none."""
        if table is not None and name in table:
            return table[name] or f"has no class of the export in {TABLE_FILE}"
        if self.form == "webdataset":
            return "is a single image, but the export consists of tar files"
        if self.form in _ANNOTATED:
            return "is new, and annotations are not read"
        *folders, _ = name.split("/")
        split = self.only_split
        if self.split_folders:
            if not folders or folders[0] not in _SPLITS:
                return "lies in neither train/ nor test/"
            split = _SPLITS.index(folders[0])
        if self.form == "csv" or self.split_folders:
            folders = folders[1:]
        label = self.label_of_folder.get(folders[0]) if folders else None
        return "lies in no class folder of the export" if label is None else _Place(label, split)

    def _place(self, row: int, name: str, table: Mapping[str, _Place | None] | None) -> bool:
        """Give an exported image the class and the split of its place; whether it is taken in."""
        if self.form in _ANNOTATED:
            return True  # the file keeps the class and the split of the annotations
        given = self._given(name, table)
        if isinstance(given, _Place) and given.split == 1 and self._is_training_morph(row):
            given = "is synthetic and cannot be a test image"
        if isinstance(given, str):
            self._leave_out(name, given)
            self.refused += 1
            return False
        self.label[row] = given.label
        if given.split is not None:
            self.split[row] = given.split
        return True

    def _is_training_morph(self, row: int) -> bool:
        return bool(self.manifest.columns["images/synthetic"][row] and self.split[row] == 0)

    def _added(self, name: str, table: Mapping[str, _Place | None] | None) -> AddedImage | None:
        """A new image; None if it is left out. One without a split is a training image."""
        given = self._given(name, table)
        if isinstance(given, str):
            self._leave_out(name, given)
            return None
        try:
            data, (height, width), transparent = read_added(self.folder / name, self.encoding, self.quality)
        except ImageError as error:
            self._leave_out(name, error.reason)
            return None
        sha256 = hashlib.sha256(data).digest()[:16]
        return AddedImage(name, given.label, given.split or 0, height, width, len(data), sha256, transparent)


def _form(paths: Sequence[str]) -> Format:
    """The format of an export, by the files that its manifest names."""
    first = PurePosixPath(paths[0] if paths else "")
    if first.suffix == ".tar":
        return "webdataset"
    # No class folder is named after a split.
    if len(first.parts) == 2 and first.parts[0] in _SPLITS:
        return "coco"
    if len(first.parts) == 3 and first.parts[0] == "images" and first.parts[1] in _SPLITS:
        return "yolo"
    return "csv" if len(first.parts) == 3 and first.parts[0] == "images" else "imagefolder"


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror})") from error
