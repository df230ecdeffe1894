"""The HDF5 file format: specification, constants and records.

MUST and MAY have the meaning of RFC 2119. All numbers are little-endian. ``utf8`` is a fixed-length, NUL-padded UTF-8
string type; file names whose bytes are not UTF-8 are stored as these bytes. The lengths of the datasets are

- N images and B bytes of all images together,
- M candidates: morphs that were made, kept or not,
- C classes, F image files, V variants, R verdicts, S skipped files.

The file MUST begin with an HDF5 superblock of version 2 or 3, so that all metadata has checksums (h5py:
``libver="v108"``).

The root group MUST have these attributes:

===================== ======= =====================================================================
name                  type    value
===================== ======= =====================================================================
``format``            utf8    "dagaug"
``version``           int64   1
``encoding``          utf8    "jpeg", "png" or "raw": how all images are stored
``quality``           int64   JPEG quality (1-100); 0 for the other encodings
``checkpoint_sha256`` utf8    SHA-256 of the generator's weights in hexadecimal; empty if there are none
``seed``              int64   seed of the run
``created_by``        utf8    name and version of the program that wrote the file
===================== ======= =====================================================================

The file MUST have the datasets of this table. Each MUST be contiguous, without filters, stored in this file and
reached by hard links (exception: /images/data MAY be virtual, see below).

=========================== ============= ====================================================================
name                        type          content
=========================== ============= ====================================================================
/options                    utf8 scalar   resolved options, a JSON object (:mod:`dagaug.hdf5.provenance`)
/classes                    utf8 [C]      class names; a label is a row of this table
/files                      utf8 [F]      image files, relative to the data folder, "/" between folders
/files_label                int32 [F]     label of each file
/files_split                uint8 [F]     0 training, 1 test
/variants                   utf8 [V]      names of the variants of a reference, for example "morph", "mirror", "cutout"
/verdicts                   utf8 [R]      names of the verdicts of the selection
/skipped/path               utf8 [S]      files that could not be used
/skipped/reason             utf8 [S]      the reason for each of them
/images/data                uint8 [B]     bytes of all images, one image after the other
/images/offset              int64 [N+1]   image i is data[offset[i]:offset[i+1]]; from 0 to B, strictly increasing
/images/height              int32 [N]     height in pixels
/images/width               int32 [N]     width in pixels; height × width is at most 100 million
/images/label               int32 [N]     class to learn: a row of /classes
/images/split               uint8 [N]     0 training, 1 test
/images/synthetic           bool [N]      false for an image of the data set (real), true for a morph
/images/source              int64 [N]     row of /files; the source of a real image is the image itself
/images/reference           int64 [N]     row of /files, -1 if there is none; -1 for real images
/images/variant             uint8 [N]     row of /variants; 0 for real images
/images/confidence          float32 [N]   the classifier's p(label), in [0, 1]; NaN if unknown and for real images
/images/predicted           int32 [N]     the classifier's top-1 class; -1 for real images
/images/candidate           int64 [N]     row of /candidates; -1 for real images
/images/sha256              uint8 [N, 16] first 16 bytes of the SHA-256 of the image's bytes
/candidates/source          int64 [M]     as in /images
/candidates/reference       int64 [M]     as in /images
/candidates/variant         uint8 [M]     as in /images
/candidates/label           int32 [M]     as in /images
/candidates/predicted       int32 [M]     as in /images
/candidates/confidence      float32 [M]   as in /images
/candidates/verdict         uint8 [M]     row of /verdicts
/candidates/image           int64 [M]     row of /images; -1 if the candidate was not kept
/content_sha256             uint8 [32]    SHA-256 of the attributes and of all datasets except itself and
                                          /images/data, which /images/sha256 represents (:func:`digest`)
=========================== ============= ====================================================================

With the encoding "raw", an image is height × width × 3 bytes, RGB. Otherwise it is a JPEG or PNG file. Readers MUST
ignore an EXIF rotation in it.

/images/data MAY be an HDF5 virtual dataset. It then MUST consist of the complete datasets /images/data of other files,
the shards, one after the other without gaps. Their names MUST be "NAME.shards-HASH/index-NUMBER.h5", relative to the
folder of this file, where NAME has no "/", HASH has 16 hexadecimal digits and NUMBER has 5 to 12 digits. A file with a
virtual dataset needs its shards: keep both together. Readers MUST refuse other virtual datasets, other source files,
and shards that are reached by symbolic links.

The file MAY have the group /objects, which says where the object of each image is. The group MUST have the datasets of
this table, of the same kind as those above, with K bytes of all masks together.

=========================== ============= ====================================================================
name                        type          content
=========================== ============= ====================================================================
/objects/box                float32 [N,4] x, y, width and height of the object's bounding box in pixels of the
                                          stored image, inside of it; NaN if the box is unknown
/objects/mask_offset        int64 [N+1]   mask i is mask[mask_offset[i]:mask_offset[i+1]], empty if it is
                                          unknown; from 0 to K, not decreasing
/objects/mask               uint8 [K]     the object's mask in the size of the stored image, as COCO's compressed
                                          run-length encoding (:mod:`dagaug.hdf5.object_masks`)
/objects/sha256             uint8 [32]    SHA-256 of /content_sha256 and of the datasets of this group except
                                          itself (:func:`objects_digest`)
=========================== ============= ====================================================================

The mask of a morph shows where the morph shows its object at least half opaque, and the box of a morph is that of its
mask. The boxes and masks of real images are those of the data set.

A file MAY have further attributes, groups and datasets; readers MUST ignore them. Readers MUST refuse a file of another
version. The file MUST NOT contain any time, so that equal runs give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Integer

from dagaug.hdf5.provenance import Provenance
from dagaug.hdf5.raw_dataset_bytes import UTF8, Extent

__all__ = [
    "ATTRIBUTES",
    "ENCODINGS",
    "FORMAT",
    "IMAGE_DATA",
    "MAX_PIXELS",
    "OBJECTS_HASH",
    "OBJECTS_SCHEMA",
    "SCHEMA",
    "SHARD_FORMAT",
    "VERSION",
    "Candidates",
    "Header",
    "Images",
    "digest",
    "links_agree",
    "objects_digest",
]

FORMAT = "dagaug"
SHARD_FORMAT = "dagaug-shard"
VERSION = 1
ENCODINGS = ("jpeg", "png", "raw")
MAX_PIXELS = 100_000_000
"""The largest number of pixels of an image."""

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
"""Type and shape of each dataset, in the order of creation; equal letters are equal lengths."""

OBJECTS_SCHEMA: dict[str, tuple[str, str]] = {
    "objects/box": ("<f4", "N 4"),
    "objects/mask_offset": ("<i8", "N+1"),
    "objects/mask": ("|u1", "K"),
}
"""The datasets of the optional group /objects without its hash."""

OBJECTS_HASH: dict[str, tuple[str, str]] = {"objects/sha256": ("|u1", "32")}
"""The hash of the group /objects; shards have none, since their content hash covers the group."""

IMAGE_DATA = "images/data"


@dataclass(frozen=True)
class Images:
    """The table /images without the pixels; columns as in the specification above."""

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
        """The table of real images; they have no reference, candidate or confidence."""
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
    """The table /candidates: kept and rejected morphs; columns as in the specification above."""

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
        """The empty table."""
        nothing = np.zeros(0, np.int64)
        return cls(nothing, nothing, nothing, nothing, nothing, np.zeros(0, np.float32), nothing, nothing)

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class Header:
    """Everything in the file that does not belong to a single image or candidate.

    Attributes:
        classes: class names; a label is an index here.
        files: image files relative to the data folder; sources and references are indices here.
        files_label: label of each file.
        files_split: 0 train, 1 test.
        encoding: how all images are stored.
        quality: JPEG quality (1-100); 0 for the other encodings.
        variants: names of the variants of a reference.
        verdicts: names of the verdicts of the selection.
        options: the resolved options, as JSON can hold them; see :attr:`provenance`.
        checkpoint_sha256: SHA-256 of the generator's weights in hexadecimal; empty if there are none.
        seed: the run's seed.
        created_by: name and version of the program that wrote the file.
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
        """The entries of ``options`` that dagaug reads again, typed."""
        return Provenance.read(self.options, self.seed)


def digest(attributes: Mapping[str, str | int], hashes: Mapping[str, bytes], extents: Mapping[str, Extent]) -> bytes:
    """The value of /content_sha256.

    It is the SHA-256 of these bytes: a line of JSON with the attributes (an object with sorted keys, ASCII, no spaces);
    then, for each dataset in the order of the schema except /images/data and /content_sha256, a line "name type shape"
    (numpy's type string; lengths joined by commas) and the SHA-256 of the dataset's bytes.

    Args:
        attributes: root attributes.
        hashes: SHA-256 of the bytes of each dataset.
        extents: type and shape of each dataset, in the order of the schema.
    """
    total = hashlib.sha256()
    total.update(json.dumps(dict(attributes), sort_keys=True, separators=(",", ":")).encode() + b"\n")
    for name, extent in extents.items():
        if name not in ("images/data", "content_sha256"):
            total.update(_line_of(name, extent) + hashes[name])
    return total.digest()


def objects_digest(content_sha256: bytes, hashes: Mapping[str, bytes], extents: Mapping[str, Extent]) -> bytes:
    """The value of /objects/sha256. Readers that ignore the group can still check /content_sha256.

    It is the SHA-256 of these bytes: /content_sha256; then the lines and hashes of :func:`digest` for the datasets of
    :data:`OBJECTS_SCHEMA`.
    """
    total = hashlib.sha256(content_sha256)
    for name in OBJECTS_SCHEMA:
        total.update(_line_of(name, extents[name]) + hashes[name])
    return total.digest()


def _line_of(name: str, extent: Extent) -> bytes:
    shape = ",".join(map(str, extent.shape))
    return f"{name} {extent.dtype.str} {shape}\n".encode()


def links_agree(images: Images, candidates: Candidates) -> bool:
    """Whether ``images.candidate`` and ``candidates.image`` agree about which candidate became which image."""
    made, kept = np.flatnonzero(images.candidate >= 0), np.flatnonzero(candidates.image >= 0)
    if len(made) != len(kept) or candidates.image.max(initial=-1) >= len(images):
        return False
    return bool((images.candidate[candidates.image[kept]] == kept).all())
