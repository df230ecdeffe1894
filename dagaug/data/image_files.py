"""Image files in, arrays out and back; every odd file is dealt with here.

An image is uint8 RGB, height × width × 3, upright (EXIF rotation applied), whatever its file holds: JPEG,
PNG, WebP, BMP or TIFF; grey, palette, CMYK, 16-bit, or with transparency, which is laid over a background.
Headers are read here before OpenCV decodes anything, so that absurdly large, truncated and corrupt files are
refused with a reason; OpenCV alone fills some of them with grey, silently. Colour profiles are ignored.

A :class:`Region` is the square of an image that a network sees: :func:`cut` takes it out, :func:`paste` puts
a morph of it back.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from dagaug.data.image_headers import Header, TooLargeError, UnreadableError, read_header, refuse_large
from dagaug.runtime.errors import ImageError, UsageError

__all__ = ["ENCODINGS", "IMAGE_SUFFIXES", "WHITE", "Skipped", "decode", "decode_bytes", "encode", "is_plain_jpeg"]

ENCODINGS = ("jpeg", "png")
"""What :func:`encode` writes."""

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of the names of image files that are looked for in folders."""

_MAX_BYTES = 1 << 30


WHITE = (255, 255, 255)

# What is wrong with a file is told by ImageError; OpenCV would tell it again, in other words, on stderr.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True)
class Skipped:
    """A file that could not be used, and why."""

    path: Path
    reason: str


# Decoding


def decode(path: Path | str, *, background: tuple[int, int, int] = WHITE) -> UInt8[np.ndarray, "H W 3"]:
    """Read an image file: RGB, upright.

    Args:
        path: the file; its name may hold any character.
        background: RGB colour under transparent pixels.

    Raises:
        ImageError: the file is missing, cannot be read, or is no whole image of at most :data:`MAX_PIXELS`.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(path, "not a file")
        if status.st_size > _MAX_BYTES:
            raise ImageError(path, f"larger than {_MAX_BYTES >> 20} MiB")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(path, "no such file") from error
    except (OSError, ValueError) as error:
        raise ImageError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    return decode_bytes(data, path, background=background)


def decode_bytes(
    data: bytes, name: Path | str, *, background: tuple[int, int, int] = WHITE
) -> UInt8[np.ndarray, "H W 3"]:
    """Decode a file's content as :func:`decode` does; ``name`` stands in the error."""
    try:
        if not data:
            raise UnreadableError("empty file")
        header = read_header(data)
        refuse_large(header)
        pixels = _pixels(data, header, background)
    except TooLargeError as error:
        raise ImageError(name, str(error)) from None
    except UnreadableError as error:
        raise ImageError(name, f"not a readable image ({error})") from None
    except (cv2.error, MemoryError) as error:
        raise ImageError(name, "not a readable image (its pixels cannot be decoded)") from error
    return pixels


def _pixels(data: bytes, header: Header, background: tuple[int, int, int]) -> UInt8[np.ndarray, "H W 3"]:
    flags = cv2.IMREAD_UNCHANGED if header.alpha else cv2.IMREAD_COLOR
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise UnreadableError("its pixels cannot be decoded")
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
    if pixels.dtype != np.uint8:
        raise UnreadableError(f"pixels of type {pixels.dtype}")
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if pixels.shape[2] == 4:
        pixels = _over(pixels, background, header.premultiplied)
    pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return _upright(pixels, header.orientation) if header.alpha else pixels


def _over(
    pixels: UInt8[np.ndarray, "H W 4"], background: tuple[int, int, int], premultiplied: bool
) -> UInt8[np.ndarray, "H W 3"]:
    """Lay BGRA over an RGB colour; gives BGR."""
    result = np.empty_like(pixels[..., :3])
    colour = np.array(background[::-1], np.uint32)
    # In strips, since the sums take four times the memory of the image.
    for start in range(0, len(pixels), 64):
        strip = pixels[start : start + 64].astype(np.uint32)
        alpha = strip[..., 3:]
        total = strip[..., :3] * (255 if premultiplied else alpha) + (255 - alpha) * colour
        # A premultiplied colour is never above its alpha, but in a broken file.
        result[start : start + 64] = (np.minimum(total, 255 * 255) + 127) // 255
    return result


def _upright(pixels: UInt8[np.ndarray, "H W 3"], orientation: int) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Apply an EXIF orientation (1 to 8)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def encode(image: UInt8[np.ndarray, "H W 3"], encoding: str, quality: int = 95) -> bytes:
    """Encode an RGB image as ``jpeg`` (of ``quality`` 1 to 100) or ``png``.

    Raises:
        UsageError: the encoding or the quality is unknown.
    """
    if encoding not in ENCODINGS:
        raise UsageError(f"--encoding {encoding}: choose one of {', '.join(ENCODINGS)}")
    if not 1 <= quality <= 100:
        raise UsageError(f"--quality {quality}: give a number from 1 to 100")
    options = [cv2.IMWRITE_PNG_COMPRESSION, 3]
    if encoding == "jpeg":
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        if quality >= 90:
            # Halved colour resolution, the default, would show: these images are small.
            options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    suffix = ".jpg" if encoding == "jpeg" else ".png"
    written, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not written:
        raise ValueError(f"OpenCV could not encode an image of shape {image.shape} as {encoding}")
    return data.tobytes()


# Regions


def is_plain_jpeg(data: bytes, image: UInt8[np.ndarray, "H W 3"]) -> bool:
    """Whether bytes are a JPEG that any decoder shows as ``image``, without turning it by its EXIF orientation."""
    if not data.startswith(b"\xff\xd8"):
        return False
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    plain = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return plain is not None and np.array_equal(plain[..., ::-1], image)
