"""Anatomy of the built-in birds: species, poses, and the outlines of body, wings, tail and beak.

Three coordinate frames are used. In the body frame, the centre of the body is the origin, x points forwards and y down;
lengths are fractions of the picture's side at ``scale`` 1. In the head frame, the centre of the head is the origin and
lengths are in head radii. In the picture, lengths are fractions of its side. Birds are described facing right. Angles
are in degrees: 0 forwards, 90 up, 180 backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = [
    "EYE",
    "WING_RAISED",
    "Colour",
    "Pose",
    "PosedBird",
    "Shape",
    "Species",
    "Wing",
    "ellipse",
    "shade",
    "smooth",
]

Colour = tuple[int, int, int]
"""RGB, 0–255."""

WING_RAISED = 130.0
"""Wing angle of a wing raised high, in degrees; 0 is folded along the body."""

EYE = (0.38, -0.13)
"""Position of the eye in the head frame."""


@dataclass(frozen=True)
class Shape:
    """The silhouette of a genus; lengths are fractions of the picture's side.

    Attributes:
        length, depth: half axes of the body.
        head: radius of the head.
        neck: distance of the head from the body.
        posture: slope of the body at tilt 0, in degrees.
        beak, bill: length of the beak, and its depth at the base.
        hook: bend of the beak's tip, as a fraction of the depth.
        wing: length of the folded wing.
        tail, fork, spread: length of the tail, relative extra length of its outer feathers (may be negative), and its
            opening in degrees.
        crest: height of the crest, as a fraction of the head radius; 0 for none.
    """

    length: float = 0.195
    depth: float = 0.124
    head: float = 0.086
    neck: float = 0.0
    posture: float = 16.0
    beak: float = 0.06
    bill: float = 0.04
    hook: float = 0.2
    wing: float = 0.32
    tail: float = 0.22
    fork: float = 0.0
    spread: float = 9.0
    crest: float = 0.0


@dataclass(frozen=True)
class Species:
    """The appearance of a species: silhouette, colours (RGB, 0–255) and markings.

    A missing marking is None or has the colour of its surroundings. ``above``, ``below`` and ``traits`` describe the
    colours in words, for captions.
    """

    index: int
    seed: int
    name: str
    genus: str
    shape: Shape
    back: Colour
    wing: Colour
    flight: Colour
    head: Colour
    cap: Colour
    throat: Colour
    breast: Colour
    belly: Colour
    rump: Colour
    tail: Colour
    beak: Colour
    legs: Colour
    bars: Colour | None
    spots: Colour | None
    eye_ring: Colour | None
    brow: Colour | None
    mask: Colour | None
    tail_tip: Colour | None
    above: str
    below: str
    traits: tuple[str, ...]


@dataclass(frozen=True)
class Pose:
    """The pose of a bird in the picture.

    Attributes:
        facing: -1 if the beak points left, 1 if right.
        tilt: rotation of the body in degrees; positive raises the head.
        scale: at 1, a bird is about 0.7 of the picture's side long.
        dx, dy: position of the body's centre relative to the picture's centre, as fractions of the side; y points down.
        neck: degrees by which the head is raised.
        wing: degrees by which the wings are raised, 0 (folded) to :data:`WING_RAISED`.
        tail: degrees by which the tail is raised.
        perched: whether the bird stands on a branch; otherwise its legs are not visible.
    """

    facing: int
    tilt: float
    scale: float
    dx: float
    dy: float
    neck: float
    wing: float
    tail: float
    perched: bool


def shade(colour: Colour, factor: float) -> Colour:
    """A colour made darker (factor below 1) or lighter."""
    r, g, b = (min(255, round(channel * factor)) for channel in colour)
    return r, g, b


def _spline_basis(steps: int) -> np.ndarray:
    t = np.arange(steps) / steps
    return np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], 1) / 2


_BASIS = _spline_basis(6)


def smooth(points: np.ndarray) -> np.ndarray:
    """A closed Catmull-Rom curve through ``points`` [P, 2], with six samples per span: [6 P, 2]."""
    count = len(points)
    ring = np.concatenate([points[-1:], points, points[:2]])
    spans = np.stack([ring[shift : shift + count] for shift in range(4)])  # [4, P, 2]
    samples = (_BASIS @ spans.reshape(4, -1)).reshape(-1, count, 2)  # [6, P, 2]
    return samples.transpose(1, 0, 2).reshape(-1, 2)


def _direction(degrees: np.ndarray | float) -> np.ndarray:
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), -np.sin(angle)], -1)


def _turn(degrees: float) -> np.ndarray:
    """The matrix M so that ``points @ M`` are rotated from forwards to upwards."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s], [s, c]])


_AROUND = np.radians(np.arange(0, 360, 24))

_CIRCLE = np.stack([np.cos(_AROUND), np.sin(_AROUND)], 1)


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> np.ndarray:
    """Outline [15, 2] of an ellipse turned by ``turn`` degrees."""
    points = _CIRCLE * (rx, ry)
    return (points @ _turn(turn) if turn else points) + (x, y)


# Outline of a feather from its root (x = 0) to its tip (x = 1); the first half of the points is the leading edge.
_BLADE_X = (0, 0.3, 0.66, 0.86, 0.96, 1, 0.95, 0.84, 0.6, 0.3, 0)

_BLADE_Y = (0.3, 0.47, 0.5, 0.4, 0.2, 0, -0.26, -0.42, -0.5, -0.47, -0.3)

_BLADE = np.stack([_BLADE_X, _BLADE_Y], 1)


def _feathers(roots: np.ndarray, degrees: np.ndarray, lengths: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """Outlines [F, 11, 2] of feathers, from roots [F, 2], directions [F], lengths [F] and widths."""
    along = _direction(degrees)[:, None, :]
    across = along[..., ::-1] * (1, -1)
    wide = np.broadcast_to(np.asarray(width, float), lengths.shape)[:, None, None]
    return roots[:, None, :] + along * _BLADE[:, :1] * lengths[:, None, None] + across * _BLADE[:, 1:] * wide


@dataclass(frozen=True)
class Wing:
    """Outlines of a wing in the body frame, in the order of painting.

    Attributes:
        flight: primary and secondary feathers [13, 11, 2], the outermost first.
        greater, median: coverts over their roots [9, 11, 2] and [7, 11, 2].
        lesser: smooth patch over the arm [P, 2].
    """

    flight: np.ndarray
    greater: np.ndarray
    median: np.ndarray
    lesser: np.ndarray


class PosedBird:
    """A silhouette in a pose: outlines of its parts, and maps between the coordinate frames."""

    def __init__(self, shape: Shape, pose: Pose) -> None:
        self.shape, self.pose = shape, pose
        pivot = np.array([shape.length * 0.55, -shape.depth * 0.4])
        rest = np.array([shape.length * 0.92 + shape.neck * 0.4, -shape.depth * 0.92 - shape.neck])
        self._head_centre = (rest - pivot) @ _turn(pose.neck) + pivot
        # birds keep their head level: it follows the neck in part and compensates part of the body's slope
        head_turn = pose.neck * 0.6 - (shape.posture + pose.tilt) * 0.45
        self._head_map = _turn(head_turn) * shape.head
        self._map = _turn(shape.posture + pose.tilt) * pose.scale * np.array([pose.facing, 1.0])
        self._centre = np.array([0.5 + pose.dx, 0.5 + pose.dy])

    def head(self, points: np.ndarray) -> np.ndarray:
        """Map points [P, 2] from the head frame to the body frame."""
        return points @ self._head_map + self._head_centre

    def picture(self, points: np.ndarray) -> np.ndarray:
        """Map points [P, 2] from the body frame to the picture."""
        return points @ self._map + self._centre

    @cached_property
    def foot(self) -> np.ndarray:
        """Position [2] of the feet in the picture; it depends on the pose only, not on the species."""
        return self._centre + np.array([0.012 * self.pose.facing, 0.222]) * self.pose.scale

    @cached_property
    def body(self) -> np.ndarray:
        """Outline [P, 2] of body and head together, in the body frame."""
        crest = self.shape.crest
        head = [(-0.97, 0.28), (-0.9 - crest * 0.4, -0.44 - crest * 0.62), (-0.34, -0.92 - crest * 0.28)]
        head += [(0.3, -0.93), (0.8, -0.58), (1.0, 0.0), (0.86, 0.5), (0.5, 0.95)]
        body = [
            (1.0, 0.12),
            (0.86, 0.62),
            (0.32, 1.0),
            (-0.38, 0.8),
            (-0.86, 0.38),
            (-1.2, 0.1),
            (-1.2, -0.1),
        ]
        body += [(-0.76, -0.42), (-0.22, -0.76), (0.26, -0.88)]
        axes = np.array([self.shape.length, self.shape.depth])
        return smooth(np.concatenate([self.head(np.array(head)), np.array(body) * axes]))

    @cached_property
    def near_wing(self) -> Wing:
        """The wing on the side of the viewer."""
        return self._wing(far=False)

    @cached_property
    def far_wing(self) -> Wing:
        """The wing behind the body."""
        return self._wing(far=True)

    def _wing(self, far: bool) -> Wing:
        shape, opened = self.shape, min(1.0, self.pose.wing / WING_RAISED)
        shoulder = np.array([shape.length * 0.56, -shape.depth * 0.32])
        ahead = 0.0
        if far:
            shoulder = shoulder + np.array([shape.length * 0.16, -shape.depth * 0.44]) * min(1.0, opened * 3)
            ahead = 20 * opened
        spread = opened**0.8
        arm = _direction(188 - 100 * opened - ahead) * shape.wing * (0.22 + 0.22 * spread)
        t = np.linspace(1, 0, 13)
        inner, outer = 186 - 8 * opened - ahead * 0.5, 181 - 98 * opened - ahead
        degrees = inner + (outer - inner) * t**1.2
        lengths = shape.wing * ((0.56 + 0.24 * t) * (1 - spread) + (0.54 + 0.46 * t**1.4 - 0.10 * t**6) * spread)
        roots = shoulder + arm * t[:, None]
        width = shape.wing * (0.13 + 0.055 * spread * (1 - 0.25 * t))
        rows = []
        for share, number in ((0.54, 9), (0.35, 7)):
            u = np.linspace(1, 0, number)
            reach, turn = (np.interp(u, t[::-1], values[::-1]) for values in (lengths, degrees))
            reach = reach * share * (1 - 0.22 * spread * u)
            rows.append(
                _feathers(shoulder + arm * u[:, None] * 0.96, turn, reach, shape.wing * (0.14 + 0.055 * spread))
            )
        return Wing(
            _feathers(roots, degrees, lengths, width),
            rows[0],
            rows[1],
            self._shoulder(shoulder, arm, degrees),
        )

    def _shoulder(self, shoulder: np.ndarray, arm: np.ndarray, degrees: np.ndarray) -> np.ndarray:
        thick = self.shape.wing * 0.1
        front = _direction(90 - 60 * min(1.0, self.pose.wing / WING_RAISED)) * thick
        edge = [shoulder + arm * 1.08, shoulder + arm * 0.5 + front * 0.5, shoulder + front * 0.6]
        edge += [shoulder + _direction(-40.0) * thick * 0.7, shoulder + _direction(degrees[-1]) * thick * 1.9]
        return smooth(np.array([*edge, shoulder + arm * 0.5 + _direction(degrees[6]) * thick * 1.8]))

    def tail(self, share: float = 1.0) -> np.ndarray:
        """Outlines [6, 11, 2] of the tail feathers, shortened to ``share`` of their length, the outermost first."""
        shape = self.shape
        side = np.array([-1.0, 1.0, -0.6, 0.6, -0.2, 0.2])
        degrees = 184 - self.pose.tail + side * shape.spread
        lengths = (shape.tail + shape.length * 0.3) * (1 + shape.fork * np.abs(side)) * share
        across = _direction(94 - self.pose.tail)
        roots = np.array([-shape.length * 0.82, 0.0]) + side[:, None] * across * shape.depth * 0.16
        return _feathers(roots, degrees, lengths, shape.tail * 0.06 + shape.depth * 0.2)

    @cached_property
    def beak(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Upper half, lower half, and the line between them, in the body frame."""
        shape = self.shape
        long, deep = shape.beak / shape.head, shape.bill / shape.head / 2
        tip = (0.92 + long, 0.17 + shape.hook * deep * 2)
        upper = [
            (0.66, 0.1 - deep),
            (0.92 + long * 0.4, 0.08 - deep * 0.78),
            (0.92 + long * 0.82, 0.1 - deep * 0.3),
        ]
        upper += [tip, (0.92 + long * 0.5, 0.18), (0.66, 0.18)]
        lower = [
            (0.66, 0.16),
            (0.92 + long * 0.9, 0.17),
            (0.92 + long * 0.45, 0.18 + deep * 0.6),
            (0.68, 0.16 + deep),
        ]
        gape = [(0.7, 0.18), (0.92 + long * 0.5, 0.175), tip]
        top, bottom, line = (self.head(np.array(points)) for points in (upper, lower, gape))
        return top, bottom, line

    def extent(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest coordinates (each [2]) of the bird in the picture."""
        outlines = [self.body, self.near_wing.flight, self.tail(), self.beak[0]]
        if self.pose.wing > 0:
            outlines.append(self.far_wing.flight)
        points = self.picture(np.concatenate([outline.reshape(-1, 2) for outline in outlines]))
        if self.pose.perched:
            points = np.concatenate([points, self.foot[None]])
        return points.min(0), points.max(0)
