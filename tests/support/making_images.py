"""Pictures and image files for tests."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dagaug.data.image_files import decode_bytes
from dagaug.runtime.errors import ImageError


def smooth_image(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A picture without sharp edges, so that lossy formats change it little."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, channels), dtype=np.uint8)
    return cv2.resize(coarse, (width, height)).reshape(height, width, channels)


def encoded(image: np.ndarray | Image.Image, kind: str, mode: str | None = None, **options: object) -> bytes:
    """A picture as an image file that Pillow writes."""
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(buffer, kind, **options)
    return buffer.getvalue()


RGB = smooth_image(30, 40)
RGBA = np.concatenate([RGB, smooth_image(30, 40, 1, seed=1)], axis=2)


def make_transparent(path: Path) -> None:
    """Give an image file, whatever its format is, pixels that are not opaque."""
    image = decode_bytes(path.read_bytes(), path)
    path.write_bytes(encoded(np.dstack([image, image[..., 0] // 2]), "PNG"))


def reason_of(data: bytes) -> str:
    """Why an image file is refused."""
    with pytest.raises(ImageError) as caught:
        decode_bytes(data, "bird.jpg")
    assert str(caught.value).startswith("bird.jpg: ")
    return caught.value.reason
