"""Random poses and scenes of the built-in birds, and the narrow pose bands of training images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dagaug.birds.anatomy import WING_RAISED, Pose, PosedBird, Shape
from dagaug.birds.rendering import Scene
from dagaug.birds.species import stream

__all__ = ["PoseBand", "Range", "pose_band_of", "random_pose", "random_scene"]

Range = tuple[float, float]
"""Least and greatest value."""

_BAND_WIDTHS = {"tilt": 9.0, "neck": 8.0, "wing": 16.0, "tail": 8.0}  # degrees
_MARGIN = 0.05  # free border of a picture, as a fraction of its side

# At least as large as every silhouette: if this bird is inside the picture in a pose, all birds are.
_LARGEST = Shape(posture=18.0, head=0.094, beak=0.10, wing=0.355, tail=0.285)


@dataclass(frozen=True)
class PoseBand:
    """Ranges of random poses, in degrees; the default is all poses.

    Position, size, and whether the bird perches are random in every band.

    Attributes:
        facing: -1 left, 1 right, 0 both.
        tilt, neck, wing, tail: as in :class:`dagaug.birds.anatomy.Pose`.
    """

    facing: int = 0
    tilt: Range = (-35.0, 35.0)
    neck: Range = (-22.0, 26.0)
    wing: Range = (0.0, WING_RAISED)
    tail: Range = (-24.0, 30.0)


_ALL_POSES = PoseBand()


def pose_band_of(index: int, seed: int = 0) -> PoseBand:
    """The narrow band of poses, with one facing, of a species' training images."""
    rng = stream(seed, "band", index)
    facing = 1 if rng.random() < 0.5 else -1
    ranges: dict[str, Range] = {}
    for name, width in _BAND_WIDTHS.items():
        low, high = getattr(_ALL_POSES, name)
        start = float(rng.uniform(low, high - width))
        ranges[name] = (start, start + width)
    return PoseBand(facing, **ranges)


def random_pose(rng: np.random.Generator, band: PoseBand | None = None) -> Pose:
    """A pose drawn uniformly from ``band`` (default: all poses), with the bird inside the picture.

    The scale is 0.75 to 1.1, or less if the bird would not fit. The centre of the bird is at most 0.06 of the side
    from the centre of the picture, in each direction.
    """
    band = band or _ALL_POSES
    facing = band.facing or (1 if rng.random() < 0.5 else -1)
    tilt, neck, wing, tail = (float(rng.uniform(*limits)) for limits in (band.tilt, band.neck, band.wing, band.tail))
    perched = bool(rng.random() < 0.9 - 0.7 * wing / WING_RAISED)
    drawn_scale, jitter = float(rng.uniform(0.75, 1.1)), rng.uniform(-0.5, 0.5, 2)
    low, high = PosedBird(_LARGEST, Pose(facing, tilt, 1.0, 0.0, 0.0, neck, wing, tail, perched)).extent()
    scale = min(drawn_scale, float((1 - 2 * _MARGIN) / (high - low).max()))
    room = 1 - 2 * _MARGIN - (high - low) * scale
    dx, dy = (0.5 - (low + high) / 2) * scale + jitter * np.minimum(room, 0.12)
    return Pose(facing, tilt, scale, float(dx), float(dy), neck, wing, tail, perched)


def random_scene(rng: np.random.Generator) -> Scene:
    """A random background and light."""
    return Scene(
        background_seed=int(rng.integers(2**31)),
        light_angle=float(rng.uniform(-50, 50)),
        light=float(rng.uniform(0.55, 1.0)),
        warmth=float(rng.uniform(-1, 1)),
        exposure=float(rng.uniform(0.86, 1.1)),
    )
