"""Every odd file becomes an upright RGB array or an ImageError; cut and paste are each other's inverse."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from dagaug.data import dataset as datasets
from dagaug.data import layouts
from dagaug.data.image_files import IMAGE_SUFFIXES, decode, decode_bytes, encode
from dagaug.data.loading import load
from dagaug.data.regions import Region, cut, cut_mask, paste, region_of
from dagaug.runtime.errors import DataError, ImageError, UsageError
from dagaug.score.near_duplicates import near_duplicates

AIRCRAFT = Path(__file__).parents[3] / "shared" / "data" / "aircraft"


def smooth(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A picture without sharp edges, so that lossy formats stay near it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, channels), dtype=np.uint8)
    return cv2.resize(coarse, (width, height)).reshape(height, width, channels)


def saved(image: np.ndarray | Image.Image, kind: str, mode: str | None = None, **options: object) -> bytes:
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(buffer, kind, **options)
    return buffer.getvalue()


def square(left: float, top: float, side: float) -> Region:
    return Region(float(left), float(top), float(side))


RGB = smooth(30, 40)
RGBA = np.concatenate([RGB, smooth(30, 40, 1, seed=1)], axis=2)


def difference(data: bytes, expected: np.ndarray, **options: tuple[int, int, int]) -> float:
    decoded = decode_bytes(data, "x", **options)
    assert decoded.shape == expected.shape
    return float(np.abs(decoded - expected.astype(float)).max())


def over(background: tuple[int, int, int]) -> np.ndarray:
    alpha = RGBA[..., 3:] / 255
    return RGBA[..., :3] * alpha + np.array(background) * (1 - alpha)


# Decoding


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_decode_exactly(kind: str) -> None:
    assert difference(saved(RGB, kind), RGB) == 0


def test_webp_decodes_exactly_when_lossless_and_nearly_when_not() -> None:
    assert difference(saved(RGB, "WEBP", lossless=True), RGB) == 0
    assert difference(saved(RGB, "WEBP", quality=95), RGB) < 24


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_jpeg_decodes_nearly(options: dict[str, object]) -> None:
    assert difference(saved(RGB, "JPEG", quality=98, subsampling=0, **options), RGB) < 10


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_grey_becomes_three_equal_channels(kind: str) -> None:
    decoded = decode_bytes(saved(RGB[..., 0], kind), "x")
    assert np.abs(decoded.astype(int) - RGB[..., :1]).max() < 10
    assert (decoded == decoded[..., :1]).all() or kind == "WEBP"


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_to_rgb(kind: str) -> None:
    options = {"quality": 98} if kind == "JPEG" else {}
    assert difference(saved(RGB, kind, "CMYK", **options), RGB) < 12


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_palette_is_resolved(kind: str) -> None:
    few = Image.fromarray(RGB).quantize(16)
    assert difference(saved(few, kind), np.array(few.convert("RGB"))) == 0


def test_palette_with_a_transparent_colour_lies_over_the_background() -> None:
    few = Image.fromarray(RGB).quantize(16)
    row = int(np.array(few)[0, 0])
    decoded = decode_bytes(saved(few, "PNG", transparency=row), "x", background=(1, 2, 3))
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
    assert difference(saved(RGBA, kind, **options), over(background), background=background) <= 1.5


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_rgba_as_opencv_writes_it_lies_over_the_background(suffix: str, depth: type) -> None:
    pixels = RGBA.astype(depth) * depth(257 if depth is np.uint16 else 1)
    _, data = cv2.imencode(suffix, cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA))
    assert difference(data.tobytes(), over((255, 255, 255))) <= 1


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_images_are_scaled_to_8_bit(suffix: str, channels: int) -> None:
    pixels = smooth(30, 40, channels).astype(np.uint16) * 257
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
    data = saved(RGBA if transparent else RGB, kind, exif=exif, **options)
    plain = np.rint(over((255, 255, 255))).astype(np.uint8) if transparent else RGB
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(saved(plain, "PNG", exif=exif))))
    assert difference(data, np.array(upright)) < (10 if kind == "JPEG" else 2)


def test_unicode_file_names_are_read(tmp_path: Path) -> None:
    path = tmp_path / "Häher-鸟-🐦.png"
    path.write_bytes(saved(RGB, "PNG"))
    assert (decode(path) == RGB).all()


# What cannot be decoded


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_bytes(data, "bird.jpg")
    assert str(caught.value).startswith("bird.jpg: ")
    return caught.value.reason


def test_files_that_are_no_images_say_so(tmp_path: Path) -> None:
    assert reason(b"") == "not a readable image (empty file)"
    assert "not a JPEG, PNG, WebP, BMP or TIFF file" in reason(b"<html>404</html>")
    assert "not a JPEG" in reason(saved(RGB, "GIF"))
    for path, expected in ((tmp_path / "gone.png", "no such file"), (tmp_path, "not a file")):
        with pytest.raises(ImageError) as caught:
            decode(path)
        assert caught.value.reason == expected
        assert caught.value.path == path


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
    data = saved(smooth(80, 90), kind, **options)
    assert reason(data[: int(len(data) * share)]) == f"not a readable image (truncated {name})"


def test_a_jpeg_that_lost_its_end_is_refused_though_its_thumbnail_has_one() -> None:
    thumbnail = saved(RGB, "JPEG")
    data = saved(smooth(80, 90), "JPEG", exif=b"Exif\0\0" + thumbnail)
    decode_bytes(data, "x")
    assert reason(data[: len(data) - 40]) == "not a readable image (truncated JPEG)"


def test_a_jpeg_followed_by_other_data_is_read() -> None:
    data = saved(RGB, "JPEG")
    assert (decode_bytes(data + bytes(100), "x") == decode_bytes(data, "x")).all()


def test_a_png_with_a_flipped_bit_is_refused() -> None:
    data = bytearray(saved(smooth(80, 90), "PNG"))
    data[len(data) // 2] ^= 16
    assert reason(bytes(data)) == "not a readable image (corrupt PNG)"


def large_files() -> list[bytes]:
    """Small files whose headers promise 20,000 × 6,000 pixels."""
    width, height = 20_000, 6_000
    jpeg = bytearray(saved(RGB, "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", height, width)
    png = bytearray(saved(RGB, "PNG"))
    png[16:24] = struct.pack(">II", width, height)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    bmp = bytearray(saved(RGB, "BMP"))
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
    assert reason(data) == "20000 × 6000 pixels are more than 100 megapixels"


SOUND = [
    saved(RGB, "JPEG"),
    saved(RGB, "JPEG", progressive=True),
    saved(RGBA, "PNG"),
    saved(RGBA, "WEBP"),
    saved(RGB, "BMP"),
    saved(RGBA, "TIFF", compression="tiff_lzw"),
    saved(RGB, "TIFF", exif=Image.Exif()),
]


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
def test_random_bytes_after_a_signature_raise_nothing_but_image_errors(tail: bytes, signature: bytes) -> None:
    with suppress(ImageError):
        decode_bytes(signature + tail, "x")


# Encoding


def test_png_is_lossless_and_jpeg_near() -> None:
    assert (decode_bytes(encode(RGB, "png"), "x") == RGB).all()
    assert difference(encode(RGB, "jpeg", 95), RGB) < 12
    assert len(encode(RGB, "jpeg", 30)) < len(encode(RGB, "jpeg", 95))


@pytest.mark.parametrize(("encoding", "quality"), [("gif", 95), ("jpeg", 0), ("jpeg", 101)])
def test_unknown_encodings_and_qualities_are_usage_errors(encoding: str, quality: int) -> None:
    with pytest.raises(UsageError):
        encode(RGB, encoding, quality)


# Regions


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, square(0, -15, 50)),
        ({"fit": "crop"}, square(15, 0, 20)),
        ({"box": (20.0, 5.0, 8.0, 4.0), "margin": 0.0}, square(20, 3, 8)),
        ({"box": (20.0, 5.0, 8.0, 4.0), "margin": 0.25}, square(18, 1, 12)),
        # Moved into the image rather than reaching over its edge.
        ({"box": (0.0, 0.0, 8.0, 4.0), "margin": 0.25}, square(0, 0, 12)),
        ({"box": (46.0, 14.0, 8.0, 9.0), "margin": 0.5}, square(38, 8, 12)),
        # Higher than the image: over both edges alike.
        ({"box": (10.0, 5.0, 30.0, 4.0), "margin": 0.0}, square(10, -5, 30)),
        # No part of the image: as if there were no box.
        ({"box": (60.0, 5.0, 8.0, 4.0)}, square(0, -15, 50)),
    ],
)
def test_region_is_the_expected_square(options: dict[str, object], expected: Region) -> None:
    assert region_of(20, 50, **options) == expected


@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    corner=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)),
    extent=st.tuples(st.floats(0.5, 300), st.floats(0.5, 300)),
    margin=st.floats(0, 2),
)
def test_region_holds_the_part_of_the_box_in_the_image(
    height: int, width: int, corner: tuple[float, float], extent: tuple[float, float], margin: float
) -> None:
    x, y = corner[0] * width, corner[1] * height
    region = region_of(height, width, box=(x, y, *extent), margin=margin)
    # Whole pixels: half a pixel of the box may be missing on each side.
    assert region.left <= x + 1
    assert region.top <= y + 1
    assert region.left + region.side >= min(width, x + extent[0]) - 1
    assert region.top + region.side >= min(height, y + extent[1]) - 1


def test_margins_and_fits_out_of_range_are_usage_errors() -> None:
    for options in ({"margin": -0.1}, {"margin": float("nan")}):
        with pytest.raises(UsageError):
            region_of(5, 5, **options)


def test_cut_takes_the_region_and_repeats_borders() -> None:
    assert (cut(RGB, square(5, 3, 16), 16) == RGB[3:19, 5:21]).all()
    reaching = cut(RGB, square(-4, -4, 16), 16)
    assert (reaching[4:, 4:] == RGB[:12, :12]).all()
    assert (reaching[:4, :4] == RGB[0, 0]).all()
    assert (cut(RGB, square(500, 3, 16), 16) == RGB[3:19, -1:]).all()
    assert cut(RGB, square(0, -5, 40), 7).shape == (7, 7, 3)
    assert cut(RGB, square(7, 7, 0.2), 5).shape == (5, 5, 3)


def test_shrinking_averages_areas() -> None:
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2] = 200
    assert (cut(stripes, square(0, 0, 16), 8) == 100).all()


def test_mask_is_zero_beyond_the_image() -> None:
    mask = cut_mask(np.ones((10, 20), np.float32), square(0, -5, 20), 20)
    assert mask[5:15].min() == 1
    assert mask[:5].max() == mask[15:].max() == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(-60, 60), st.integers(-60, 60), st.integers(1, 60), st.integers(2, 24), st.integers(0, 99))
def test_paste_changes_no_pixel_whose_alpha_is_zero(left: int, top: int, side: int, size: int, seed: int) -> None:
    region = Region(float(left), float(top), float(side))
    random = np.random.default_rng(seed)
    patch = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
    frame = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    assert (paste(frame, patch, np.zeros((size, size), np.float32), region) == frame).all()
    inside = np.zeros((30, 40), bool)
    inside[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = True
    pasted = paste(frame, patch, np.ones((size, size), np.float32), region)
    assert (pasted[~inside] == frame[~inside]).all()


def test_paste_blends_by_alpha_and_leaves_the_frame_alone() -> None:
    frame, patch = np.full((8, 8, 3), 100, np.uint8), np.full((4, 4, 3), 200, np.uint8)
    alpha = np.full((4, 4), 0.25, np.float32)
    alpha[0, 0] = 0
    pasted = paste(frame, patch, alpha, square(2, 2, 4))
    assert pasted[3, 3].tolist() == [125] * 3
    assert pasted[2, 2].tolist() == [100] * 3
    assert (frame == 100).all()


@pytest.mark.parametrize("region", [square(5, 3, 16), square(-6, -3, 20), square(30, 20, 20), square(0, -5, 40)])
def test_cut_then_paste_restores_the_image(region: Region) -> None:
    side = int(region.side)
    ones = np.ones((side, side), np.float32)
    assert (paste(RGB, cut(RGB, region, side), ones, region) == RGB).all()
    larger = paste(RGB, cut(RGB, region, 2 * side), np.ones((2 * side, 2 * side), np.float32), region)
    assert np.abs(larger.astype(int) - RGB).max() <= 3


# Many images


class Said:
    """Listens to what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.advanced = 0

    @contextmanager
    def task(self, name: str, total: int, unit: str):
        yield self

    def advance(self, count: int = 1, note: str = "") -> None:
        self.advanced += count

    def say(self, text: str) -> None:
        self.lines.append(text)


def folder_of(tmp_path: Path, count: int) -> list[Path]:
    paths = [tmp_path / f"{number:03}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(saved(np.full((9 + number % 3, 8, 3), number, np.uint8), "PNG"))
    return paths


@pytest.mark.parametrize("workers", [1, 3, None])
def test_load_keeps_the_order_and_skips_what_cannot_be_read(tmp_path: Path, workers: int | None) -> None:
    paths = folder_of(tmp_path, 40)
    paths[7].write_bytes(saved(RGB, "JPEG")[:-50])
    paths[20].unlink()
    said = Said()
    loaded = load(paths, size=6, workers=workers, progress=said)
    assert loaded.kept.tolist() == [row for row in range(40) if row not in (7, 20)]
    assert (loaded.images[:, 2, 2, 0] == loaded.kept).all()
    assert loaded.images.shape == (38, 6, 6, 3)
    assert [skip.path for skip in loaded.skipped] == [paths[7], paths[20]]
    assert said.lines == [
        f"{paths[7]}: not a readable image (truncated JPEG); skipped, 1 of 40 so far",
        f"{paths[20]}: no such file; skipped, 2 of 40 so far",
    ]
    assert said.advanced == 40


def test_load_cuts_to_boxes(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(saved(RGB, "PNG"))
    loaded = load([path, path], size=10, boxes=[(4.0, 6.0, 10.0, 10.0), None], margin=0.0, fit="crop")
    assert (loaded.images[0] == RGB[6:16, 4:14]).all()
    assert (loaded.images[1] == cut(RGB, square(5, 0, 30), 10)).all()


def test_strict_load_raises_the_first_unreadable_file(tmp_path: Path) -> None:
    paths = folder_of(tmp_path, 30)
    for row in (12, 5):
        paths[row].write_bytes(b"")
    with pytest.raises(ImageError, match=r"005\.png"):
        load(paths, size=4, strict=True)


def test_load_of_only_unreadable_files_is_an_error_and_names_ten(tmp_path: Path) -> None:
    said = Said()
    with pytest.raises(DataError, match=r"none of 12 images can be read.*0\.png: no such file"):
        load([tmp_path / f"{row}.png" for row in range(12)], size=4, progress=said)
    assert len(said.lines) == 11


def test_load_of_nothing_is_empty() -> None:
    assert load([], size=4).images.shape == (0, 4, 4, 3)


def test_near_duplicates_are_found_and_different_images_are_not() -> None:
    ours = np.stack([smooth(64, 64, seed=seed) for seed in range(12)])
    copies = np.stack([decode_bytes(encode(image, "jpeg", 70), "x") for image in ours[[3, 8]]])
    others = np.stack([smooth(64, 64, seed=seed) for seed in range(50, 60)])
    assert near_duplicates(ours, np.concatenate([others, copies])).tolist() == [[3, 10], [8, 11]]
    plain = np.stack([np.full((64, 64, 3), grey, np.uint8) for grey in (20, 200)])
    assert near_duplicates(plain[:1], plain[1:]).shape == (0, 2)


def test_datasets_look_for_the_same_file_names() -> None:
    assert datasets.IMAGE_SUFFIXES == IMAGE_SUFFIXES


@pytest.mark.skipif(not AIRCRAFT.is_dir(), reason="the aircraft data set is not here")
def test_aircraft_load_and_hold_no_near_duplicates_across_the_split() -> None:
    data = layouts.read_dataset(AIRCRAFT, per_class=3)
    train = load([data.file(sample) for sample in data.train], size=32, boxes=[s.box for s in data.train])
    test = load([data.file(sample) for sample in data.test[::5]], size=32)
    assert len(train.images) == 90
    assert not train.skipped
    assert len(near_duplicates(train.images, test.images)) == 0
