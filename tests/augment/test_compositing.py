"""Morphs in whole images, and as patches."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from making_augmentations import (
    REFS,
    morphs_of,
    run,
)
from making_runs import FRAMING, SIZE, TRAINING_IMAGES, Listener

from dagaug.augment.morph_plan import VARIANTS
from dagaug.augment.options import AugmentOptions
from dagaug.augment.stored_morph_backgrounds import backgrounds_of
from dagaug.data.dataset_records import Dataset
from dagaug.data.image_files import decode
from dagaug.data.layouts import read_dataset
from dagaug.data.object_patches import read_patches
from dagaug.hdf5.reader import Store
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import DataError


def test_crops_have_the_size_of_the_patches(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    run(model, birds, judged.model_copy(update={"frame": "crop", "limit": 4}), tmp_path / "a.h5")
    with Store(tmp_path / "a.h5") as store:
        for image in store.read(morphs_of(store).tolist()):
            assert image.shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_outside_the_patch_a_whole_image_is_the_reference_or_its_mirror_image(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, variant: str
) -> None:
    options = judged.model_copy(update={"variants": (variant,), "encoding": "png", "min_confidence": 0.0, "limit": 6})
    run(model, birds, options, tmp_path / "a.h5")
    patches = read_patches(birds, birds.train, FRAMING)
    region_of = {s.path.as_posix(): r for s, r in zip(patches.samples, patches.regions, strict=True)}
    outside = 0
    with Store(tmp_path / "a.h5") as store:
        rows = morphs_of(store)
        assert len(rows) == 6 * REFS
        for row in rows:
            name = store.header.files[store.images.reference[row]]
            reference, result = decode(birds.root / name), store.image(int(row))
            left, top, side = region_of[name].pixels()
            far = np.ones(reference.shape[:2], bool)
            far[max(top, 0) : top + side, max(left, 0) : left + side] = False
            if variant == "mirror":
                reference, far = reference[:, ::-1], far[:, ::-1]
            assert result.shape == reference.shape
            np.testing.assert_array_equal(result[far], reference[far])
            assert (result != reference).any()
            mask = store.mask(int(row))
            assert mask is not None
            assert mask.shape == result.shape[:2]
            assert not mask[far].any()
            outside += int(far.sum())
    assert outside > 0


@pytest.mark.parametrize("background", ["source", "other"])
def test_outside_the_patch_a_whole_image_is_the_one_that_gives_the_background(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, background: str
) -> None:
    changes = {"background": background, "encoding": "png", "min_confidence": 0.0, "limit": 6}
    run(model, birds, judged.model_copy(update=changes), tmp_path / "a.h5")
    regions = read_patches(birds, birds.train, FRAMING)
    region_of = {s.path.as_posix(): r for s, r in zip(regions.samples, regions.regions, strict=True)}
    with Store(tmp_path / "a.h5") as store:
        images, files = store.images, store.header.files
        for row, behind in zip(morphs_of(store), backgrounds_of(store)[morphs_of(store)], strict=True):
            source, reference = images.source[row], images.reference[row]
            assert behind == source if background == "source" else behind not in (source, reference)
            whole, result = decode(birds.root / files[behind]), store.image(int(row))
            left, top, side = region_of[files[behind]].pixels()
            far = np.ones(whole.shape[:2], bool)
            far[max(top, 0) : top + side, max(left, 0) : left + side] = False
            if images.variant[row] == VARIANTS.index("mirror"):
                whole, far = whole[:, ::-1], far[:, ::-1]
            np.testing.assert_array_equal(result[far], whole[far])
            assert (result != whole).any()


def test_a_missing_background_image_is_an_error_and_the_run_can_be_continued(
    model: TrainedModel, birds_folder: Path, judged: AugmentOptions, tmp_path: Path
) -> None:
    root, out, hidden = tmp_path / "birds", tmp_path / "a.h5", tmp_path / "hidden"
    shutil.copytree(birds_folder, root)
    data = read_dataset(root)
    options = judged.model_copy(update={"real": False, "min_confidence": 0.0})

    def hide(task: str, done: int) -> None:
        if task == "Encoding" and root.exists():
            root.rename(hidden)

    with pytest.raises(DataError, match="readable when this run began; restore it and run again"):
        run(model, data, options, out, progress=Listener(hide))
    hidden.rename(root)
    assert run(model, data, options, out).kept == TRAINING_IMAGES * REFS
