"""Verification finds every change of a file."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from altered_files import TOTAL, altered
from making_stores import (
    CANDIDATES,
    MORPHS,
    REAL,
    header,
    mask,
    shard,
    with_objects,
    write,
)

from dagaug.hdf5.object_masks import Objects, encode_mask
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import OBJECTS_HASH, OBJECTS_SCHEMA, SCHEMA
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import ShardContent
from dagaug.hdf5.verify import verify
from dagaug.runtime.errors import StoreError


@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_verify_counts_what_is_there(files: dict[str, Path], encoding: str) -> None:
    found = verify(files[encoding])
    assert (found.images, found.synthetic, found.candidates) == (TOTAL, 2 * MORPHS, 2 * CANDIDATES)
    assert (found.boxes, found.masks) == (TOTAL, 2 * MORPHS + 1)


def test_objects_do_not_change_the_hash_that_readers_without_them_check(files: dict[str, Path], tmp_path: Path) -> None:
    without = verify(write(tmp_path / "x.h5", objects=False))
    assert without.content_sha256 == verify(files["png"]).content_sha256
    assert (without.boxes, without.masks, without.mask_bytes) == (0, 0, 0)


def test_verify_finds_every_changed_byte_of_every_dataset(files: dict[str, Path], tmp_path: Path) -> None:
    whole = files["png"].read_bytes()
    chance = random.Random(0)
    with h5py.File(files["png"]) as file:
        names = SCHEMA | OBJECTS_SCHEMA | OBJECTS_HASH
        extents = [(name, file[name].id.get_offset(), file[name].id.get_storage_size()) for name in names]
    for name, start, size in extents:
        changed = bytearray(whole)
        at = start + chance.randrange(size)
        changed[at] ^= 1
        (tmp_path / "x.h5").write_bytes(changed)
        with pytest.raises(StoreError):
            verify(tmp_path / "x.h5")
        assert size, name


def test_verify_finds_an_image_with_a_correct_hash_that_does_not_decode(tmp_path: Path) -> None:
    content = shard(0)
    broken = ShardContent([b"no image", *content.encoded[1:]], content.images)
    with open_shard_folder(tmp_path / "x.h5", {}) as run:
        run.write(0, broken)
        run.merge(header(), 1)
    with pytest.raises(StoreError, match="image 0 is not a png"):
        verify(tmp_path / "x.h5")
    assert verify(tmp_path / "x.h5", decode=False).images == REAL


def test_verify_finds_candidates_that_name_another_image(files: dict[str, Path], tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        file["candidates/image"][0], file["candidates/image"][2] = REAL + 1, REAL

    path = altered(files["png"], tmp_path / "x.h5", change)
    with Store(path) as store:
        content = store.content_sha256()
    with h5py.File(path, "r+") as file:
        file["content_sha256"][:] = np.frombuffer(content, np.uint8)
    with pytest.raises(StoreError, match="disagree"):
        verify(path)


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("confidence", REAL, 0.75, f"/images/confidence: image {REAL} and its candidate 0 differ"),
        ("label", REAL + 1, 0, f"/images/label: image {REAL + 1} and its candidate 2 differ"),
        ("predicted", 2, 1, "/images: image 2 is real but has a reference, prediction or candidate"),
    ],
)
def test_verify_names_the_image_that_differs_from_its_candidate(
    files: dict[str, Path], tmp_path: Path, column: str, row: int, value: float, message: str
) -> None:
    def change(file: h5py.File) -> None:
        assert file[f"images/{column}"][row] != value
        file[f"images/{column}"][row] = value

    path = altered(files["png"], tmp_path / "x.h5", change)
    with Store(path) as store:
        content = store.content_sha256()
    with h5py.File(path, "r+") as file:
        file["content_sha256"][:] = np.frombuffer(content, np.uint8)
    with pytest.raises(StoreError, match=message):
        verify(path)


@pytest.mark.parametrize(
    ("box", "encoded", "message"),
    [
        ((0, 0, 3, 3), encode_mask(mask(1, 0)), "/objects/box: image 6 has another box than its mask"),
        ((np.nan,) * 4, encode_mask(mask(1, 0)), "/objects/box: image 6 has another box than its mask"),
        ((2, 2, 7, 5), b"", "/objects/box: image 6 has another box than its mask"),
        ((2, 2, 7, 5), encode_mask(mask(1, 0)[1:]), "/objects/mask: image 6: not a mask of 12 × 14 pixels"),
        ((2, 2, 7, 5), b"no mask", "/objects/mask: image 6: not a mask of 12 × 14 pixels"),
    ],
)
def test_verify_names_the_image_whose_mask_is_wrong(
    tmp_path: Path, box: tuple[float, ...], encoded: bytes, message: str
) -> None:
    content = with_objects(1, shard(1))
    assert content.objects is not None
    boxes = content.objects.box.copy()
    boxes[0] = box
    changed = replace(content, objects=Objects(boxes, [encoded, *content.objects.masks[1:]]))
    with open_shard_folder(tmp_path / "x.h5", {}) as run:
        run.write(0, with_objects(0, shard(0)))
        run.write(1, changed)
        run.merge(header(), 2)
    with pytest.raises(StoreError, match=message):
        verify(tmp_path / "x.h5")
