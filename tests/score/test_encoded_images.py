"""Images that are kept as encoded bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dagaug.data.image_files import decode_bytes, encode
from dagaug.data.square_crops import letterboxed
from dagaug.score.encoded_images import ChosenImages, EncodedImages

PICTURES = [np.random.default_rng(row).integers(0, 256, (20 + row, 24, 3), np.uint8) for row in range(5)]


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_images_are_those_that_were_encoded_letterboxed_and_leave_no_file(tmp_path: Path, encoding: str) -> None:
    kept = EncodedImages(16, tmp_path)
    for picture in PICTURES:
        kept.append(encode(picture, encoding, 80))
    for row in (4, 0, 2):
        stored = PICTURES[row] if encoding == "png" else decode_bytes(encode(PICTURES[row], encoding, 80), "x")
        assert np.array_equal(kept(row), letterboxed(stored, 16))
    assert list(tmp_path.iterdir()) == []


def test_chosen_images_are_rows_of_the_set_that_is_named() -> None:
    first, second = np.zeros((3, 2, 2, 3), np.uint8), np.ones((3, 2, 2, 3), np.uint8)
    chosen = ChosenImages(first, second, np.array([False, True, False]))
    assert [int(chosen(row).max()) for row in range(3)] == [0, 1, 0]
