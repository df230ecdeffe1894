from __future__ import annotations

from pathlib import Path

import pytest
from making_datasets import touch

from dagaug.data.domains_layout import read_domains
from dagaug.runtime.errors import DataError


def test_two_domains_in_one_folder_or_two(tmp_path: Path) -> None:
    touch(tmp_path, "trainA/2.png", "trainA/1.png", "trainB/x.jpg", "testA/t.png")
    domains = read_domains(tmp_path)
    assert [path.name for path in domains.source] == ["1.png", "2.png"]
    assert domains.target == (tmp_path / "trainB" / "x.jpg",)
    assert domains.source_test == (tmp_path / "testA" / "t.png",)
    assert domains.target_test == ()
    assert read_domains(tmp_path / "trainA", tmp_path / "trainB").source == domains.source
    touch(tmp_path, "plain/A/1.png", "plain/B/deep/2.png")
    assert read_domains(tmp_path / "plain").target == (tmp_path / "plain" / "B" / "deep" / "2.png",)


def test_folders_that_are_no_domains_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "A/1.png", "C/readme.txt")
    for source, target, message in (
        (tmp_path, None, "not two domains"),
        (tmp_path / "gone", None, "no such data folder"),
        (tmp_path / "A", tmp_path / "C", "C: no images found"),
        (tmp_path / "A", tmp_path / "gone", "gone: no such folder"),
    ):
        with pytest.raises(DataError, match=message):
            read_domains(source, target)
