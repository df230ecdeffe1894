"""Decoding and encoding of image files.

An image is uint8 RGB, height × width × 3, upright (its EXIF orientation is applied). Files may be JPEG, PNG, WebP, BMP
or TIFF, and grey, palette, CMYK, 16-bit or transparent; transparent pixels are blended with a background colour.
Colour profiles are ignored.

The header is checked before OpenCV decodes the file (:mod:`dagaug.data.image_headers`), so that too large, truncated
and corrupt files are refused with a reason. OpenCV alone would fill the missing pixels of some with grey.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from dagaug.data.dataset_records import MaskValues
from dagaug.data.image_headers import Header, TooLargeError, UnreadableError, read_header, refuse_large
from dagaug.runtime.errors import ImageError, UsageError

__all__ = [
    "ENCODINGS",
    "WHITE",
    "Skipped",
    "decode",
    "decode_bytes",
    "decode_mask",
    "decode_rgba",
    "decode_with_alpha",
    "encode",
    "encode_mask_file",
    "is_plain_jpeg",
]

ENCODINGS = ("jpeg", "png")
"""Formats that :func:`encode` writes."""

WHITE = (255, 255, 255)
"""RGB."""

_MAX_BYTES = 1 << 30  # of a file
_LARGEST_OF_12_BITS = (1 << 12) - 1
_BLUE, _BLUE_ERROR = (0, 0, 254), 60  # RGB behind the flowers of Flowers-102, and what JPEG changes of it at edges
_UNUSABLE_MASK = "unusable mask: "  # begins the reason where the image itself can be read

# An ImageError says what is wrong with a file; OpenCV would print it again on stderr.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True)
class Skipped:
    """A file that could not be used, and the reason."""

    path: Path
    reason: str

    @classmethod
    def for_mask(cls, path: Path, reason: str) -> Skipped:
        """An image that can be read, but whose mask is of no use."""
        return cls(path, f"{_UNUSABLE_MASK}{reason}")

    @property
    def for_its_mask(self) -> bool:
        """Whether only the mask of the image is at fault."""
        return self.reason.startswith(_UNUSABLE_MASK)


# Decoding


def decode(path: Path | str, *, background: tuple[int, int, int] = WHITE) -> UInt8[np.ndarray, "H W 3"]:
    """Read an image file as RGB in [0, 255], upright.

    Args:
        path: the file; its name may hold any character.
        background: RGB colour behind transparent pixels.

    Raises:
        ImageError: the file is missing, unreadable, truncated, corrupt, or larger than 1 GiB or
            :data:`dagaug.data.image_headers.MAX_PIXELS`.
    """
    return decode_bytes(_file_content(Path(path)), path, background=background)


def decode_with_alpha(
    path: Path | str, *, background: tuple[int, int, int] = WHITE
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"] | None]:
    """Read an image file as :func:`decode` does, and its opacity (255: opaque); None if the file has none.

    Raises:
        ImageError: as of :func:`decode`.
    """
    rgba = _decoded(_file_content(Path(path)), path, lambda data, header: _pixels(data, header, background, True))
    return (rgba, None) if rgba.shape[2] == 3 else (np.ascontiguousarray(rgba[..., :3]), rgba[..., 3])


def decode_rgba(path: Path | str) -> UInt8[np.ndarray, "H W 4"]:
    """Read an image file as RGBA, upright; colours are not multiplied by the opacity.

    Raises:
        ImageError: as of :func:`decode`.
    """
    rgba = _decoded(_file_content(Path(path)), path, lambda data, header: _pixels(data, header, None, True))
    return rgba if rgba.shape[2] == 4 else np.dstack([rgba, np.full(rgba.shape[:2], 255, np.uint8)])


def decode_mask(path: Path | str, values: MaskValues = "upper half") -> Bool[np.ndarray, "H W"]:
    """Read an image file as the mask of an object, upright.

    Args:
        path: the file.
        values: what its values say. ``upper half``: the object is where a value is above half of the file's range; in
            a file with colours the largest of the three counts, in one with transparency the opacity, if it is not
            the same everywhere. ``trimap``: 1 is the object, 2 is beside it, 3 is the border between them, of which
            the half that is nearer to the object is taken. ``blue background``: all but pure blue is the object.

    Raises:
        ImageError: as of :func:`decode`; also if a trimap has other values.
    """
    return _decoded(_file_content(Path(path)), path, _MASK_READERS[values])


def _file_content(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(path, "not a file")
        if status.st_size > _MAX_BYTES:
            raise ImageError(path, f"larger than {_MAX_BYTES >> 20} MiB")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(path, "no such file") from error
    except (OSError, ValueError) as error:
        raise ImageError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from error


def decode_bytes(
    data: bytes, name: Path | str, *, background: tuple[int, int, int] = WHITE
) -> UInt8[np.ndarray, "H W 3"]:
    """Decode the content of an image file as :func:`decode` does; ``name`` is the file's name in errors."""
    return _decoded(data, name, lambda content, header: _pixels(content, header, background))


def _decoded(data: bytes, name: Path | str, pixels_of: Callable[[bytes, Header], np.ndarray]) -> np.ndarray:
    """Check the header, then decode; errors name the file."""
    try:
        if not data:
            raise UnreadableError("empty file")
        header = read_header(data)
        refuse_large(header)
        return pixels_of(data, header)
    except TooLargeError as error:
        raise ImageError(name, str(error)) from None
    except UnreadableError as error:
        raise ImageError(name, f"not a readable image ({error})") from None
    except (cv2.error, MemoryError) as error:
        raise ImageError(name, "not a readable image (its pixels cannot be decoded)") from error


def _mask_pixels(data: bytes, header: Header) -> Bool[np.ndarray, "H W"]:
    flags = cv2.IMREAD_UNCHANGED if header.alpha else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise UnreadableError("its pixels cannot be decoded")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UnreadableError(f"pixels of type {pixels.dtype}")
    half = 0x7F if pixels.dtype == np.uint8 else 0x7FFF
    if pixels.ndim == 3:
        opacity = pixels[..., 3] if pixels.shape[2] == 4 else pixels[..., 0]
        varies = pixels.shape[2] == 4 and opacity.min() < opacity.max()
        pixels = opacity if varies else pixels[..., :3].max(2)
    return _upright(pixels > half, header.orientation) if header.alpha else pixels > half


def _trimap_pixels(data: bytes, header: Header) -> Bool[np.ndarray, "H W"]:
    grey = _pixels(data, header, WHITE).max(2)
    if grey.min() < 1 or grey.max() > 3:
        raise UnreadableError(f"no trimap: its values are {grey.min()} to {grey.max()}, not 1 to 3")
    distances = [cv2.distanceTransform((grey != value).astype(np.uint8), cv2.DIST_L2, 3) for value in (1, 2)]
    return (grey == 1) | ((grey == 3) & (distances[0] < distances[1]))


def _pixels_beside_blue(data: bytes, header: Header) -> Bool[np.ndarray, "H W"]:
    pixels = _pixels(data, header, WHITE).astype(np.int16)
    return np.abs(pixels - _BLUE).max(2) > _BLUE_ERROR


_MASK_READERS: dict[MaskValues, Callable[[bytes, Header], np.ndarray]] = {
    "upper half": _mask_pixels,
    "trimap": _trimap_pixels,
    "blue background": _pixels_beside_blue,
}


def _pixels(
    data: bytes, header: Header, background: tuple[int, int, int] | None, keep_alpha: bool = False
) -> UInt8[np.ndarray, "H W C"]:
    """RGB over a background; with ``keep_alpha`` RGBA, if the file has opacity. Without a background, unblended."""
    flags = cv2.IMREAD_UNCHANGED if header.alpha else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise UnreadableError("its pixels cannot be decoded")
    if pixels.dtype == np.uint16:
        largest = int(pixels[..., :3].max() if pixels.ndim == 3 else pixels.max())
        if 0 < largest <= _LARGEST_OF_12_BITS:
            raise UnreadableError(
                f"16 bits a value, but none above {largest:,}: it would be black; scale its values to 0 to 65,535"
            )
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
    if pixels.dtype != np.uint8:
        raise UnreadableError(f"pixels of type {pixels.dtype}")
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if pixels.shape[2] == 4:
        opacity = pixels[..., 3]
        if background is not None:
            pixels = _over(pixels, background, header.premultiplied)
        elif header.premultiplied:
            pixels = _unmultiplied(pixels)
        if keep_alpha:
            pixels = np.dstack([pixels[..., :3], opacity])
    pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return _upright(pixels, header.orientation) if header.alpha else pixels


def _over(
    pixels: UInt8[np.ndarray, "H W 4"], background: tuple[int, int, int], premultiplied: bool
) -> UInt8[np.ndarray, "H W 3"]:
    """Blend BGRA pixels with an RGB background colour; returns BGR."""
    result = np.empty_like(pixels[..., :3])
    colour = np.array(background[::-1], np.uint32)
    # In strips, since 32-bit sums take four times the memory of the image.
    for start in range(0, len(pixels), 64):
        strip = pixels[start : start + 64].astype(np.uint32)
        alpha = strip[..., 3:]
        total = strip[..., :3] * (255 if premultiplied else alpha) + (255 - alpha) * colour
        # The clip is for corrupt files, where a premultiplied colour exceeds its alpha.
        result[start : start + 64] = (np.minimum(total, 255 * 255) + 127) // 255
    return result


def _unmultiplied(pixels: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "H W 4"]:
    """BGRA pixels whose colours were multiplied by their opacity, divided by it."""
    alpha = np.maximum(pixels[..., 3:].astype(np.uint32), 1)
    colours = np.minimum((pixels[..., :3].astype(np.uint32) * 255 + alpha // 2) // alpha, 255)
    return np.dstack([colours.astype(np.uint8), pixels[..., 3]])


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (1 to 8)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def encode(image: UInt8[np.ndarray, "H W 3"] | UInt8[np.ndarray, "H W 4"], encoding: str, quality: int = 95) -> bytes:
    """Encode an RGB image as ``jpeg`` or ``png``, an RGBA image as ``png``.

    Args:
        image: RGB or RGBA in [0, 255]; colours are not multiplied by the opacity.
        encoding: one of :data:`ENCODINGS`.
        quality: JPEG quality, 1 to 100.

    Raises:
        UsageError: the encoding is unknown, or the quality out of its range.
    """
    if encoding not in ENCODINGS:
        raise UsageError(f"choose one of {', '.join(ENCODINGS)}", option="encoding", value=encoding)
    if not 1 <= quality <= 100:
        raise UsageError("give a number from 1 to 100", option="quality", value=quality)
    options = [cv2.IMWRITE_PNG_COMPRESSION, 3]
    if encoding == "jpeg":
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        if quality >= 90:
            # The default halves the colour resolution, which is visible in small images.
            options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    suffix = ".jpg" if encoding == "jpeg" else ".png"
    if image.shape[2] == 4 and encoding == "jpeg":
        raise ValueError("JPEG has no opacity")
    order = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
    written, data = cv2.imencode(suffix, cv2.cvtColor(image, order), options)
    if not written:
        raise ValueError(f"OpenCV could not encode an image of shape {image.shape} as {encoding}")
    return data.tobytes()


def encode_mask_file(mask: Bool[np.ndarray, "H W"]) -> bytes:
    """A grey PNG file with 255 on the object and 0 beside it, as :func:`decode_mask` reads it."""
    written, data = cv2.imencode(".png", mask.astype(np.uint8) * 255)
    if not written:
        raise ValueError(f"OpenCV could not encode a mask of shape {mask.shape}")
    return data.tobytes()


def is_plain_jpeg(data: bytes, image: UInt8[np.ndarray, "H W 3"]) -> bool:
    """Whether ``data`` is a JPEG that decodes to exactly ``image`` without its EXIF orientation."""
    if not data.startswith(b"\xff\xd8"):
        return False
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    plain = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return plain is not None and np.array_equal(plain[..., ::-1], image)
