"""Small shards and files that the tests of hdf5 and exchange share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import cv2
import h5py
import numpy as np

from dagaug.hdf5.merge import Merge
from dagaug.hdf5.object_masks import Objects, box_of_mask, encode_mask
from dagaug.hdf5.schema import ATTRIBUTES, OBJECTS_HASH, OBJECTS_SCHEMA, SCHEMA, Candidates, Header, Images
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import ShardContent

SIZE = 12
REAL, MORPHS, CANDIDATES = (
    6,
    4,
    7,
)  # of the two shards together with MORPHS and CANDIDATES in each of two more
SHARDS = 3

Encoding = Literal["jpeg", "png", "raw"]


def picture(seed: int, size: int = SIZE) -> np.ndarray:
    """A smooth random RGB picture, so that JPEG is close to it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return cv2.resize(coarse, (size, size + 2), interpolation=cv2.INTER_LINEAR)


def encode(image: np.ndarray, encoding: Encoding) -> bytes:
    if encoding == "raw":
        return image.tobytes()
    return cv2.imencode({"jpeg": ".jpg", "png": ".png"}[encoding], image[..., ::-1])[1].tobytes()


def header(encoding: Encoding = "png", **changes: object) -> Header:
    values: dict[str, object] = {
        "classes": ("../wren", "<script>alert(1)</script>"),
        "files": tuple(f"Zaunkönig/{row}.jpg" for row in range(REAL)),
        "files_label": np.arange(REAL, dtype=np.int32) % 2,
        "files_split": np.array([0, 0, 0, 0, 1, 1], np.uint8),
        "encoding": encoding,
        "quality": 95 if encoding == "jpeg" else 0,
        "variants": ("reference", "mirrored"),
        "verdicts": ("kept", "mislabelled"),
        "options": {"refs": 10, "keep": "per-reference", "größe": 64},
        "checkpoint_sha256": "ab" * 32,
        "seed": 3,
        "created_by": "dagaug 0.1.0",
        "skipped": (("x/é.jpg", "truncated JPEG"),),
    }
    return Header(**(values | changes))  # type: ignore[arg-type]


def shard(index: int, encoding: Encoding = "png") -> ShardContent:
    """Shard 0 holds the real images, the others morphs, of which candidates 0, 2, 4 and 5 were kept."""
    count = REAL if index == 0 else MORPHS
    encoded = [encode(picture(100 * index + row), encoding) for row in range(count)]
    height, width = np.full(count, SIZE + 2), np.full(count, SIZE)
    rows = np.arange(count)
    if index == 0:
        split = np.array([0, 0, 0, 0, 1, 1])
        return ShardContent(encoded, Images.real(height, width, rows % 2, split, rows))
    kept = np.array([0, 2, 4, 5])
    image = np.full(CANDIDATES, -1)
    image[kept] = rows
    all_rows = np.arange(CANDIDATES)
    candidates = Candidates(
        source=np.full(CANDIDATES, index),
        reference=all_rows % 4,
        variant=all_rows % 2,
        label=np.full(CANDIDATES, index % 2),
        predicted=np.where(image >= 0, index % 2, 1 - index % 2),
        confidence=(all_rows / 10).astype(np.float32),
        verdict=np.where(image >= 0, 0, 1),
        image=image,
    )
    images = Images(
        height=height,
        width=width,
        label=candidates.label[kept],
        split=np.zeros(count, np.uint8),
        synthetic=np.ones(count, bool),
        source=candidates.source[kept],
        reference=candidates.reference[kept],
        variant=candidates.variant[kept],
        confidence=candidates.confidence[kept],
        predicted=candidates.predicted[kept],
        candidate=kept,
    )
    return ShardContent(encoded, images, candidates)


def mask(index: int, row: int) -> np.ndarray:
    """The mask of an image of a shard, with a hole."""
    found = np.zeros((SIZE + 2, SIZE), bool)
    found[1 + index : 6 + index + row % 3, 2:9] = True
    found[3 + index, 4:6] = False
    return found


def with_objects(index: int, content: ShardContent) -> ShardContent:
    """A shard whose images all have a box; of the real images only the second has a mask."""
    rows = range(len(content.encoded))
    found = [mask(index, row) for row in rows]
    boxes = [box_of_mask(one) if index or row == 1 else (1.5, 2, 6.25, 4) for row, one in enumerate(found)]
    encoded = [encode_mask(one) if index or row == 1 else b"" for row, one in enumerate(found)]
    return replace(content, objects=Objects(np.array(boxes, np.float32).reshape(-1, 4), encoded))


def write(
    target: Path, encoding: Encoding = "png", *, objects: bool = True, how: Merge = "copy", **changes: object
) -> Path:
    """A whole file of REAL real images and twice MORPHS morphs."""
    with open_shard_folder(target, {"encoding": encoding}) as run:
        for index in range(SHARDS):
            content = shard(index, encoding)
            run.write(index, with_objects(index, content) if objects else content)
        return run.merge(header(encoding, **changes), SHARDS, how=how)


def rewrite_plainly(path: Path, target: Path) -> Path:
    """The same content written by h5py's everyday calls, as another program would."""
    with h5py.File(path) as old, h5py.File(target, "w", libver="v108") as new:
        for name in ATTRIBUTES:
            value = old.attrs[name]
            text = isinstance(value, bytes | str)
            new.attrs.create(name, np.bytes_(value.encode() if isinstance(value, str) else value) if text else value)
        for name in [*SCHEMA, *(OBJECTS_SCHEMA | OBJECTS_HASH if "objects" in old else ())]:
            new.create_dataset(name, data=old[name][()], dtype=old[name].dtype)
    return target
