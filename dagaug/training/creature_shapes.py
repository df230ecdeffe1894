"""Shapes of procedural creatures: random skeletons of ellipsoids, their species and poses.

A creature is a body with a chain of front parts, a tail, a fin and pairs of limbs, all ellipsoids joined at hinges.

Coordinates: x forward, y to the left, z up. The camera looks along +y. An image's x and y are x and -z, both in
[-1, 1]. Letters: B creatures, P parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "MIRROR",
    "PART_COUNT",
    "RIGHT_LIMBS",
    "TWIN",
    "Ellipsoids",
    "Pose",
    "PoseRange",
    "Random",
    "Skeleton",
    "assemble",
    "fit_to_image",
    "move",
    "random_family",
    "random_pose",
    "random_pose_range",
    "random_species",
]

PART_COUNT = 12
"""Ellipsoids of a creature: body, neck, head, snout, tail, fin, and three pairs of limbs."""

TWIN = (0, 1, 2, 3, 4, 5, 7, 6, 9, 8, 11, 10)
"""For each part the same part of the other side; a part of the middle is its own twin."""

RIGHT_LIMBS = (7, 9, 11)
"""The limbs of the right side."""

MIRROR = torch.tensor([1.0, -1.0, 1.0])
"""Factors that mirror a point at the plane between left and right."""

_PARENT = (0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0)


class Random:
    """Random tensors from one generator (the global one if None)."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform between ``low`` and ``high``."""
        return low + (high - low) * torch.rand(*shape, generator=self.generator)

    def normal(self, scale: float, *shape: int) -> Tensor:
        """Normal with mean 0 and standard deviation ``scale``."""
        return scale * torch.randn(*shape, generator=self.generator)

    def event(self, chance: float, *shape: int) -> Tensor:
        """1 with probability ``chance``, else 0."""
        return (torch.rand(*shape, generator=self.generator) < chance).float()


def _rotation(vector: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """Rotation by a vector's length around its direction (Rodrigues)."""
    angle = vector.norm(dim=-1)[..., None, None]
    x, y, z = (vector / (angle[..., 0] + 1e-8)).unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    return torch.eye(3) + torch.sin(angle) * skew + (1 - torch.cos(angle)) * (skew @ skew)


def _around(axis: int, angle: Tensor) -> Tensor:
    """Rotation around a coordinate axis (0: x, 1: y, 2: z) by an angle in radians."""
    return _rotation(angle[..., None] * torch.eye(3)[axis])


@dataclass(frozen=True)
class Skeleton:
    """The shape of a species.

    Attributes:
        base: start of each part from its parent's centre, in units of the parent's radii.
        rest: rotation of each part relative to its parent when no joint is bent.
        radii: half axes of each part; about 0 for parts that the family does not have.
    """

    base: Float[Tensor, "B P 3"]
    rest: Float[Tensor, "B P 3 3"]
    radii: Float[Tensor, "B P 3"]


def _mirror_limbs(values: Tensor) -> Tensor:
    """Give each right limb the mirrored values of its left twin: points (B P 3) or rotations (B P 3 3)."""
    values = values.clone()
    for right in RIGHT_LIMBS:
        left = TWIN[right]
        if values.ndim == 4:
            values[:, right] = MIRROR[:, None] * values[:, left] * MIRROR
        else:
            values[:, right] = MIRROR * values[:, left]
    return values


def random_family(random: Random, batch: int) -> Skeleton:
    """Random skeletons, similar to birds, mammals, fish or aircraft."""
    length = random.uniform(0.28, 0.5, batch)
    body = torch.stack(
        [length, length * random.uniform(0.25, 0.85, batch), length * random.uniform(0.3, 0.9, batch)], -1
    )
    base, radii = torch.zeros(batch, PART_COUNT, 3), torch.zeros(batch, PART_COUNT, 3)
    rest = torch.eye(3).expand(batch, PART_COUNT, 3, 3).clone()
    radii[:, 0] = body

    def put(part: int, angle: Tensor, at: Tensor, size: Tensor, there: Tensor) -> None:
        base[:, part], radii[:, part] = at, size * there[:, None] + 1e-3
        rest[:, part] = _around(1, angle)

    def thick(long: Tensor, low: float, high: float) -> Tensor:
        width = long * random.uniform(low, high, batch)
        return torch.stack([long, width, width * random.uniform(0.7, 1.2, batch)], -1)

    zero = torch.zeros(batch)
    front = random.uniform(-1.2, 0.3, batch)  # a negative turn around y lifts
    at = torch.stack([torch.cos(front) * 0.9, zero, -torch.sin(front) * 0.8], -1)
    put(1, front + random.normal(0.3, batch), at, thick(random.uniform(0.03, 0.2, batch), 0.35, 0.9), torch.ones(batch))
    ahead = torch.tensor([1.0, 0.0, 0.0]).expand(batch, 3)
    put(
        2,
        random.uniform(0.0, 1.0, batch),
        ahead,
        thick(random.uniform(0.06, 0.2, batch), 0.6, 1.0),
        random.event(0.75, batch),
    )
    put(
        3,
        random.normal(0.25, batch),
        ahead,
        thick(random.uniform(0.04, 0.18, batch), 0.15, 0.6),
        random.event(0.7, batch),
    )
    behind = random.uniform(-0.4, 0.6, batch)
    at = torch.stack([-torch.cos(behind) * 0.9, zero, torch.sin(behind) * 0.8], -1)
    long, flat = random.uniform(0.08, 0.35, batch), random.event(0.5, batch)
    size = torch.stack(
        [long, long * random.uniform(0.12, 0.6, batch), long * (0.08 + random.uniform(0.02, 0.4, batch) * (1 - flat))],
        -1,
    )
    put(4, math.pi + behind, at, size, random.event(0.85, batch))
    at = torch.stack([random.uniform(-0.9, 0.3, batch), zero, 0.75 * torch.ones(batch)], -1)
    long = random.uniform(0.08, 0.25, batch)
    size = torch.stack([long, 0.12 * long, long * random.uniform(0.3, 0.8, batch)], -1)
    put(5, random.uniform(-2.6, -1.2, batch), at, size, random.event(0.35, batch))
    for left in (6, 8, 10):
        side = random.uniform(-1.2, 0.9, batch)
        at = torch.stack([random.uniform(-0.75, 0.75, batch), torch.cos(side) * 0.85, torch.sin(side) * 0.85], -1)
        wing = random.event(0.8 if left == 6 else 0.3, batch)
        long = random.uniform(0.08, 0.3, batch) * (1 + 0.6 * wing)
        broad = long * (wing * random.uniform(0.2, 0.5, batch) + (1 - wing) * random.uniform(0.1, 0.3, batch))
        flat = broad * (wing * random.uniform(0.12, 0.3, batch) + (1 - wing) * random.uniform(0.7, 1.0, batch))
        put(left, zero, at, torch.stack([long, broad, flat], -1), random.event(0.85 if left == 6 else 0.6, batch))
        # wings point sideways and back, legs down
        out = _around(2, math.pi / 2 + random.uniform(-0.3, 0.9, batch)) @ _around(1, random.normal(0.35, batch))
        down = _around(1, math.pi / 2 + random.normal(0.4, batch)) @ _around(2, random.normal(0.3, batch))
        rest[:, left] = torch.where(wing[:, None, None] > 0, out, down)
    for right in RIGHT_LIMBS:
        radii[:, right] = radii[:, TWIN[right]]
    return Skeleton(_mirror_limbs(base), _mirror_limbs(rest), radii)


def random_species(family: Skeleton, random: Random, spread: float) -> Skeleton:
    """A species of each family: proportions and joints vary by about ``spread`` and ``spread`` / 3."""
    batch = len(family.base)
    radii = family.radii * torch.exp(random.normal(spread, batch, PART_COUNT, 3))
    for right in RIGHT_LIMBS:
        radii[:, right] = radii[:, TWIN[right]]
    base = family.base * (1 + random.normal(spread / 3, batch, PART_COUNT, 3))
    return Skeleton(_mirror_limbs(base), family.rest, radii)


@dataclass(frozen=True)
class PoseRange:
    """Range of poses and camera angles of a family.

    Attributes:
        bend: how far joints bend, from 0 (an aircraft) to 1.
        turn: half the range of the camera's azimuth, in radians.
        climb: standard deviation of the camera's elevation, in radians.
    """

    bend: Float[Tensor, " B"]
    turn: Float[Tensor, " B"]
    climb: Float[Tensor, " B"]


@dataclass(frozen=True)
class Pose:
    """A pose and a camera.

    Attributes:
        joints: rotation of each joint.
        camera: rotation of the creature before the camera.
        fill: share of the image that the creature's longer side takes.
        shift: offset from the image's middle, along x and z.
    """

    joints: Float[Tensor, "B P 3 3"]
    camera: Float[Tensor, "B 3 3"]
    fill: Float[Tensor, " B"]
    shift: Float[Tensor, "B 2"]


def random_pose_range(random: Random, batch: int) -> PoseRange:
    """Random ranges for ``batch`` families; 30% are rigid, half are seen from a narrow range of sides."""
    rigid = random.event(0.3, batch)
    narrow = random.event(0.5, batch)
    turn = narrow * random.uniform(0.1, 0.8, batch) + (1 - narrow) * random.uniform(0.8, math.pi, batch)
    return PoseRange((1 - rigid) * random.uniform(0.3, 1.0, batch), turn, random.uniform(0.05, 0.45, batch))


def random_pose(pose_range: PoseRange, random: Random) -> Pose:
    """A random pose and camera within the range of each family; in 60% both sides bend alike."""
    batch = len(pose_range.bend)
    angles = random.normal(0.35, batch, PART_COUNT, 3) * torch.tensor([0.3, 1.0, 0.3])
    angles[:, 6:] = random.normal(0.6, batch, 6, 3)
    angles[:, 0] = 0
    joints = _rotation(angles * pose_range.bend[:, None, None])
    independent = joints.clone()
    joints = torch.where(random.event(0.6, batch)[:, None, None, None] > 0, _mirror_limbs(joints), independent)
    azimuth = pose_range.turn * random.uniform(-1.0, 1.0, batch) + math.pi * random.event(0.5, batch)
    elevation = pose_range.climb * random.normal(1.0, batch)
    roll = random.normal(0.15, batch) + pose_range.bend * random.normal(0.25, batch)
    camera = _around(1, roll) @ _around(0, elevation) @ _around(2, azimuth)
    return Pose(joints, camera, random.uniform(0.68, 0.92, batch), random.uniform(-0.08, 0.08, batch, 2))


@dataclass(frozen=True)
class Ellipsoids:
    """The parts of posed creatures before the camera.

    Attributes:
        centre: centres.
        turned: rotations.
        radii: half axes.
    """

    centre: Float[Tensor, "B P 3"]
    turned: Float[Tensor, "B P 3 3"]
    radii: Float[Tensor, "B P 3"]


def assemble(skeleton: Skeleton, pose: Pose) -> Ellipsoids:
    """Join the parts of creatures and turn them before the camera, without scaling."""
    centres, turns = [], []
    for part in range(PART_COUNT):
        if part == 0:
            centres.append(torch.zeros_like(skeleton.base[:, 0]))
            turns.append(pose.camera)
            continue
        parent = _PARENT[part]
        turned = turns[parent] @ pose.joints[:, part] @ skeleton.rest[:, part]
        offset = skeleton.base[:, part] * skeleton.radii[:, parent]
        at = centres[parent] + (turns[parent] @ offset[..., None])[..., 0]
        centres.append(at + 0.85 * turned[..., 0] * skeleton.radii[:, part, :1])
        turns.append(turned)
    return Ellipsoids(torch.stack(centres, 1), torch.stack(turns, 1), skeleton.radii)


def fit_to_image(placed: Ellipsoids, pose: Pose) -> tuple[Float[Tensor, " B"], Float[Tensor, "B 3"]]:
    """Scale and shift with which creatures fill their images as ``pose.fill`` and ``pose.shift`` say."""
    reach = ((placed.turned * placed.radii[:, :, None]) ** 2).sum(-1).sqrt()  # B P 3, half the extent on each axis
    low, high = (placed.centre - reach).amin(1), (placed.centre + reach).amax(1)
    scale = 2 * pose.fill / (high - low)[:, [0, 2]].amax(1)
    shift = -scale[:, None] * (low + high) / 2
    shift[:, 0] += pose.shift[:, 0]
    shift[:, 2] += pose.shift[:, 1]
    return scale, shift


def move(placed: Ellipsoids, scale: Tensor, shift: Tensor) -> Ellipsoids:
    """Scaled, then shifted ellipsoids."""
    return Ellipsoids(
        placed.centre * scale[:, None, None] + shift[:, None], placed.turned, placed.radii * scale[:, None, None]
    )
