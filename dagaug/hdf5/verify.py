"""Verification of an HDF5 file: types, shapes, indices, hashes, decoding of every image."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dagaug.hdf5.object_masks import box_of_mask
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import OBJECTS_HASH, OBJECTS_SCHEMA, SCHEMA, links_agree
from dagaug.runtime.errors import StoreError
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["Verified", "verify"]


@dataclass(frozen=True)
class Verified:
    """Contents of a file that passed :func:`verify`.

    Attributes:
        images, synthetic, real: numbers of images; the hashes of all were checked.
        decoded: number of images that were decoded.
        candidates: number of candidates, kept or not.
        classes, files, skipped: lengths of these tables.
        datasets: number of datasets whose type, shape and position were checked.
        data_bytes: bytes of all images together.
        boxes, masks: numbers of images whose object has a stored box, a stored mask.
        mask_bytes: bytes of all masks together.
        content_sha256: the file's hash in hexadecimal.
    """

    images: int
    synthetic: int
    real: int
    decoded: int
    candidates: int
    classes: int
    files: int
    skipped: int
    datasets: int
    data_bytes: int
    boxes: int
    masks: int
    mask_bytes: int
    content_sha256: str


def verify(path: Path | str, *, decode: bool = True, progress: Progress = SILENT) -> Verified:
    """Check a whole file against :mod:`dagaug.hdf5.schema`.

    Checked are the types and shapes of all datasets, the range of every index, the hash of every image, that each image
    decodes to its declared size, that each mask has the size of its image, that each morph's box is that of its mask,
    that each image agrees with its candidate, and the hashes of the whole content.

    Args:
        path: the file.
        decode: decode the images.
        progress: reports the checked images.

    Raises:
        StoreError: something is wrong; the message names the first wrong dataset, and the row of an image or candidate.
    """
    with Store(path) as store:
        hashes = store.column("images/sha256")
        with progress.task("Verifying", len(store), "images") as task:
            for first in range(0, len(store), 256):
                rows = range(first, min(first + 256, len(store)))
                for row, data in zip(rows, store.image_reader.encoded(rows), strict=True):
                    if hashlib.sha256(data.data).digest()[:16] != hashes[row].tobytes():
                        raise StoreError(f"{path}: /images/data: image {row} is damaged (its hash differs)")
                if decode:
                    store.image_reader.decoded(rows)
                task.advance(len(rows))
        _check_agreement(store)
        stored = store.column("content_sha256").tobytes()
        if store.content_sha256() != stored:
            raise StoreError(f"{path}: /content_sha256 differs from the content; the file was changed or damaged")
        boxes, masks = _check_objects(store)
        synthetic = int(store.images.synthetic.sum())
        return Verified(
            images=len(store),
            synthetic=synthetic,
            real=len(store) - synthetic,
            decoded=len(store) if decode else 0,
            candidates=len(store.candidates),
            classes=store.length("classes"),
            files=store.length("files"),
            skipped=store.length("skipped/path"),
            datasets=len(SCHEMA) + store.has_objects * len(OBJECTS_SCHEMA | OBJECTS_HASH),
            data_bytes=store.length("images/data"),
            boxes=boxes,
            masks=masks,
            mask_bytes=store.length("objects/mask") if store.has_objects else 0,
            content_sha256=stored.hex(),
        )


def _check_agreement(store: Store) -> None:
    """Check that images and candidates refer to each other and have equal columns."""
    images, candidates = store.images, store.candidates
    if not links_agree(images, candidates):
        raise StoreError(f"{store.path}: /images/candidate and /candidates/image disagree")
    of_a_morph = (images.reference >= 0) | (images.predicted >= 0) | (images.candidate >= 0)
    for row in np.flatnonzero(~images.synthetic & of_a_morph)[:1]:
        raise StoreError(f"{store.path}: /images: image {row} is real but has a reference, prediction or candidate")
    made = np.flatnonzero(images.candidate >= 0)
    for name in ("source", "reference", "variant", "label", "predicted", "confidence"):
        ours, theirs = getattr(images, name)[made], getattr(candidates, name)[images.candidate[made]]
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs)) if name == "confidence" else ours == theirs
        for row in made[~same][:1]:
            raise StoreError(
                f"{store.path}: /images/{name}: image {row} and its candidate {images.candidate[row]} differ"
            )


def _check_objects(store: Store) -> tuple[int, int]:
    """Check all masks, the boxes of morphs, and their hash; returns the numbers of boxes and masks."""
    boxes, reader = store.boxes, store.mask_reader
    if boxes is None or reader is None:
        return 0, 0
    unknown = np.isnan(boxes).all(1)
    for row in np.flatnonzero(reader.known | (store.images.synthetic & ~unknown)).tolist():
        mask = reader.mask(row)
        if store.images.synthetic[row]:
            expected = None if mask is None else box_of_mask(mask)
            if expected != (None if unknown[row] else tuple(boxes[row].tolist())):
                raise StoreError(f"{store.path}: /objects/box: image {row} has another box than its mask")
    if store.objects_sha256() != store.column("objects/sha256").tobytes():
        raise StoreError(f"{store.path}: /objects/sha256 differs from the content; the file was changed or damaged")
    return int((~unknown).sum()), int(reader.known.sum())
