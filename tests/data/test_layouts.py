from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making_datasets import splits_of, touch, write_cub

from dagaug.data.layouts import read_dataset
from dagaug.runtime.errors import DataError, UsageError


def test_folders_that_hold_no_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: no such data folder; .*dagaug sample-data"):
        read_dataset(tmp_path / "gone")
    with pytest.raises(DataError, match="no images found"):
        read_dataset(tmp_path)
    touch(tmp_path, "a/1.png", "a/2.png", "b/readme.txt")
    with pytest.raises(DataError, match=r"all images are of one class \(a\)"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match="neither a data folder nor a CSV file"):
        read_dataset(tmp_path / "a" / "1.png")


def test_arguments_out_of_range_are_usage_errors(tmp_path: Path) -> None:
    write_cub(tmp_path)
    for options in ({"layout": "imagenet"}, {"test_fraction": 1.0}, {"seed": -1}, {"per_class": 0}):
        with pytest.raises(UsageError):
            read_dataset(tmp_path, **options)


def test_file_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    try:
        (tmp_path / os.fsdecode(b"a/\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    with pytest.raises(DataError, match="is not UTF-8; rename it"):
        read_dataset(tmp_path)


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    seed=st.integers(0, 2**63),
    fraction=st.floats(0.01, 0.99),
)
def test_drawn_splits_are_stratified_and_leave_a_training_image(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], seed: int, fraction: float
) -> None:
    table = tmp_path_factory.mktemp("drawn") / "list.csv"
    rows = [f"{label}-{number}.png,{label}" for label, count in enumerate(counts) for number in range(count)]
    table.write_text("\n".join(["path,label", *rows]))
    data = read_dataset(table, seed=seed, test_fraction=fraction)
    assert data == read_dataset(table, seed=seed, test_fraction=fraction)
    assert len(data.train) + len(data.test) == sum(counts)
    assert not {sample.path for sample in data.train} & {sample.path for sample in data.test}
    for label, count in enumerate(counts):
        tested = sum(sample.label == label for sample in data.test)
        assert tested < count
        assert abs(tested - count * fraction) <= 1
        assert tested >= 1 or count == 1


def test_the_seed_decides_the_drawn_split_and_other_classes_do_not(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{number}.png" for name in "bc" for number in range(20)))
    first = splits_of(read_dataset(tmp_path, seed=1))
    assert first != splits_of(read_dataset(tmp_path, seed=2))
    touch(tmp_path, *(f"a/{number}.png" for number in range(7)))
    assert first.items() <= splits_of(read_dataset(tmp_path, seed=1)).items()
