"""Shapes of procedural creatures."""

from __future__ import annotations

import torch

from dagaug.training.creature_shapes import PART_COUNT, Random, random_family


def test_limbs_of_both_sides_are_mirror_images() -> None:
    random = Random(torch.Generator().manual_seed(0))
    family = random_family(random, 5)
    mirror = torch.tensor([1.0, -1.0, 1.0])
    for left, right in ((6, 7), (8, 9), (10, 11)):
        assert torch.equal(family.radii[:, left], family.radii[:, right])
        assert torch.allclose(family.base[:, right], mirror * family.base[:, left])
        turned = mirror[:, None] * family.rest[:, left] * mirror
        assert torch.allclose(family.rest[:, right], turned)
    determinant = torch.linalg.det(family.rest.view(-1, 3, 3))
    assert torch.allclose(determinant, torch.ones(5 * PART_COUNT), atol=1e-4)
