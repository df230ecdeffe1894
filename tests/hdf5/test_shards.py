"""Shards: write errors and content that does not fit."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from making_stores import shard

from dagaug.hdf5.schema import Candidates
from dagaug.hdf5.shards import ShardContent, write_shard

LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from dagaug.runtime.errors import StoreError
from dagaug.hdf5.shards import write_shard
from making_stores import shard

for limit in (10, 3000, 6000, 9000, 1 << 20):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_shard(Path(sys.argv[2]), 1, shard(1))
        print("written")
    except StoreError as error:
        print(error)
"""


def test_every_write_error_of_the_hdf5_library_is_reported_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(Path(__file__).parents[1] / "support"), str(tmp_path)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    lines = result.stdout.splitlines()
    assert result.returncode == 0, result.stderr
    assert len(lines) == 5
    assert all("index-00001.h5: cannot be written (" in line for line in lines[:3])
    assert lines[-1] == "written"
    assert [path.name for path in tmp_path.iterdir()] == ["index-00001.h5"]


def test_inconsistent_content_is_refused(tmp_path: Path) -> None:
    good = shard(1)
    rows = len(good.encoded)

    def with_images(**columns: np.ndarray) -> ShardContent:
        return dataclasses.replace(good, images=dataclasses.replace(good.images, **columns))

    for content, message in (
        (dataclasses.replace(good, encoded=good.encoded[1:]), "images/height has shape"),
        (dataclasses.replace(good, encoded=[b"", *good.encoded[1:]]), "image 0 of the shard has no bytes"),
        (with_images(label=np.full(rows, 1 << 40)), "images/label has values that int32 cannot hold"),
        (with_images(variant=np.full(rows, -1)), "images/variant has values that uint8 cannot hold"),
        (with_images(candidate=np.arange(rows)), "disagree"),
        (dataclasses.replace(good, candidates=Candidates.none()), "disagree"),
    ):
        with pytest.raises(ValueError, match=message):
            write_shard(tmp_path, 0, content)
    assert list(tmp_path.iterdir()) == []
