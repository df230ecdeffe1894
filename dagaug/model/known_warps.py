"""Random warps, limb rotations and colour changes with exactly known effect.

A warp is a sampling grid: for every pixel of the result, the point of the original that it shows. Warping an object
gives a pair of images with known correspondence: the exact supervision of pose morphing (examples/method.md, "How the
networks learn"). Coordinates are x, y in [-1, 1], as in ``torch.nn.functional.grid_sample`` with
``align_corners=False``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "Limb",
    "augment_for_discriminator",
    "identity_grid",
    "jitter_colours",
    "random_limb",
    "random_warp",
    "sample",
]


def identity_grid(size: int, device: torch.device | None = None) -> Float[Tensor, "{size} {size} 2"]:
    """The sampling grid that changes nothing: at every pixel its own x, y."""
    steps = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x, y], dim=-1)


def sample(
    image: Float[Tensor, "B C H W"], grid: Float[Tensor, "B h w 2"], padding: str = "border", mode: str = "bilinear"
) -> Float[Tensor, "B C h w"]:
    """``image`` at the points of the grid; the mode ``bicubic`` is sharper and may exceed the range of the values."""
    return F.grid_sample(image, grid.to(image.dtype), mode=mode, padding_mode=padding, align_corners=False)


def _random_device(generator: torch.Generator | None) -> torch.device:
    """Device of the random numbers: the generator's, so that a seed gives the same numbers on every device."""
    return torch.device("cpu") if generator is None else generator.device


def random_warp(
    masks: Float[Tensor, "B 1 H W"],
    *,
    strength: float = 1.0,
    articulated: bool = True,
    mirror: bool = True,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B H W 2"]:
    """A random warp for each object.

    Affine part: rotation up to ±35°, scale 0.75 to 1.3, shear up to ±0.25, shift up to ±0.25, and a flip with
    probability 0.5. With ``articulated`` also noise on a 4 × 4 control grid, and two local rotations by up to ±55° that
    fade with a Gaussian around a random point of the object, as if limbs turned.

    Args:
        masks: masks of the objects, in [0, 1].
        strength: factor of all ranges; the flip stays.
        articulated: whether to add noise and local rotations.
        mirror: whether half of the warps flip the object.
        generator: source of the random numbers.
    """
    batch, _, height, width = masks.shape
    device = masks.device

    def uniform(*shape: int, span: float = 1.0) -> Tensor:
        """Values in ±span."""
        return ((2 * torch.rand(*shape, generator=generator, device=_random_device(generator)) - 1) * span).to(device)

    around = _centroid(masks)[:, None, None]
    angle = uniform(batch, span=math.radians(35) * strength)
    scale = torch.exp(uniform(batch, span=0.27 * strength))
    shear = uniform(batch, span=0.25 * strength)
    mirrored = torch.where(uniform(batch) < 0, -1.0 if mirror else 1.0, 1.0)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = [cos * mirrored, (shear * cos - sin) * mirrored, sin, shear * sin + cos]
    linear = torch.stack(rows, -1).view(-1, 2, 2)
    shift = uniform(batch, 1, 1, 2, span=0.25 * strength)
    grid = identity_grid(height, device).expand(batch, height, width, 2) - around - shift
    grid = torch.einsum("bij,bhwj->bhwi", linear, grid) + around
    if not articulated:
        return grid
    for _ in range(2):
        pivot = _random_point(masks, generator)
        grid = _rotate_locally(grid, pivot, uniform(batch, span=math.radians(55) * strength), uniform(batch))
    noise = uniform(batch, 2, 4, 4, span=0.09 * strength)
    return grid + F.interpolate(noise, (height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Limb:
    """A rigid part at an object's end that turns around a joint, in front of the body or behind it.

    A smooth warp of all pixels cannot fold a wing over a back; a limb can.

    Attributes:
        part: mask of the limb before it turns, in [0, 1].
        joint: the point around which it turns.
        angle: rotation in radians.
        length: factor of its length.
        behind: whether it ends behind the body.
    """

    part: Float[Tensor, "B 1 H W"]
    joint: Float[Tensor, "B 1 1 2"]
    angle: Float[Tensor, "B 1 1"]
    length: Float[Tensor, "B 1 1"]
    behind: Bool[Tensor, "B 1 1 1"]

    def turned(self, points: Float[Tensor, "B h w 2"]) -> Float[Tensor, "B h w 2"]:
        """Positions of points of the limb after its turn."""
        return self._rotated(points, self.angle, self.length)

    def unturned(self, points: Float[Tensor, "B h w 2"]) -> Float[Tensor, "B h w 2"]:
        """The inverse of :meth:`turned`; as a sampling grid it shows the turned limb."""
        return self._rotated(points, -self.angle, 1 / self.length)

    def _rotated(self, points: Tensor, angle: Tensor, scale: Tensor) -> Tensor:
        return scale[..., None] * _turned(points - self.joint, angle) + self.joint


def random_limb(masks: Float[Tensor, "B 1 H W"], *, generator: torch.Generator | None = None) -> Limb:
    """A random limb of each object: the part beyond a joint on the line from its centroid to one of its far ends.

    The joint is at 0.2 to 0.6 of the line. The limb is 0.25 to 0.9 wide (the image is 2 wide), turns by ±30° to ±150°,
    changes its length by a factor of 0.7 to 1.2, and ends behind the body with probability 1/3.
    """
    batch, _, height, _ = masks.shape
    device = masks.device

    def uniform(low: float, high: float) -> Float[Tensor, "B 1 1"]:
        values = torch.rand(batch, 1, 1, generator=generator, device=_random_device(generator))
        return (low + (high - low) * values).to(device)

    points = identity_grid(height, device)  # H W 2
    middle = _centroid(masks)[:, None, None]
    distance = (points - middle).norm(dim=-1)[:, None]  # B 1 H W
    end = _random_point(masks * distance**4, generator)[:, None, None]
    way = end - middle
    axis = way / (way.norm(dim=-1, keepdim=True) + 1e-6)
    joint = middle + uniform(0.2, 0.6)[..., None] * way
    offset = points - joint
    along = (offset * axis).sum(-1)
    across = (offset[..., 0] * axis[..., 1] - offset[..., 1] * axis[..., 0]).abs()
    sharp = height / 2.0  # the edge is about two pixels wide
    part = torch.sigmoid(sharp * along) * torch.sigmoid(sharp * (uniform(0.125, 0.45) - across))
    angle = uniform(math.radians(30), math.radians(150)) * torch.where(uniform(-1.0, 1.0) < 0, -1.0, 1.0)
    return Limb(part[:, None] * masks, joint, angle, uniform(0.7, 1.2), uniform(0.0, 3.0)[..., None] < 1)


def _centroid(masks: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 2"]:
    points = identity_grid(masks.shape[-1], masks.device)
    weight = masks[:, 0, :, :, None] + 1e-6
    return (weight * points).sum((1, 2)) / weight.sum((1, 2))


def _random_point(masks: Float[Tensor, "B 1 H W"], generator: torch.Generator | None) -> Float[Tensor, "B 2"]:
    flat = (masks.flatten(1) + 1e-6).to(_random_device(generator))
    index = torch.multinomial(flat, 1, generator=generator).to(masks.device)[:, 0]
    return identity_grid(masks.shape[-1], masks.device).flatten(0, 1)[index]


def _rotate_locally(
    grid: Float[Tensor, "B H W 2"],
    pivot: Float[Tensor, "B 2"],
    angle: Float[Tensor, " B"],
    width: Float[Tensor, " B"],
) -> Float[Tensor, "B H W 2"]:
    """Rotate around a pivot by an angle that fades with a Gaussian; ``width`` in [-1, 1] is a sigma of 0.2 to 0.5."""
    offset = grid - pivot[:, None, None]
    sigma = (0.35 + 0.15 * width)[:, None, None]
    local = angle[:, None, None] * torch.exp(-(offset**2).sum(-1) / (2 * sigma**2))
    return _turned(offset, local) + pivot[:, None, None]


def _turned(offset: Float[Tensor, "B h w 2"], angle: Tensor) -> Float[Tensor, "B h w 2"]:
    """Rotate points around the origin; ``angle`` in radians has the points' shape or broadcasts to it."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    x, y = offset.unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], -1)


def jitter_colours(
    images: Float[Tensor, "B 3 H W"], *, strength: float = 1.0, generator: torch.Generator | None = None
) -> Float[Tensor, "B 3 H W"]:
    """Random mixing of channels, gain, offset and noise, so that only the shape of an object stays recognisable.

    Values stay in [-1, 1]; ``strength`` scales the changes.
    """
    batch = images.shape[0]
    device = images.device

    def normal(*shape: int, scale: float) -> Tensor:
        values = torch.randn(*shape, generator=generator, device=_random_device(generator))
        return (values * scale * strength).to(device)

    mix = torch.eye(3, device=device) + normal(batch, 3, 3, scale=0.35)
    grey = torch.full((3, 3), 1 / 3, device=device)
    share = torch.rand(batch, 1, 1, generator=generator, device=_random_device(generator)).to(device) * strength
    mix = (1 - share) * mix + share * grey * torch.exp(normal(batch, 1, 1, scale=0.3))
    jittered = torch.einsum("bij,bjhw->bihw", mix, images) + normal(batch, 3, 1, 1, scale=0.2)
    jittered = jittered + 0.04 * strength * _noise_like(images, generator)
    return jittered.clamp(-1, 1)


def _noise_like(images: Float[Tensor, "B C H W"], generator: torch.Generator | None) -> Float[Tensor, "B C H W"]:
    """Normal noise, drawn on the images' device, because moving noise of this size is slower than drawing it."""
    if generator is not None and generator.device.type != images.device.type:
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        generator = torch.Generator(images.device).manual_seed(seed)
    return torch.randn(images.shape, generator=generator, device=images.device)


def augment_for_discriminator(
    images: Float[Tensor, "B C H W"], generator: torch.Generator | None = None
) -> Float[Tensor, "B C H W"]:
    """Random brightness, saturation, shift and cut-out, all differentiable.

    See Zhao et al., "Differentiable augmentation for data-efficient GAN training", NeurIPS 2020. Without it a
    discriminator memorises a few hundred images.
    """
    batch, _, height, _ = images.shape
    device = images.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=_random_device(generator)).to(device)

    images = images + (uniform(batch, 1, 1, 1) - 0.5) * 0.6
    mean = images.mean(1, keepdim=True)
    images = (images - mean) * (0.5 + uniform(batch, 1, 1, 1)) + mean
    shift = (uniform(batch, 1, 1, 2) - 0.5) / 2
    images = sample(images, identity_grid(height, device) + shift, padding="zeros")
    corner = uniform(batch, 1, 1, 2) * 2 - 1
    outside = ((identity_grid(height, device) - corner).abs() > 0.25).any(-1)[:, None]  # B 1 H W
    return images * outside
