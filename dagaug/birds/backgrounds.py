"""Backgrounds and perches of the built-in birds: blurred natural textures, determined by a seed.

Backgrounds of bird photographs are blurred, so a background is painted on a small grid and enlarged. The same seed
gives the same background at every size. The colours are those of foliage, bark, sky, water and soil, so they are often
close to the colours of a bird.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

__all__ = ["KINDS", "background", "draw_perch", "fixed_point"]

KINDS = ("sky", "foliage", "reeds", "water", "meadow", "ground", "thicket", "bokeh")
"""The kinds of backgrounds; the seed chooses one."""

_GRID = 128  # side in pixels; a finer grid would look sharper than the bird

_TINTS = {
    "sky": ((150, 190, 228), (206, 218, 228), (120, 156, 200), (226, 214, 200), (176, 184, 196)),
    "foliage": ((74, 104, 50), (112, 132, 64), (54, 78, 48), (146, 140, 72), (128, 92, 52)),
    "reeds": ((164, 150, 96), (132, 136, 84), (188, 170, 118), (108, 112, 72), (146, 118, 82)),
    "water": ((92, 124, 142), (120, 146, 150), (70, 96, 104), (148, 158, 152), (110, 116, 96)),
    "meadow": ((128, 150, 72), (166, 164, 92), (96, 124, 60), (190, 176, 112), (112, 120, 88)),
    "ground": ((142, 118, 90), (116, 98, 80), (170, 148, 118), (128, 122, 114), (98, 78, 62)),
    "thicket": ((88, 76, 62), (116, 102, 84), (66, 70, 54), (140, 128, 112), (100, 104, 84)),
    "bokeh": ((86, 112, 66), (140, 132, 74), (90, 100, 112), (160, 120, 76), (116, 92, 96)),
}


def _noise(rng: np.random.Generator, columns: int, rows: int, channels: int = 1) -> np.ndarray:
    """Smooth noise on the grid, approximately uniform in [-1, 1], with ``rows`` × ``columns`` random knots."""
    knots = rng.uniform(-1, 1, (rows, columns, channels)).astype(np.float32)
    smooth = cv2.resize(knots, (_GRID, _GRID), interpolation=cv2.INTER_CUBIC)
    return smooth.reshape(_GRID, _GRID, channels)


def _ramp(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    t = np.linspace(0, 1, _GRID, dtype=np.float32)[:, None, None]
    return np.broadcast_to(top * (1 - t) + bottom * t, (_GRID, _GRID, 3)).astype(np.float32, order="C")


def fixed_point(points: np.ndarray) -> np.ndarray:
    """Coordinates in pixels as OpenCV's fixed-point integers with four fractional bits."""
    return np.rint(points * 16).astype(np.int32)


def _leaves(canvas: np.ndarray, rng: np.random.Generator, count: int, size: float, tints: np.ndarray) -> None:
    """Scatter ``count`` leaf-shaped blots of about ``size`` grid pixels."""
    for _ in range(count):
        x, y, turn = rng.uniform(0, _GRID), rng.uniform(0, _GRID), rng.uniform(0, 180)
        long = size * rng.uniform(0.6, 1.4)
        colour = tints[rng.integers(len(tints))] * rng.uniform(0.7, 1.3)
        axes = (round(long * 16), round(long * rng.uniform(5, 9)))
        cv2.ellipse(canvas, (round(x * 16), round(y * 16)), axes, turn, 0, 360, colour.tolist(), -1, 8, 4)


def _stalks(canvas: np.ndarray, rng: np.random.Generator, count: int, lean: float, tints: np.ndarray) -> None:
    """Draw ``count`` tapering blades or twigs that lean up to ``lean`` of the grid's width."""
    for _ in range(count):
        x, width = rng.uniform(-0.1, 1.1) * _GRID, rng.uniform(0.6, 2.6)
        tip, top = x + rng.uniform(-lean, lean) * _GRID, rng.uniform(-0.2, 0.5) * _GRID
        colour = tints[rng.integers(len(tints))] * rng.uniform(0.65, 1.35)
        base, middle = (x - width, _GRID), ((x + tip) / 2 - width, _GRID * 0.6)
        blade = fixed_point(np.array([base, middle, (tip, top), (x + width, _GRID)]))
        cv2.fillPoly(canvas, [blade], colour.tolist(), cv2.LINE_AA, 4)


def _paint(kind: str, rng: np.random.Generator, tints: np.ndarray) -> tuple[np.ndarray, float]:
    """The sharp background of a kind, and the standard deviation of its blur in grid pixels."""
    first, second = tints[rng.permutation(len(tints))[:2]]
    canvas = _ramp(first * rng.uniform(0.85, 1.2), second * rng.uniform(0.75, 1.1))
    mottle = _noise(rng, 5, 5) * 0.6 + _noise(rng, 13, 13) * 0.4
    if kind == "sky":
        clouds = np.clip(_noise(rng, 4, 7) * 0.9 + _noise(rng, 9, 14) * 0.35, 0, 1)
        canvas += clouds * (np.float32(244) - canvas) * np.float32(rng.uniform(0.3, 0.9))
        return canvas, 1.5
    if kind == "water":
        canvas += (_noise(rng, 4, 40) * 0.6 + _noise(rng, 9, 64) * 0.4) * np.float32(rng.uniform(14, 34))
        return canvas, 1.0
    if kind == "ground":
        canvas += mottle * 18 + _noise(rng, 48, 40) * 16
        _leaves(canvas, rng, 30, 2.5, tints)
        return canvas, 0.9
    canvas += mottle * np.float32(rng.uniform(12, 26))
    if kind == "foliage":
        _leaves(canvas, rng, 42, rng.uniform(6, 12), tints)
        return canvas, rng.uniform(1.2, 3.5)
    if kind == "bokeh":
        _leaves(canvas, rng, 26, rng.uniform(10, 18), tints)
        return canvas, rng.uniform(4.5, 8.0)
    count = {"reeds": 34, "meadow": 46, "thicket": 26}[kind]
    _stalks(canvas, rng, count, {"reeds": 0.12, "meadow": 0.2, "thicket": 0.8}[kind], tints)
    return canvas, rng.uniform(0.8, 2.6)


def background(seed: int, size: int, tint: np.ndarray) -> UInt8[np.ndarray, "S S 3"]:
    """The background of a picture.

    Args:
        seed: determines everything.
        size: side in pixels.
        tint: factors [3] on red, green and blue.
    """
    rng = np.random.default_rng(seed)
    kind = KINDS[rng.integers(len(KINDS))]
    tints = np.array(_TINTS[kind], np.float32) * rng.uniform(0.88, 1.12, 3).astype(np.float32)
    canvas, blur = _paint(kind, rng, tints)
    canvas = cv2.GaussianBlur(canvas, (0, 0), blur) * tint.astype(np.float32)
    interpolation = cv2.INTER_AREA if size < _GRID else cv2.INTER_CUBIC
    return cv2.resize(np.clip(canvas, 0, 255).astype(np.uint8), (size, size), interpolation=interpolation)


def draw_perch(canvas: UInt8[np.ndarray, "S S 3"], x: float, y: float, scale: float, seed: int) -> None:
    """Draw a branch through the point (x, y) on ``canvas``, in place.

    Args:
        canvas: RGB.
        x, y: as fractions of the side.
        scale: of the bird; the branch gets thicker with it.
        seed: determines everything else.
    """
    rng = np.random.default_rng([seed, 1])
    size = canvas.shape[0]
    slope, bow = rng.uniform(-0.16, 0.16), rng.uniform(-0.06, 0.06)
    thick = scale * rng.uniform(0.020, 0.036)
    bark = np.array(_TINTS["thicket"][rng.integers(5)], np.float32) * rng.uniform(0.75, 1.25)
    t = np.linspace(-0.2, 1.2, 12)
    middle = y + thick * 0.8 + slope * (t - x) + bow * (t - x) ** 2 * 4
    knobs = thick * rng.uniform(0.8, 1.15, 12)
    for low, high, tone in ((-1.0, 1.0, 0.72), (-1.0, 0.45, 1.0), (-0.8, -0.2, 1.2)):
        upper = np.stack([t, middle + low * knobs], 1)
        lower = np.stack([t, middle + high * knobs], 1)[::-1]
        outline = fixed_point(np.concatenate([upper, lower]) * size)
        cv2.fillPoly(canvas, [outline], np.clip(bark * tone, 0, 255).tolist(), cv2.LINE_AA, 4)
    if rng.random() < 0.6:
        _draw_twig(canvas, rng, np.stack([t, middle], 1)[rng.integers(2, 10)], thick, bark)


def _draw_twig(canvas: np.ndarray, rng: np.random.Generator, start: np.ndarray, thick: float, bark: np.ndarray) -> None:
    """A tapering side twig from ``start``, with a few leaves."""
    size = canvas.shape[0]
    angle = rng.uniform(0.35, 1.1) * (1 if rng.random() < 0.7 else -1)
    along = np.array([np.cos(angle) * (1 if rng.random() < 0.5 else -1), np.sin(angle)])
    across, tip = along[::-1] * (1, -1) * thick * 0.5, start + along * rng.uniform(0.12, 0.3)
    twig = fixed_point(np.array([start - across, start + across, tip]) * size)
    cv2.fillPoly(canvas, [twig], np.clip(bark * 0.85, 0, 255).tolist(), cv2.LINE_AA, 4)
    green = np.array(_TINTS["foliage"][rng.integers(5)], np.float32)
    for _ in range(rng.integers(1, 5)):
        middle = (start + (tip - start) * rng.uniform(0.4, 1.1) + rng.uniform(-0.02, 0.02, 2)) * size * 16
        axes = (round(size * 16 * rng.uniform(0.022, 0.04)), round(size * 16 * rng.uniform(0.009, 0.016)))
        colour = np.clip(green * rng.uniform(0.75, 1.3), 0, 255).tolist()
        at = (round(float(middle[0])), round(float(middle[1])))
        cv2.ellipse(canvas, at, axes, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA, 4)
