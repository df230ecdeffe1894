from __future__ import annotations

import errno
import gc
import os
import pickle
import shutil
import threading
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from dagaug.runtime import streamed_array
from dagaug.runtime.errors import DataError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache
from dagaug.runtime.streamed_array import StreamedArray, batches, hash_rows, select

COUNT, SHAPE = 12, (4, 4, 3)
ROW = 48  # bytes
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE), np.uint8)


@dataclass
class Source:
    """Reads rows and counts how often."""

    reads: Counter[int] = field(default_factory=Counter)

    def __call__(self, row: int) -> np.ndarray:
        self.reads[row] += 1
        return PIXELS[row]


def streamed(rows_in_memory: float, source: Source | None = None, *, workers: int = 1) -> StreamedArray:
    execution = Execution(workers=workers, memory=ImageCache(int(rows_in_memory * ROW)))
    return StreamedArray(COUNT, SHAPE, source or Source(), execution=execution)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", write)


@pytest.mark.parametrize("rows_in_memory", [0, 1, 5.5, 12, 100])
@pytest.mark.parametrize("workers", [1, 3])
def test_rows_are_those_of_the_source_and_read_once_for_any_cache(rows_in_memory: float, workers: int) -> None:
    source = Source()
    array = streamed(rows_in_memory, source, workers=workers)
    rng = np.random.default_rng(1)
    for _ in range(4):
        rows = rng.permutation(COUNT)[:5]
        assert np.array_equal(array[rows], PIXELS[rows])
        assert np.array_equal(array[int(rows[0])], PIXELS[rows[0]])
    assert np.array_equal(np.asarray(array), PIXELS)
    assert source.reads == Counter(range(COUNT))


@pytest.mark.parametrize("rows_in_memory", [2, 100])
def test_it_is_indexed_as_an_array(rows_in_memory: float) -> None:
    array, mask = streamed(rows_in_memory), np.arange(COUNT) % 3 == 0
    assert (array.shape, len(array), array.dtype) == (PIXELS.shape, COUNT, PIXELS.dtype)
    for index in (3, -1, slice(2, 7), slice(None, None, -2), np.array([5, 5, 0]), [4, 1], mask, np.zeros(0, np.int64)):
        found = array[index]
        assert np.array_equal(found, PIXELS[index])
        assert found.shape == PIXELS[index].shape
    assert np.array_equal(array[1:3, ::-1, 0], PIXELS[1:3, ::-1, 0])
    assert np.array_equal(np.stack(list(array)), PIXELS)
    with pytest.raises(IndexError):
        array[COUNT]


def test_changing_a_result_changes_nothing_else() -> None:
    array = streamed(100)
    for index in (0, slice(0, 2)):
        array[index][...] = 0
    assert np.array_equal(array[:], PIXELS)


def test_parts_share_what_is_read() -> None:
    source = Source()
    array = streamed(3, source)
    part = array.take(np.array([8, 1, 8])).take(np.array([2, 1]))
    assert np.array_equal(part[:], PIXELS[[8, 1]])
    assert np.array_equal(array[[1, 8]], PIXELS[[1, 8]])
    assert source.reads == Counter([1, 8])
    assert isinstance(select(array, np.array([2])), StreamedArray)
    assert np.array_equal(select(PIXELS, np.array([2])), PIXELS[2:3])


def test_several_threads_may_read_at_once() -> None:
    array, failures = streamed(4, workers=2), []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(50):
            rows = rng.integers(COUNT, size=6)
            if not np.array_equal(array[rows], PIXELS[rows]):
                failures.append(rows)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_where_the_disk_has_no_room_rows_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 2 * 4 * ROW))  # type: ignore[attr-defined]
    source = Source()
    array = streamed(3, source)
    for _ in range(2):
        assert np.array_equal(array[:], PIXELS)
    assert source.reads == Counter([*range(COUNT), *range(3 + 4, COUNT)])


@pytest.mark.usefixtures("full_disk")
def test_on_a_full_disk_rows_are_read_again() -> None:
    source = Source()
    array = streamed(3, source)
    for _ in range(2):
        assert np.array_equal(array[:], PIXELS)
    assert source.reads[2] == 1
    assert source.reads[3] == 2


@pytest.mark.usefixtures("full_disk")
def test_computed_rows_that_find_no_room_are_an_error_that_names_the_folder() -> None:
    array = StreamedArray(COUNT, SHAPE, execution=Execution(memory=ImageCache(2 * ROW)))
    array.write(0, PIXELS[:2])
    with pytest.raises(DataError, match=r"no room for .* of temporary images .*set TMPDIR"):
        array.write(2, PIXELS[2:])


def test_computed_rows_are_kept_in_their_type() -> None:
    values = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    array = StreamedArray(5, (3,), dtype=np.float32, execution=Execution(memory=ImageCache(2 * 12)))
    array.write(0, values[:4])
    array.write(4, values[4:])
    assert array[:].dtype == np.float32
    assert np.array_equal(array[:], values)
    with pytest.raises(RuntimeError, match="row 0 of 2 was not computed"):
        StreamedArray(2, (3,))[0]


def test_hashes_are_those_of_the_rows_and_need_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_array, "_DISK_SHARE", 0)  # so that no row beyond the memory is kept
    source = Source()
    array = streamed(2, source)
    expected = hash_rows(PIXELS)
    assert np.array_equal(array.hashes(), expected)
    assert np.array_equal(array.take(np.array([7, 7, 3])).hashes(), expected[[7, 7, 3]])
    assert source.reads == Counter(range(COUNT))
    assert array.take(slice(0)).hashes().shape == (0,)


@pytest.mark.parametrize("size", [1, 5, 50])
def test_batches_are_all_rows_in_order(size: int) -> None:
    for images in (PIXELS, streamed(3, workers=2)):
        found = list(batches(images, size))
        assert [len(part) for part in found[:-1]] == [size] * (len(found) - 1)
        assert np.array_equal(np.concatenate(found), PIXELS)


def test_an_error_of_the_source_is_raised_from_threads_too() -> None:
    def fail(row: int) -> np.ndarray:
        raise DataError(f"row {row} is gone")

    array = StreamedArray(COUNT, SHAPE, fail, execution=Execution(workers=2))
    with pytest.raises(DataError, match="is gone"):
        next(batches(array, 4))


def test_a_pickled_array_reads_for_itself_and_computed_rows_cannot_be_pickled() -> None:
    array = streamed(2)
    array.hashes()
    copy = pickle.loads(pickle.dumps(array.take(np.array([3, 0])).with_cache(ImageCache(ROW))))
    assert np.array_equal(copy[:], PIXELS[[3, 0]])
    assert copy.cache.limit == ROW
    with pytest.raises(TypeError, match="computed"):
        pickle.dumps(StreamedArray(2, (3,)))


def test_memory_is_given_back_with_the_last_part() -> None:
    cache = ImageCache(COUNT * ROW)
    first = StreamedArray(COUNT, SHAPE, Source(), execution=Execution(memory=cache))
    first[:]
    part = first.take(np.array([1]))
    del first
    gc.collect()
    second = StreamedArray(COUNT, SHAPE, source := Source(), execution=Execution(memory=cache))
    assert np.array_equal(second[:], PIXELS)  # from the file: the part still holds the memory
    del part
    gc.collect()
    third = StreamedArray(COUNT, SHAPE, source, execution=Execution(memory=cache))
    third[:]
    assert len(third._rows.memory) == COUNT
    assert len(second._rows.memory) == 0
