"""Rendering of the built-in birds: a species in a pose on a background, with mask, key points and bounding box.

The records :class:`Species`, :class:`Pose` and :class:`Scene` determine the picture, so any species can be drawn in any
pose on any background. A bird is painted from back to front in layers (far wing, tail, legs, beak, body and head, near
wing). Each layer is a set of smooth polygons, shaded as a relief under the light of the scene. The canvas is larger
than the picture and is averaged down at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from dagaug.birds.anatomy import EYE, Colour, Pose, PosedBird, Species, Wing, ellipse, shade, smooth
from dagaug.birds.backgrounds import background, draw_perch, fixed_point
from dagaug.data.dataset_records import Box

__all__ = ["PART_NAMES", "Rendering", "Scene", "render"]

PART_NAMES = (
    "back",
    "beak",
    "belly",
    "breast",
    "crown",
    "forehead",
    "left eye",
    "left leg",
    "left wing",
    "nape",
    "right eye",
    "right leg",
    "right wing",
    "tail",
    "throat",
)
"""Names of the 15 parts (key points) of CUB-200-2011, in its order; left and right are those of the bird."""


@dataclass(frozen=True)
class Scene:
    """Background and light of a picture.

    Attributes:
        background_seed: random seed of background and perch.
        light_angle: direction of the light, in degrees from above; positive from the right.
        light: strength of the relief, about 0.5 to 1.
        warmth: colour of the light, from -1 (bluish) to 1 (reddish).
        exposure: factor on the brightness, about 0.85 to 1.1.
    """

    background_seed: int
    light_angle: float
    light: float
    warmth: float
    exposure: float


@dataclass(frozen=True)
class Rendering:
    """A picture with its ground truth.

    Attributes:
        image: RGB.
        mask: coverage of each pixel by the bird, in [0, 1].
        parts: x, y (in pixels) and visibility (0 or 1) of each of :data:`PART_NAMES`; zeros for hidden parts.
        box: bounding box of the bird.
    """

    image: UInt8[np.ndarray, "S S 3"]
    mask: Float32[np.ndarray, "S S"]
    parts: Float64[np.ndarray, "15 3"]
    box: Box


def _mix(first: Colour, second: Colour, share: float) -> Colour:
    """The mixture of two colours with this share of the second."""
    r, g, b = (round(x + (y - x) * share) for x, y in zip(first, second, strict=True))
    return r, g, b


class _Canvas:
    """The enlarged picture and the mask of the bird, both changed by painting."""

    def __init__(self, pixels: UInt8[np.ndarray, "S S 3"], bird: PosedBird, scene: Scene) -> None:
        self.pixels, self.bird, self.scene = pixels, bird, scene
        self.side = len(pixels)
        self.mask = np.zeros((self.side, self.side), np.uint8)
        tint = np.array([1 + 0.07 * scene.warmth, 1.0, 1 - 0.09 * scene.warmth]) * scene.exposure
        self.tint = tint.astype(np.float32)
        self.stroke = self.side / 256  # width of a line that is one pixel wide on a canvas of 256 pixels


class _Layer:
    """One part of the bird: colours and coverage in a window of the canvas."""

    def __init__(self, canvas: _Canvas, outlines: np.ndarray, base: Colour) -> None:
        self.canvas = canvas
        pixels = canvas.bird.picture(outlines.reshape(-1, 2)) * canvas.side
        low = np.clip(np.floor(pixels.min(0)) - 3, 0, canvas.side - 4).astype(int)
        high = np.clip(np.ceil(pixels.max(0)) + 4, low + 4, canvas.side).astype(int)
        self.left, self.top = int(low[0]), int(low[1])
        self.width, self.height = int(high[0] - low[0]), int(high[1] - low[1])
        self.colour = np.empty((self.height, self.width, 3), np.uint8)
        self.colour[:] = base
        self.alpha = np.zeros((self.height, self.width), np.uint8)

    def _local(self, points: np.ndarray) -> np.ndarray:
        flat = self.canvas.bird.picture(points.reshape(-1, 2)) * self.canvas.side - (self.left, self.top)
        return fixed_point(flat).reshape(points.shape)

    def cover(self, outline: np.ndarray, colour: Colour) -> None:
        """Add a polygon to the coverage, and colour it."""
        fixed = [self._local(outline)]
        cv2.fillPoly(self.alpha, fixed, 255, cv2.LINE_AA, 4)
        cv2.fillPoly(self.colour, fixed, colour, cv2.LINE_AA, 4)

    def paint(self, outline: np.ndarray, colour: Colour) -> None:
        """Colour a polygon without changing the coverage."""
        cv2.fillPoly(self.colour, [self._local(outline)], colour, cv2.LINE_AA, 4)

    def feathers(self, outlines: np.ndarray, colour: Colour, edge: Colour) -> None:
        """Cover and colour feathers [F, P, 2], each over the one before, with a thin leading edge."""
        tones = [shade(colour, 1.05), shade(colour, 0.94)]
        width = max(1, round(self.canvas.stroke))
        for number, outline in enumerate(self._local(outlines)):
            cv2.fillPoly(self.alpha, [outline], 255, cv2.LINE_AA, 4)
            cv2.fillPoly(self.colour, [outline], tones[number % 2], cv2.LINE_AA, 4)
            cv2.polylines(self.colour, [outline[:6]], False, edge, width, cv2.LINE_AA, 4)

    def lines(self, strokes: np.ndarray, colour: Colour, width: float = 1.0) -> None:
        """Draw open lines [N, P, 2]; ``width`` is in pixels of a canvas of 256 pixels."""
        thick = max(1, round(width * self.canvas.stroke))
        cv2.polylines(self.colour, list(self._local(strokes)), False, colour, thick, cv2.LINE_AA, 4)

    def soften(self, amount: float) -> None:
        """Blur the colours; ``amount`` is in pixels of a canvas of 256 pixels."""
        cv2.GaussianBlur(self.colour, (0, 0), amount * self.canvas.stroke, dst=self.colour)

    def _relief(self, depth: float) -> np.ndarray:
        """Brightness factors [H, W, 1]: the coverage, blurred to a height map, under the light of the scene."""
        step = max(1, self.canvas.side // 64)
        small = (max(4, self.width // step), max(4, self.height // step))
        hill = cv2.resize(self.alpha, small, interpolation=cv2.INTER_AREA)
        blur = 2.8 * self.canvas.bird.pose.scale
        hill = cv2.GaussianBlur(hill.astype(np.float32), (0, 0), blur, borderType=cv2.BORDER_CONSTANT)
        right = cv2.Sobel(hill, cv2.CV_32F, 1, 0, ksize=1, borderType=cv2.BORDER_CONSTANT)
        down = cv2.Sobel(hill, cv2.CV_32F, 0, 1, ksize=1, borderType=cv2.BORDER_CONSTANT)
        angle, strength = (
            np.radians(self.canvas.scene.light_angle),
            3.0 * depth * self.canvas.scene.light / 255,
        )
        lit = np.float32(np.cos(angle) * strength) * down - np.float32(np.sin(angle) * strength) * right
        return cv2.resize(np.clip(lit, -0.62, 0.36) + 1, (self.width, self.height))[..., None]

    def blend(self, depth: float, light: float = 1.0) -> None:
        """Shade the layer with a relief of this depth and blend it into the canvas."""
        window = np.s_[self.top : self.top + self.height, self.left : self.left + self.width]
        shaded = self.colour * (self._relief(depth) * (self.canvas.tint * np.float32(light)))
        np.minimum(shaded, 255, out=shaded)
        alpha = (self.alpha * np.float32(1 / 255))[..., None]
        below = self.canvas.pixels[window]
        shaded -= below
        shaded *= alpha
        shaded += below
        self.canvas.pixels[window] = (shaded + np.float32(0.5)).astype(np.uint8)
        np.maximum(self.canvas.mask[window], self.alpha, out=self.canvas.mask[window])

    def covers(self, x: float, y: float) -> bool:
        """Whether the layer hides a point, given in pixels of the canvas."""
        column, row = round(x) - self.left, round(y) - self.top
        return 0 <= column < self.width and 0 <= row < self.height and bool(self.alpha[row, column] > 127)


def _wing(canvas: _Canvas, species: Species, outlines: Wing, far: bool) -> _Layer:
    rows = (outlines.flight, outlines.greater, outlines.median, outlines.lesser)
    layer = _Layer(canvas, np.concatenate([row.reshape(-1, 2) for row in rows]), species.flight)
    layer.feathers(outlines.flight, species.flight, _mix(species.flight, species.wing, 0.75))
    for row in (outlines.greater, outlines.median):
        if species.bars is not None:
            layer.feathers(row, species.bars, shade(species.bars, 0.9))
            row = row[:, :1] + (row - row[:, :1]) * 0.78
        layer.feathers(row, shade(species.wing, 0.9 if far else 1.0), shade(species.wing, 0.78))
    layer.cover(outlines.lesser, _mix(species.wing, species.back, 0.6))
    return layer


def _tail(canvas: _Canvas, species: Species) -> _Layer:
    whole = canvas.bird.tail()
    layer = _Layer(canvas, whole, species.tail)
    edge = _mix(species.tail, species.back, 0.5)
    if species.tail_tip is None:
        layer.feathers(whole, species.tail, edge)
    else:
        layer.feathers(whole, species.tail_tip, shade(species.tail_tip, 0.85))
        layer.feathers(canvas.bird.tail(0.8), species.tail, edge)
    return layer


def _beak(canvas: _Canvas, species: Species) -> _Layer:
    top, bottom, gape = canvas.bird.beak
    layer = _Layer(canvas, np.concatenate([top, bottom]), species.beak)
    layer.cover(bottom, shade(species.beak, 0.74))
    layer.cover(top, species.beak)
    layer.lines(gape[None], shade(species.beak, 0.45))
    return layer


def _scallops() -> np.ndarray:
    around = np.radians(np.array([100, 140, 180, 220, 260]))
    curl = np.stack([np.cos(around) * 0.075, np.sin(around) * 0.11], 1)
    rows = [
        (x + 0.09 * (row % 2), y) for row, y in enumerate(np.linspace(-0.6, 0.8, 8)) for x in np.linspace(-0.8, 0.7, 9)
    ]
    return np.array([centre for centre in rows if centre[0] ** 2 + centre[1] ** 2 < 0.85])[:, None, :] + curl


def _drops() -> list[np.ndarray]:
    return [
        ellipse(x + 0.10 * (row % 2) - 0.13 * max(0, row - 1), y, 0.05, 0.066, 55.0)
        for row, y in enumerate((-0.02, 0.24, 0.50, 0.76))
        for x in (0.20, 0.42, 0.64, 0.86)
    ]


# Regions of the plumage, in half axes of the body or in the head frame.
_SCALLOPS = _scallops()  # small feather edges on back and flank: lines [N, 5, 2]
_DROPS = _drops()  # spots on breast and flank, in staggered rows
_UNDER = np.array([(1.5, -0.3), (0.95, -0.2), (0.3, 0.08), (-0.4, 0.10), (-1.3, 0.02), (-1.3, 1.5), (1.5, 1.5)])
_BREAST = ellipse(0.84, 0.26, 0.44, 0.62, 20.0)
_RUMP = ellipse(-0.86, -0.34, 0.36, 0.44, 20.0)
_HOOD = smooth(np.array([(-1.3, 0.4), (-1.9, -1.8), (1.4, -1.6), (1.5, 1.0), (0.5, 1.05), (-0.3, 0.75)]))
_THROAT = ellipse(0.5, 0.92, 0.64, 0.52, -28.0)
_CAP = np.array(
    [
        (-1.25, 0.0),
        (-2.4, -1.5),
        (-1.2, -2.0),
        (0.2, -1.5),
        (1.3, -0.9),
        (0.95, -0.36),
        (0.3, -0.42),
        (-0.5, -0.34),
    ]
)
_MASK = smooth(np.array([(1.1, -0.2), (0.4, -0.36), (-0.7, -0.06), (-0.78, 0.2), (0.3, 0.22), (1.1, 0.16)]))
_BROW = smooth(
    np.array([(1.0, -0.3), (0.4, -0.46), (-0.35, -0.38), (-0.9, -0.06), (-0.4, -0.56), (0.4, -0.68), (0.95, -0.5)])
)


def _body(canvas: _Canvas, species: Species) -> _Layer:
    bird = canvas.bird
    axes = np.array([bird.shape.length, bird.shape.depth])
    shadow, below = shade(_mix(species.back, species.belly, 0.5), 0.6), axes * (0, 0.1)
    layer = _Layer(canvas, bird.body, species.back)
    layer.cover(bird.body, species.back)
    layer.paint(_UNDER * axes, species.belly)
    layer.paint(_BREAST * axes, species.breast)
    layer.paint(_RUMP * axes, species.rump)
    layer.lines(_SCALLOPS * axes, shade(_mix(species.back, species.belly, 0.35), 0.86))
    for feather in bird.near_wing.greater[::3]:  # the wing's shadow on the flank
        layer.paint(feather + below, shadow)
    for region, colour in ((_HOOD, species.head), (_THROAT, species.throat), (_CAP, species.cap)):
        layer.paint(bird.head(region), colour)
    if species.mask is not None:
        layer.paint(bird.head(_MASK), species.mask)
    layer.soften(1.7)
    if species.brow is not None:
        layer.paint(bird.head(_BROW), species.brow)
    if species.spots is not None:
        for drop in _DROPS:
            layer.paint(drop * axes, species.spots)
    layer.soften(0.7)
    return layer


def _eye(layer: _Layer, bird: PosedBird, species: Species) -> None:
    x, y = EYE
    ring = shade(species.head, 0.72) if species.eye_ring is None else species.eye_ring
    layer.paint(bird.head(ellipse(x, y, *((0.25, 0.25) if species.eye_ring is None else (0.31, 0.31)))), ring)
    layer.paint(bird.head(ellipse(x, y, 0.2, 0.2)), (44, 28, 20))
    layer.paint(bird.head(ellipse(x + 0.01, y, 0.15, 0.15)), (10, 9, 10))
    layer.paint(bird.head(ellipse(x + 0.06, y - 0.08, 0.065, 0.065)), (255, 255, 255))


def _legs(canvas: _Canvas, species: Species) -> None:
    """Feathered thighs, thin legs, and toes round the perch, in the picture."""
    bird, side = canvas.bird, canvas.side
    pose, shape = bird.pose, bird.shape
    forwards = np.array([pose.facing, 1.0]) * pose.scale
    thin = max(1, round(0.0125 * pose.scale * side))
    for lead, tone in ((0.05, 0.72), (0.0, 0.95)):
        hip = bird.picture(np.array([-shape.length * 0.12 + lead, shape.depth * 0.66]))
        foot = bird.foot + forwards * (lead, 0)
        knee = hip + (foot - hip) * 0.42 - forwards * (0.012, 0)
        toes = foot + np.array([(0.04, 0.006), (0.018, 0.010), (-0.026, 0.008)]) * forwards
        thigh = _mix(species.belly, species.back, 0.3)
        strokes = [([hip, knee], shade(thigh, 0.74), thin * 3), ([knee, foot], species.legs, thin)]
        strokes += [([foot, toe], species.legs, max(1, thin - 1)) for toe in toes]
        for points, colour, width in strokes:
            line = [fixed_point(np.array(points) * side)]
            tint = np.minimum(np.array(colour) * canvas.tint * tone, 255).tolist()
            cv2.polylines(canvas.pixels, line, False, tint, width, cv2.LINE_AA, 4)
            cv2.polylines(canvas.mask, line, False, 255, width, cv2.LINE_AA, 4)


def _parts(bird: PosedBird, near: _Layer, size: int) -> Float64[np.ndarray, "15 3"]:
    """Position and visibility of each part; see :class:`Rendering`."""
    pose, axes = bird.pose, np.array([bird.shape.length, bird.shape.depth])
    own, other = ("left", "right") if pose.facing < 0 else ("right", "left")
    on_head = {"crown": (0.0, -0.72), "forehead": (0.72, -0.42), f"{own} eye": EYE, "nape": (-0.8, 0.2)}
    on_head["throat"] = (0.52, 0.72)
    on_body = {"back": (0.0, -0.62), "belly": (0.0, 0.66), "breast": (0.8, 0.36)}
    places = {name: bird.head(np.array(place)) for name, place in on_head.items()}
    places |= {name: np.array(place) * axes for name, place in on_body.items()}
    places |= {"beak": bird.beak[2][1], "tail": bird.tail()[4:, [2, 8]].mean((0, 1))}
    places[f"{own} wing"] = bird.near_wing.greater.mean((0, 1))
    if pose.wing > 40:
        places[f"{other} wing"] = bird.far_wing.flight[1, [2, 8]].mean(0)
    rows = np.zeros((len(PART_NAMES), 3))
    side = near.canvas.side
    for name, place in places.items():
        x, y = bird.picture(place)
        if name == f"{own} wing" or not near.covers(x * side, y * side):
            rows[PART_NAMES.index(name)] = x * size, y * size, 1
    if pose.perched:
        for leg, lead in ((own, 0.0), (other, 0.05)):
            x, y = bird.foot + np.array([pose.facing * lead, -0.008]) * pose.scale
            rows[PART_NAMES.index(f"{leg} leg")] = x * size, y * size, 1
    return rows


def _box(mask: np.ndarray) -> Box:
    """The bounding box of all pixels that the bird covers by more than a quarter."""
    rows, columns = np.flatnonzero((mask > 0.25).any(1)), np.flatnonzero((mask > 0.25).any(0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    left, top = float(columns[0]), float(rows[0])
    return left, top, float(columns[-1]) + 1 - left, float(rows[-1]) + 1 - top


def _canvas_side(size: int) -> int:
    """Side of the canvas that is averaged down to ``size`` pixels."""
    return size * (4 if size <= 64 else 3 if size <= 160 else 2)


def _paint_bird(canvas: _Canvas, species: Species, size: int) -> Float64[np.ndarray, "15 3"]:
    """Paint all layers from back to front; returns the parts."""
    bird = canvas.bird
    if bird.pose.wing > 0:
        _wing(canvas, species, bird.far_wing, far=True).blend(0.5, 0.74)
    _tail(canvas, species).blend(0.6, 0.95)
    if bird.pose.perched:
        _legs(canvas, species)
    _beak(canvas, species).blend(0.45)
    body = _body(canvas, species)
    _eye(body, bird, species)
    body.blend(1.0)
    near = _wing(canvas, species, bird.near_wing, far=False)
    near.blend(0.6)
    return _parts(bird, near, size)


def render(species: Species, pose: Pose, scene: Scene, *, size: int = 64, bird: bool = True) -> Rendering:
    """Render a species in a pose.

    Args:
        species: appearance of the bird.
        pose: pose of the bird.
        scene: background and light.
        size: side of the picture, in pixels.
        bird: False renders the same scene with its perch but without the bird; mask, parts and box are zeros.
    """
    side = _canvas_side(size)
    posed = PosedBird(species.shape, pose)
    tint = np.array([1 + 0.05 * scene.warmth, 1.0, 1 - 0.07 * scene.warmth]) * scene.exposure
    canvas = _Canvas(background(scene.background_seed, side, tint), posed, scene)
    if pose.perched:
        draw_perch(canvas.pixels, float(posed.foot[0]), float(posed.foot[1]), pose.scale, scene.background_seed)
    parts = _paint_bird(canvas, species, size) if bird else np.zeros((len(PART_NAMES), 3))
    image = cv2.resize(canvas.pixels, (size, size), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(canvas.mask, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return Rendering(image, mask, parts, _box(mask))
