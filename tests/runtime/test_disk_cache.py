"""The cache of arrays: what comes back, damage, bounds, several processes."""

from __future__ import annotations

import os
import pickle
import shutil
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dagaug.runtime.disk_cache import DiskCache, cache_key, cache_of, with_cache
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.output_marks import is_output

KEYS = [cache_key(number) for number in range(8)]


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {"a": random.random((3, 4)).astype(np.float16), "b": random.integers(0, 255, 900, dtype=np.uint8)}


def size_of_one(folder: Path) -> int:
    cache = DiskCache(folder / "one")
    cache.write(KEYS[0], arrays())
    return file_of(cache, KEYS[0]).stat().st_size


def file_of(cache: DiskCache, key: str) -> Path:
    (found,) = [path for path in cache.folder.glob("??/*") if path.parent.name + path.name == key]
    return found


def test_what_was_stored_comes_back_bit_for_bit_also_in_another_process(tmp_path: Path) -> None:
    DiskCache(tmp_path / "cache").write(KEYS[0], arrays())
    for cache in (DiskCache(tmp_path / "cache"), pickle.loads(pickle.dumps(DiskCache(tmp_path / "cache", print)))):
        found = cache.read(KEYS[0])
        assert found is not None
        assert {name: (array.dtype, array.tobytes()) for name, array in found.items()} == {
            name: (array.dtype, array.tobytes()) for name, array in arrays().items()
        }
        assert cache.read(KEYS[1]) is None


def test_its_folder_is_never_data(tmp_path: Path) -> None:
    DiskCache(tmp_path / "cache").write(KEYS[0], arrays())
    assert is_output(tmp_path / "cache")


def test_reading_makes_no_folder(tmp_path: Path) -> None:
    assert DiskCache(tmp_path / "cache").read(KEYS[0]) is None
    assert not (tmp_path / "cache").exists()


def test_keys_tell_content_type_shape_and_order_apart() -> None:
    one = np.arange(6, dtype=np.uint8)
    parts: list[tuple[object, ...]] = [
        (one,), (one[::-1],), (one.astype(np.int8),), (one.reshape(2, 3),), (one.tobytes(),), (one, "a"), ("a", one),
        (one, None), (one, (0.1, 0.2)), (one, (0.2, 0.1)), (one.tolist(),), ("ab", "c"), ("a", "bc"),
    ]  # fmt: skip
    assert len({cache_key(*some) for some in parts}) == len(parts)
    assert cache_key(one[::-1]) == cache_key(one[::-1].copy())


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_entry_is_told_and_made_again(tmp_path: Path, damage: str) -> None:
    said: list[str] = []
    cache = DiskCache(tmp_path / "cache", said.append)
    cache.write(KEYS[0], arrays())
    path = file_of(cache, KEYS[0])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes({"flipped": bytes(content), "cut": bytes(content[:50]), "empty": b""}[damage])
    assert cache.read(KEYS[0]) is None
    assert said == [f"{path}: damaged; computed anew"]
    cache.write(KEYS[0], arrays())
    assert cache.read(KEYS[0]) is not None


def test_entries_that_were_used_least_recently_make_room(tmp_path: Path) -> None:
    one, said = size_of_one(tmp_path), list[str]()
    for age, key in enumerate(KEYS[:4]):
        cache = DiskCache(tmp_path / "cache", said.append, limit=5 * one)
        cache.write(key, arrays())
        os.utime(file_of(cache, key), (1000 + age, 1000 + age))
    cache = DiskCache(tmp_path / "cache", said.append, limit=5 * one)
    assert cache.read(KEYS[0]) is not None
    assert said == []
    cache.write(KEYS[4], arrays())
    cache.write(KEYS[5], arrays())
    assert [number for number in range(6) if cache.read(KEYS[number]) is not None] == [0, 3, 4, 5]
    assert said == [f"{tmp_path / 'cache'}: 0.0 GB that were used least recently are removed"]


def test_a_command_that_needs_more_than_the_limit_keeps_what_it_has_and_says_so_once(tmp_path: Path) -> None:
    one, said = size_of_one(tmp_path), list[str]()
    cache = DiskCache(tmp_path / "cache", said.append, limit=3 * one)
    for key in KEYS:
        cache.write(key, arrays())
    assert [cache.read(key) is not None for key in KEYS] == [True] * 3 + [False] * 5
    (line,) = said
    assert "its limit, for this data set alone; masks and features are computed anew by each command" in line


def test_a_nearly_full_disk_is_left_to_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**10, 10**10, 10**8))
    said: list[str] = []
    cache = DiskCache(tmp_path / "cache", said.append)
    cache.write(KEYS[0], arrays())
    cache.write(KEYS[1], arrays())
    assert cache.read(KEYS[0]) is None
    (line,) = said
    assert "less than 1 GB of its disk are free" in line


def test_a_folder_that_cannot_be_made_costs_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    cache = DiskCache(tmp_path / "file" / "cache", said.append)
    assert cache.read(KEYS[0]) is None
    cache.write(KEYS[0], arrays())
    cache.write(KEYS[1], arrays())
    assert len(said) == 1


def test_several_writers_of_one_entry_leave_one_whole_entry(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: DiskCache(tmp_path / "cache").write(KEYS[number % 2], arrays()), range(40)))
    assert all(DiskCache(tmp_path / "cache").read(key) is not None for key in KEYS[:2])
    assert list((tmp_path / "cache").rglob("*.tmp")) == []


def test_temporary_files_of_killed_processes_go_with_the_oldest_entries(tmp_path: Path) -> None:
    one = size_of_one(tmp_path)
    cache = DiskCache(tmp_path / "cache", limit=2 * one)
    old, new = (tmp_path / "cache" / "00" / f".{name}.tmp" for name in ("old", "new"))
    old.parent.mkdir(parents=True)
    for path in (old, new):
        path.write_bytes(b"0" * one)
    os.utime(old, (1000, 1000))
    cache.write(KEYS[0], arrays())
    assert (old.exists(), new.exists(), cache.read(KEYS[0]) is not None) == (False, True, True)


def test_a_temporary_cache_lasts_as_long_as_its_block(tmp_path: Path) -> None:
    with with_cache(Execution()) as execution:
        cache = cache_of(execution)
        assert cache is not None
        cache.write(KEYS[0], arrays())
        again = cache_of(execution)
        assert again is not None
        assert again.read(KEYS[0]) is not None
    assert not cache.folder.exists()
    given = Execution(cache=tmp_path)
    with with_cache(given) as execution:
        assert execution is given
    assert cache_of(Execution()) is None
