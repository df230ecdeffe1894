"""Image sets that do not fit the data set or would leak test images are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from making_images import make_transparent
from making_runs import Listener
from making_score_data import OPTIONS, folder_of, write_data, write_impostors, write_store

from dagaug.data.dataset_records import Dataset
from dagaug.data.object_patches import Framing, read_patches
from dagaug.runtime.errors import DataError
from dagaug.runtime.execution_settings import Execution
from dagaug.score.experiment import score
from dagaug.score.image_set_loading import framing_of, load_real


def test_a_folder_of_unknown_classes_is_refused_by_name(data: Dataset, tmp_path: Path) -> None:
    options = replace(OPTIONS, arms=("real",), others=(("x", folder_of(tmp_path / "theirs", ("blue", "violet"))),))
    with pytest.raises(DataError, match=r"theirs/violet: .* no class of this name"):
        score(data, None, options)
    with pytest.raises(DataError, match=r"nowhere: neither an HDF5 file nor a folder"):
        score(data, None, replace(options, others=(("x", tmp_path / "nowhere"),)))


def test_data_with_other_images_under_the_names_in_the_file_are_refused(data: Dataset, tmp_path: Path) -> None:
    path, other = write_store(tmp_path / "s.h5", data, synthetic=False), write_impostors(tmp_path / "other")
    with pytest.raises(DataError, match=r"other/train/blue/0\.png: shows another image than .*s\.h5 holds"):
        score(other, path, replace(OPTIONS, arms=("real",)))
    with pytest.raises(DataError, match="shows another image than"):
        score(other, None, replace(OPTIONS, arms=("real",), others=(("theirs", path),)))


def test_a_morph_of_a_test_image_is_refused_by_name(data: Dataset, tmp_path: Path) -> None:
    path = write_store(tmp_path / "leak.h5", data, source=9)
    with pytest.raises(DataError, match=r"leak\.h5: made from the test image test/blue/1\.png"):
        score(data, path, OPTIONS)


def test_a_morph_of_a_training_image_that_is_not_in_use_is_refused(data: Dataset, tmp_path: Path) -> None:
    path = write_store(tmp_path / "more.h5", data)
    with pytest.raises(DataError, match=r"train/blue/2\.png, which is not among the 4 training images"):
        score(data, path, replace(OPTIONS, per_class=2))


def test_a_morph_of_an_unknown_image_is_refused(data: Dataset, tmp_path: Path) -> None:
    path = write_store(tmp_path / "alien.h5", data, stray="elsewhere/x.png")
    with pytest.raises(DataError, match=r"made from elsewhere/x\.png"):
        score(data, path, OPTIONS)


def test_synthetic_test_images_are_refused(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="test split"):
        score(data, write_store(tmp_path / "s.h5", data, split=1), OPTIONS)


def test_other_classes_are_refused_naming_both(data: Dataset, tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", data, classes=("blue", "violet"))
    with pytest.raises(DataError, match=r"'violet' only there.*'green' only there"):
        score(data, path, OPTIONS)


def test_classes_in_another_order_are_refused(data: Dataset, tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", data, classes=("green", "blue"))
    with pytest.raises(DataError, match="another order"):
        score(data, path, OPTIONS)


def test_a_store_without_synthetic_images_is_refused(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no synthetic images"):
        score(data, write_store(tmp_path / "s.h5", data, synthetic=False), OPTIONS)


def test_a_data_set_without_test_images_is_refused(data: Dataset, tmp_path: Path) -> None:
    path = write_store(tmp_path / "s.h5", data)
    with pytest.raises(DataError, match="no test images"):
        score(replace(data, samples=data.train), path, OPTIONS)


def test_files_of_patches_say_how_they_were_cut_and_real_images_are_cut_alike(birds: Dataset, tmp_path: Path) -> None:
    framing = Framing(size=32, margin=0.3)
    for frame, expected in (("whole", None), ("crop", framing)):
        path = write_store(tmp_path / f"{frame}.h5", birds, frame=frame, framing=framing.model_dump())
        assert framing_of(path) == expected
    train, test, _ = load_real(birds, 32, framing)
    np.testing.assert_array_equal(train.images, read_patches(birds, birds.train, framing).images)
    assert len(test) == len(birds.test)
    assert (load_real(birds, 32)[0].images[:] != train.images[:]).any()


def test_images_with_transparent_pixels_are_told_once_for_both_splits(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    for sample in (data.train[0], data.test[0]):
        make_transparent(data.file(sample))
    listener = Listener()
    load_real(data, 32, None, execution=Execution(progress=listener))
    assert listener.lines == ["2 of 14 images have transparent pixels, which are laid over white"]
