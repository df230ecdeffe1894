from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from making_runs import Listener

from dagaug.runtime import image_cache
from dagaug.runtime.errors import UsageError
from dagaug.runtime.image_cache import ImageCache, Lease, parse_size, scratch_folder


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("2GB", 2 * 10**9), ("1.5 gb", 15 * 10**8), ("300M", 3 * 10**8), ("4KiB", 4096), ("1Ti", 1 << 40)],
)
def test_sizes_have_decimal_or_binary_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "2", "GB", "-1GB", "1e3MB", "2 GBit", "2GB4", "nan"])
def test_what_is_no_size_is_an_error_that_names_the_option(text: str) -> None:
    with pytest.raises(UsageError, match="a number with MB or GB, for example 2GB") as error:
        parse_size(text)
    assert (error.value.option, error.value.value) == ("cache", text)


def test_default_is_half_of_the_memory_that_system_and_control_group_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ImageCache().limit
    assert whole > 0
    group = tmp_path / "memory.max"
    monkeypatch.setattr(image_cache, "_GROUP_LIMITS", (str(group), str(tmp_path / "missing")))
    group.write_text("1000\n")
    assert ImageCache().limit == 500
    group.write_text("max\n")
    assert ImageCache().limit > 500


def test_sets_of_images_share_the_limit_and_give_back_what_they_took() -> None:
    cache = ImageCache(100)
    first, second = Lease(cache, 5, 16), Lease(cache, 5, 16)
    assert (first.take(), second.take()) == (5, 1)
    first.release()
    first.release()
    assert Lease(cache, 9, 16).take() == 5
    second.release()


def test_the_limit_is_told_once_and_only_if_it_does_not_hold_all() -> None:
    cache, heard = ImageCache(10**9), Listener()
    small = Lease(cache, 10, 10**8)
    cache.tell(heard)
    assert heard.lines == []
    Lease(cache, 20, 10**8)
    cache.tell(heard)
    cache.tell(heard)
    assert len(heard.lines) == 1
    assert "up to 3.0 GB: 1.0 GB are kept in memory" in heard.lines[0]
    assert str(scratch_folder()) in heard.lines[0]
    small.release()


def test_temporary_files_go_where_tmpdir_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert scratch_folder() == tmp_path
    monkeypatch.delenv("TMPDIR")
    assert scratch_folder() != tmp_path


def test_a_copy_in_another_process_has_the_limit_and_nothing_taken() -> None:
    cache = ImageCache(64)
    Lease(cache, 4, 16).take()
    copy = pickle.loads(pickle.dumps(cache))
    assert (copy.limit, Lease(copy, 4, 16).take()) == (64, 4)
    assert cache.divided(3).limit == 21
