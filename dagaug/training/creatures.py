"""Procedural creatures: exact answers to the question that pose morphing asks, for networks that start from them.

A creature is a body with a chain of front parts, a tail, and pairs of limbs, all ellipsoids joined at hinges. A family
shares the skeleton; its species differ in proportions and in the texture of every part. Any species can be seen in any
pose from any side, so that for two species s and t of a family the answer "s in the pose of t" is rendered, not
guessed, and where each of its pixels lies in the image of s is known from the geometry. They are drawn without regard
to the built-in birds or any data set; ``examples/pretrain.py`` makes the networks from them that trainings start from.

Frames: x forward, y to the left, z up; the camera looks along +y, and an image's x and y are the frame's x and -z, both
in [-1, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from dagaug.model.warps import identity_grid

__all__ = ["PARTS", "CreaturePairs", "creature_pairs"]

PARTS = 12
"""Ellipsoids of a creature: body, neck, head, snout, tail, fin, and three pairs of limbs."""

_PARENT = (0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0)


_TWIN = (0, 1, 2, 3, 4, 5, 7, 6, 9, 8, 11, 10)  # the same part of the other side


_RIGHT = (7, 9, 11)


_OVERSAMPLING = 2  # samples a pixel, in each direction


_NEAR = 0.06  # how far behind the visible surface a point may lie and still count as seen


@dataclass(frozen=True)
class CreaturePairs:
    """Sources and references with their true answers, S pixels wide; images in [-1, 1], masks in [0, 1].

    Attributes:
        source, reference, answer: images; the answer shows the source's species in the reference's pose and place.
        source_mask, reference_mask, answer_mask: where the creatures are.
        background: of reference and answer.
        grid: for each pixel of the answer, the point of the source that shows the same place of the creature (or, where
            that is hidden, its mirror image's).
        seen: where the answer shows a place that the source shows too.
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


class _Draw:
    """Random numbers of one generator."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.generator)

    def normal(self, scale: float, *shape: int) -> Tensor:
        return scale * torch.randn(*shape, generator=self.generator)

    def yes(self, chance: float, *shape: int) -> Tensor:
        return (torch.rand(*shape, generator=self.generator) < chance).float()


# ---- geometry


def _rotation(vector: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """Rotation by a vector's length around its direction (Rodrigues)."""
    angle = vector.norm(dim=-1)[..., None, None]
    x, y, z = (vector / (angle[..., 0] + 1e-8)).unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    return torch.eye(3) + torch.sin(angle) * skew + (1 - torch.cos(angle)) * (skew @ skew)


def _around(axis: int, angle: Tensor) -> Tensor:
    return _rotation(angle[..., None] * torch.eye(3)[axis])


@dataclass(frozen=True)
class _Skeleton:
    """What a species' shape is.

    Attributes:
        base: where a part begins, in units of its parent's radii, seen from the parent's centre.
        rest: its direction in the parent's frame when no joint is bent.
        radii: half axes of each part; of no size where the family lacks it.
    """

    base: Float[Tensor, "B P 3"]
    rest: Float[Tensor, "B P 3 3"]
    radii: Float[Tensor, "B P 3"]


_MIRROR = torch.tensor([1.0, -1.0, 1.0])


def _both_sides(values: Tensor) -> Tensor:
    """Give each right limb what its left twin has, mirrored: points (… P 3) or rotations (… P 3 3)."""
    values = values.clone()
    for right in _RIGHT:
        left = _TWIN[right]
        if values.ndim == 4:
            values[:, right] = _MIRROR[:, None] * values[:, left] * _MIRROR
        else:
            values[:, right] = _MIRROR * values[:, left]
    return values


def _family(draw: _Draw, batch: int) -> _Skeleton:
    """Skeletons at random, from birds' and beasts' to those of fish and aircraft."""
    length = draw.uniform(0.28, 0.5, batch)
    body = torch.stack([length, length * draw.uniform(0.25, 0.85, batch), length * draw.uniform(0.3, 0.9, batch)], -1)
    base, radii = torch.zeros(batch, PARTS, 3), torch.zeros(batch, PARTS, 3)
    rest = torch.eye(3).expand(batch, PARTS, 3, 3).clone()
    radii[:, 0] = body

    def put(part: int, angle: Tensor, at: Tensor, size: Tensor, there: Tensor) -> None:
        base[:, part], radii[:, part] = at, size * there[:, None] + 1e-3
        rest[:, part] = _around(1, angle)

    def thick(long: Tensor, low: float, high: float) -> Tensor:
        width = long * draw.uniform(low, high, batch)
        return torch.stack([long, width, width * draw.uniform(0.7, 1.2, batch)], -1)

    zero = torch.zeros(batch)
    front = draw.uniform(-1.2, 0.3, batch)  # a negative turn around y lifts
    at = torch.stack([torch.cos(front) * 0.9, zero, -torch.sin(front) * 0.8], -1)
    put(1, front + draw.normal(0.3, batch), at, thick(draw.uniform(0.03, 0.2, batch), 0.35, 0.9), torch.ones(batch))
    ahead = torch.tensor([1.0, 0.0, 0.0]).expand(batch, 3)
    put(2, draw.uniform(0.0, 1.0, batch), ahead, thick(draw.uniform(0.06, 0.2, batch), 0.6, 1.0), draw.yes(0.75, batch))
    put(3, draw.normal(0.25, batch), ahead, thick(draw.uniform(0.04, 0.18, batch), 0.15, 0.6), draw.yes(0.7, batch))
    behind = draw.uniform(-0.4, 0.6, batch)
    at = torch.stack([-torch.cos(behind) * 0.9, zero, torch.sin(behind) * 0.8], -1)
    long, flat = draw.uniform(0.08, 0.35, batch), draw.yes(0.5, batch)
    size = torch.stack(
        [long, long * draw.uniform(0.12, 0.6, batch), long * (0.08 + draw.uniform(0.02, 0.4, batch) * (1 - flat))], -1
    )
    put(4, math.pi + behind, at, size, draw.yes(0.85, batch))
    at = torch.stack([draw.uniform(-0.9, 0.3, batch), zero, 0.75 * torch.ones(batch)], -1)
    long = draw.uniform(0.08, 0.25, batch)
    size = torch.stack([long, 0.12 * long, long * draw.uniform(0.3, 0.8, batch)], -1)
    put(5, draw.uniform(-2.6, -1.2, batch), at, size, draw.yes(0.35, batch))
    for left in (6, 8, 10):
        side = draw.uniform(-1.2, 0.9, batch)
        at = torch.stack([draw.uniform(-0.75, 0.75, batch), torch.cos(side) * 0.85, torch.sin(side) * 0.85], -1)
        wing = draw.yes(0.8 if left == 6 else 0.3, batch)
        long = draw.uniform(0.08, 0.3, batch) * (1 + 0.6 * wing)
        broad = long * (wing * draw.uniform(0.2, 0.5, batch) + (1 - wing) * draw.uniform(0.1, 0.3, batch))
        flat = broad * (wing * draw.uniform(0.12, 0.3, batch) + (1 - wing) * draw.uniform(0.7, 1.0, batch))
        put(left, zero, at, torch.stack([long, broad, flat], -1), draw.yes(0.85 if left == 6 else 0.6, batch))
        # wings point sideways and back, legs down
        out = _around(2, math.pi / 2 + draw.uniform(-0.3, 0.9, batch)) @ _around(1, draw.normal(0.35, batch))
        down = _around(1, math.pi / 2 + draw.normal(0.4, batch)) @ _around(2, draw.normal(0.3, batch))
        rest[:, left] = torch.where(wing[:, None, None] > 0, out, down)
    for right in _RIGHT:
        radii[:, right] = radii[:, _TWIN[right]]
    return _Skeleton(_both_sides(base), _both_sides(rest), radii)


def _species(family: _Skeleton, draw: _Draw, spread: float) -> _Skeleton:
    """Another species of each family: other proportions, joints a little elsewhere."""
    batch = len(family.base)
    radii = family.radii * torch.exp(draw.normal(spread, batch, PARTS, 3))
    for right in _RIGHT:
        radii[:, right] = radii[:, _TWIN[right]]
    base = family.base * (1 + draw.normal(spread / 3, batch, PARTS, 3))
    return _Skeleton(_both_sides(base), family.rest, radii)


@dataclass(frozen=True)
class _Habits:
    """How a family stands and is looked at.

    Attributes:
        bend: how far its joints bend, from 0 (an aircraft) to 1.
        turn: half the range of the camera's azimuth.
        climb: spread of its elevation.
    """

    bend: Float[Tensor, " B"]
    turn: Float[Tensor, " B"]
    climb: Float[Tensor, " B"]


@dataclass(frozen=True)
class _Pose:
    joints: Float[Tensor, "B P 3 3"]
    camera: Float[Tensor, "B 3 3"]
    fill: Float[Tensor, " B"]
    shift: Float[Tensor, "B 2"]


def _habits(draw: _Draw, batch: int) -> _Habits:
    rigid = draw.yes(0.3, batch)
    narrow = draw.yes(0.5, batch)
    turn = narrow * draw.uniform(0.1, 0.8, batch) + (1 - narrow) * draw.uniform(0.8, math.pi, batch)
    return _Habits((1 - rigid) * draw.uniform(0.3, 1.0, batch), turn, draw.uniform(0.05, 0.45, batch))


def _pose(habits: _Habits, draw: _Draw) -> _Pose:
    batch = len(habits.bend)
    angles = draw.normal(0.35, batch, PARTS, 3) * torch.tensor([0.3, 1.0, 0.3])
    angles[:, 6:] = draw.normal(0.6, batch, 6, 3)
    angles[:, 0] = 0
    joints = _rotation(angles * habits.bend[:, None, None])
    apart = joints.clone()
    joints = torch.where(draw.yes(0.6, batch)[:, None, None, None] > 0, _both_sides(joints), apart)
    azimuth = habits.turn * draw.uniform(-1.0, 1.0, batch) + math.pi * draw.yes(0.5, batch)
    elevation = habits.climb * draw.normal(1.0, batch)
    roll = draw.normal(0.15, batch) + habits.bend * draw.normal(0.25, batch)
    camera = _around(1, roll) @ _around(0, elevation) @ _around(2, azimuth)
    return _Pose(joints, camera, draw.uniform(0.68, 0.92, batch), draw.uniform(-0.08, 0.08, batch, 2))


@dataclass(frozen=True)
class _Placed:
    """Ellipsoids before the camera: centres, orientations and half axes."""

    centre: Float[Tensor, "B P 3"]
    turned: Float[Tensor, "B P 3 3"]
    radii: Float[Tensor, "B P 3"]


def _assemble(skeleton: _Skeleton, pose: _Pose) -> _Placed:
    """Join the parts and turn them before the camera, in the creature's own size."""
    centres, turns = [], []
    for part in range(PARTS):
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
    return _Placed(torch.stack(centres, 1), torch.stack(turns, 1), skeleton.radii)


def _framed(placed: _Placed, pose: _Pose) -> tuple[Float[Tensor, " B"], Float[Tensor, "B 3"]]:
    """Scale and shift that make a creature fill its image as the pose says."""
    reach = ((placed.turned * placed.radii[:, :, None]) ** 2).sum(-1).sqrt()  # B P 3, half the extent on each axis
    low, high = (placed.centre - reach).amin(1), (placed.centre + reach).amax(1)
    scale = 2 * pose.fill / (high - low)[:, [0, 2]].amax(1)
    shift = -scale[:, None] * (low + high) / 2
    shift[:, 0] += pose.shift[:, 0]
    shift[:, 2] += pose.shift[:, 1]
    return scale, shift


def _moved(placed: _Placed, scale: Tensor, shift: Tensor) -> _Placed:
    return _Placed(
        placed.centre * scale[:, None, None] + shift[:, None], placed.turned, placed.radii * scale[:, None, None]
    )


@dataclass(frozen=True)
class _Surface:
    """What each ray meets first: the part, the place on it (a point of the unit sphere), its normal and depth."""

    part: Int[Tensor, "B H H"]
    place: Float[Tensor, "B H H 3"]
    normal: Float[Tensor, "B H H 3"]
    depth: Float[Tensor, "B H H"]
    hit: Bool[Tensor, "B H H"]


def _rays(size: int) -> tuple[Tensor, Tensor]:
    grid = identity_grid(size)
    return grid[..., 0], -grid[..., 1]


def _cast(placed: _Placed, size: int) -> _Surface:
    """Orthographic rays along y against all ellipsoids."""
    batch = len(placed.centre)
    x, z = (axis.flatten()[None, None] for axis in _rays(size))
    inverse = placed.turned / placed.radii[:, :, None].square()
    shape = inverse @ placed.turned.transpose(-1, -2)  # B P 3 3: v' shape v = 1 on the surface

    def of(row: int, column: int) -> Tensor:
        return shape[:, :, row, column, None]

    dx, dz = x - placed.centre[..., 0, None], z - placed.centre[..., 2, None]  # B P HH
    slope = of(1, 0) * dx + of(1, 2) * dz
    rest = of(0, 0) * dx * dx + of(2, 2) * dz * dz + 2 * of(0, 2) * dx * dz - 1
    inside = slope * slope - of(1, 1) * rest
    along = (-slope - inside.clamp(min=0).sqrt()) / of(1, 1)
    depth = torch.where(inside > 0, along + placed.centre[..., 1, None], torch.inf)
    nearest, part = depth.min(1)  # B HH
    hit = nearest.isfinite()
    nearest = torch.where(hit, nearest, 0.0)
    point = torch.stack([x[0].expand(batch, -1), nearest, z[0].expand(batch, -1)], -1)
    turned, radii, centre = _of_part(placed.turned, part), _of_part(placed.radii, part), _of_part(placed.centre, part)
    place = torch.einsum("bqji,bqj->bqi", turned, point - centre) / radii
    normal = F.normalize(torch.einsum("bqij,bqj->bqi", turned, place / radii), dim=-1)
    square = (batch, size, size)
    return _Surface(
        part.view(square), place.view(*square, 3), normal.view(*square, 3), nearest.view(square), hit.view(square)
    )


def _of_part(values: Float[Tensor, "B P *V"], part: Int[Tensor, "B Q"]) -> Float[Tensor, "B Q *V"]:
    return values[torch.arange(len(values))[:, None], part]


# ---- looks


@dataclass(frozen=True)
class _Coat:
    """A species' texture: on each part two colours, mixed by waves along the part.

    Attributes:
        colours: two for each part, in [0, 1].
        waves, phases: directions (their length is the frequency) and phases of two waves.
        level, sharpness: of the border between the colours; spotted parts multiply the two waves.
        spotted: 0 or 1.
    """

    colours: Float[Tensor, "B P 2 3"]
    waves: Float[Tensor, "B P 2 3"]
    phases: Float[Tensor, "B P 2"]
    level: Float[Tensor, "B P"]
    sharpness: Float[Tensor, "B P"]
    spotted: Float[Tensor, "B P"]


def _coat(draw: _Draw, batch: int) -> _Coat:
    vivid = draw.uniform(0.0, 1.0, batch, 1, 1)
    grey = draw.uniform(0.05, 0.95, batch, 5, 1)
    palette = vivid * draw.uniform(0.0, 1.0, batch, 5, 3) + (1 - vivid) * (grey + draw.normal(0.08, batch, 5, 3))
    chosen = (draw.uniform(0.0, 1.0, batch, PARTS, 2).square() * 5).long().clamp(max=4)
    colours = palette.clamp(0.02, 0.98)[torch.arange(batch)[:, None, None], chosen]
    direction = F.normalize(draw.normal(1.0, batch, PARTS, 2, 3), dim=-1)
    frequency = torch.exp(draw.uniform(math.log(0.7), math.log(9.0), batch, PARTS, 1, 1))
    coat = _Coat(
        colours,
        direction * frequency,
        draw.uniform(0.0, 2 * math.pi, batch, PARTS, 2),
        draw.uniform(-0.7, 0.7, batch, PARTS),
        torch.exp(draw.uniform(0.5, 3.0, batch, PARTS)),
        draw.yes(0.3, batch, PARTS),
    )
    for right in _RIGHT:  # the other side is painted alike
        for field in fields(coat):
            values = getattr(coat, field.name)
            values[:, right] = values[:, _TWIN[right]]
    return coat


def _albedo(coat: _Coat, surface: _Surface, symmetric: Float[Tensor, " B"]) -> Float[Tensor, "B H H 3"]:
    part = surface.part.flatten(1)
    place = surface.place.flatten(1, 2).clone()  # B Q 3
    flipped = torch.zeros(PARTS)
    flipped[list(_RIGHT)] = 1
    place[..., 1] = torch.where(flipped[part] > 0, -place[..., 1], place[..., 1])
    middle = (torch.tensor(_TWIN) == torch.arange(PARTS))[part] & (symmetric > 0)[:, None]
    place[..., 1] = torch.where(middle, place[..., 1].abs(), place[..., 1])
    waves = torch.sin(torch.einsum("bqwi,bqi->bqw", _of_part(coat.waves, part), place) + _of_part(coat.phases, part))
    spotted = _of_part(coat.spotted, part)
    height = spotted * 1.5 * waves[..., 0] * waves[..., 1] + (1 - spotted) * waves[..., 0]
    share = torch.sigmoid(_of_part(coat.sharpness, part) * (height - _of_part(coat.level, part)))[..., None]
    colours = _of_part(coat.colours, part)
    return ((1 - share) * colours[..., 0, :] + share * colours[..., 1, :]).view(*surface.part.shape, 3)


@dataclass(frozen=True)
class _Light:
    direction: Float[Tensor, "B 3"]
    ambient: Float[Tensor, "B 1 1 1"]
    tint: Float[Tensor, "B 1 1 3"]


def _light(draw: _Draw, batch: int) -> _Light:
    direction = draw.normal(0.6, batch, 3) + torch.tensor([0.0, -0.8, 0.9])
    ambient = draw.uniform(0.45, 0.95, batch, 1, 1, 1)
    return _Light(F.normalize(direction, dim=-1), ambient, 1 + draw.normal(0.05, batch, 1, 1, 3))


def _shaded(albedo: Tensor, surface: _Surface, light: _Light) -> Tensor:
    lambert = torch.einsum("bhwi,bi->bhw", surface.normal, light.direction).clamp(min=0)[..., None]
    return (albedo * light.tint * (light.ambient + (1.15 - light.ambient) * lambert)).clamp(0, 1)


def _clutter(draw: _Draw, batch: int, size: int) -> Float[Tensor, "B 3 S S"]:
    """Backgrounds in [0, 1]: coloured noise of several octaves, a slope, and some soft shapes."""
    grey = draw.uniform(0.1, 0.9, batch, 3, 1, 1)
    steepness = draw.uniform(0.4, 1.3, batch, 1, 1, 1)
    contrast = draw.uniform(0.02, 0.35, batch, 1, 1, 1)
    image = grey.expand(batch, 3, size, size).clone()
    colourful = draw.uniform(0.0, 0.8, batch, 1, 1, 1).square()
    side = 2
    while side <= size:
        noise = draw.normal(1.0, batch, 3, side, side)
        noise = colourful * noise + (1 - colourful) * noise.mean(1, keepdim=True) * 1.5
        image += contrast * side ** (-steepness) * 2 * F.interpolate(noise, (size, size), mode="bicubic")
        side *= 2
    grid = identity_grid(size)
    for _ in range(3):
        at, turn = draw.uniform(-1.2, 1.2, batch, 1, 1, 2), draw.uniform(0.0, math.pi, batch)
        axes = torch.exp(draw.uniform(-3.2, 0.0, batch, 1, 1, 2))
        cos, sin = torch.cos(turn), torch.sin(turn)
        frame = torch.stack([cos, -sin, sin, cos], -1).view(-1, 2, 2)
        offset = torch.einsum("bij,bhwj->bhwi", frame, grid - at) / axes
        inside = torch.sigmoid(8 * (1 - offset.square().sum(-1)))[:, None] * draw.yes(0.4, batch, 1, 1, 1)
        image = (1 - inside) * image + inside * draw.uniform(0.0, 1.0, batch, 3, 1, 1)
    return image.clamp(0, 1)


def _photograph(
    surface: _Surface, coat: _Coat, light: _Light, symmetric: Tensor, background: Float[Tensor, "B 3 S S"]
) -> tuple[Float[Tensor, "B 3 S S"], Float[Tensor, "B 1 S S"]]:
    """Image in [-1, 1] and mask, with smooth edges."""
    colour = _shaded(_albedo(coat, surface, symmetric), surface, light).permute(0, 3, 1, 2)
    hit = surface.hit[:, None].float()
    mask = F.avg_pool2d(hit, _OVERSAMPLING)
    return 2 * (F.avg_pool2d(colour * hit, _OVERSAMPLING) + (1 - mask) * background) - 1, mask


def _came_from(
    shown: _Surface, source: _Placed, seen_in_source: _Surface, symmetric: Tensor
) -> tuple[Float[Tensor, "B H H 2"], Float[Tensor, "B H H"]]:
    """Where the places that ``shown`` shows lie in the source's image, and whether they are seen there."""
    part, place = shown.part.flatten(1), shown.place.flatten(1, 2)
    found, visible = _projected(part, place, source, seen_in_source)
    other = torch.tensor(_TWIN)[part]
    elsewhere, other_visible = _projected(other, place * _MIRROR, source, seen_in_source)
    pair = other != part
    other_visible = other_visible & (pair | (symmetric > 0)[:, None])
    use = ~visible & other_visible
    grid = torch.where(use[..., None], elsewhere, found)
    square = shown.part.shape
    return grid.view(*square, 2), ((visible | other_visible) & shown.hit.flatten(1)).float().view(square)


def _projected(part: Tensor, place: Tensor, source: _Placed, surface: _Surface) -> tuple[Tensor, Tensor]:
    centre, turned, radii = _of_part(source.centre, part), _of_part(source.turned, part), _of_part(source.radii, part)
    point = centre + torch.einsum("bqij,bqj->bqi", turned, place * radii)
    grid = torch.stack([point[..., 0], -point[..., 2]], -1)
    nearest = torch.where(surface.hit, surface.depth, 9.0)[:, None]
    depth = F.grid_sample(nearest, grid[:, None], mode="nearest", align_corners=False)[:, 0, 0]
    return grid, (point[..., 1] < depth + _NEAR) & (grid.abs() < 1).all(-1)


_Record = TypeVar("_Record", _Skeleton, _Coat)


def _either(choose: Bool[Tensor, " B"], first: _Record, second: _Record) -> _Record:
    """``first`` where chosen, else ``second``, for each of the batch."""
    chosen = []
    for field in fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        chosen.append(torch.where(choose.view(-1, *[1] * (one.ndim - 1)), one, other))
    return type(first)(*chosen)


def creature_pairs(count: int, size: int, *, generator: torch.Generator | None = None) -> CreaturePairs:
    """Draw pairs with their answers, each of a family of its own.

    A quarter of the pairs show one species twice, in the others source and reference are two species.

    Args:
        count: how many.
        size: side of the images in pixels.
        generator: of all that is random.
    """
    draw = _Draw(generator)
    family, habits = _family(draw, count), _habits(draw, count)
    same = draw.yes(0.25, count) > 0
    first, other = _species(family, draw, 0.12), _species(family, draw, 0.12)
    coat, other_coat = _coat(draw, count), _coat(draw, count)
    second, reference_coat = _either(same, first, other), _either(same, coat, other_coat)
    symmetric = draw.yes(0.85, count)
    pose, wanted = _pose(habits, draw), _pose(habits, draw)
    light, other_light = _light(draw, count), _light(draw, count)
    fine = size * _OVERSAMPLING
    source = _assemble(first, pose)
    source = _moved(source, *_framed(source, pose))
    reference = _assemble(second, wanted)
    frame = _framed(reference, wanted)
    answer = _moved(_assemble(first, wanted), *frame)
    surfaces = [_cast(one, fine) for one in (source, _moved(reference, *frame), answer)]
    background = _clutter(draw, count, size)
    photographs = (
        _photograph(surfaces[0], coat, light, symmetric, _clutter(draw, count, size)),
        _photograph(surfaces[1], reference_coat, other_light, symmetric, background),
        _photograph(surfaces[2], coat, other_light, symmetric, background),
    )
    images = [(image + draw.normal(0.02, *image.shape)).clamp(-1, 1) for image, _ in photographs]
    grid, seen = _came_from(surfaces[2], source, surfaces[0], symmetric)
    share = F.avg_pool2d(seen[:, None], _OVERSAMPLING)
    known = torch.where(seen[..., None] > 0, grid, 0.0).permute(0, 3, 1, 2)
    return CreaturePairs(
        source=images[0],
        reference=images[1],
        answer=images[2],
        source_mask=photographs[0][1],
        reference_mask=photographs[1][1],
        answer_mask=photographs[2][1],
        background=2 * background - 1,
        grid=(F.avg_pool2d(known, _OVERSAMPLING) / (share + 1e-6)).permute(0, 2, 3, 1),
        seen=(share > 0.99).float(),
    )
