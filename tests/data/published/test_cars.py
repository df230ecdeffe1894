from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from making_published import CARS, write_cars
from scipy.io import loadmat, savemat

from dagaug.data.layouts import read_dataset
from dagaug.runtime.errors import DataError


def test_labels_of_test_images_may_lie_in_the_kit_and_images_in_a_repeated_folder(tmp_path: Path) -> None:
    root = write_cars(tmp_path)
    before = read_dataset(root)
    assert before.classes == CARS
    (root / "cars_test_annos_withlabels.mat").rename(root / "devkit" / "cars_test_annos_withlabels.mat")
    (root / "cars_train").rename(tmp_path / "inner")
    (root / "cars_train").mkdir()
    (tmp_path / "inner").rename(root / "cars_train" / "cars_train")
    after = read_dataset(root)
    assert [one.label for one in after.samples] == [one.label for one in before.samples]
    assert all(after.file(sample).is_file() for sample in after.samples)


def test_annotations_without_labels_and_unknown_classes_are_refused(tmp_path: Path) -> None:
    root = write_cars(tmp_path)
    file = root / "cars_test_annos_withlabels.mat"
    annotations = loadmat(file)["annotations"]
    wrong = annotations.copy()
    wrong["class"][0, 1] = np.uint8(3)
    savemat(file, {"annotations": wrong})
    with pytest.raises(DataError, match="annotation 2: class 3 is not one of 1 to 2"):
        read_dataset(root)
    bare = np.empty(annotations.shape, [("fname", object)])
    bare["fname"] = annotations["fname"]
    savemat(file, {"annotations": bare})
    with pytest.raises(DataError, match="have no field 'class'"):
        read_dataset(root)
