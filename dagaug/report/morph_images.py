"""Morphs, sources and references: their tables and images, from the HDF5 file and the data folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int64, Integer, UInt8

from dagaug.augment.morph_plan import variant_name
from dagaug.augment.stored_morph_backgrounds import backgrounds_of
from dagaug.data.image_files import decode, encode
from dagaug.hdf5.reader import Store
from dagaug.runtime.errors import ImageError

__all__ = [
    "KEPT",
    "MIRROR",
    "AttendedRegions",
    "ImageRef",
    "MorphTable",
    "OriginalImages",
    "RGBImage",
    "class_balanced_sample",
    "encode_thumbnail",
    "round_robin_by_class",
    "sample_of_each_class",
]

KEPT = "kept"

RGBImage = UInt8[np.ndarray, "_ _ 3"]


MIRROR = "mirror"
"""Variant in the pose of the mirrored reference."""


@dataclass(frozen=True)
class MorphTable:
    """Table of the synthetic images of a file, one array per column, in the order of the file.

    Attributes:
        row: row in the file's table of images.
        source, reference: rows in its table of files; reference -1 if there is none.
        label: class of the source, which the morph should show.
        reference_label: class of the reference; -1 if there is none.
        predicted: class that the classifier predicts; -1 if unknown.
        confidence: the classifier's p(label); NaN if unknown.
        background: row in the table of files of the image that gave the background, -1 if there is none.
        kind: name of the variant.
        mirrored: whether pose and background come from mirror images.
        verdict: index into ``verdicts``.
        verdicts: names of the verdicts.
    """

    row: Int64[np.ndarray, " N"]
    source: Int64[np.ndarray, " N"]
    reference: Int64[np.ndarray, " N"]
    label: Int64[np.ndarray, " N"]
    reference_label: Int64[np.ndarray, " N"]
    predicted: Int64[np.ndarray, " N"]
    confidence: Float[np.ndarray, " N"]
    background: Int64[np.ndarray, " N"]
    kind: tuple[str, ...]
    mirrored: Bool[np.ndarray, " N"]
    verdict: Int64[np.ndarray, " N"]
    verdicts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def of(cls, store: Store) -> MorphTable:
        """Read the tables of a file. A morph without a candidate counts as kept."""
        table, header = store.images, store.header
        rows = np.flatnonzero(table.synthetic)
        verdicts = header.verdicts if KEPT in header.verdicts else (*header.verdicts, KEPT)
        verdict = np.full(len(rows), verdicts.index(KEPT), np.int64)
        judged = table.candidate[rows] >= 0
        verdict[judged] = store.candidates.verdict[table.candidate[rows][judged]]
        kinds = [variant_name(name) for name in header.variants] or ["morph"]
        reference = table.reference[rows].astype(np.int64)
        reference_label = np.full(len(rows), -1, np.int64)
        reference_label[reference >= 0] = header.files_label[reference[reference >= 0]]
        return cls(
            row=rows.astype(np.int64),
            source=table.source[rows].astype(np.int64),
            reference=reference,
            label=table.label[rows].astype(np.int64),
            reference_label=reference_label,
            predicted=table.predicted[rows].astype(np.int64),
            confidence=table.confidence[rows].astype(np.float64),
            background=backgrounds_of(store)[rows],
            kind=tuple(kinds[code] for code in table.variant[rows].tolist()),
            mirrored=np.array([kind == MIRROR for kind in kinds], bool)[table.variant[rows]],
            verdict=verdict,
            verdicts=verdicts,
        )

    @property
    def kept(self) -> Bool[np.ndarray, " N"]:
        """Whether the selection kept each morph."""
        return self.verdict == self.verdicts.index(KEPT)


class OriginalImages:
    """Source and reference images, by row in the table of files; from the HDF5 file, else from the data folder."""

    def __init__(self, store: Store, data: Path | None = None) -> None:
        self._store, self._data = store, data
        real = np.flatnonzero(~store.images.synthetic)
        self._rows = dict(zip(store.images.source[real].tolist(), real.tolist(), strict=True))

    def picture(self, file: int, *, mirrored: bool = False) -> RGBImage | None:
        """The image or its mirror image; None if it is missing or unreadable."""
        if mirrored:
            found = self.picture(file)
            return None if found is None else np.ascontiguousarray(found[:, ::-1])
        if file < 0:
            return None
        if file in self._rows:
            return self._store.image(self._rows[file])
        if self._data is None:
            return None
        path = self._data / self._store.header.files[file]
        try:
            # A file from an untrusted source must not read images outside the data folder.
            if not path.resolve().is_relative_to(self._data.resolve()):
                return None
            return decode(path)
        except (ImageError, OSError, ValueError):
            return None


def sample_of_each_class(morphs: MorphTable, among: Integer[np.ndarray, " n"], count: int, seed: int) -> list[int]:
    """Sample up to ``count`` of the morphs ``among``, balanced over classes, sorted by class."""
    chosen = among[class_balanced_sample(morphs.label[among], count, seed)]
    return chosen[np.lexsort((chosen, morphs.label[chosen]))].tolist()


def class_balanced_sample(labels: Integer[np.ndarray, " N"], count: int, seed: int) -> Int64[np.ndarray, " M"]:
    """Sample up to ``count`` rows at random, balanced over classes."""
    drawn = np.random.default_rng(seed).permutation(len(labels))
    return drawn[round_robin_by_class(labels[drawn])[:count]]


def round_robin_by_class(labels: Integer[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Order of rows that takes the first of every class, then the second of every class, and so on."""
    by_class = np.argsort(labels, kind="stable")
    grouped = labels[by_class]
    first = np.searchsorted(grouped, grouped)
    turn = np.empty(len(labels), np.int64)
    turn[by_class] = np.arange(len(labels)) - first
    return np.argsort(turn, kind="stable")


@dataclass(frozen=True)
class ImageRef:
    """Names an image of a file.

    Attributes:
        kind: ``result`` (a morph), ``original`` (a source or reference), or ``mirrored`` (its mirror image).
        number: row in the table of images for a result, in the table of files otherwise.
    """

    kind: Literal["result", "original", "mirrored"]
    number: int


@dataclass(frozen=True)
class AttendedRegions:
    """The attended regions (eqs. 1 and 2) of an image.

    Attributes:
        size: height and width of the image.
        centres: x and y in pixels.
        half: half the side of a region's box, in pixels.
    """

    size: tuple[int, int]
    centres: Float[np.ndarray, "N 2"]
    half: float


def encode_thumbnail(image: RGBImage, side: int, quality: int) -> bytes:
    """Encode an image as JPEG, shrunk so that its longer side has at most ``side`` pixels."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return encode(image, "jpeg", quality)
