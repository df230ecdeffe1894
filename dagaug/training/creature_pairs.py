"""Pairs of procedural creatures with rendered true answers, for training networks to change poses.

A family shares a skeleton; its species differ in proportions and in the texture of every part. Any species can be
rendered in any pose from any side. For two species s and t of a family, the true answer "s in the pose of t" is
therefore rendered, and the geometry gives the position of each of its pixels in the image of s. The creatures are not
modelled on the built-in birds or on any data set. ``examples/pretrain.py`` trains the networks that trainings start
from on these pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from dagaug.training.creature_rendering import (
    OVERSAMPLING,
    Texture,
    cast_rays,
    find_in_source,
    random_background,
    random_light,
    random_texture,
    render,
)
from dagaug.training.creature_shapes import (
    Random,
    Skeleton,
    assemble,
    fit_to_image,
    move,
    random_family,
    random_pose,
    random_pose_range,
    random_species,
)

__all__ = ["CreaturePairs", "creature_pairs"]


@dataclass(frozen=True)
class CreaturePairs:
    """Sources and references with their true answers; images of S × S pixels in [-1, 1], masks in [0, 1].

    Attributes:
        source, reference, answer: images. The answer shows the source's species in the reference's pose and place.
        source_mask, reference_mask, answer_mask: masks of the creatures.
        background: background of reference and answer.
        grid: for each pixel of the answer the point of the source that shows the same place of the creature or, if that
            is hidden, of its mirror image.
        seen: 1 where the answer shows a place that the source shows, too.
    """

    source: Float[Tensor, "B 3 S S"]
    reference: Float[Tensor, "B 3 S S"]
    answer: Float[Tensor, "B 3 S S"]
    source_mask: Float[Tensor, "B 1 S S"]
    reference_mask: Float[Tensor, "B 1 S S"]
    answer_mask: Float[Tensor, "B 1 S S"]
    background: Float[Tensor, "B 3 S S"]
    grid: Float[Tensor, "B S S 2"]
    seen: Float[Tensor, "B 1 S S"]


_Record = TypeVar("_Record", Skeleton, Texture)


def _choose(chosen: Bool[Tensor, " B"], first: _Record, second: _Record) -> _Record:
    """``first`` where ``chosen``, else ``second``, for each item of the batch."""
    values = []
    for field in fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        values.append(torch.where(chosen.view(-1, *[1] * (one.ndim - 1)), one, other))
    return type(first)(*values)


def creature_pairs(count: int, size: int, *, generator: torch.Generator | None = None) -> CreaturePairs:
    """Random pairs with their answers, each pair of another family.

    In a quarter of the pairs source and reference are of one species, in the others of two.

    Args:
        count: number of pairs.
        size: side of the images in pixels.
        generator: source of all random numbers.
    """
    random = Random(generator)
    family, pose_range = random_family(random, count), random_pose_range(random, count)
    same = random.event(0.25, count) > 0
    first, other = random_species(family, random, 0.12), random_species(family, random, 0.12)
    texture, other_texture = random_texture(random, count), random_texture(random, count)
    second, reference_texture = _choose(same, first, other), _choose(same, texture, other_texture)
    symmetric = random.event(0.85, count)
    pose, reference_pose = random_pose(pose_range, random), random_pose(pose_range, random)
    light, other_light = random_light(random, count), random_light(random, count)
    fine = size * OVERSAMPLING
    source = assemble(first, pose)
    source = move(source, *fit_to_image(source, pose))
    reference = assemble(second, reference_pose)
    placement = fit_to_image(reference, reference_pose)
    answer = move(assemble(first, reference_pose), *placement)
    surfaces = [cast_rays(one, fine) for one in (source, move(reference, *placement), answer)]
    background = random_background(random, count, size)
    photographs = (
        render(surfaces[0], texture, light, symmetric, random_background(random, count, size)),
        render(surfaces[1], reference_texture, other_light, symmetric, background),
        render(surfaces[2], texture, other_light, symmetric, background),
    )
    images = [(image + random.normal(0.02, *image.shape)).clamp(-1, 1) for image, _ in photographs]
    grid, seen = find_in_source(surfaces[2], source, surfaces[0], symmetric)
    share = F.avg_pool2d(seen[:, None], OVERSAMPLING)
    known = torch.where(seen[..., None] > 0, grid, 0.0).permute(0, 3, 1, 2)
    return CreaturePairs(
        source=images[0],
        reference=images[1],
        answer=images[2],
        source_mask=photographs[0][1],
        reference_mask=photographs[1][1],
        answer_mask=photographs[2][1],
        background=2 * background - 1,
        grid=(F.avg_pool2d(known, OVERSAMPLING) / (share + 1e-6)).permute(0, 2, 3, 1),
        seen=(share > 0.99).float(),
    )
