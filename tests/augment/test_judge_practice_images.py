"""What judges learn from besides real images."""

import numpy as np
import pytest
import torch

from dagaug.augment.judge_practice_images import practice_images, warp_objects
from dagaug.classifiers.classifier import hash_images
from dagaug.classifiers.cross_fit import SyntheticImages, cross_fit
from dagaug.classifiers.fit import FitOptions
from dagaug.model.mode_translators import ReferenceTranslator
from dagaug.model.task_presets import AttentionSettings
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache


@pytest.fixture(scope="module")
def discs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eight images with a coloured disc on grey, their labels, and the discs' masks."""
    y, x = np.mgrid[:32, :32]
    mask = ((y - 15) ** 2 + (x - 15) ** 2 < 60).astype(np.float32)
    colours = np.array([[220, 30, 30], [30, 30, 220]] * 4)
    grey = np.linspace(60, 180, 8)[:, None, None, None]
    images = np.where(mask[None, ..., None] > 0, colours[:, None, None], grey).astype(np.uint8)
    return images, np.arange(8) % 2, np.broadcast_to(mask, (8, 32, 32)).copy()


def test_warped_objects_move_and_keep_their_colours(discs: tuple[np.ndarray, ...]) -> None:
    images, _, masks = discs
    seeds = [np.random.SeedSequence([1, row]) for row in range(8)]
    pixels, moved = warp_objects(images.astype(np.float32), masks, seeds)
    assert pixels.shape == images.shape
    assert moved.shape == masks.shape
    assert np.abs(moved - masks).mean() > 0.01
    inside = moved > 0.95
    for row in range(8):
        assert np.abs(pixels[row][inside[row]].mean(0) - images[row, 15, 15]).max() < 40
    again, _ = warp_objects(images.astype(np.float32), masks, seeds)
    np.testing.assert_array_equal(pixels, again)


def test_practice_shows_the_object_on_other_backgrounds(
    discs: tuple[np.ndarray, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels, masks = discs
    translator = ReferenceTranslator(AttentionSettings(2, 0.3, 20.0)).eval()
    whole = translator.dae.structure

    def knowing(x: torch.Tensor):  # type: ignore[no-untyped-def]
        structure, logits = whole(x)
        truth = torch.from_numpy(masks[: len(x)])[:, None]
        return type(structure)(structure.centres, structure.masks, truth, structure.keys, structure.features), logits

    monkeypatch.setattr(translator.dae, "structure", knowing)
    made = practice_images(translator, images, labels, seed=3)
    assert len(made.images) == 4 * len(images) == len(made.labels)
    rows, behind = made.made_from.T
    np.testing.assert_array_equal(made.labels, labels[rows])
    for image, row, back in zip(made.images, rows, behind, strict=True):
        near = np.abs(image.astype(int) - images[row, 15, 15]).max(-1) < 60
        assert near.sum() > 40, "the object is there"
        ground = np.abs(image.astype(int) - images[back, 0, 0]).max(-1) < 12
        assert ground.sum() > 300, "on the other image's background"
    again = practice_images(translator, images, labels, seed=3, execution=Execution(memory=ImageCache(40_000)))
    np.testing.assert_array_equal(made.images, again.images)
    other = practice_images(translator, images, labels, seed=4)
    assert (made.images[:] != other.images[:]).any()


def test_given_masks_are_what_is_cut_out(discs: tuple[np.ndarray, ...]) -> None:
    images, labels, masks = discs
    translator = ReferenceTranslator(AttentionSettings(2, 0.3, 20.0)).eval()
    given = [np.rint(255 * mask).astype(np.uint8) for mask in masks]
    made = practice_images(translator, images, labels, given=given, seed=3)
    for image, row in zip(made.images, made.made_from[:, 0], strict=True):
        assert (np.abs(image.astype(int) - images[row, 15, 15]).max(-1) < 60).sum() > 40


def test_the_number_of_images_that_are_cut_out_is_bounded(discs: tuple[np.ndarray, ...]) -> None:
    images, labels, _ = discs
    translator = ReferenceTranslator(AttentionSettings(2, 0.3, 20.0)).eval()
    made = practice_images(translator, images, labels, seed=0, max_images=3)
    assert len(made.images) == 12
    assert len(set(made.made_from[:, 0].tolist())) == 3
    assert set(made.made_from[:, 1].tolist()) <= set(made.made_from[:, 0].tolist())
    np.testing.assert_array_equal(made.labels, labels[made.made_from[:, 0]])


def test_a_judge_practises_on_nothing_of_what_it_is_to_judge(discs: tuple[np.ndarray, ...]) -> None:
    images, labels, _ = discs
    rows = np.arange(8)
    behind = (rows + 3) % 8
    made = SyntheticImages(255 - images, labels.astype(np.int64), np.stack([rows, behind], 1))
    options = FitOptions("plain", 32, 2, batch_size=4)
    fitted = cross_fit(images, labels, ["a", "b"], options, folds=2, seed=0, synthetic=lambda: made)
    hashes = hash_images(made.images)
    for fold, judge in enumerate(fitted.classifiers):
        held = fitted.fold_of == fold
        allowed = ~held[rows] & ~held[behind]
        assert set(hashes[np.isin(hashes, judge.trained_on)]) == set(hashes[allowed])
        assert allowed.any()


def test_the_cache_separates_practice_images_of_different_networks(discs: tuple[np.ndarray, ...], tmp_path) -> None:  # type: ignore[no-untyped-def]
    images, labels, masks = discs
    del masks
    calls = []

    def practice() -> SyntheticImages:
        calls.append(1)
        return SyntheticImages(images, labels.astype(np.int64), np.stack([np.arange(8)] * 2, 1))

    def fitted(name: str) -> str:
        options = FitOptions("plain", 32, 2, batch_size=4)
        return cross_fit(
            images, labels, ["a", "b"], options, folds=2, seed=0, cache=tmp_path / "judges", synthetic=practice,
            synthetic_identity=name,
        ).sha256()  # fmt: skip

    first = fitted("one")
    assert fitted("one") == first
    assert len(calls) == 1, "taken from the cache"
    fitted("two")
    assert len(calls) == 2
