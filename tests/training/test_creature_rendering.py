"""Rendering of procedural creatures."""

from __future__ import annotations

import torch

from dagaug.model.known_warps import identity_grid
from dagaug.training.creature_rendering import cast_rays, find_in_source
from dagaug.training.creature_shapes import (
    Random,
    assemble,
    fit_to_image,
    move,
    random_family,
    random_pose,
    random_pose_range,
)

SIZE = 32


def test_a_creature_that_has_not_moved_shows_every_place_where_it_was() -> None:
    random = Random(torch.Generator().manual_seed(0))
    family, pose = random_family(random, 6), random_pose(random_pose_range(random, 6), random)
    placed = assemble(family, pose)
    placed = move(placed, *fit_to_image(placed, pose))
    surface = cast_rays(placed, SIZE)
    grid, seen = find_in_source(surface, placed, surface, torch.ones(6))
    assert torch.equal(seen > 0, surface.hit)
    error = (grid - identity_grid(SIZE)).abs().amax(-1)
    assert error[surface.hit].max() < 1e-3
