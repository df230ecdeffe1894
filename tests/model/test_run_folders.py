"""The newest finished run among the folders of runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dagaug.model.run_folders import MODEL_FILE, STATE_FILE, newest_run
from dagaug.runtime.errors import CheckpointError


def run(root: Path, name: str, file: str, time: int) -> Path:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).touch()
    os.utime(folder / file, (time, time))
    return folder


def test_the_newest_finished_run_is_found_by_time_and_not_by_name(tmp_path: Path) -> None:
    run(tmp_path, "zebra", MODEL_FILE, 100)
    newest = run(tmp_path, "ant", MODEL_FILE, 200)
    run(tmp_path, "unfinished", STATE_FILE, 300)
    assert newest_run(tmp_path) == newest


def test_an_unfinished_run_is_named_where_none_is_finished(tmp_path: Path) -> None:
    folder = run(tmp_path, "birds", STATE_FILE, 100)
    with pytest.raises(CheckpointError, match="not finished") as caught:
        newest_run(tmp_path)
    assert str(folder) in str(caught.value)


def test_without_any_run_the_next_step_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="dagaug train"):
        newest_run(tmp_path / "runs")
