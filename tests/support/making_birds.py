"""Random built-in birds for tests."""

from __future__ import annotations

import numpy as np

from dagaug.birds.anatomy import Pose, Species
from dagaug.birds.poses import random_pose, random_scene
from dagaug.birds.rendering import Scene
from dagaug.birds.species import species_of


def random_birds(count: int) -> list[tuple[Species, Pose, Scene]]:
    """Species, pose and scene of the first birds of a fixed sequence."""
    rngs = (np.random.default_rng(number) for number in range(count))
    return [(species_of(number % 40), random_pose(rng), random_scene(rng)) for number, rng in enumerate(rngs)]
