from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from making_images import RGB, RGBA, encoded, reason_of, smooth_image
from PIL import Image, ImageOps

from dagaug.data.image_files import decode, decode_bytes, decode_rgba, decode_with_alpha, encode, is_plain_jpeg
from dagaug.runtime.errors import ImageError, UsageError

SOUND = [
    encoded(RGB, "JPEG"),
    encoded(RGB, "JPEG", progressive=True),
    encoded(RGBA, "PNG"),
    encoded(RGBA, "WEBP"),
    encoded(RGB, "BMP"),
    encoded(RGBA, "TIFF", compression="tiff_lzw"),
    encoded(RGB, "TIFF", exif=Image.Exif()),
]


def difference(data: bytes, expected: np.ndarray, **options: tuple[int, int, int]) -> float:
    decoded = decode_bytes(data, "x", **options)
    assert decoded.shape == expected.shape
    return float(np.abs(decoded - expected.astype(float)).max())


def over(background: tuple[int, int, int]) -> np.ndarray:
    alpha = RGBA[..., 3:] / 255
    return RGBA[..., :3] * alpha + np.array(background) * (1 - alpha)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_decode_exactly(kind: str) -> None:
    assert difference(encoded(RGB, kind), RGB) == 0


def test_webp_decodes_exactly_when_lossless_and_nearly_when_not() -> None:
    assert difference(encoded(RGB, "WEBP", lossless=True), RGB) == 0
    assert difference(encoded(RGB, "WEBP", quality=95), RGB) < 24


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_jpeg_decodes_nearly(options: dict[str, object]) -> None:
    assert difference(encoded(RGB, "JPEG", quality=98, subsampling=0, **options), RGB) < 10


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_grey_becomes_three_equal_channels(kind: str) -> None:
    decoded = decode_bytes(encoded(RGB[..., 0], kind), "x")
    assert np.abs(decoded.astype(int) - RGB[..., :1]).max() < 10
    assert (decoded == decoded[..., :1]).all() or kind == "WEBP"


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_to_rgb(kind: str) -> None:
    options = {"quality": 98} if kind == "JPEG" else {}
    assert difference(encoded(RGB, kind, "CMYK", **options), RGB) < 12


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_palette_is_resolved(kind: str) -> None:
    few = Image.fromarray(RGB).quantize(16)
    assert difference(encoded(few, kind), np.array(few.convert("RGB"))) == 0


def test_palette_with_a_transparent_colour_lies_over_the_background() -> None:
    few = Image.fromarray(RGB).quantize(16)
    row = int(np.array(few)[0, 0])
    decoded = decode_bytes(encoded(few, "PNG", transparency=row), "x", background=(1, 2, 3))
    assert decoded[0, 0].tolist() == [1, 2, 3]
    assert (decoded[np.array(few) != row] == np.array(few.convert("RGB"))[np.array(few) != row]).all()


@pytest.mark.parametrize("background", [(255, 255, 255), (10, 200, 90)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True, "exact": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_transparent_pixels_lie_over_the_background(
    kind: str, options: dict[str, object], background: tuple[int, int, int]
) -> None:
    # libtiff rounds once when it multiplies by alpha, we round once more.
    assert difference(encoded(RGBA, kind, **options), over(background), background=background) <= 1.5


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})])
def test_opacity_and_unblended_colours_are_read_where_they_are_asked_for(
    tmp_path: Path, kind: str, options: dict[str, object]
) -> None:
    path = tmp_path / "x"
    path.write_bytes(encoded(RGBA, kind, **options))
    pixels, opacity = decode_with_alpha(path)
    np.testing.assert_array_equal(pixels, decode(path))
    assert opacity is not None
    np.testing.assert_array_equal(opacity, RGBA[..., 3])
    straight = decode_rgba(path)
    np.testing.assert_array_equal(straight[..., 3], RGBA[..., 3])
    seen = RGBA[..., 3] > 100  # libtiff multiplies colours by the opacity, which loses those of thin pixels
    assert np.abs(straight.astype(int) - RGBA)[seen].max() <= (2 if kind == "TIFF" else 0)
    np.testing.assert_array_equal(
        decode_bytes(encode(straight, "png"), "x"), decode_bytes(encoded(straight, "PNG"), "x")
    )


def test_an_image_without_opacity_is_opaque(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(encoded(RGB, "PNG"))
    assert decode_with_alpha(tmp_path / "x")[1] is None
    np.testing.assert_array_equal(decode_rgba(tmp_path / "x"), np.dstack([RGB, np.full((30, 40), 255, np.uint8)]))


def test_opacity_is_turned_upright_with_the_colours(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    (tmp_path / "x").write_bytes(encoded(RGBA, "PNG", exif=exif))
    np.testing.assert_array_equal(decode_rgba(tmp_path / "x"), np.rot90(RGBA, -1))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_rgba_as_opencv_writes_it_lies_over_the_background(suffix: str, depth: type) -> None:
    pixels = RGBA.astype(depth) * depth(257 if depth is np.uint16 else 1)
    _, data = cv2.imencode(suffix, cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA))
    assert difference(data.tobytes(), over((255, 255, 255))) <= 1


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_images_are_scaled_to_8_bit(suffix: str, channels: int) -> None:
    pixels = smooth_image(30, 40, channels).astype(np.uint16) * 257
    _, data = cv2.imencode(suffix, pixels)
    expected = np.broadcast_to(pixels // 257, (30, 40, 3))[..., ::-1]
    assert difference(data.tobytes(), expected) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("transparent", [False, True])
def test_exif_orientation_is_applied(orientation: int, kind: str, transparent: bool) -> None:
    if kind == "JPEG" and transparent:
        return
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True, "exact": True}}.get(kind, {})
    data = encoded(RGBA if transparent else RGB, kind, exif=exif, **options)
    plain = np.rint(over((255, 255, 255))).astype(np.uint8) if transparent else RGB
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(plain, "PNG", exif=exif))))
    assert difference(data, np.array(upright)) < (10 if kind == "JPEG" else 2)


def test_unicode_file_names_are_read(tmp_path: Path) -> None:
    path = tmp_path / "Häher-鸟-🐦.png"
    path.write_bytes(encoded(RGB, "PNG"))
    assert (decode(path) == RGB).all()


def test_files_that_are_no_images_say_so(tmp_path: Path) -> None:
    assert reason_of(b"") == "not a readable image (empty file)"
    assert "not a JPEG, PNG, WebP, BMP or TIFF file" in reason_of(b"<html>404</html>")
    assert "not a JPEG" in reason_of(encoded(RGB, "GIF"))
    for path, expected in ((tmp_path / "gone.png", "no such file"), (tmp_path, "not a file")):
        with pytest.raises(ImageError) as caught:
            decode(path)
        assert caught.value.reason == expected
        assert caught.value.path == path


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_the_bytes_only_image_errors_come_out(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SOUND)))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
        content = content or bytearray(b"B")
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    try:
        image = decode_bytes(bytes(content), "x")
    except ImageError:
        return
    assert image.dtype == np.uint8
    assert image.shape[2] == 3


@settings(max_examples=50, deadline=None)
@example(b"\0\0\0\0\x80" + bytes(7), b"MM\0+")
@given(
    st.binary(max_size=200),
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0+"]),
)
def test_random_bytes_after_a_signature_raise_only_image_errors(tail: bytes, signature: bytes) -> None:
    with suppress(ImageError):
        decode_bytes(signature + tail, "x")


def test_png_is_lossless_and_jpeg_near() -> None:
    assert (decode_bytes(encode(RGB, "png"), "x") == RGB).all()
    assert difference(encode(RGB, "jpeg", 95), RGB) < 12
    assert len(encode(RGB, "jpeg", 30)) < len(encode(RGB, "jpeg", 95))


@pytest.mark.parametrize(("encoding", "quality"), [("gif", 95), ("jpeg", 0), ("jpeg", 101)])
def test_unknown_encodings_and_qualities_are_usage_errors(encoding: str, quality: int) -> None:
    with pytest.raises(UsageError):
        encode(RGB, encoding, quality)


def test_a_jpeg_is_plain_if_every_decoder_shows_the_same_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain, turned = encoded(RGB, "JPEG"), encoded(RGB, "JPEG", exif=exif)
    assert is_plain_jpeg(plain, decode_bytes(plain, "x"))
    assert not is_plain_jpeg(turned, decode_bytes(turned, "x"))
    assert not is_plain_jpeg(encoded(RGB, "PNG"), RGB)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_12_bits_in_16_are_refused_instead_of_read_as_black(tmp_path: Path, suffix: str, channels: int) -> None:
    pixels = smooth_image(30, 40, channels).astype(np.uint16) * 16
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), pixels if channels > 1 else pixels[..., 0] if pixels.ndim == 3 else pixels)
    with pytest.raises(ImageError, match=r"16 bits a value, but none above .* scale its values to 0 to 65,535"):
        decode(path)
    black = np.zeros((30, 40, 3), np.uint16)
    assert cv2.imwrite(str(path), black)
    assert not decode(path).any()
