"""Pairs of a step: sources and references, recognised by flat colours that no warp changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.nn import functional as F

from dagaug.model.known_warps import identity_grid, sample
from dagaug.training.pairs import (
    ExactPairs,
    PairBatch,
    PairSampler,
    TrainingData,
    folded_pairs,
    step_generator,
    warped_pairs,
)

SIZE = 32
LABELS = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
BEHIND = 100  # what the backgrounds' colours have more than their images'


def data(labels: list[int] = LABELS) -> TrainingData:
    """Image i is of the flat colour 5 i, its background of 5 i + 100, its object a disc."""
    count = len(labels)
    colour = 5 * np.arange(count, dtype=np.uint8)[:, None, None, None]
    images = np.broadcast_to(colour, (count, SIZE, SIZE, 3)).copy()
    disc = (identity_grid(SIZE).square().sum(-1) < 0.25).numpy()
    masks = np.broadcast_to(255 * disc.astype(np.uint8), (count, SIZE, SIZE)).copy()
    return TrainingData.of(images, images + BEHIND, masks, np.array(labels))


def numbers(images: Tensor) -> list[int]:
    """Which images these are, by the colour of their middle."""
    colours = (images.mean((1, 2, 3)) + 1) * 127.5
    return (colours / 5).round().int().tolist()


def batch(step: int = 0, size: int = 32, seed: int = 0, **options: bool) -> PairBatch:
    return PairSampler(data(), seed).batch(step, size, **options)


def same(first: PairBatch, second: PairBatch) -> bool:
    mine, yours = ([part for part in made if isinstance(part, Tensor)] for made in (first, second))
    return all(torch.equal(a, b) for a, b in zip(mine, yours, strict=True))


def test_arrays_become_channels_first_and_keep_their_pixels() -> None:
    rng = np.random.default_rng(0)
    images, behind = rng.integers(0, 256, (2, 3, SIZE, SIZE, 3), dtype=np.uint8)
    masks = rng.integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)
    held = TrainingData.of(images, behind, masks, np.array([0, 1, 1]))
    rows = held.rows(torch.tensor([1, 2, 0]))
    assert rows.images[0, 2, 3, 4] == images[1, 3, 4, 2]
    assert rows.backgrounds[1, 0, 5, 6] == behind[2, 5, 6, 0]
    assert rows.masks[2, 0, 7, 8] == masks[0, 7, 8]
    assert all(pixels.is_contiguous() for pixels in rows)
    assert held.labels.tolist() == [0, 1, 1]


def test_the_shares_of_the_three_kinds_fill_the_batch() -> None:
    made = batch(size=32)  # 0.375 and 0.3125 of 32
    assert (made.class_pairs, made.exact_pairs) == (12, 10)
    assert [len(made.source[part]) for part in (made.known, made.exact, made.cross)] == [22, 10, 10]
    assert len(made.grid) == 10


def test_class_pairs_are_two_images_of_one_class() -> None:
    for step in range(5):
        made = batch(step)
        part = slice(0, made.class_pairs)
        assert torch.equal(made.source_label[part], made.reference_label[part])
        sources, references = numbers(made.source[part]), numbers(made.reference[part])
        assert all(a != b for a, b in zip(sources, references, strict=True))
        assert all(LABELS[a] == LABELS[b] for a, b in zip(sources, references, strict=True))


def test_cross_pairs_are_of_two_classes() -> None:
    for step in range(5):
        made = batch(step)
        sources, references = numbers(made.source[made.cross]), numbers(made.reference[made.cross])
        assert all(LABELS[a] != LABELS[b] for a, b in zip(sources, references, strict=True))
        assert [LABELS[a] for a in sources] == made.source_label[made.cross].tolist()
        assert [LABELS[b] for b in references] == made.reference_label[made.cross].tolist()


def test_an_exact_pair_shows_the_source_on_another_image_s_background() -> None:
    made = batch(only_exact=True)
    colours = (made.reference + 1) * 127.5
    own = (made.source[:, :1, :1, :1] + 1) * 127.5
    behind = (made.background[:, :1, :1, :1] + 1) * 127.5
    inside, outside = made.reference_mask.expand_as(colours) > 0.999, made.reference_mask.expand_as(colours) < 1e-3
    torch.testing.assert_close(colours[inside], own.expand_as(colours)[inside], atol=0.3, rtol=0)
    torch.testing.assert_close(colours[outside], behind.expand_as(colours)[outside], atol=0.2, rtol=0)
    assert torch.equal(made.source_label, made.reference_label)
    assert ((behind - BEHIND - own).abs() > 1).all()  # never its own background


def test_only_exact_makes_all_pairs_exact() -> None:
    made = batch(size=9, only_exact=True)
    assert (made.class_pairs, made.exact_pairs, len(made.grid)) == (0, 9, 9)
    assert len(made.source[made.cross]) == 0


def test_the_same_step_gives_the_same_batch_and_another_step_another() -> None:
    assert same(batch(7), batch(7))
    assert not same(batch(7), batch(8))
    assert not same(batch(7, seed=0), batch(7, seed=1))


def test_a_step_does_not_depend_on_the_steps_before_it() -> None:
    """What exact resuming rests on."""
    sampler = PairSampler(data(), 0)
    for step in range(3):
        sampler.batch(step, 8)
    assert same(sampler.batch(3, 8), PairSampler(data(), 0).batch(3, 8))


def test_all_images_have_their_turn() -> None:
    pairs = [batch(step) for step in range(20)]
    seen = [number for made in pairs for number in numbers(made.source[made.cross])]
    assert set(seen) == set(range(len(LABELS)))


def test_an_image_that_is_alone_in_its_class_is_in_no_class_pair() -> None:
    pairs = [batch(step) for step in range(10)]
    assert all(9 not in numbers(made.source[: made.class_pairs]) for made in pairs)


def test_where_every_class_has_one_image_there_are_no_class_pairs() -> None:
    made = PairSampler(data([0, 1, 2, 3]), 0).batch(0, 16)
    assert (made.class_pairs, made.exact_pairs) == (0, 5)
    assert len(made.source[made.cross]) == 11


def test_images_and_masks_stay_in_their_ranges() -> None:
    made = batch()
    for images in (made.source, made.reference, made.background):
        assert images.abs().max() <= 1 + 1e-5
    for masks in (made.source_mask, made.reference_mask):
        assert masks.min() >= 0
        assert masks.max() <= 1 + 1e-5


# ---- exact references


def discs(count: int) -> Tensor:
    return (identity_grid(SIZE).square().sum(-1) < 0.3).float().expand(count, 1, SIZE, SIZE)


def places(count: int) -> Tensor:
    """Images whose red and green are x and y, so that each pixel says where it came from."""
    images = torch.zeros(count, 3, SIZE, SIZE)
    images[:, :2] = identity_grid(SIZE).permute(2, 0, 1)
    return images


def test_inside_its_mask_a_warped_reference_shows_what_the_grid_names() -> None:
    made = warped_pairs(
        places(6), discs(6), torch.full((6, 3, SIZE, SIZE), -1.0), generator=torch.Generator().manual_seed(0)
    )
    inside = made.reference_mask[:, 0] > 0.999
    assert inside.flatten(1).sum(1).min() > 20
    torch.testing.assert_close(
        made.reference[:, :2].permute(0, 2, 3, 1)[inside], made.grid[inside], atol=2e-3, rtol=0
    )  # 2 (1 - 0.999)
    assert torch.equal(made.seen, made.reference_mask)


def test_a_warped_reference_s_mask_is_where_the_grid_meets_the_object() -> None:
    made_from = discs(6)
    zero = torch.zeros(6, 3, SIZE, SIZE)
    made = warped_pairs(zero, made_from, zero, generator=torch.Generator().manual_seed(1))
    radius = made.grid.norm(dim=-1)
    surely_in, surely_out = radius < 0.3**0.5 - 0.1, radius > 0.3**0.5 + 0.1  # a pixel's diagonal is 0.09
    assert (made.reference_mask[:, 0][surely_in] > 0.999).all()
    assert (made.reference_mask[:, 0][surely_out] < 1e-3).all()


def folded(count: int, seed: int) -> ExactPairs:
    return folded_pairs(
        places(count), discs(count), torch.full((count, 3, SIZE, SIZE), -1.0), torch.ones(count, 3, SIZE, SIZE),
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip


def test_visible_parts_of_a_folded_reference_come_from_the_grid_position_in_the_source() -> None:
    made = folded(64, 3)
    shown = sample(made.source, made.grid)
    away_from_edges = -F.max_pool2d(-made.seen, 5, 1, 2) > 0.99
    wrong = (shown - made.reference).abs()[:, :2].amax(1, keepdim=True)[away_from_edges]
    assert len(wrong) > 1_000
    assert (wrong < 0.03).float().mean() > 0.9  # the rest is the limb's own soft edge, less at a larger SIZE


def test_a_fold_moves_a_part_and_hides_another() -> None:
    made = folded(64, 4)
    forward, back = slice(0, None, 2), slice(1, None, 2)
    torch.testing.assert_close(made.seen[forward], made.reference_mask[forward])
    hidden = (made.reference_mask - made.seen)[back].flatten(1).sum(1)
    assert (hidden > 2).float().mean() > 0.5  # pixels of the body that the limb covered
    assert torch.equal(made.source[forward], places(32))
    assert ((made.source[back] - places(32)).abs().amax((1, 2, 3)) > 0.2).all()


@pytest.mark.parametrize("fold", [False, True])
def test_outside_its_mask_an_exact_reference_is_the_background(fold: bool) -> None:
    source, background = torch.rand(4, 3, SIZE, SIZE), torch.rand(4, 3, SIZE, SIZE)
    generator = torch.Generator().manual_seed(2)
    if fold:
        made = folded_pairs(source, discs(4), background, background, generator=generator)
    else:
        made = warped_pairs(source, discs(4), background, generator=generator)
    nothing = (made.reference_mask == 0).expand_as(made.reference)
    assert nothing.float().mean() > 0.3
    assert torch.equal(made.reference[nothing], background[nothing])


def test_a_flipped_view_flips_image_mask_and_background_alike() -> None:
    """One warp for all three: where the image is bright, its mask is, and its background is dark."""
    disc = (discs(1)[0, 0] * 255).byte().numpy()
    shifted = np.roll(disc, 6, axis=1)
    images = np.repeat(shifted[None, :, :, None], 3, axis=-1)
    held = TrainingData.of(
        np.repeat(images, 4, 0), 255 - np.repeat(images, 4, 0), np.repeat(shifted[None], 4, 0), np.array([0, 0, 1, 1])
    )
    made = PairSampler(held, 0).batch(0, 16)
    rest = slice(made.class_pairs + made.exact_pairs, None)
    brightness = (made.reference[rest, :1] + 1) / 2
    torch.testing.assert_close(brightness, made.reference_mask[rest], atol=1e-4, rtol=0)
    torch.testing.assert_close(made.background[rest], -made.reference[rest], atol=1e-4, rtol=0)
    centroids = (made.source_mask * identity_grid(SIZE)[..., 0]).sum((1, 2, 3)) / made.source_mask.sum((1, 2, 3))
    assert centroids.std() > 0.05  # the views do differ


# ---- random numbers


def draw(*key: int) -> list[float]:
    return torch.rand(4, generator=step_generator(*key)).tolist()


def test_seed_step_and_stream_each_name_other_random_numbers() -> None:
    draws = [draw(*key) for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1))]
    assert len({tuple(numbers) for numbers in draws}) == len(draws)
    assert draw(3, 4) == draw(3, 4, 0)


def test_masks_of_another_size_are_refused() -> None:
    zero = torch.zeros(1, 3, SIZE, SIZE)
    with pytest.raises(TypeCheckError):
        warped_pairs(zero, torch.zeros(1, 1, 8, 8), zero)
