from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from making_birds import random_birds

from dagaug.birds.poses import PoseBand, random_pose, random_scene
from dagaug.birds.rendering import PART_NAMES, render
from dagaug.birds.species import species_of


def test_mask_is_where_the_bird_differs_from_the_bare_scene() -> None:
    for species, pose, scene in random_birds(10):
        drawn = render(species, pose, scene)
        bare = render(species, pose, scene, bird=False)
        assert not bare.mask.any()
        difference = np.abs(drawn.image.astype(int) - bare.image.astype(int)).max(-1)
        assert difference[drawn.mask == 0].max() <= 2
        inside = drawn.mask > 0.9
        assert inside.sum() > 150
        # a bird may by chance have the colours of what is behind it, but not everywhere
        assert np.mean(difference[inside] > 4) > 0.75


def test_bird_is_whole_within_the_picture() -> None:
    for species, pose, scene in random_birds(20):
        mask = render(species, pose, scene).mask
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert border.max() < 0.05, (species.name, pose)


def test_box_is_tight() -> None:
    for species, pose, scene in random_birds(6):
        drawn = render(species, pose, scene)
        x, y, width, height = (int(value) for value in drawn.box)
        covered = drawn.mask > 0.25
        assert covered[y : y + height, x : x + width].sum() == covered.sum()
        for edge in (covered[y], covered[y + height - 1], covered[:, x], covered[:, x + width - 1]):
            assert edge.any()


def test_visible_parts_lie_on_the_bird_and_the_far_eye_is_hidden() -> None:
    for species, pose, scene in random_birds(16):
        drawn = render(species, pose, scene)
        near = cv2.dilate(drawn.mask, np.ones((5, 5)))
        for name, (x, y, visible) in zip(PART_NAMES, drawn.parts, strict=True):
            if visible:
                assert near[int(y), int(x)] > 0.3, (name, species.name, pose)
            else:
                assert (x, y) == (0, 0)
        hidden = "right eye" if pose.facing < 0 else "left eye"
        assert drawn.parts[PART_NAMES.index(hidden), 2] == 0
        beak, tail = (drawn.parts[PART_NAMES.index(name)] for name in ("beak", "tail"))
        if beak[2] and tail[2]:
            assert np.sign(beak[0] - tail[0]) == pose.facing


def test_picture_is_the_same_at_every_size() -> None:
    species, pose, scene = random_birds(3)[2]
    small, large = render(species, pose, scene, size=64), render(species, pose, scene, size=256)
    shrunk = cv2.resize(large.image, (64, 64), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(shrunk - small.image).mean() < 4
    assert np.abs(cv2.resize(large.mask, (64, 64), interpolation=cv2.INTER_AREA) - small.mask).mean() < 0.01
    # whether a part at the wing's very edge is hidden may depend on the pixels
    seen = (large.parts[:, 2] == 1) & (small.parts[:, 2] == 1)
    assert seen.sum() >= max(large.parts[:, 2].sum(), small.parts[:, 2].sum()) - 1
    assert large.parts[seen] == pytest.approx(small.parts[seen] * (4, 4, 1))


def test_markings_show_in_the_picture() -> None:
    pose = replace(random_pose(np.random.default_rng(0), PoseBand(1, *[(0.0, 1.0)] * 4)), scale=1.0)
    scene = random_scene(np.random.default_rng(1))
    for start in range(0, 8, 4):
        pictures = [render(species_of(start + place), pose, scene) for place in range(4)]
        for number, one in enumerate(pictures):
            for other in pictures[number + 1 :]:
                difference = np.abs(one.image.astype(int) - other.image.astype(int)).max(-1)
                assert np.count_nonzero(difference > 30) >= 12
