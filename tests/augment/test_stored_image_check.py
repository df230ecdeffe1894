"""A data folder of the same names but other images is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from dagaug.augment.run import Augmented
from dagaug.augment.stored_image_check import check_stored_images
from dagaug.data.dataset_records import Dataset
from dagaug.data.layouts import read_dataset
from dagaug.hdf5.reader import Store
from dagaug.runtime.errors import DataError


def test_the_data_that_a_file_was_made_from_passes_and_is_found_from_any_folder(
    made: Augmented, birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Store(made.out) as store:
        check_stored_images(store, birds)
        assert store.header.provenance.data_folder(made.out) == birds.root.absolute()


def test_other_images_under_the_same_names_are_refused_with_the_first_that_differs(
    store: Store, birds: Dataset, tmp_path: Path
) -> None:
    shutil.copytree(birds.root, tmp_path / "birds")
    first = birds.samples[0].path
    image = cv2.imread(str(birds.root / first))
    assert cv2.imwrite(str(tmp_path / "birds" / first), 255 - image)
    with pytest.raises(DataError, match=rf"{first.name}: shows another image than .* holds under this name"):
        check_stored_images(store, read_dataset(tmp_path / "birds"))


def test_a_lossy_copy_is_the_same_image_and_a_missing_one_is_no_difference(
    store: Store, birds: Dataset, tmp_path: Path
) -> None:
    shutil.copytree(birds.root, tmp_path / "birds")
    for sample in birds.samples:
        path = tmp_path / "birds" / sample.path
        blurred = cv2.GaussianBlur(cv2.imread(str(path)), (3, 3), 0)
        assert cv2.imwrite(str(path), np.ascontiguousarray(blurred))
    (tmp_path / "birds" / birds.samples[0].path).unlink()
    check_stored_images(store, read_dataset(tmp_path / "birds"))
