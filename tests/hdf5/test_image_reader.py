"""Images that do not match their declared size are refused before decoding."""

from __future__ import annotations

from pathlib import Path

import pytest
from altered_files import altered, with_value
from making_stores import (
    header,
    shard,
)

from dagaug.hdf5.reader import Store
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import ShardContent
from dagaug.runtime.errors import StoreError


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_an_image_of_another_size_than_declared_is_never_decoded(
    files: dict[str, Path], tmp_path: Path, encoding: str
) -> None:
    path = altered(files[encoding], tmp_path / "x.h5", with_value("images/width", 2, 9000))
    with (
        Store(path) as store,
        pytest.raises(StoreError, match=f"image 2 is not a {encoding} of 9000 × 14 pixels"),
    ):
        store.image(2)


def test_a_png_chunk_that_declares_more_than_there_is_is_never_decoded(tmp_path: Path) -> None:
    content = shard(0)
    start = content.encoded[0].index(b"IDAT") - 4
    hostile = content.encoded[0][:start] + b"\xff" * 4 + content.encoded[0][start + 4 :]
    with open_shard_folder(tmp_path / "x.h5", {}) as run:
        run.write(0, ShardContent([hostile, *content.encoded[1:]], content.images))
        run.merge(header(), 1)
    with (
        Store(tmp_path / "x.h5") as store,
        pytest.raises(StoreError, match="image 0 is not a png"),
    ):
        store.image(0)
