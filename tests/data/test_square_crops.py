from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making_images import RGB

from dagaug.data.square_crops import Region, cut, cut_mask, paste, paste_mask, region_of
from dagaug.runtime.errors import UsageError


def square(left: float, top: float, side: float) -> Region:
    return Region(float(left), float(top), float(side))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, square(0, -15, 50)),
        ({"fit": "crop"}, square(15, 0, 20)),
        ({"box": (20.0, 5.0, 8.0, 4.0), "margin": 0.0}, square(20, 3, 8)),
        ({"box": (20.0, 5.0, 8.0, 4.0), "margin": 0.25}, square(18, 1, 12)),
        # Moved into the image rather than reaching over its edge.
        ({"box": (0.0, 0.0, 8.0, 4.0), "margin": 0.25}, square(0, 0, 12)),
        ({"box": (46.0, 14.0, 8.0, 9.0), "margin": 0.5}, square(38, 8, 12)),
        # Higher than the image: over both edges alike.
        ({"box": (10.0, 5.0, 30.0, 4.0), "margin": 0.0}, square(10, -5, 30)),
        # No part of the image: as if there were no box.
        ({"box": (60.0, 5.0, 8.0, 4.0)}, square(0, -15, 50)),
    ],
)
def test_region_is_the_expected_square(options: dict[str, object], expected: Region) -> None:
    assert region_of(20, 50, **options) == expected


@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    corner=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)),
    extent=st.tuples(st.floats(0.5, 300), st.floats(0.5, 300)),
    margin=st.floats(0, 2),
)
def test_region_holds_the_part_of_the_box_in_the_image(
    height: int, width: int, corner: tuple[float, float], extent: tuple[float, float], margin: float
) -> None:
    x, y = corner[0] * width, corner[1] * height
    region = region_of(height, width, box=(x, y, *extent), margin=margin)
    # Whole pixels: half a pixel of the box may be missing on each side.
    assert region.left <= x + 1
    assert region.top <= y + 1
    assert region.left + region.side >= min(width, x + extent[0]) - 1
    assert region.top + region.side >= min(height, y + extent[1]) - 1


def test_margins_and_fits_out_of_range_are_usage_errors() -> None:
    for options in ({"margin": -0.1}, {"margin": float("nan")}):
        with pytest.raises(UsageError):
            region_of(5, 5, **options)


def test_cut_takes_the_region() -> None:
    assert (cut(RGB, square(5, 3, 16), 16) == RGB[3:19, 5:21]).all()
    assert cut(RGB, square(0, -5, 40), 7).shape == (7, 7, 3)
    assert cut(RGB, square(7, 7, 0.2), 5).shape == (5, 5, 3)


def test_what_lies_outside_the_image_is_its_reflection() -> None:
    """The border pixel itself is not repeated: -1 shows 1, -2 shows 2."""
    reaching = cut(RGB, square(-4, -4, 16), 16)
    assert (reaching[4:, 4:] == RGB[:12, :12]).all()
    assert (reaching[:4, 4:] == RGB[4:0:-1, :12]).all()
    assert (reaching[4:, :4] == RGB[:12, 4:0:-1]).all()
    width = RGB.shape[1]
    beyond = cut(RGB, square(width - 12, 3, 16), 16)
    assert (beyond[:, 12:] == RGB[3:19, width - 2 : width - 6 : -1]).all()


def test_a_border_wider_than_the_image_is_reflected_again() -> None:
    image = np.arange(3, dtype=np.uint8)[None, :, None].repeat(16, 0).repeat(3, 2)
    row = cut(image, square(-6, 0, 16), 16)[8, :, 0]
    assert row.tolist() == [2, 1, 0, 1] * 4


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 50)])
@pytest.mark.parametrize("size", [7, 64])
def test_the_narrowest_strips_fill_their_squares(shape: tuple[int, int], size: int) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    assert (cut(image, region_of(*shape), size) == 77).all()


def test_a_region_outside_the_image_shows_its_border() -> None:
    assert (cut(RGB, square(500, 3, 16), 16) == RGB[3:19, -1:]).all()


def test_shrinking_averages_areas() -> None:
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2] = 200
    assert (cut(stripes, square(0, 0, 16), 8) == 100).all()


def test_mask_is_zero_beyond_the_image() -> None:
    mask = cut_mask(np.ones((10, 20), np.float32), square(0, -5, 20), 20)
    assert mask[5:15].min() == 1
    assert mask[:5].max() == mask[15:].max() == 0
    assert cut_mask(np.ones((10, 20), np.float32), square(500, 0, 20), 20).max() == 0


def test_mask_follows_the_crop_of_its_image() -> None:
    """The patch of a white object on black is its mask's patch; also where the square reaches outside."""
    mask = np.zeros((40, 60), np.float32)
    mask[14:26, 20:50] = 1
    image = (255 * mask).astype(np.uint8)[..., None].repeat(3, 2)
    for region, inside in ((square(12, 4, 32), slice(None)), (region_of(40, 60), slice(3, 13))):
        patch = cut(image, region, 16)[inside, :, 0] / 255
        assert np.abs(cut_mask(mask, region, 16)[inside] - patch).max() < 0.02


def test_mask_of_a_long_strip_needs_no_square_of_its_length() -> None:
    mask = np.ones((2, 100_000), np.float32)
    found = cut_mask(mask, region_of(*mask.shape), 32)
    assert found.sum() == pytest.approx(32, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(-60, 60), st.integers(-60, 60), st.integers(1, 60), st.integers(2, 24), st.integers(0, 99))
def test_paste_changes_no_pixel_whose_alpha_is_zero(left: int, top: int, side: int, size: int, seed: int) -> None:
    region = Region(float(left), float(top), float(side))
    random = np.random.default_rng(seed)
    patch = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
    frame = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    assert (paste(frame, patch, np.zeros((size, size), np.float32), region) == frame).all()
    inside = np.zeros((30, 40), bool)
    inside[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = True
    pasted = paste(frame, patch, np.ones((size, size), np.float32), region)
    assert (pasted[~inside] == frame[~inside]).all()


def test_paste_blends_by_alpha_and_leaves_the_frame_alone() -> None:
    frame, patch = np.full((8, 8, 3), 100, np.uint8), np.full((4, 4, 3), 200, np.uint8)
    alpha = np.full((4, 4), 0.25, np.float32)
    alpha[0, 0] = 0
    pasted = paste(frame, patch, alpha, square(2, 2, 4))
    assert pasted[3, 3].tolist() == [125] * 3
    assert pasted[2, 2].tolist() == [100] * 3
    assert (frame == 100).all()


@pytest.mark.parametrize("region", [square(5, 3, 16), square(-6, -3, 20), square(30, 20, 20), square(0, -5, 40)])
def test_cut_then_paste_restores_the_image(region: Region) -> None:
    side = int(region.side)
    ones = np.ones((side, side), np.float32)
    assert (paste(RGB, cut(RGB, region, side), ones, region) == RGB).all()
    larger = paste(RGB, cut(RGB, region, 2 * side), np.ones((2 * side, 2 * side), np.float32), region)
    assert np.abs(larger.astype(int) - RGB).max() <= 3


@pytest.mark.parametrize("region", [square(5, 3, 16), square(-4, -6, 40), square(90, 90, 10)])
def test_a_pasted_mask_lies_where_the_patch_is_pasted(region: Region) -> None:
    """Opaque pixels of a white patch on black are the pixels of its mask."""
    chance = np.random.default_rng(0)
    opacity = np.where(chance.random((16, 16)) < 0.5, 255, 0).astype(np.uint8)
    black, white = np.zeros((24, 30, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    pasted = paste(black, white, opacity.astype(np.float32) / 255, region)[..., 0]
    mask = paste_mask(24, 30, opacity, region)
    np.testing.assert_allclose(mask, pasted, atol=1)


def test_cutting_a_pasted_mask_gives_it_back() -> None:
    opacity = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(
        cut_mask(paste_mask(24, 30, opacity, square(5, 3, 16)), square(5, 3, 16), 16), opacity
    )
