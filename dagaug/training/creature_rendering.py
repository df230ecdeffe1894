"""Rendering of procedural creatures: rays against ellipsoids, textures, light, backgrounds, true correspondence.

Letters: B creatures, P parts, H × H samples (:data:`OVERSAMPLING` in each direction for a pixel), S × S pixels.
Coordinates are those of :mod:`dagaug.training.creature_shapes`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from dagaug.model.known_warps import identity_grid
from dagaug.training.creature_shapes import MIRROR, PART_COUNT, RIGHT_LIMBS, TWIN, Ellipsoids, Random

__all__ = [
    "OVERSAMPLING",
    "Light",
    "Surface",
    "Texture",
    "cast_rays",
    "find_in_source",
    "random_background",
    "random_light",
    "random_texture",
    "render",
]

OVERSAMPLING = 2
"""Samples of a pixel in each direction."""

_DEPTH_TOLERANCE = 0.06  # a point at most this far behind the visible surface counts as visible


@dataclass(frozen=True)
class Surface:
    """The first surface point on each ray.

    Attributes:
        part: index of the part.
        place: the place on the part, as a point of the unit sphere.
        normal: unit normal.
        depth: y of the point; 0 where nothing is hit.
        hit: whether the ray hits the creature.
    """

    part: Int[Tensor, "B H H"]
    place: Float[Tensor, "B H H 3"]
    normal: Float[Tensor, "B H H 3"]
    depth: Float[Tensor, "B H H"]
    hit: Bool[Tensor, "B H H"]


def _rays(size: int) -> tuple[Tensor, Tensor]:
    """x and z of the rays, size × size each."""
    grid = identity_grid(size)
    return grid[..., 0], -grid[..., 1]


def cast_rays(placed: Ellipsoids, size: int) -> Surface:
    """Intersect ``size`` × ``size`` orthographic rays along y with all ellipsoids."""
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
    return Surface(
        part.view(square), place.view(*square, 3), normal.view(*square, 3), nearest.view(square), hit.view(square)
    )


def _of_part(values: Float[Tensor, "B P *V"], part: Int[Tensor, "B Q"]) -> Float[Tensor, "B Q *V"]:
    """The values of the part of each point."""
    return values[torch.arange(len(values))[:, None], part]


@dataclass(frozen=True)
class Texture:
    """The texture of a species: two colours on each part, mixed by waves along the part.

    Attributes:
        colours: two colours of each part, RGB in [0, 1].
        waves, phases: directions and phases of two waves; the length of a direction is the frequency.
        level, sharpness: height of the wave at the border between the colours, and sharpness of the border.
        spotted: 1 for spots (the product of both waves), 0 for stripes (the first wave).
    """

    colours: Float[Tensor, "B P 2 3"]
    waves: Float[Tensor, "B P 2 3"]
    phases: Float[Tensor, "B P 2"]
    level: Float[Tensor, "B P"]
    sharpness: Float[Tensor, "B P"]
    spotted: Float[Tensor, "B P"]


def random_texture(random: Random, batch: int) -> Texture:
    """Random textures from palettes of five colours; twin parts are equal."""
    vivid = random.uniform(0.0, 1.0, batch, 1, 1)
    grey = random.uniform(0.05, 0.95, batch, 5, 1)
    palette = vivid * random.uniform(0.0, 1.0, batch, 5, 3) + (1 - vivid) * (grey + random.normal(0.08, batch, 5, 3))
    chosen = (random.uniform(0.0, 1.0, batch, PART_COUNT, 2).square() * 5).long().clamp(max=4)
    colours = palette.clamp(0.02, 0.98)[torch.arange(batch)[:, None, None], chosen]
    direction = F.normalize(random.normal(1.0, batch, PART_COUNT, 2, 3), dim=-1)
    frequency = torch.exp(random.uniform(math.log(0.7), math.log(9.0), batch, PART_COUNT, 1, 1))
    texture = Texture(
        colours,
        direction * frequency,
        random.uniform(0.0, 2 * math.pi, batch, PART_COUNT, 2),
        random.uniform(-0.7, 0.7, batch, PART_COUNT),
        torch.exp(random.uniform(0.5, 3.0, batch, PART_COUNT)),
        random.event(0.3, batch, PART_COUNT),
    )
    for right in RIGHT_LIMBS:
        for field in fields(texture):
            values = getattr(texture, field.name)
            values[:, right] = values[:, TWIN[right]]
    return texture


def _albedo(texture: Texture, surface: Surface, symmetric: Float[Tensor, " B"]) -> Float[Tensor, "B H H 3"]:
    """Colour of each surface point without light; where ``symmetric``, parts of the middle are equal on both sides."""
    part = surface.part.flatten(1)
    place = surface.place.flatten(1, 2).clone()  # B Q 3
    flipped = torch.zeros(PART_COUNT)
    flipped[list(RIGHT_LIMBS)] = 1
    place[..., 1] = torch.where(flipped[part] > 0, -place[..., 1], place[..., 1])
    middle = (torch.tensor(TWIN) == torch.arange(PART_COUNT))[part] & (symmetric > 0)[:, None]
    place[..., 1] = torch.where(middle, place[..., 1].abs(), place[..., 1])
    waves = torch.sin(
        torch.einsum("bqwi,bqi->bqw", _of_part(texture.waves, part), place) + _of_part(texture.phases, part)
    )
    spotted = _of_part(texture.spotted, part)
    height = spotted * 1.5 * waves[..., 0] * waves[..., 1] + (1 - spotted) * waves[..., 0]
    share = torch.sigmoid(_of_part(texture.sharpness, part) * (height - _of_part(texture.level, part)))[..., None]
    colours = _of_part(texture.colours, part)
    return ((1 - share) * colours[..., 0, :] + share * colours[..., 1, :]).view(*surface.part.shape, 3)


@dataclass(frozen=True)
class Light:
    """A directional light, ambient light, and the colour of both."""

    direction: Float[Tensor, "B 3"]
    ambient: Float[Tensor, "B 1 1 1"]
    tint: Float[Tensor, "B 1 1 3"]


def random_light(random: Random, batch: int) -> Light:
    """Random light, mostly from above and the camera's side."""
    direction = random.normal(0.6, batch, 3) + torch.tensor([0.0, -0.8, 0.9])
    ambient = random.uniform(0.45, 0.95, batch, 1, 1, 1)
    return Light(F.normalize(direction, dim=-1), ambient, 1 + random.normal(0.05, batch, 1, 1, 3))


def _shade(albedo: Tensor, surface: Surface, light: Light) -> Tensor:
    """Lambertian shading."""
    lambert = torch.einsum("bhwi,bi->bhw", surface.normal, light.direction).clamp(min=0)[..., None]
    return (albedo * light.tint * (light.ambient + (1.15 - light.ambient) * lambert)).clamp(0, 1)


def random_background(random: Random, batch: int, size: int) -> Float[Tensor, "B 3 S S"]:
    """Random backgrounds in [0, 1]: coloured noise of several octaves and some soft ellipses."""
    grey = random.uniform(0.1, 0.9, batch, 3, 1, 1)
    steepness = random.uniform(0.4, 1.3, batch, 1, 1, 1)
    contrast = random.uniform(0.02, 0.35, batch, 1, 1, 1)
    image = grey.expand(batch, 3, size, size).clone()
    colourful = random.uniform(0.0, 0.8, batch, 1, 1, 1).square()
    side = 2
    while side <= size:
        noise = random.normal(1.0, batch, 3, side, side)
        noise = colourful * noise + (1 - colourful) * noise.mean(1, keepdim=True) * 1.5
        image += contrast * side ** (-steepness) * 2 * F.interpolate(noise, (size, size), mode="bicubic")
        side *= 2
    grid = identity_grid(size)
    for _ in range(3):
        at, turn = random.uniform(-1.2, 1.2, batch, 1, 1, 2), random.uniform(0.0, math.pi, batch)
        axes = torch.exp(random.uniform(-3.2, 0.0, batch, 1, 1, 2))
        cos, sin = torch.cos(turn), torch.sin(turn)
        frame = torch.stack([cos, -sin, sin, cos], -1).view(-1, 2, 2)
        offset = torch.einsum("bij,bhwj->bhwi", frame, grid - at) / axes
        inside = torch.sigmoid(8 * (1 - offset.square().sum(-1)))[:, None] * random.event(0.4, batch, 1, 1, 1)
        image = (1 - inside) * image + inside * random.uniform(0.0, 1.0, batch, 3, 1, 1)
    return image.clamp(0, 1)


def render(
    surface: Surface, texture: Texture, light: Light, symmetric: Tensor, background: Float[Tensor, "B 3 S S"]
) -> tuple[Float[Tensor, "B 3 S S"], Float[Tensor, "B 1 S S"]]:
    """Image in [-1, 1] and mask in [0, 1], antialiased; ``background`` is in [0, 1]."""
    colour = _shade(_albedo(texture, surface, symmetric), surface, light).permute(0, 3, 1, 2)
    hit = surface.hit[:, None].float()
    mask = F.avg_pool2d(hit, OVERSAMPLING)
    return 2 * (F.avg_pool2d(colour * hit, OVERSAMPLING) + (1 - mask) * background) - 1, mask


def find_in_source(
    shown: Surface, source: Ellipsoids, seen_in_source: Surface, symmetric: Tensor
) -> tuple[Float[Tensor, "B H H 2"], Float[Tensor, "B H H"]]:
    """Where the surface points of ``shown`` lie in the source's image.

    Args:
        shown: surface of the answer.
        source, seen_in_source: ellipsoids and surface of the source.
        symmetric: 1 for creatures whose sides are equal. If a point is hidden in their source, its mirror image counts.

    Returns:
        x, y of each point in [-1, 1], and 1 where the point (or its mirror image) is visible in the source.
    """
    part, place = shown.part.flatten(1), shown.place.flatten(1, 2)
    found, visible = _project(part, place, source, seen_in_source)
    other = torch.tensor(TWIN)[part]
    elsewhere, other_visible = _project(other, place * MIRROR, source, seen_in_source)
    pair = other != part
    other_visible = other_visible & (pair | (symmetric > 0)[:, None])
    use = ~visible & other_visible
    grid = torch.where(use[..., None], elsewhere, found)
    square = shown.part.shape
    return grid.view(*square, 2), ((visible | other_visible) & shown.hit.flatten(1)).float().view(square)


def _project(part: Tensor, place: Tensor, source: Ellipsoids, surface: Surface) -> tuple[Tensor, Tensor]:
    """x, y of points of the source's parts in its image, and whether they are visible there."""
    centre, turned, radii = _of_part(source.centre, part), _of_part(source.turned, part), _of_part(source.radii, part)
    point = centre + torch.einsum("bqij,bqj->bqi", turned, place * radii)
    grid = torch.stack([point[..., 0], -point[..., 2]], -1)
    nearest = torch.where(surface.hit, surface.depth, 9.0)[:, None]
    depth = F.grid_sample(nearest, grid[:, None], mode="nearest", align_corners=False)[:, 0, 0]
    return grid, (point[..., 1] < depth + _DEPTH_TOLERANCE) & (grid.abs() < 1).all(-1)
