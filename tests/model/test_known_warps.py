"""Warps: grids by hand, what they do to pixels, and that only shape survives the jitter."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from dagaug.model.known_warps import augment_for_discriminator, identity_grid, jitter_colours, random_warp, sample

SIZE = 32


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int = 4, size: int = SIZE) -> Tensor:
    return 2 * torch.rand(count, 3, size, size, generator=seeded(99)) - 1


def disc(count: int, x: float, y: float, radius: float = 0.4) -> Tensor:
    """Masks of a disc; x and y in [-1, 1]."""
    offset = identity_grid(SIZE) - torch.tensor([x, y])
    return (offset.square().sum(-1) < radius**2).float().expand(count, 1, SIZE, SIZE)


def test_identity_grid_lists_pixel_centres_x_first() -> None:
    grid = identity_grid(2)  # pixels are 1 wide in [-1, 1], so their centres are at ±0.5
    assert grid.tolist() == [[[-0.5, -0.5], [0.5, -0.5]], [[-0.5, 0.5], [0.5, 0.5]]]


def test_sampling_at_the_identity_returns_the_image() -> None:
    images = random_images()
    torch.testing.assert_close(sample(images, identity_grid(SIZE).expand(4, -1, -1, -1)), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, 5), (2, 7)])
def test_sampling_a_shifted_grid_moves_whole_pixels(right: int, down: int) -> None:
    """A grid that looks k pixels to the right shows at x what was at x + k."""
    images = random_images()
    grid = identity_grid(SIZE) + torch.tensor([right, down]) * 2 / SIZE
    moved = sample(images, grid.expand(4, -1, -1, -1))
    seen = images[:, :, down:, right:]
    torch.testing.assert_close(moved[:, :, : SIZE - down, : SIZE - right], seen, atol=1e-5, rtol=0)


def test_sampling_a_negated_grid_turns_the_image_by_half() -> None:
    images = random_images()
    turned = sample(images, -identity_grid(SIZE).expand(4, -1, -1, -1))
    torch.testing.assert_close(turned, images.flip(-1, -2), atol=1e-5, rtol=0)


def test_outside_is_the_border_or_nothing() -> None:
    images = torch.full((1, 1, 4, 4), 0.7)
    far = torch.full((1, 1, 1, 2), 5.0)
    assert sample(images, far).item() == pytest.approx(0.7)
    assert sample(images, far, padding="zeros").item() == 0


def test_a_warp_is_determined_by_its_generator() -> None:
    masks = disc(3, 0.1, -0.2)
    first, again, other = (random_warp(masks, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first - other).abs().amax(dim=(1, 2, 3)).min() > 0.05


def test_the_objects_of_a_batch_are_warped_differently() -> None:
    grids = random_warp(disc(2, 0, 0), generator=seeded())
    assert (grids[0] - grids[1]).abs().max() > 0.05


@pytest.mark.parametrize("articulated", [False, True])
def test_without_strength_a_warp_is_the_identity_or_a_flip_about_the_object(articulated: bool) -> None:
    masks = disc(16, 0.25, 0.0)  # symmetric about x = 0.25, a multiple of half a pixel: the centroid is there
    grids = random_warp(masks, strength=0.0, articulated=articulated, generator=seeded())
    straight = identity_grid(SIZE)
    flipped = torch.stack([2 * 0.25 - straight[..., 0], straight[..., 1]], -1)
    is_straight = [torch.allclose(grid, straight, atol=1e-3) for grid in grids]
    is_flipped = [torch.allclose(grid, flipped, atol=1e-3) for grid in grids]
    assert all(a != b for a, b in zip(is_straight, is_flipped, strict=True))
    assert any(is_straight)
    assert any(is_flipped)


def test_a_rigid_warp_is_affine_and_an_articulated_one_is_not() -> None:
    masks = disc(8, 0, 0)

    def bend(grid: Tensor) -> float:
        """Second differences, 0 for an affine map."""
        return max(float(grid.diff(n=2, dim=axis).abs().max()) for axis in (1, 2))

    assert bend(random_warp(masks, articulated=False, generator=seeded())) < 1e-5
    assert bend(random_warp(masks, generator=seeded())) > 1e-3


def test_a_rigid_warp_stays_within_its_documented_limits() -> None:
    """Scale 0.75 to 1.3 with shear up to 0.25: areas change by the square of the scale alone, shear keeps them."""
    grids = random_warp(disc(256, 0, 0), articulated=False, generator=seeded())
    step = 2 / SIZE
    along_x = (grids[:, 0, 1] - grids[:, 0, 0]) / step  # B 2
    along_y = (grids[:, 1, 0] - grids[:, 0, 0]) / step
    area = along_x[:, 0] * along_y[:, 1] - along_x[:, 1] * along_y[:, 0]
    scale = area.abs().rsqrt()  # a grid that looks at less shows it larger
    assert 0.75 < scale.min() < 0.85
    assert 1.2 < scale.max() < 1.32
    assert 0.3 < (area < 0).float().mean() < 0.7  # mirrored with probability one half


def test_jitter_keeps_the_range() -> None:
    jittered = jitter_colours(random_images(16), strength=2.0, generator=seeded())
    assert jittered.min() >= -1
    assert jittered.max() <= 1


def test_jitter_without_strength_changes_nothing() -> None:
    images = random_images()
    torch.testing.assert_close(jitter_colours(images, strength=0.0, generator=seeded()), images)


def test_jitter_is_determined_by_its_generator_and_differs_between_images() -> None:
    images = random_images(1).expand(2, -1, -1, -1)
    first, again = (jitter_colours(images, generator=seeded(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert (first[0] - first[1]).abs().mean() > 0.05


def test_jitter_recolours_an_image_but_moves_nothing() -> None:
    """A flat half stays flat (up to the noise of 0.04), in any colour."""
    images = torch.full((32, 3, SIZE, SIZE), -0.3)
    images[..., SIZE // 2 :] = torch.tensor([0.5, 0.0, -0.5])[:, None, None]
    jittered = jitter_colours(images, generator=seeded())
    halves = jittered.split(SIZE // 2, dim=-1)
    assert max(float(half.std((-1, -2)).max()) for half in halves) < 0.06
    assert (halves[1].mean((-1, -2)) - images[:, :, 0, -1]).abs().mean() > 0.1


def test_the_discriminators_augmentation_passes_a_gradient_on() -> None:
    images = random_images(8).requires_grad_()
    augment_for_discriminator(images, seeded()).square().sum().backward()
    assert images.grad is not None
    assert (images.grad.flatten(1).abs().sum(1) > 0).all()


def test_the_discriminators_augmentation_cuts_a_square_of_a_quarter_of_the_side() -> None:
    images = torch.full((128, 3, SIZE, SIZE), 1.0)
    changed = augment_for_discriminator(images, seeded())
    middle = (changed == 0).all(1)[:, SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4]  # shifts do not reach it
    holes = middle.flatten(1).sum(1)
    assert holes.max() == (SIZE // 4) ** 2
    assert holes.min() == 0


def test_a_mask_with_colours_is_refused() -> None:
    with pytest.raises(TypeCheckError):
        random_warp(torch.zeros(2, 3, SIZE, SIZE))
