from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from making_published import write_flowers
from scipy.io import savemat

from dagaug.data.layouts import read_dataset
from dagaug.data.object_patches import Framing, read_patches
from dagaug.runtime.errors import DataError


def test_classes_are_numbers_and_segmentations_masks(tmp_path: Path) -> None:
    data = read_dataset(write_flowers(tmp_path))
    assert data.classes == ("003", "077")
    patches = read_patches(data, data.samples, Framing(size=48), masks=True)
    truth = np.zeros((48, 48), bool)
    truth[10:38, 10:38] = True
    for mask in patches.masks:
        assert mask is not None
        assert ((mask > 127) != truth).sum() < 4 * 28  # less than a pixel along the outline; JPEG blurs its colour
    shutil.rmtree(tmp_path / "segmim")
    assert read_dataset(tmp_path).masks is None


def test_the_first_images_of_each_class_are_those_of_the_training_list(tmp_path: Path) -> None:
    data = read_dataset(write_flowers(tmp_path), per_class=2)
    assert [one.path.stem[-1] for one in data.train if one.label == 1] == ["1", "3"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("setid", {"trnid": [[1, 5]], "valid": [[2, 6]], "tstid": [[4, 9]]}, "tstid holds 9; expected 1 to 8"),
        ("setid", {"trnid": [[1, 5]], "valid": [[1, 6]], "tstid": [[4, 8]]}, "valid holds 1; expected 1 to 8, each"),
        ("setid", {"trnid": [[1, 5]], "tstid": [[4, 8]]}, "no variable 'valid'"),
        ("imagelabels", {"labels": [[0] * 8]}, "class of image 1 is not one of 1 to 102"),
    ],
)
def test_lists_that_cannot_be_are_refused(
    tmp_path: Path, name: str, content: dict[str, list[list[int]]], message: str
) -> None:
    root = write_flowers(tmp_path)
    savemat(root / f"{name}.mat", content)
    with pytest.raises(DataError, match=message):
        read_dataset(root)
