"""Marks of folders that dagaug wrote."""

from __future__ import annotations

from pathlib import Path

from dagaug.runtime.output_marks import is_output, mark_output


def test_a_marked_folder_is_told_apart(tmp_path: Path) -> None:
    assert not is_output(tmp_path)
    mark_output(tmp_path, "run")
    mark_output(tmp_path, "run")
    assert is_output(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".dagaug-run"]


def test_a_run_of_an_older_version_is_known_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "options.json").touch()
    assert not is_output(tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    assert is_output(tmp_path)


def test_folders_of_translated_images_may_be_data(tmp_path: Path) -> None:
    (tmp_path / ".dagaug-translate.json").touch()
    assert not is_output(tmp_path)
