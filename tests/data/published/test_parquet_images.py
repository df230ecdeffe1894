from __future__ import annotations

import sys
from pathlib import Path

import pytest
from making_published import write_parquet

from dagaug.data.layouts import read_dataset
from dagaug.data.published.parquet_images import EXTRACTED
from dagaug.runtime.errors import DataError


def test_images_are_extracted_once_and_then_read_without_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    data = read_dataset(write_parquet(tmp_path / "data"))
    assert (data.layout, data.classes, len(data.train), len(data.test)) == ("huggingface", ("cat", "dog"), 6, 2)
    assert f"images extracted to {tmp_path / 'data' / EXTRACTED}" in data.describe()
    assert all(data.file(sample).is_file() for sample in data.samples)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert read_dataset(tmp_path / "data") == data
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"data", EXTRACTED}


def test_changed_files_are_extracted_again(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    read_dataset(write_parquet(tmp_path))
    file = tmp_path / "data" / "train-00000-of-00001.parquet"
    parquet.write_table(parquet.read_table(file).slice(1), file)
    assert len(read_dataset(tmp_path).train) == 5


def test_a_missing_pyarrow_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"train-.*: Parquet files need pyarrow: pip install 'dagaug\[parquet\]'"):
        read_dataset(tmp_path)


def test_a_damaged_file_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    file = tmp_path / "train-00000-of-00001.parquet"
    file.write_bytes(b"PAR1 damaged PAR1")
    with pytest.raises(DataError, match=f"{file.name}: not a readable Parquet file"):
        read_dataset(tmp_path)
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_of_the_same_name_that_is_not_ours_is_kept(tmp_path: Path) -> None:
    (tmp_path / EXTRACTED).mkdir()
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="rename this folder"):
        read_dataset(tmp_path)
    assert (tmp_path / EXTRACTED).is_dir()
