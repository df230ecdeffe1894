from __future__ import annotations

from pathlib import Path

from making_published import write_pets

from dagaug.data.layouts import read_dataset
from dagaug.data.mask_files import find_masks
from dagaug.data.object_patches import Framing, read_patches


def test_trimaps_are_masks_of_pets_with_the_inner_half_of_the_border(tmp_path: Path) -> None:
    data = read_dataset(write_pets(tmp_path))
    assert data.classes == ("Abyssinian", "american_pit_bull_terrier")
    assert data.masks == tmp_path / "annotations" / "trimaps"
    patches = read_patches(data, data.samples[:1], Framing(size=48), masks=True)
    (mask,) = patches.masks
    assert mask is not None
    rows = (mask[:, 24] > 127).nonzero()[0]
    assert (rows.min(), rows.max()) == (12, 35)  # the border is 10 to 13, and 34 to 37
    assert not patches.unmasked


def test_masks_of_another_folder_are_no_trimaps(tmp_path: Path) -> None:
    data = read_dataset(write_pets(tmp_path / "pets"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "Abyssinian_0.png").write_bytes(b"")
    found = find_masks(data, tmp_path / "other")
    assert {sample.mask_values for sample in found.samples} == {"upper half"}


def test_images_without_a_trimap_have_no_mask(tmp_path: Path) -> None:
    root = write_pets(tmp_path)
    (root / "annotations" / "trimaps" / "Abyssinian_1.png").unlink()
    assert [one.path.stem for one in read_dataset(root).samples if one.mask is None] == ["Abyssinian_1"]
