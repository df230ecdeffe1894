"""The HDF5 format: names, versions, and the records of images, candidates and header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Integer

from dagaug.hdf5.layout import UTF8, Extent
from dagaug.hdf5.provenance import Provenance

__all__ = [
    "ATTRIBUTES",
    "ENCODINGS",
    "FORMAT",
    "IMAGE_DATA",
    "MAX_PIXELS",
    "SCHEMA",
    "SHARD_FORMAT",
    "VERSION",
    "Candidates",
    "Header",
    "Images",
    "digest",
    "links_agree",
]

FORMAT = "dagaug"


SHARD_FORMAT = "dagaug-shard"


VERSION = 1


ENCODINGS = ("jpeg", "png", "raw")


MAX_PIXELS = 100_000_000

ATTRIBUTES: dict[str, type] = {
    "format": str,
    "version": int,
    "encoding": str,
    "quality": int,
    "checkpoint_sha256": str,
    "seed": int,
    "created_by": str,
}
"""Root attributes and their types."""

SCHEMA: dict[str, tuple[str, str]] = {
    "options": (UTF8, ""),
    "classes": (UTF8, "C"),
    "files": (UTF8, "F"),
    "files_label": ("<i4", "F"),
    "files_split": ("|u1", "F"),
    "variants": (UTF8, "V"),
    "verdicts": (UTF8, "R"),
    "skipped/path": (UTF8, "S"),
    "skipped/reason": (UTF8, "S"),
    "images/height": ("<i4", "N"),
    "images/width": ("<i4", "N"),
    "images/label": ("<i4", "N"),
    "images/split": ("|u1", "N"),
    "images/synthetic": ("|b1", "N"),
    "images/source": ("<i8", "N"),
    "images/reference": ("<i8", "N"),
    "images/variant": ("|u1", "N"),
    "images/confidence": ("<f4", "N"),
    "images/predicted": ("<i4", "N"),
    "images/candidate": ("<i8", "N"),
    "candidates/source": ("<i8", "M"),
    "candidates/reference": ("<i8", "M"),
    "candidates/variant": ("|u1", "M"),
    "candidates/label": ("<i4", "M"),
    "candidates/predicted": ("<i4", "M"),
    "candidates/confidence": ("<f4", "M"),
    "candidates/verdict": ("|u1", "M"),
    "candidates/image": ("<i8", "M"),
    "images/sha256": ("|u1", "N 16"),
    "images/offset": ("<i8", "N+1"),
    "images/data": ("|u1", "B"),
    "content_sha256": ("|u1", "32"),
}
"""Datasets in the order in which they are created, with type and shape; equal letters are equal lengths."""

IMAGE_DATA = "images/data"


@dataclass(frozen=True)
class Images:
    """What is known of each image besides its pixels; columns as in the module's specification."""

    height: Integer[np.ndarray, " N"]
    width: Integer[np.ndarray, " N"]
    label: Integer[np.ndarray, " N"]
    split: Integer[np.ndarray, " N"]
    synthetic: Bool[np.ndarray, " N"]
    source: Integer[np.ndarray, " N"]
    reference: Integer[np.ndarray, " N"]
    variant: Integer[np.ndarray, " N"]
    confidence: Float[np.ndarray, " N"]
    predicted: Integer[np.ndarray, " N"]
    candidate: Integer[np.ndarray, " N"]

    @classmethod
    def real(
        cls,
        height: Integer[np.ndarray, " N"],
        width: Integer[np.ndarray, " N"],
        label: Integer[np.ndarray, " N"],
        split: Integer[np.ndarray, " N"],
        source: Integer[np.ndarray, " N"],
    ) -> Images:
        """Images of the data set itself, without reference, candidate or confidence."""
        none = np.full(len(height), -1, np.int64)
        return cls(
            height=height,
            width=width,
            label=label,
            split=split,
            synthetic=np.zeros(len(height), bool),
            source=source,
            reference=none,
            variant=np.zeros(len(height), np.uint8),
            confidence=np.full(len(height), np.nan, np.float32),
            predicted=none.astype(np.int32),
            candidate=none,
        )

    def __len__(self) -> int:
        return len(self.height)


@dataclass(frozen=True)
class Candidates:
    """Every candidate with its verdict, kept or not; columns as in the module's specification."""

    source: Integer[np.ndarray, " M"]
    reference: Integer[np.ndarray, " M"]
    variant: Integer[np.ndarray, " M"]
    label: Integer[np.ndarray, " M"]
    predicted: Integer[np.ndarray, " M"]
    confidence: Float[np.ndarray, " M"]
    verdict: Integer[np.ndarray, " M"]
    image: Integer[np.ndarray, " M"]

    @classmethod
    def none(cls) -> Candidates:
        """No candidates, as among real images."""
        nothing = np.zeros(0, np.int64)
        return cls(nothing, nothing, nothing, nothing, nothing, np.zeros(0, np.float32), nothing, nothing)

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class Header:
    """Everything in the file that is not about one image or candidate.

    Attributes:
        classes: class names; a label is an index here.
        files: image files relative to the data folder; sources and references are indices here.
        files_label: label of each file.
        files_split: 0 train, 1 test.
        encoding: how images are stored.
        quality: of JPEG, 0 for the others.
        variants: names of the variants of a reference.
        verdicts: names of the verdicts of the selection.
        options: the resolved options; what JSON can hold.
        checkpoint_sha256: of the generator's weights, in hexadecimal; empty if there is none.
        seed: the run's seed.
        created_by: the writer's name and version.
        skipped: path and reason of every file that could not be used.
    """

    classes: tuple[str, ...]
    files: tuple[str, ...]
    files_label: Integer[np.ndarray, " F"]
    files_split: Integer[np.ndarray, " F"]
    encoding: Literal["jpeg", "png", "raw"]
    quality: int
    variants: tuple[str, ...]
    verdicts: tuple[str, ...]
    options: Mapping[str, object]
    checkpoint_sha256: str
    seed: int
    created_by: str
    skipped: tuple[tuple[str, str], ...] = ()

    @cached_property
    def provenance(self) -> Provenance:
        """What ``options`` say, typed."""
        return Provenance.read(self.options, self.seed)


def digest(attributes: Mapping[str, str | int], hashes: Mapping[str, bytes], extents: Mapping[str, Extent]) -> bytes:
    """What /content_sha256 holds.

    SHA-256 of a line of JSON for the attributes (an object with sorted keys, ASCII, no spaces), then for each
    dataset in the schema's order, but for /images/data and /content_sha256, of a line "name type shape"
    (numpy's type string, lengths joined by commas) and the SHA-256 of its bytes (``hashes``).
    """
    total = hashlib.sha256()
    total.update(json.dumps(dict(attributes), sort_keys=True, separators=(",", ":")).encode() + b"\n")
    for name, extent in extents.items():
        if name not in ("images/data", "content_sha256"):
            shape = ",".join(map(str, extent.shape))
            total.update(f"{name} {extent.dtype.str} {shape}\n".encode() + hashes[name])
    return total.digest()


def links_agree(images: Images, candidates: Candidates) -> bool:
    """Whether ``images.candidate`` and ``candidates.image`` agree on which candidate became which image."""
    made, kept = np.flatnonzero(images.candidate >= 0), np.flatnonzero(candidates.image >= 0)
    if len(made) != len(kept) or candidates.image.max(initial=-1) >= len(images):
        return False
    return bool((images.candidate[candidates.image[kept]] == kept).all())
