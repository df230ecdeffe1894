from __future__ import annotations

import struct
import zlib

import cv2
import pytest
from making_images import RGB, encoded, reason_of, smooth_image

from dagaug.data.image_files import decode_bytes


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        ("JPEG", "JPEG", {}),
        ("JPEG", "JPEG", {"progressive": True}),
        ("PNG", "PNG", {}),
        ("WEBP", "WebP", {}),
        ("BMP", "BMP", {}),
        ("TIFF", "TIFF", {}),
    ],
)
def test_truncated_files_are_refused(kind: str, name: str, options: dict[str, object], share: float) -> None:
    data = encoded(smooth_image(80, 90), kind, **options)
    assert reason_of(data[: int(len(data) * share)]) == f"not a readable image (truncated {name})"


def test_a_jpeg_that_lost_its_end_is_refused_though_its_thumbnail_has_one() -> None:
    thumbnail = encoded(RGB, "JPEG")
    data = encoded(smooth_image(80, 90), "JPEG", exif=b"Exif\0\0" + thumbnail)
    decode_bytes(data, "x")
    assert reason_of(data[: len(data) - 40]) == "not a readable image (truncated JPEG)"


def test_a_jpeg_followed_by_other_data_is_read() -> None:
    data = encoded(RGB, "JPEG")
    assert (decode_bytes(data + bytes(100), "x") == decode_bytes(data, "x")).all()


def test_a_png_with_a_flipped_bit_is_refused() -> None:
    data = bytearray(encoded(smooth_image(80, 90), "PNG"))
    data[len(data) // 2] ^= 16
    assert reason_of(bytes(data)) == "not a readable image (corrupt PNG)"


def large_files() -> list[bytes]:
    """Small files whose headers promise 20,000 × 6,000 pixels."""
    width, height = 20_000, 6_000
    jpeg = bytearray(encoded(RGB, "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", height, width)
    png = bytearray(encoded(RGB, "PNG"))
    png[16:24] = struct.pack(">II", width, height)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    bmp = bytearray(encoded(RGB, "BMP"))
    bmp[18:26] = struct.pack("<ii", width, -height)
    webp = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4)
    webp += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    tags = struct.pack("<HHII", 256, 4, 1, width) + struct.pack("<HHII", 257, 4, 1, height)
    tiff = b"II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(4)
    return [bytes(jpeg), bytes(png), bytes(bmp), webp, tiff]


@pytest.mark.parametrize("data", large_files(), ids=["jpeg", "png", "bmp", "webp", "tiff"])
def test_more_than_100_megapixels_are_refused_before_decoding(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", never)
    assert reason_of(data) == "20000 × 6000 pixels are more than 100 megapixels"
