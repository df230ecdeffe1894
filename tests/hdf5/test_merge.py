"""Merge: damaged or missing shards, memory, headers that do not fit."""

from __future__ import annotations

import dataclasses
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from making_shards import IDENTITY, finished, written
from making_stores import MORPHS, REAL, SHARDS, Encoding, header, mask, shard, with_objects, write

from dagaug.hdf5.merge import Merge, merge
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import Images
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import ShardContent, finished_shards, parts_folder
from dagaug.hdf5.verify import verify
from dagaug.runtime.errors import StoreError


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return finished(tmp_path_factory.mktemp("straight") / "x.h5")


def columns(images: Images, rows: slice) -> dict[str, np.ndarray]:
    return {field.name: getattr(images, field.name)[rows] for field in dataclasses.fields(Images)}


def test_merging_needs_the_memory_of_one_shard(tmp_path: Path) -> None:
    big = ShardContent(
        [os.urandom(1 << 20)] * 4, dataclasses.replace(shard(0).images, **columns(shard(0).images, slice(4)))
    )
    with open_shard_folder(tmp_path / "x.h5", {}) as run:
        for index in range(6):
            run.write(index, big)
        tracemalloc.start()
        run.merge(header(), 6)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 10 << 20


@pytest.mark.parametrize("place", ["data", "table"])
def test_a_shard_whose_content_changed_is_removed_when_merging(tmp_path: Path, straight: bytes, place: str) -> None:
    target = written(tmp_path / "x.h5")
    path = parts_folder(target) / "index-00001.h5"
    content = bytearray(path.read_bytes())
    piece = shard(1).encoded[2] if place == "data" else shard(1).candidates.confidence.tobytes()
    content[content.index(piece) + 5] ^= 1
    path.write_bytes(content)
    with open_shard_folder(target, IDENTITY) as run, pytest.raises(StoreError, match=r"index-00001\.h5: was damaged"):
        run.merge(header(), SHARDS)
    assert not target.exists()
    assert finished_shards(parts_folder(target)) == {0, 2}
    assert finished(target) == straight


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    target = written(tmp_path / "x.h5", count=2)
    with pytest.raises(StoreError, match=r"index-00002\.h5: no such file"):
        merge(parts_folder(target), target, header(), 3)
    assert not target.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("a", "b\0c")}, r"classes: 'b\\x00c' contains a NUL"),
        ({"classes": ("a", "\ud800")}, r"classes: '\\ud800' is not Unicode"),
        ({"classes": ("a",)}, "/files_label has values outside 0 to 0"),
        ({"encoding": "raw"}, "does not fit height × width × 3"),
    ],
)
def test_an_invalid_header_gives_no_file(tmp_path: Path, change: dict[str, object], message: str) -> None:
    target = written(tmp_path / "x.h5")
    with open_shard_folder(target, IDENTITY) as run, pytest.raises(StoreError, match=message):
        run.merge(header(**change), SHARDS)
    assert not target.exists()
    assert finished_shards(parts_folder(target)) == set(range(SHARDS))


def test_an_empty_shard_is_merged(tmp_path: Path) -> None:
    nothing = np.zeros(0, np.int64)
    with open_shard_folder(tmp_path / "x.h5", {}) as run:
        run.write(0, shard(0))
        run.write(1, ShardContent([], Images.real(nothing, nothing, nothing, nothing, nothing)))
        run.merge(header(), 2)
    assert verify(tmp_path / "x.h5").images == REAL


@pytest.mark.parametrize("encoding", ["png", "raw"])
@pytest.mark.parametrize("how", ["copy", "virtual"])
def test_masks_and_boxes_of_all_shards_are_merged(tmp_path: Path, encoding: Encoding, how: Merge) -> None:
    with Store(write(tmp_path / "x.h5", encoding, how=how)) as store:
        assert store.boxes is not None
        assert store.boxes[0].tolist() == [1.5, 2, 6.25, 4]
        assert store.mask(0) is None
        np.testing.assert_array_equal(store.mask(1), mask(0, 1))
        for index in (1, 2):
            for row in range(MORPHS):
                np.testing.assert_array_equal(store.mask(REAL + (index - 1) * MORPHS + row), mask(index, row))
        with pytest.raises(IndexError):
            store.mask(REAL + 2 * MORPHS)


def test_shards_with_and_without_objects_do_not_mix(tmp_path: Path) -> None:
    with open_shard_folder(tmp_path / "x.h5", {}) as run:
        run.write(0, with_objects(0, shard(0)))
        run.write(1, shard(1))
        with pytest.raises(StoreError, match=r"index-00001\.h5: lacks /objects, which other shards have"):
            run.merge(header(), 2)
