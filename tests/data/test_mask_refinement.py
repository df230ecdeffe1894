"""Masks from coarse probabilities, and colours spread from the object."""

from __future__ import annotations

import numpy as np

from dagaug.data.mask_refinement import refine_mask, spread_object

SIDE = 64


def disc(radius: float) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2 + 0.5
    return (x**2 + y**2 < radius**2).astype(np.float32)


def photograph(mask: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    image = np.where(mask[..., None] > 0.5, (200, 60, 40), (40, 90, 160)) + rng.normal(0, 8, (SIDE, SIDE, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def test_the_edge_of_a_coarse_mask_moves_to_the_edge_of_the_object() -> None:
    truth = disc(20)
    coarse = disc(18).reshape(8, 8, 8, 8).mean((1, 3)) * 0.4 + 0.4
    mask = refine_mask(photograph(truth), coarse) > 0.5
    overlap = (mask & (truth > 0.5)).sum() / (mask | (truth > 0.5)).sum()
    assert overlap > 0.95


def test_without_an_object_the_mask_is_empty_and_without_background_full() -> None:
    assert not refine_mask(photograph(disc(20)), np.full((8, 8), 0.05)).any()
    assert (refine_mask(photograph(disc(20)), np.full((8, 8), 0.95)) == 1).all()


def test_no_object_reaches_out_of_its_box() -> None:
    mask = refine_mask(photograph(disc(20)), np.full((8, 8), 0.95), (0.25, 0.25, 0.5, 0.25))
    assert mask[20:30, 20:44].all()
    assert not mask[:, :14].any()
    assert not mask[34:].any()


def test_spread_colours_are_the_object_s_everywhere() -> None:
    truth = disc(20)
    spread = spread_object(photograph(truth).astype(np.float32), truth)
    assert spread[..., 0].min() > 150
    inner = disc(17) > 0.5
    assert np.array_equal(spread[inner], photograph(truth)[inner].astype(np.float32))


def test_an_empty_mask_spreads_nothing() -> None:
    image = photograph(disc(20)).astype(np.float32)
    assert np.array_equal(spread_object(image, np.zeros((SIDE, SIDE), np.float32)), image)
