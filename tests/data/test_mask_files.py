"""Given masks: which file belongs to which image, what is read from it, and what is refused."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dagaug.data.dataset_records import Dataset, Sample
from dagaug.data.image_files import decode_mask
from dagaug.data.mask_files import (
    find_masks,
    hash_masks,
    mask_fault,
    read_masks,
    read_whole_mask,
    take_masks,
)
from dagaug.data.square_crops import Region, region_of
from dagaug.runtime.errors import DataError, ImageError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache

WHITE = np.full((4, 6), 255, np.uint8)
BOX = (0.1, 0.1, 0.8, 0.8)


def dataset(*paths: str) -> Dataset:
    samples = tuple(Sample(Path(path), row % 2, "train") for row, path in enumerate(paths))
    return Dataset(Path("data"), "imagefolder", ("a", "b"), samples, "given")


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def one(path: Path | None) -> Sample:
    return Sample(Path("a.jpg"), 0, "train", mask=path)


def read(
    path: Path | None, height: int, width: int, size: int = 32, region: Region | None = None
) -> np.ndarray | str | None:
    """The mask, or what is wrong with it."""
    region = region or region_of(height, width)
    masks, wrong = read_masks([one(path)], [(height, width)], [region], [None], size)
    assert not wrong or masks[0] is None
    return wrong.get(0, masks[0])


# ---- which file


def test_a_mask_has_the_path_of_its_image_or_the_end_of_it(tmp_path: Path) -> None:
    data = dataset("images/x/1.jpg", "images/y/2.png", "images/y/3.jpeg", "images/y/4.jpg")
    names = ("images/x/1.png", "y/2.webp", "3.tif")
    for name in names:
        write(tmp_path / name, WHITE)
    (tmp_path / "y" / "4.txt").write_text("no image")
    found = find_masks(data, tmp_path)
    assert [sample.mask for sample in found.samples] == [*(tmp_path / name for name in names), None]
    assert found.masks == tmp_path


def test_the_longest_path_that_fits_wins(tmp_path: Path) -> None:
    write(tmp_path / "x" / "1.png", WHITE)
    write(tmp_path / "1.png", WHITE)
    assert find_masks(dataset("x/1.jpg"), tmp_path).samples[0].mask == tmp_path / "x" / "1.png"


def test_a_name_that_several_images_have_fits_none_of_them(tmp_path: Path) -> None:
    data = dataset("x/1.jpg", "y/1.jpg")
    write(tmp_path / "1.png", WHITE)
    with pytest.raises(DataError, match=r"1\.png: 2 images have this name; put the masks into the same folders"):
        find_masks(data, tmp_path)
    for folder in ("x", "y"):
        write(tmp_path / folder / "1.png", WHITE)
    assert [sample.mask for sample in find_masks(data, tmp_path).samples] == [
        tmp_path / "x" / "1.png", tmp_path / "y" / "1.png"
    ]  # fmt: skip


def test_two_masks_of_one_image_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "1.png", WHITE)
    write(tmp_path / "1.bmp", WHITE)
    with pytest.raises(DataError, match=r"1\.bmp: 1\.png lies beside it"):
        find_masks(dataset("1.jpg"), tmp_path)


def test_a_folder_that_is_missing_or_fits_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"masks=.*gone: no such folder of masks"):
        find_masks(dataset("x/1.jpg"), tmp_path / "gone")
    write(tmp_path / "2.png", WHITE)
    with pytest.raises(DataError, match=r"holds no mask of the images of data; x/1\.jpg needs x/1\.png there"):
        find_masks(dataset("x/1.jpg"), tmp_path)


def test_the_hash_follows_the_content_of_the_masks_alone(tmp_path: Path) -> None:
    data = dataset("1.jpg", "2.jpg")
    assert hash_masks(data.samples) == ""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        write(folder / "1.png", WHITE)
    known = hash_masks(find_masks(data, first).samples)
    assert known == hash_masks(find_masks(data, second).samples)
    write(second / "2.png", WHITE)
    both = hash_masks(find_masks(data, second).samples)
    write(second / "2.png", 0 * WHITE)
    assert len({known, both, hash_masks(find_masks(data, second).samples)}) == 3


# ---- what is the object


def half(kind: str) -> np.ndarray:
    """The object in the three left columns of six, in a kind of image."""
    grey = np.repeat(np.array([[128, 128, 255, 127, 127, 0]], np.uint8), 4, 0)
    colour = np.repeat(grey[..., None], 3, 2)
    if kind == "16-bit":
        return np.repeat(np.array([[32768, 40000, 65535, 32767, 32767, 0]], np.uint16), 4, 0)
    if kind == "red":
        colour[..., :2] = 0
        return colour
    if kind == "opacity":
        return np.concatenate([np.full_like(colour, 90), grey[..., None]], 2)
    if kind == "opaque":
        return np.concatenate([colour, np.full_like(grey, 255)[..., None]], 2)
    return grey if kind == "grey" else colour


@pytest.mark.parametrize("kind", ["grey", "rgb", "red", "16-bit", "opacity", "opaque"])
def test_the_upper_half_of_the_range_is_the_object(tmp_path: Path, kind: str) -> None:
    mask = decode_mask(write(tmp_path / "mask.png", half(kind)))
    assert mask.dtype == bool
    assert mask.tolist() == [[True] * 3 + [False] * 3] * 4


def test_masks_of_one_bit_and_with_a_palette_are_read(tmp_path: Path) -> None:
    black_white = Image.fromarray(half("grey") > 127)
    black_white.save(tmp_path / "bit.png")
    indices = Image.fromarray((half("grey") > 127).astype(np.uint8), mode="P")
    indices.putpalette([0, 0, 0, 128, 0, 0])  # as the masks of PASCAL VOC
    indices.save(tmp_path / "palette.png")
    for name in ("bit", "palette"):
        assert decode_mask(tmp_path / f"{name}.png").tolist() == [[True] * 3 + [False] * 3] * 4


def test_masks_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(WHITE).save(buffer, "jpeg", exif=exif)
    (tmp_path / "mask.jpg").write_bytes(buffer.getvalue())
    assert decode_mask(tmp_path / "mask.jpg").shape == (6, 4)


def test_a_mask_that_cannot_be_decoded_says_why(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match="not a readable image"):
        decode_mask(tmp_path / "mask.png")
    found = read(tmp_path / "mask.png", 4, 6)
    assert isinstance(found, str)
    assert "mask.png: not a readable image" in found


# ---- at the size of the image


def test_a_sample_without_a_mask_has_none() -> None:
    assert read(None, 4, 6) is None


def test_a_mask_follows_the_crop_of_its_image_and_is_background_outside(tmp_path: Path) -> None:
    whole = np.zeros((40, 80), np.uint8)
    whole[:, 30:50] = 255
    mask = read(write(tmp_path / "mask.png", whole), 40, 80, size=80)
    assert isinstance(mask, np.ndarray)
    assert mask[20:60, 30:50].min() == 255
    assert mask.sum() == 255 * 40 * 20


@pytest.mark.parametrize(("height", "width"), [(300, 400), (151, 200), (38, 50), (225, 299)])
def test_a_mask_of_the_same_aspect_ratio_is_resized(tmp_path: Path, height: int, width: int) -> None:
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2] = 255
    found = read(write(tmp_path / "mask.png", mask), 150, 200, size=64, region=Region(0.0, 0.0, 150.0))
    assert isinstance(found, np.ndarray)
    assert found[:29].min() == 255
    assert found[35:].max() == 0


@pytest.mark.parametrize(("height", "width"), [(200, 150), (150, 190), (150, 203), (2, 2), (100, 100)])
def test_a_mask_of_another_size_is_refused(tmp_path: Path, height: int, width: int) -> None:
    found = read(write(tmp_path / "mask.png", np.full((height, width), 255, np.uint8)), 150, 200)
    assert isinstance(found, str)
    assert f"mask.png: is {width} × {height} pixels, but its image, upright, is 200 × 150" in found


def test_masks_beyond_the_cache_are_those_of_the_files_and_a_file_that_changed_is_named(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{row}.png", np.roll(WHITE * (np.arange(6) < 3), row, 1)) for row in range(4)]
    samples = [one(paths[0]), one(None), *map(one, paths[1:])]
    arguments = samples, [(4, 6)] * 5, [region_of(4, 6)] * 5, [None] * 5, 8
    few, _ = read_masks(*arguments, execution=Execution(memory=ImageCache(0)))
    many, _ = read_masks(*arguments)
    assert [mask is None for mask in many] == [False, True, False, False, False]
    for ours, theirs in zip(few[1:], many[1:], strict=True):
        assert np.array_equal(ours, theirs)
    part = take_masks(few, np.array([4, 1]))
    assert np.array_equal(part[0], many[4])
    assert part[1] is None
    elsewhere = pickle.loads(pickle.dumps(many.with_cache(ImageCache())))
    assert np.array_equal(elsewhere[2], many[2])
    paths[0].unlink()
    with pytest.raises(DataError, match=r"0\.png: no such file; it was usable when this run began"):
        elsewhere[0]


# ---- surely wrong


def disc(radius: float, size: int = 64) -> np.ndarray:
    line = np.arange(size) - size / 2 + 0.5
    return (255 * (line[:, None] ** 2 + line**2 <= radius**2)).astype(np.uint8)


@pytest.mark.parametrize("radius", [2, 10, 30])
def test_plain_objects_are_right(radius: float) -> None:
    assert mask_fault(disc(radius), BOX) == ""
    assert mask_fault(disc(radius), None) == ""


def test_an_object_that_fills_a_whole_frame_but_for_its_border_is_right() -> None:
    mask = np.full((64, 64), 255, np.uint8)
    mask[:2] = 0
    assert mask_fault(mask, None) == ""


def test_empty_and_full_masks_are_wrong() -> None:
    assert "is empty" in mask_fault(np.zeros((64, 64), np.uint8), None)
    assert "is empty" in mask_fault(np.full((64, 64), 1, np.uint8), None)
    assert "covers the whole patch" in mask_fault(np.full((64, 64), 255, np.uint8), None)


def test_a_mask_outside_the_box_is_wrong() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:10, :10] = 255
    assert mask_fault(mask, (0.5, 0.5, 0.4, 0.4)) == "lies outside the object's box"
    assert mask_fault(mask, None) == ""
    assert mask_fault(mask, (0.1, 0.1, 0.8, 0.8)) == ""


def dots(count: int, size: int = 64) -> np.ndarray:
    """``count`` × ``count`` dots with wide gaps."""
    mask = np.zeros((size, size), np.uint8)
    step = size // count
    for y in range(step // 2, size, step):
        for x in range(step // 2, size, step):
            mask[y : y + 2, x : x + 2] = 255
    return mask


def test_a_torn_mask_is_wrong_and_one_of_a_few_pieces_is_not() -> None:
    assert mask_fault(dots(4), None) == "is torn into 16 pieces"
    assert mask_fault(dots(3), None) == ""  # a few objects, or one behind twigs


def test_narrow_gaps_do_not_tear_a_mask() -> None:
    striped = disc(25)
    striped[:, ::4] = 0
    assert mask_fault(striped, BOX) == ""


def test_a_whole_mask_has_the_size_of_its_image_or_a_reason(tmp_path: Path) -> None:
    half = np.zeros((4, 6), np.uint8)
    half[:, :3] = 255
    whole = read_whole_mask(write(tmp_path / "a.png", half), (8, 12))
    assert isinstance(whole, np.ndarray)
    assert whole.shape == (8, 12)
    assert (whole > 127).sum() == 8 * 6
    assert isinstance(read_whole_mask(tmp_path / "a.png", (9, 9)), str)
    assert isinstance(read_whole_mask(tmp_path / "none.png", (8, 12)), str)
