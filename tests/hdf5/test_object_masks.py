"""Run-length encoding of masks: exact, COCO's own, and safe against malformed bytes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagaug.hdf5.object_masks import Objects, box_of_mask, decode_mask, encode_mask


def masks() -> list[np.ndarray]:
    """Blobs, noise, empty and full masks, and a large one whose runs need many characters."""
    chance = np.random.default_rng(0)
    found = [np.zeros((3, 5), bool), np.ones((3, 5), bool), np.ones((1, 1), bool), np.eye(4, dtype=bool)]
    for _ in range(200):
        height, width = chance.integers(1, 60, 2)
        noise = chance.random((height, width))
        found += [noise > chance.random(), cv2.GaussianBlur(noise, (0, 0), 3) > 0.5]
    found.append(np.zeros((3000, 3000), bool))
    found[-1][1500:, 2999] = True
    return found


def test_decoding_gives_the_mask_that_was_encoded() -> None:
    for mask in masks():
        np.testing.assert_array_equal(decode_mask(encode_mask(mask), *mask.shape), mask)


def test_it_is_the_encoding_of_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    for mask in masks():
        expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert encode_mask(mask) == expected["counts"]
        if mask.any():
            assert box_of_mask(mask) == tuple(coco.toBbox(expected))


def test_a_known_example_is_written_as_documented() -> None:
    """Runs 1, 2, 3, 3 of a mask of 3 × 3 pixels, by columns; the fourth number is 3 - 2 = 1."""
    mask = np.array([[0, 0, 1], [1, 0, 1], [1, 0, 1]], bool)
    assert encode_mask(mask) == b"1231"


@given(st.binary(max_size=12) | st.text("0123456789:;<=>?@OPQRSTUVWXYZ[_`no", max_size=12).map(str.encode))
@settings(max_examples=300)
def test_malformed_bytes_are_refused_or_are_a_mask_of_the_size(data: bytes) -> None:
    try:
        mask = decode_mask(data, 4, 3)
    except ValueError:
        return
    assert mask.shape == (4, 3)


def test_the_box_is_the_smallest_one_around_the_mask() -> None:
    mask = np.zeros((6, 8), bool)
    assert box_of_mask(mask) is None
    mask[2, 3] = mask[4, 5] = True
    assert box_of_mask(mask) == (3, 2, 3, 3)


def test_unknown_objects_have_neither_box_nor_mask() -> None:
    unknown = Objects.unknown(2)
    assert len(unknown) == 2
    assert np.isnan(unknown.box).all()
    assert list(unknown.masks) == [b"", b""]
