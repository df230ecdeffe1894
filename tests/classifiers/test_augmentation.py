"""Augmentation of training images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from making_classifiers import coloured

from dagaug.classifiers.augmentation import BATCH_MIXING, Augment, Mixing, augment_images, cutmix, mixup


def test_no_augmentation_leaves_images_as_they_are() -> None:
    images, _ = coloured(3)
    np.testing.assert_array_equal(augment_images(images, "none", [0, 1, 2]), images)


@pytest.mark.parametrize("augment", ["standard", "crop"])
def test_each_copy_depends_on_its_image_and_seed_alone(augment: Augment) -> None:
    images, _ = coloured(4)
    whole = augment_images(images, augment, [5, 6, 7, 8])
    assert (whole != images).any((1, 2, 3)).all()
    np.testing.assert_array_equal(augment_images(images[2:], augment, [7, 8]), whole[2:])
    assert (augment_images(images, augment, [15, 16, 17, 18]) != whole).any()


@pytest.mark.parametrize("mixing", sorted(BATCH_MIXING))
def test_mixed_targets_are_probabilities_and_mix_each_image_with_its_opposite(mixing: Mixing) -> None:
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    targets = torch.eye(4)
    for seed in range(8):
        mixed, probabilities = BATCH_MIXING[mixing](images, targets, np.random.default_rng(seed))
        torch.testing.assert_close(probabilities.sum(1), torch.ones(4))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), (probabilities * torch.arange(4.0)).sum(1))


def test_mixup_blends_whole_images_and_cutmix_moves_rectangles_of_pixels() -> None:
    images = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    for seed in range(8):
        blended, _ = mixup(images, torch.eye(2), np.random.default_rng(seed))
        assert all(len(image.unique()) == 1 for image in blended)
        moved, shares = cutmix(images, torch.eye(2), np.random.default_rng(seed))
        assert set(moved.unique().tolist()) <= {0.0, 1.0}
        rows, columns = (moved[0, 0] > 0).any(1).sum(), (moved[0, 0] > 0).any(0).sum()
        assert moved[0, 0].sum() == rows * columns  # a rectangle
        assert shares[0, 1].item() == pytest.approx(moved[0].mean().item())


def test_trivialaugment_changes_one_thing_and_depends_on_the_seed_alone() -> None:
    images, _ = coloured(6)
    seeds = list(range(6))
    state = torch.get_rng_state()
    changed = augment_images(images, "none", seeds, trivialaugment=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert changed.shape == images.shape
    assert (changed != images).any()
    torch.manual_seed(7)
    np.testing.assert_array_equal(augment_images(images, "none", seeds, trivialaugment=True), changed)
    np.testing.assert_array_equal(augment_images(images[2:], "none", seeds[2:], trivialaugment=True), changed[2:])
