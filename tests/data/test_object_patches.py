"""Cutting a data set's images to patches, checked by the pixels of bright rectangles."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from making_masks import write_mask
from making_runs import Listener
from pydantic import ValidationError

from dagaug.data.dataset_records import Dataset, Sample
from dagaug.data.mask_files import find_masks
from dagaug.data.object_patches import Framing, Patches, read_patches
from dagaug.data.square_crops import Region
from dagaug.runtime.errors import DataError, ImageError, UsageError
from dagaug.runtime.execution_settings import Execution

HEIGHT, WIDTH = 120, 160
BOXES = {
    "middle": (60.0, 40.0, 40.0, 30.0),
    "corner": (2.0, 4.0, 30.0, 20.0),
    "tall": (100.0, 10.0, 20.0, 100.0),
    "large": (4.0, 6.0, 150.0, 110.0),
}


def dataset(root: Path, boxed: bool = True) -> Dataset:
    """Black images with a white rectangle each; its place is the sample's box."""
    samples = []
    for label, (name, (x, y, width, height)) in enumerate(BOXES.items()):
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        image[int(y) : int(y + height), int(x) : int(x + width)] = 255
        cv2.imwrite(str(root / f"{name}.png"), image)
        samples.append(Sample(Path(f"{name}.png"), label, "train", box=BOXES[name] if boxed else None))
    return Dataset(root, "cub", tuple(BOXES), tuple(samples), "given")


def read(data: Dataset, **options: object) -> Patches:
    return read_patches(
        data, data.samples, Framing.model_validate({"size": 64} | options), execution=Execution(workers=1)
    )


def in_image(region: Region) -> np.ndarray:
    """Pixels of a patch that its image shows; beyond, it is reflected."""
    left, top, side = region.pixels()
    across, down = left + np.arange(64) * side / 64, top + np.arange(64) * side / 64
    inside: np.ndarray = ((down >= 0) & (down < HEIGHT))[:, None] & ((across >= 0) & (across < WIDTH))
    return inside


@pytest.mark.parametrize("crop", ["box", "none"])
def test_each_box_in_fractions_of_its_patch_is_where_the_bright_pixels_are(tmp_path: Path, crop: str) -> None:
    patches = read(dataset(tmp_path), crop=crop)
    for image, box, region in zip(patches.images, patches.boxes(), patches.regions, strict=True):
        assert box is not None
        x, y, width, height = (64 * value for value in box)
        rows, columns = np.nonzero((image[..., 0] > 127) & in_image(region))
        edges = (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1)
        assert edges == pytest.approx((x, x + width, y, y + height), abs=1)


def test_the_larger_side_of_a_box_leaves_the_margin_on_both_sides(tmp_path: Path) -> None:
    """1 / (1 + 2 · 0.25) of the patch's side."""
    boxes = read(dataset(tmp_path), margin=0.25).boxes()
    for box in boxes[:2]:
        assert box is not None
        assert max(box[2:]) == pytest.approx(1 / 1.5, abs=0.02)


def test_without_cropping_every_patch_shows_the_whole_image(tmp_path: Path) -> None:
    patches = read(dataset(tmp_path), crop="none")
    assert {(region.left, region.top, region.side) for region in patches.regions} == {(0, (HEIGHT - WIDTH) // 2, WIDTH)}


def test_centre_squares_are_cut_where_the_fit_is_crop(tmp_path: Path) -> None:
    patches = read(dataset(tmp_path, boxed=False), fit="crop")
    assert {(region.left, region.top, region.side) for region in patches.regions} == {(WIDTH / 2 - 60, 0, HEIGHT)}


def test_samples_without_a_box_have_none_in_their_patch(tmp_path: Path) -> None:
    assert read(dataset(tmp_path, boxed=False)).boxes() == [None] * len(BOXES)


def test_unreadable_files_are_listed_and_the_rest_keep_their_labels(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    (tmp_path / "corner.png").write_bytes(b"no image")
    patches = read(data)
    assert [sample.path.stem for sample in patches.samples] == ["middle", "tall", "large"]
    assert patches.labels.tolist() == [0, 2, 3]
    assert patches.labels.dtype == np.int64
    assert len(patches.images) == len(patches.regions) == len(patches.boxes()) == 3
    assert [skipped.path.name for skipped in patches.skipped] == ["corner.png"]


def test_strictness_raises_the_first_unreadable_file(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    (tmp_path / "corner.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"corner\.png"):
        read_patches(data, data.samples, Framing(), execution=Execution(workers=1, strict=True))


def test_where_nothing_can_be_read_the_data_are_to_blame(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    for sample in data.samples:
        data.file(sample).unlink()
    with pytest.raises(DataError, match="none of 4"):
        read(data)


def test_only_the_given_samples_are_read_in_the_given_order(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    patches = read_patches(data, data.samples[2:0:-1], Framing(size=32), execution=Execution(workers=2))
    assert patches.labels.tolist() == [2, 1]
    assert patches.images.shape == (2, 32, 32, 3)


# ---- masks


def masked(root: Path) -> Dataset:
    """The same data set with its rectangles as masks."""
    data = dataset(root)
    for sample in data.samples:
        write_mask(data, sample, root / "masks", cv2.imread(str(data.file(sample)), cv2.IMREAD_GRAYSCALE))
    return find_masks(data, root / "masks")


@pytest.mark.parametrize("crop", ["box", "none"])
def test_masks_follow_their_patches(tmp_path: Path, crop: str) -> None:
    data = masked(tmp_path)
    patches = read_patches(data, data.samples, Framing(size=64, crop=crop), masks=True)  # type: ignore[arg-type]
    for image, mask, box, region in zip(patches.images, patches.masks, patches.boxes(), patches.regions, strict=True):
        assert mask is not None
        assert box is not None
        inside = in_image(region)
        assert ((mask > 127) == (image[..., 0] > 127))[inside].mean() > 0.97
        assert not mask[~inside].any()
        assert mask.mean() == pytest.approx(255 * box[2] * box[3], rel=0.1)


def test_masks_are_read_only_where_they_are_asked_for(tmp_path: Path) -> None:
    data = masked(tmp_path)
    assert read(data).masks == (None,) * 4
    bare = dataset(tmp_path)
    assert read_patches(bare, bare.samples, Framing(), masks=True).masks == (None,) * 4


def test_images_with_unusable_masks_are_left_out_and_listed(tmp_path: Path) -> None:
    data = masked(tmp_path)
    write_mask(data, data.samples[1], tmp_path / "masks", np.zeros((HEIGHT, WIDTH), np.uint8))
    write_mask(data, data.samples[2], tmp_path / "masks", np.zeros((7, 5), np.uint8))
    said = Listener()
    patches = read_patches(data, data.samples, Framing(size=64), masks=True, execution=Execution(progress=said))
    assert [sample.path.stem for sample in patches.samples] == ["middle", "large"]
    assert len(patches.images) == len(patches.regions) == len(patches.masks) == len(patches.boxes()) == 2
    assert patches.skipped == ()
    assert [skip.path.name for skip in patches.unmasked] == ["corner.png", "tall.png"]
    assert all(skip.for_its_mask for skip in patches.unmasked)
    assert "is empty" in patches.unmasked[0].reason
    assert "is 5 × 7 pixels" in patches.unmasked[1].reason
    (line,) = said.lines
    assert line.startswith("2 of 4 images have unusable masks and are left out; the first: ")


def test_strictness_raises_the_first_unusable_mask(tmp_path: Path) -> None:
    data = masked(tmp_path)
    write_mask(data, data.samples[1], tmp_path / "masks", np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(ImageError, match=r"corner\.png: unusable mask: .*is empty"):
        read_patches(data, data.samples, Framing(), masks=True, execution=Execution(strict=True))


def test_where_no_mask_is_usable_the_data_are_to_blame(tmp_path: Path) -> None:
    data = masked(tmp_path)
    for sample in data.samples:
        write_mask(data, sample, tmp_path / "masks", np.full((HEIGHT, WIDTH), 1, np.uint8))
    with pytest.raises(DataError, match=r"no image has a usable mask; the first: .*middle"):
        read_patches(data, data.samples, Framing(), masks=True)


@pytest.mark.parametrize(
    "changes",
    [{"size": 50}, {"size": 16}, {"size": 2048}, {"margin": -0.1}, {"crop": "circle"}, {"fit": "stretch"}, {"zoom": 2}],
    ids=str,
)
def test_a_framing_that_the_networks_cannot_take_is_refused(changes: dict[str, object]) -> None:
    """Sides are multiples of 16, for the encoder halves four times."""
    with pytest.raises(ValidationError):
        Framing.model_validate(changes)


@pytest.mark.parametrize("size", [100, 16, 2048])
def test_a_size_that_networks_cannot_halve_is_refused_in_one_line(size: int) -> None:
    assert Framing(margin=0.3).with_size(96) == Framing(size=96, margin=0.3)
    with pytest.raises(UsageError, match=f"size={size}: give a multiple of 16, from 32 to 1024$"):
        Framing().with_size(size)
