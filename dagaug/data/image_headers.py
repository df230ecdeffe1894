"""Headers of image files: size, transparency, orientation and completeness, read without decoding pixels."""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple

__all__ = ["MAX_PIXELS", "Header", "TooLargeError", "UnreadableError", "read_header", "refuse_large"]

MAX_PIXELS = 100_000_000
"""Images with more pixels than this are refused before they are decoded."""


class Header(NamedTuple):
    """Properties of an image file that are needed to decode it.

    Attributes:
        width, height: in pixels, before the orientation is applied.
        alpha: whether the image has transparency.
        orientation: EXIF orientation, 1 to 8; OpenCV does not apply it to images that are decoded with alpha.
        premultiplied: whether the colours are already multiplied by alpha.
    """

    width: int
    height: int
    alpha: bool = False
    orientation: int = 1
    premultiplied: bool = False


# Errors from reading beyond the end of a file; OverflowError where an offset is too large for C.
_ENDED = (struct.error, IndexError, OverflowError)


class UnreadableError(Exception):
    """The content is no image that can be decoded; the message is the reason of an ImageError."""


class TooLargeError(Exception):
    """By its header, the image has more than :data:`MAX_PIXELS`."""


def refuse_large(header: Header) -> None:
    """Check the number of pixels.

    Raises:
        UnreadableError: the image has no pixels.
        TooLargeError: it has more than :data:`MAX_PIXELS`.
    """
    if header.width < 1 or header.height < 1:
        raise UnreadableError("it has no pixels")
    if header.width * header.height > MAX_PIXELS:
        raise TooLargeError(
            f"{header.width} × {header.height} pixels are more than {MAX_PIXELS // 1_000_000} megapixels"
        )


def read_header(data: bytes) -> Header:
    """Read the header of a JPEG, PNG, WebP, BMP or TIFF file, and check that the file is complete.

    Raises:
        UnreadableError: another format, or a truncated or corrupt file.
        TooLargeError: more than :data:`MAX_PIXELS`.
    """
    for signature, kind, read in _FORMATS:
        if re.match(signature, data, re.DOTALL):
            try:
                return read(data)
            except _ENDED as error:
                raise UnreadableError(f"truncated {kind}") from error
    raise UnreadableError("not a JPEG, PNG, WebP, BMP or TIFF file")


_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff]")


_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg_header(data: bytes) -> Header:
    """Walk over all segments to the end marker, since OpenCV fills the missing pixels of a cut file with grey."""
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
                raise UnreadableError("corrupt JPEG: no image before its end")
            return size
        if marker == 0xD8 or marker < 0xC0 or 0xF0 <= marker <= 0xFD:
            raise UnreadableError("corrupt JPEG")
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, position + 3)
            size = Header(width, height)
            refuse_large(size)
        scanned = scanned or marker == 0xDA
        position += length
    raise UnreadableError("truncated JPEG")


def _png_header(data: bytes) -> Header:
    """Walk over all chunks and check their checksums, since OpenCV may fill missing pixels with black."""
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
            raise UnreadableError("corrupt PNG")
        if header is None:
            if name != b"IHDR" or length != 13:
                raise UnreadableError("corrupt PNG")
            width, height, _, colour = struct.unpack_from(">IIBB", body)
            header = Header(width, height)
            refuse_large(header)
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
        raise UnreadableError("corrupt PNG: it holds no pixels")
    return header._replace(alpha=alpha, orientation=orientation)


def _webp_header(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise UnreadableError("truncated WebP")
    header = None
    orientation = 1
    position = 12
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        start = position + 8
        if name == b"VP8X":
            flags, width, height = data[start], data[start + 4 : start + 7], data[start + 7 : start + 10]
            header = Header(
                int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1, bool(flags & 0x10)
            )
        elif name == b"VP8L" and header is None:
            (bits,) = struct.unpack_from("<I", data, start + 1)
            header = Header((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1))
        elif name == b"VP8 " and header is None:
            width, height = struct.unpack_from("<HH", data, start + 6)
            header = Header(width & 0x3FFF, height & 0x3FFF)
        elif name == b"EXIF":
            orientation = _exif_orientation(data[start : start + length])
        position = start + length + (length & 1)
    if header is None:
        raise UnreadableError("corrupt WebP")
    return header._replace(orientation=orientation)


def _bmp_header(data: bytes) -> Header:
    start, length = struct.unpack_from("<II", data, 10)
    if length == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, depth, compression = struct.unpack_from("<iiHHI", data, 18)
    width, height = abs(width), abs(height)
    header = Header(width, height, alpha=length >= 56 and depth == 32 and data[66:70] != bytes(4))
    refuse_large(header)
    if compression in (0, 3) and start + (width * depth + 31) // 32 * 4 * height > len(data):
        raise UnreadableError("truncated BMP")
    return header


_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}


def _tiff_tags(data: bytes, wanted: frozenset[int]) -> dict[int, tuple[int, ...]]:
    """The integer tags ``wanted`` of a TIFF file's first directory; EXIF blocks have the same format."""
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
            raise UnreadableError("truncated TIFF")
        values = start + (12 if big else 8)
        if count * layout.size > (8 if big else 4):
            (values,) = struct.unpack_from(order + word, data, values)
        if values + count * layout.size > len(data):
            raise UnreadableError("truncated TIFF")
        numbers = layout.iter_unpack(data[values : values + count * layout.size])
        tags[tag] = tuple(number for (number,) in numbers)
    return tags


def _tiff_header(data: bytes) -> Header:
    tags = _tiff_tags(data, frozenset((256, 257, 258, 262, 273, 277, 279, 324, 325, 338)))
    if not tags.get(256) or not tags.get(257):
        raise UnreadableError("corrupt TIFF: its size is missing")
    header = Header(tags[256][0], tags[257][0])
    refuse_large(header)
    for starts, lengths in ((273, 279), (324, 325)):
        for start, length in zip(tags.get(starts, ()), tags.get(lengths, ()), strict=False):
            if start + length > len(data):
                raise UnreadableError("truncated TIFF")
    extra = tags.get(338)
    # OpenCV writes RGBA files that do not say that the fourth sample is alpha.
    alpha = tags.get(277) == (4,) and tags.get(262) == (2,) and extra in (None, (1,), (2,))
    # libtiff multiplies 8-bit colours by unassociated alpha; 16-bit colours stay unmultiplied.
    multiplied = extra == (1,) or (extra == (2,) and max(tags.get(258, (1,))) <= 8)
    return header._replace(alpha=alpha, premultiplied=multiplied)


def _exif_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8; 1 (upright) if the EXIF block is corrupt."""
    try:
        values = _tiff_tags(exif.removeprefix(b"Exif\0\0"), frozenset((274,))).get(274, (1,))
    except (*_ENDED, UnreadableError):
        return 1
    return values[0] if len(values) == 1 and 1 <= values[0] <= 8 else 1


_FORMATS = (
    (rb"\xff\xd8\xff", "JPEG", _jpeg_header),
    (rb"\x89PNG\r\n\x1a\n", "PNG", _png_header),
    (rb"RIFF....WEBP", "WebP", _webp_header),
    (rb"BM", "BMP", _bmp_header),
    (rb"II[*+]\0|MM\0[*+]", "TIFF", _tiff_header),
)
