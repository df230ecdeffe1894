"""Image files in, arrays out and back; every odd file is dealt with here.

An image is uint8 RGB, height × width × 3, upright (EXIF rotation applied), whatever its file holds: JPEG,
PNG, WebP, BMP or TIFF; grey, palette, CMYK, 16-bit, or with transparency, which is laid over a background.
Headers are read here before OpenCV decodes anything, so that absurdly large, truncated and corrupt files are
refused with a reason; OpenCV alone fills some of them with grey, silently. Colour profiles are ignored.

A :class:`Region` is the square of an image that a network sees: :func:`cut` takes it out, :func:`paste` puts
a morph of it back.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Int64, UInt8

from dagaug.errors import DataError, ImageError, UsageError
from dagaug.progress import SILENT, Progress

__all__ = [
    "ENCODINGS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "Box",
    "Fit",
    "Loaded",
    "Region",
    "Skipped",
    "cut",
    "cut_mask",
    "decode",
    "decode_bytes",
    "encode",
    "is_plain_jpeg",
    "load",
    "near_duplicates",
    "paste",
    "region_of",
]

Box = tuple[float, float, float, float]
"""x, y, width and height in pixels of the upright image."""

Fit = Literal["letterbox", "crop"]

ENCODINGS = ("jpeg", "png")
"""What :func:`encode` writes."""

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of the names of image files that are looked for in folders."""

MAX_PIXELS = 100_000_000
"""Images of more pixels by their header are refused before they are decoded."""

_MAX_BYTES = 1 << 30
_WHITE = (255, 255, 255)
_NAMED_SKIPS = 10

# What is wrong with a file is told by ImageError; OpenCV would tell it again, in other words, on stderr.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True)
class Skipped:
    """A file that could not be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Region:
    """A square in pixels of the upright image; it may reach outside, and is used rounded to whole pixels."""

    left: float
    top: float
    side: float

    def pixels(self) -> tuple[int, int, int]:
        """Left, top and side as whole numbers, the side at least 1."""
        return round(self.left), round(self.top), max(1, round(self.side))


@dataclass(frozen=True)
class Loaded:
    """What :func:`load` could read.

    Attributes:
        images: the cut images, in the order of their paths.
        kept: for each of them its row in the paths that were asked for.
        regions: for each of them the square that was cut.
        skipped: the files that could not be read.
    """

    images: UInt8[np.ndarray, "N S S 3"]
    kept: Int64[np.ndarray, " N"]
    regions: tuple[Region, ...]
    skipped: tuple[Skipped, ...]


# Headers


class _Header(NamedTuple):
    """What must be known of a file before it is decoded."""

    width: int
    height: int
    alpha: bool = False
    # EXIF orientation that OpenCV leaves to us, because it turns no image that is decoded with its alpha.
    orientation: int = 1
    premultiplied: bool = False


# What reading beyond the end of a file raises; an offset may be too large for C at all.
_ENDED = (struct.error, IndexError, OverflowError)


class _UnreadableError(Exception):
    """Why a file is no image we can use; becomes the reason of an ImageError."""


def _header(data: bytes) -> _Header:
    for signature, kind, read in _FORMATS:
        if re.match(signature, data, re.DOTALL):
            try:
                return read(data)
            except _ENDED as error:
                raise _UnreadableError(f"truncated {kind}") from error
    raise _UnreadableError("not a JPEG, PNG, WebP, BMP or TIFF file")


_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff]")
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg_header(data: bytes) -> _Header:
    """Walk all segments to the end marker: OpenCV fills what is missing with grey."""
    size = None
    position = 2
    scanned = False
    while found := _JPEG_MARKER.search(data, position):
        marker = found[0][1]
        position = found.end()
        if 0xD0 <= marker <= 0xD7 or marker == 0x01:
            continue
        if marker == 0xD9:
            if size is None or not scanned:
                raise _UnreadableError("corrupt JPEG: no image before its end")
            return size
        if marker == 0xD8 or marker < 0xC0 or 0xF0 <= marker <= 0xFD:
            raise _UnreadableError("corrupt JPEG")
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, position + 3)
            size = _Header(width, height)
            _refuse_large(size)
        scanned = scanned or marker == 0xDA
        position += length
    raise _UnreadableError("truncated JPEG")


def _png_header(data: bytes) -> _Header:
    """Walk all chunks and check their sums: OpenCV may fill what is missing with black."""
    position = 8
    header = None
    pixels = False
    alpha = False
    orientation = 1
    view = memoryview(data)
    while True:
        length, name = struct.unpack_from(">I4s", data, position)
        body = view[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        critical = not name[0] & 0x20
        if critical and zlib.crc32(body, zlib.crc32(name)) != checksum:
            raise _UnreadableError("corrupt PNG")
        if header is None:
            if name != b"IHDR" or length != 13:
                raise _UnreadableError("corrupt PNG")
            width, height, _, colour = struct.unpack_from(">IIBB", body)
            header = _Header(width, height)
            _refuse_large(header)
            alpha = colour in (4, 6)
        elif name == b"IDAT":
            pixels = True
        elif name == b"tRNS":
            alpha = True
        elif name == b"eXIf":
            orientation = _exif_orientation(bytes(body))
        elif name == b"IEND":
            break
        position += length + 12
    if not pixels:
        raise _UnreadableError("corrupt PNG: it holds no pixels")
    return header._replace(alpha=alpha, orientation=orientation)


def _webp_header(data: bytes) -> _Header:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise _UnreadableError("truncated WebP")
    header = None
    orientation = 1
    position = 12
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        start = position + 8
        if name == b"VP8X":
            flags, width, height = data[start], data[start + 4 : start + 7], data[start + 7 : start + 10]
            header = _Header(
                int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1, bool(flags & 0x10)
            )
        elif name == b"VP8L" and header is None:
            (bits,) = struct.unpack_from("<I", data, start + 1)
            header = _Header((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1))
        elif name == b"VP8 " and header is None:
            width, height = struct.unpack_from("<HH", data, start + 6)
            header = _Header(width & 0x3FFF, height & 0x3FFF)
        elif name == b"EXIF":
            orientation = _exif_orientation(data[start : start + length])
        position = start + length + (length & 1)
    if header is None:
        raise _UnreadableError("corrupt WebP")
    return header._replace(orientation=orientation)


def _bmp_header(data: bytes) -> _Header:
    start, length = struct.unpack_from("<II", data, 10)
    if length == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, depth, compression = struct.unpack_from("<iiHHI", data, 18)
    width, height = abs(width), abs(height)
    header = _Header(width, height, alpha=length >= 56 and depth == 32 and data[66:70] != bytes(4))
    _refuse_large(header)
    if compression in (0, 3) and start + (width * depth + 31) // 32 * 4 * height > len(data):
        raise _UnreadableError("truncated BMP")
    return header


_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}


def _tiff_tags(data: bytes, wanted: frozenset[int]) -> dict[int, tuple[int, ...]]:
    """The wanted whole-number tags of a TIFF file's first directory (Exif blocks are TIFF files, too)."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    count_at, entry_size, word = (8, 20, "Q") if big else (4, 12, "I")
    (position,) = struct.unpack_from(order + word, data, count_at)
    (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, position)
    position += 8 if big else 2
    tags: dict[int, tuple[int, ...]] = {}
    for start in range(position, position + min(entries, 4096) * entry_size, entry_size):
        tag, kind, count = struct.unpack_from(order + "HH" + word, data, start)
        if tag not in wanted or kind not in _TIFF_TYPES:
            continue
        layout = struct.Struct(order + _TIFF_TYPES[kind])
        if count * layout.size > len(data):
            raise _UnreadableError("truncated TIFF")
        values = start + (12 if big else 8)
        if count * layout.size > (8 if big else 4):
            (values,) = struct.unpack_from(order + word, data, values)
        if values + count * layout.size > len(data):
            raise _UnreadableError("truncated TIFF")
        numbers = layout.iter_unpack(data[values : values + count * layout.size])
        tags[tag] = tuple(number for (number,) in numbers)
    return tags


def _tiff_header(data: bytes) -> _Header:
    tags = _tiff_tags(data, frozenset((256, 257, 258, 262, 273, 277, 279, 324, 325, 338)))
    if not tags.get(256) or not tags.get(257):
        raise _UnreadableError("corrupt TIFF: its size is missing")
    header = _Header(tags[256][0], tags[257][0])
    _refuse_large(header)
    for starts, lengths in ((273, 279), (324, 325)):
        for start, length in zip(tags.get(starts, ()), tags.get(lengths, ()), strict=False):
            if start + length > len(data):
                raise _UnreadableError("truncated TIFF")
    extra = tags.get(338)
    # OpenCV itself writes RGBA without saying that the fourth sample is alpha.
    alpha = tags.get(277) == (4,) and tags.get(262) == (2,) and extra in (None, (1,), (2,))
    # libtiff multiplies 8-bit colours by alpha that is said to be separate; 16-bit ones come as they are.
    multiplied = extra == (1,) or (extra == (2,) and max(tags.get(258, (1,))) <= 8)
    return header._replace(alpha=alpha, premultiplied=multiplied)


def _exif_orientation(exif: bytes) -> int:
    """1 to 8; a broken Exif block turns nothing."""
    try:
        values = _tiff_tags(exif.removeprefix(b"Exif\0\0"), frozenset((274,))).get(274, (1,))
    except (*_ENDED, _UnreadableError):
        return 1
    return values[0] if len(values) == 1 and 1 <= values[0] <= 8 else 1


_FORMATS = (
    (rb"\xff\xd8\xff", "JPEG", _jpeg_header),
    (rb"\x89PNG\r\n\x1a\n", "PNG", _png_header),
    (rb"RIFF....WEBP", "WebP", _webp_header),
    (rb"BM", "BMP", _bmp_header),
    (rb"II[*+]\0|MM\0[*+]", "TIFF", _tiff_header),
)


def _refuse_large(header: _Header) -> None:
    if header.width < 1 or header.height < 1:
        raise _UnreadableError("it has no pixels")
    if header.width * header.height > MAX_PIXELS:
        raise _TooLargeError(
            f"{header.width} × {header.height} pixels are more than {MAX_PIXELS // 1_000_000} megapixels"
        )


class _TooLargeError(Exception):
    """The image has more than MAX_PIXELS by its header."""


# Decoding


def decode(path: Path | str, *, background: tuple[int, int, int] = _WHITE) -> UInt8[np.ndarray, "H W 3"]:
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
    data: bytes, name: Path | str, *, background: tuple[int, int, int] = _WHITE
) -> UInt8[np.ndarray, "H W 3"]:
    """Decode a file's content as :func:`decode` does; ``name`` stands in the error."""
    try:
        if not data:
            raise _UnreadableError("empty file")
        header = _header(data)
        _refuse_large(header)
        pixels = _pixels(data, header, background)
    except _TooLargeError as error:
        raise ImageError(name, str(error)) from None
    except _UnreadableError as error:
        raise ImageError(name, f"not a readable image ({error})") from None
    except (cv2.error, MemoryError) as error:
        raise ImageError(name, "not a readable image (its pixels cannot be decoded)") from error
    return pixels


def _pixels(data: bytes, header: _Header, background: tuple[int, int, int]) -> UInt8[np.ndarray, "H W 3"]:
    flags = cv2.IMREAD_UNCHANGED if header.alpha else cv2.IMREAD_COLOR
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise _UnreadableError("its pixels cannot be decoded")
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
    if pixels.dtype != np.uint8:
        raise _UnreadableError(f"pixels of type {pixels.dtype}")
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


def region_of(
    height: int, width: int, *, box: Box | None = None, margin: float = 0.15, fit: Fit = "letterbox"
) -> Region:
    """The square that a network sees of an image, in whole pixels.

    Args:
        height: the upright image's, in pixels.
        width: likewise.
        box: where the object is. The square lies round it, ``1 + 2 margin`` times its larger side long, moved
            into the image as far as it fits. A box that lies outside the image altogether is taken for none.
        margin: free space on each side of the box, as a fraction of its larger side.
        fit: without a box, ``letterbox`` takes the whole image and what the square has beyond it, ``crop``
            the centre square.

    Raises:
        UsageError: the margin is negative or above 10, or ``fit`` is unknown.
    """
    if not 0 <= margin <= 10:
        raise UsageError(f"margin {margin:g}: give a number from 0 to 10")
    if fit not in ("letterbox", "crop"):
        raise UsageError(f"fit {fit}: choose letterbox or crop")
    clipped = None if box is None else _clipped(box, height, width)
    if clipped is None:
        side = max(height, width) if fit == "letterbox" else min(height, width)
        return Region(float((width - side) // 2), float((height - side) // 2), float(side))
    x, y, box_width, box_height = clipped
    side = max(1, round(max(box_width, box_height) * (1 + 2 * margin)))
    left = _moved_in(x + box_width / 2, side, width)
    top = _moved_in(y + box_height / 2, side, height)
    return Region(float(left), float(top), float(side))


def _clipped(box: Box, height: int, width: int) -> Box | None:
    """The part of a box that lies in the image."""
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(float(width), box[0] + box[2]), min(float(height), box[1] + box[3])
    if not (right > left and bottom > top):
        return None
    return left, top, right - left, bottom - top


def _moved_in(centre: float, side: int, length: int) -> int:
    """Start of a stretch round ``centre`` that lies in 0…length, or round its middle if it is longer."""
    if side >= length:
        return (length - side) // 2
    return min(max(0, round(centre - side / 2)), length - side)


def cut(image: UInt8[np.ndarray, "H W 3"], region: Region, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Take a region out of an image and resize it; beyond the image its border pixels are repeated."""
    left, top, side = region.pixels()
    height, width = image.shape[:2]
    if left >= 0 and top >= 0 and left + side <= width and top + side <= height:
        return _resized(image[top : top + side, left : left + side], size, cv2.INTER_CUBIC)
    # Only what lies in the image is resized: a narrow strip of 100,000 pixels must not become a square of them.
    rows = _edges(top, side, height, size)
    columns = _edges(left, side, width, size)
    part = image[rows.start : rows.stop, columns.start : columns.stop]
    inner = cv2.resize(
        part,
        (columns.length, rows.length),
        interpolation=cv2.INTER_AREA if size < side else cv2.INTER_CUBIC,
    )
    around = ((rows.before, size - rows.before - rows.length), (columns.before, size - columns.before - columns.length))
    return np.pad(inner, (*around, (0, 0)), mode="edge")


class _Stretch(NamedTuple):
    """Along one axis: the pixels that are taken, and where they come to lie."""

    start: int
    stop: int
    before: int
    length: int


def _edges(first: int, side: int, available: int, size: int) -> _Stretch:
    """What of a stretch ``first`` … ``first + side`` lies in 0 … ``available``, scaled to ``size`` pixels."""
    start = min(max(first, 0), available - 1)
    stop = max(min(first + side, available), start + 1)
    before = min(max(round((start - first) * size / side), 0), size - 1)
    end = min(max(round((stop - first) * size / side), before + 1), size)
    return _Stretch(start, stop, before, end - before)


def cut_mask(mask: Float32[np.ndarray, "H W"], region: Region, size: int) -> Float32[np.ndarray, "{size} {size}"]:
    """Take a region out of a mask in [0, 1] and resize it; beyond the image it is 0."""
    side = region.pixels()[2]
    square = np.zeros((side, side), np.float32)
    inner, outer = _overlap(region, *mask.shape)
    square[inner] = mask[outer]
    return _resized(square, size, cv2.INTER_LINEAR)


def paste(
    frame: UInt8[np.ndarray, "H W 3"],
    patch: UInt8[np.ndarray, "S S 3"],
    alpha: Float32[np.ndarray, "S S"],
    region: Region,
) -> UInt8[np.ndarray, "H W 3"]:
    """Put a patch back, blended, where :func:`cut` took ``region``; a new array.

    Args:
        frame: the whole image.
        patch: what belongs into the region, at any resolution.
        alpha: weight of the patch in [0, 1]; pixels where it is 0 keep their exact value.
        region: may reach outside; what lies there is dropped.
    """
    side = region.pixels()[2]
    result = frame.copy()
    inner, outer = _overlap(region, *frame.shape[:2])
    colours = _part_resized(patch, side, inner, cv2.INTER_CUBIC).astype(np.float32)
    weight = np.clip(_part_resized(alpha, side, inner, cv2.INTER_LINEAR), 0, 1)[..., None]
    below = frame[outer].astype(np.float32)
    result[outer] = np.rint(below + weight * (colours - below)).astype(np.uint8)
    return result


def _part_resized(square: np.ndarray, size: int, part: tuple[slice, slice], growing: int) -> np.ndarray:
    """A part of a square that was resized to ``size``; where it grows, no more than that part is computed."""
    rows, columns = part
    if size <= square.shape[0]:
        return _resized(square, size, growing)[part]
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if not height or not width:
        return np.zeros((height, width, *square.shape[2:]), square.dtype)
    scale = square.shape[0] / size
    back = np.array(
        [
            [scale, 0, (columns.start + 0.5) * scale - 0.5],
            [0, scale, (rows.start + 0.5) * scale - 0.5],
        ]
    )
    flags = growing | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(square, back, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _overlap(region: Region, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a region and an image meet: (rows, columns) within the region, and within the image."""
    left, top, side = region.pixels()
    rows = slice(min(max(0, top), height), min(max(0, top + side), height))
    columns = slice(min(max(0, left), width), min(max(0, left + side), width))
    inner = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    if rows.start == rows.stop or columns.start == columns.stop:
        return (slice(0, 0), slice(0, 0)), (slice(0, 0), slice(0, 0))
    return inner, (rows, columns)


def _resized(square: np.ndarray, size: int, growing: int) -> np.ndarray:
    """Resize a square: by area where it shrinks, by ``growing`` where it grows."""
    if square.shape[0] == size:
        return square.copy()
    method = cv2.INTER_AREA if size < square.shape[0] else growing
    return cv2.resize(square, (size, size), interpolation=method)


# Many images


def load(
    paths: Sequence[Path],
    *,
    size: int,
    boxes: Sequence[Box | None] | None = None,
    margin: float = 0.15,
    fit: Fit = "letterbox",
    background: tuple[int, int, int] = _WHITE,
    workers: int | None = None,
    strict: bool = False,
    progress: Progress = SILENT,
) -> Loaded:
    """Decode many files, cut each to its region and resize it, in threads; the order is that of the paths.

    Args:
        paths: the files.
        size: side of the results, in pixels.
        boxes: where the objects are, one for each path; see :func:`region_of` for these and the next two.
        margin: free space round a box.
        fit: how images without a box become square.
        background: RGB colour under transparent pixels.
        workers: threads; one per processor, at most 8, by default.
        strict: raise the first unreadable file rather than skip and list it.
        progress: is told of each image, and why one is skipped.

    Raises:
        ImageError: a file cannot be read, with ``strict``.
        DataError: no file at all can be read.
    """
    if size < 1:
        raise UsageError(f"--size {size}: give at least 1")
    if boxes is not None and len(boxes) != len(paths):
        raise ValueError(f"{len(boxes)} boxes for {len(paths)} paths; give one, or None, for each")

    def read(row: int) -> tuple[UInt8[np.ndarray, "S S 3"], Region]:
        image = decode(paths[row], background=background)
        box = None if boxes is None else boxes[row]
        region = region_of(*image.shape[:2], box=box, margin=margin, fit=fit)
        return cut(image, region, size), region

    images = np.empty((len(paths), size, size, 3), np.uint8)
    kept: list[int] = []
    regions: list[Region] = []
    skipped: list[Skipped] = []
    workers = workers or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool, progress.task("Reading", len(paths), "images") as task:
        pending: deque[Future[tuple[np.ndarray, Region]]] = deque()
        rows: Iterator[int] = iter(range(len(paths)))
        try:
            for row in range(len(paths)):
                # Only a few images a thread wait, so that an early slow one holds up no more than these.
                while len(pending) < 4 * workers and (following := next(rows, None)) is not None:
                    pending.append(pool.submit(read, following))
                try:
                    images[len(kept)], region = pending.popleft().result()
                    kept.append(row)
                    regions.append(region)
                except ImageError as error:
                    if strict:
                        raise
                    skipped.append(Skipped(error.path, error.reason))
                    if len(skipped) <= _NAMED_SKIPS:
                        progress.say(f"{error}; skipped, {len(skipped)} of {len(paths)} so far")
                task.advance()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if len(skipped) > _NAMED_SKIPS:
        progress.say(f"{len(skipped)} of {len(paths)} images skipped; {_NAMED_SKIPS} are named above")
    if skipped and not kept:
        raise DataError(f"none of {len(paths)} images can be read; the first: {paths[0]}: {skipped[0].reason}")
    return Loaded(images[: len(kept)], np.array(kept, np.int64), tuple(regions), tuple(skipped))


def near_duplicates(
    first: UInt8[np.ndarray, "N S S 3"], second: UInt8[np.ndarray, "M S S 3"], *, threshold: int = 8
) -> Int64[np.ndarray, "P 2"]:
    """Pairs (row in ``first``, row in ``second``) of images that look the same.

    Candidates are those whose 64-bit difference hashes (which of two neighbours in a 9 × 8 grey thumbnail is
    the brighter) differ in at most ``threshold`` bits. Unlike images with plain backgrounds may have the same
    hash, so thumbnails of 16 × 16 must then agree to 8 of 255 levels in the mean.
    """
    ours, theirs = _hashes(first), _hashes(second)
    pairs = []
    for start in range(0, len(ours), 1024):
        distance = (64 - ours[start : start + 1024] @ theirs.T) / 2
        for row, other in np.argwhere(distance <= threshold):
            difference = _thumbnail(first[start + row], 16, 16) - _thumbnail(second[other], 16, 16)
            if np.abs(difference).mean() <= 8:
                pairs.append((start + row, other))
    return np.array(pairs, np.int64).reshape(-1, 2)


def _hashes(images: UInt8[np.ndarray, "N S S 3"]) -> Float32[np.ndarray, "N 64"]:
    """Difference hashes as signs, so that 64 minus a scalar product is twice the Hamming distance."""
    signs = np.empty((len(images), 64), np.float32)
    for row, image in enumerate(images):
        grey = _thumbnail(image, 9, 8) @ np.array((0.299, 0.587, 0.114), np.float32)
        signs[row] = np.where(grey[:, 1:] > grey[:, :-1], 1, -1).reshape(64)
    return signs


def _thumbnail(image: UInt8[np.ndarray, "S S 3"], width: int, height: int) -> Float32[np.ndarray, "H W 3"]:
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
