"""Finding an object by colour, and filling its place."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from dagaug.data.grabcut_and_inpainting import backgrounds, fill_background, grabcut, grabcut_masks
from dagaug.data.image_files import decode
from dagaug.data.layouts import read_dataset
from dagaug.runtime.execution_settings import Execution

AIRCRAFT = Path(__file__).resolve().parents[3] / "shared" / "data" / "aircraft"


def disc(size: int, x: float, y: float, radius: float) -> np.ndarray:
    """A disc's mask; all in fractions of the side."""
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def painted(mask: np.ndarray, seed: int = 0) -> np.ndarray:
    """A noisy orange object before noisy blue-green."""
    colour = np.where(mask[..., None], (220, 120, 30), (40, 110, 120))
    noise = np.random.default_rng(seed).normal(0, 14, (*mask.shape, 3))
    return (colour + noise).clip(0, 255).astype(np.uint8)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.parametrize("size", [64, 160])
def test_a_coloured_disc_is_found_without_a_box(size: int) -> None:
    truth = disc(size, 0.55, 0.45, 0.27)
    found = grabcut(painted(truth), None)
    assert found.shape == (size, size)
    assert 0 <= found.min() <= found.max() <= 1
    assert iou(found > 0.5, truth) > 0.85


def test_the_box_selects_one_of_two_discs() -> None:
    left, right = disc(64, 0.27, 0.5, 0.17), disc(64, 0.73, 0.5, 0.17)
    found = grabcut(painted(left | right), (0.06, 0.28, 0.42, 0.44)) > 0.5
    assert iou(found, left) > 0.85
    assert not (found & right).any()


def test_specks_of_the_object_s_colour_are_dropped() -> None:
    truth = disc(64, 0.4, 0.5, 0.25)
    image = painted(truth | disc(64, 0.85, 0.15, 0.035))
    assert not (grabcut(image, None) > 0.5)[:20, 44:].any()


@pytest.mark.parametrize("box", [None, (0.25, 0.4, 0.6, 0.3)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_one_flat_colour_gives_the_ellipse_in_the_box(
    box: tuple[float, float, float, float] | None, value: int
) -> None:
    found = grabcut(np.full((64, 64, 3), value, np.uint8), box)
    x, y, width, height = box or (0.06, 0.06, 0.88, 0.88)
    rows, columns = (np.mgrid[:64, :64] + 0.5) / 64
    ellipse = ((columns - x - width / 2) / (width / 2)) ** 2 + ((rows - y - height / 2) / (height / 2)) ** 2 < 1
    assert found.mean() == pytest.approx(math.pi / 4 * width * height, rel=0.06)
    assert iou(found > 0.5, ellipse) > 0.93


@pytest.mark.parametrize(
    "box", [(-0.5, -0.2, 2.0, 1.5), (0.999, 0.999, 0.001, 0.001), (0.0, 0.0, 1.0, 1.0), (3.0, 3.0, 1.0, 1.0)]
)
def test_a_box_at_or_beyond_the_border_still_gives_a_mask(box: tuple[float, float, float, float]) -> None:
    found = grabcut(painted(disc(64, 0.5, 0.5, 0.3)), box)
    assert found.shape == (64, 64)
    assert np.isfinite(found).all()


def test_masks_that_a_cache_keeps_are_not_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.stack([painted(disc(32, 0.5, 0.5, 0.3), seed) for seed in range(3)])
    given = [None, np.full((32, 32), 9, np.uint8), None]
    execution = Execution(workers=2, cache=tmp_path)
    first = grabcut_masks(images, [None] * 3, given=given, execution=execution)
    np.testing.assert_array_equal(first, grabcut_masks(images, [None] * 3, given=given))
    monkeypatch.setattr("dagaug.data.grabcut_and_inpainting.grabcut", None)
    np.testing.assert_array_equal(first, grabcut_masks(images, [None] * 3, given=given, execution=execution))
    with pytest.raises(TypeError):
        grabcut_masks(images, [(0.1, 0.1, 0.8, 0.8)] * 3, given=given, execution=execution)


def test_the_same_image_has_the_same_mask_whatever_was_done_before() -> None:
    image = painted(disc(64, 0.5, 0.5, 0.3))
    first = grabcut(image, None)
    cv2.setRNGSeed(7)
    grabcut(painted(disc(64, 0.3, 0.5, 0.2), seed=3), None)
    assert np.array_equal(grabcut(image, None), first)


def test_many_masks_are_those_of_single_images_in_their_order_for_any_number_of_threads() -> None:
    truth = [disc(48, x, 0.5, 0.22) for x in (0.3, 0.4, 0.5, 0.6)]
    images = np.stack([painted(mask, seed) for seed, mask in enumerate(truth)])
    boxes = [None, (0.1, 0.2, 0.6, 0.6), None, None]
    one, three = (grabcut_masks(images, boxes, execution=Execution(workers=workers)) for workers in (1, 3))
    assert np.array_equal(one[:], three[:])
    for row, mask in enumerate(truth):
        assert np.array_equal(one[row], np.round(255 * grabcut(images[row], boxes[row])).astype(np.uint8))
        assert iou(one[row] > 127, mask) > 0.8


def test_given_masks_are_kept_and_the_others_found() -> None:
    truth = [disc(48, x, 0.5, 0.22) for x in (0.3, 0.6)]
    images = np.stack([painted(mask, seed) for seed, mask in enumerate(truth)])
    known = np.full((48, 48), 9, np.uint8)
    both = grabcut_masks(images, [None, None], given=[known, None])
    assert (both[0] == known).all()
    assert np.array_equal(both[1], grabcut_masks(images, [None, None])[1])


def test_filling_changes_the_hole_alone_and_the_hole_holds_the_object() -> None:
    truth = disc(64, 0.5, 0.5, 0.25)
    image = painted(truth)
    filled, hole = fill_background(image, truth.astype(np.float32))
    assert set(np.unique(hole)) == {0, 255}
    assert hole[truth].all()
    assert np.array_equal(filled[hole == 0], image[hole == 0])
    assert 0.2 < (hole > 0).mean() < 0.5  # π/4 · 0.5² and a rim of 4 pixels


def test_a_flat_background_is_filled_with_itself() -> None:
    truth = disc(64, 0.4, 0.6, 0.2)
    image = np.where(truth[..., None], np.array([250, 20, 20]), np.array([90, 140, 200])).astype(np.uint8)
    filled, _ = fill_background(image, truth.astype(np.float32))
    assert np.abs(filled.astype(int) - (90, 140, 200)).max() <= 6  # rounding, passed on from ring to ring


def test_without_an_object_nothing_is_filled() -> None:
    image = painted(disc(64, 0.5, 0.5, 0.3))
    filled, hole = fill_background(image, np.zeros((64, 64), np.float32))
    assert np.array_equal(filled, image)
    assert not hole.any()


def test_an_object_that_is_everywhere_leaves_its_mean_colour() -> None:
    image = np.full((32, 32, 3), (10, 20, 30), np.uint8)
    filled, hole = fill_background(image, np.ones((32, 32), np.float32))
    assert np.array_equal(filled, image)
    assert hole.all()


def test_many_backgrounds_are_those_of_single_images_in_their_order() -> None:
    truth = [disc(32, x, 0.5, 0.2) for x in (0.3, 0.5, 0.7)]
    images = np.stack([painted(mask, seed) for seed, mask in enumerate(truth)])
    masks = np.stack([255 * mask.astype(np.uint8) for mask in truth])
    behind = backgrounds(images, masks, execution=Execution(workers=2))
    for row in range(3):
        assert np.array_equal(behind[row], fill_background(images[row], truth[row].astype(np.float32))[0])


@pytest.mark.skipif(not AIRCRAFT.is_dir(), reason="needs the aircraft data beside the checkout")
def test_real_renderings_are_found_well_enough_to_learn_from() -> None:
    dataset = read_dataset(AIRCRAFT)
    boxes = {sample.path.as_posix(): sample.box for sample in dataset.samples}
    overlaps = []
    with (AIRCRAFT / "pairs.csv").open(encoding="utf-8", newline="") as stream:
        for row in list(csv.DictReader(stream))[:40]:
            image, truth = decode(AIRCRAFT / row["t"]), decode(AIRCRAFT / row["t_mask"])[..., 0] > 127
            x, y, width, height = boxes[row["t"]] or (0, 0, 64, 64)
            side = image.shape[0]
            found = grabcut(image, (x / side, y / side, width / side, height / side))
            overlaps.append(iou(found > 0.5, truth))
    assert len(overlaps) == 40
    assert np.mean(overlaps) > 0.65


def test_grey_images_are_refused() -> None:
    with pytest.raises(TypeCheckError):
        grabcut(np.zeros((64, 64), np.uint8), None)
