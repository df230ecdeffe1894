"""The option ``--masks`` and the masks of CUB-200-2011, through the commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from making_masks import write_mask, write_masks
from making_runs import dagaug
from making_score_data import write_data, write_store

from dagaug.data.dataset_records import Dataset
from dagaug.data.layouts import read_dataset
from dagaug.hdf5.reader import Store


def with_segmentations(birds: Dataset, root: Path) -> Dataset:
    """A copy of the birds with masks where CUB-200-2011 has them."""
    shutil.copytree(birds.root, root)
    write_masks(birds, root / "all")
    shutil.move(root / "all" / "images", root / "segmentations")
    return read_dataset(root)


@pytest.mark.usefixtures("quickly")
def test_cubs_own_masks_are_found_and_the_option_overrides_them(
    birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = with_segmentations(birds, tmp_path / "cub")
    train = ("train", "cub", "--steps", 1, "--size", 32, "--start", "scratch", "--device", "cpu")
    done = dagaug(*train, "--out", "own")
    assert done.code == 0, done.err
    assert "Masks of 24 of 24 images: cub/segmentations\n" in done.err
    for sample in birds.samples[:23]:
        write_mask(birds, sample, tmp_path / "others", np.pad(np.full((30, 30), 255, np.uint8), 17))
    done = dagaug(*train, "--masks", "others", "--out", "own")
    assert done.code == 1
    assert "Masks of 23 of 24 images: others; the others are estimated" in done.err
    assert "own: holds a run with masks" in done.err
    assert data.masks is not None


@pytest.mark.slow
@pytest.mark.usefixtures("quickly")
def test_morphs_without_training_use_masks_and_list_the_unusable(
    birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_masks(birds, tmp_path / "masks")
    bad = birds.train[1]
    write_mask(birds, bad, folder, np.zeros((64, 64), np.uint8))
    done = dagaug(
        "augment", birds.root, "--checkpoint", "frozen", "--refs", 1, "--size", 64, "--masks", "masks", "--folds", 2,
        "--variants", "cutout", "--keep", "all", "--frame", "crop", "--encoding", "png", "--min-confidence", 0,
        "--background", "reference", "--out", "a.h5", "--device", "cpu",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "1 images with unusable masks are neither sources nor references" in done.out
    assert "is empty" in done.out
    with Store(tmp_path / "a.h5") as store:
        assert len(store.header.skipped) == 1
        assert store.header.provenance.masks == str(tmp_path / "masks")
        bad_row = store.header.files.index(bad.path.as_posix())
        assert bad_row not in {*store.candidates.source, *store.candidates.reference}


def test_masks_are_refused_where_nothing_reads_them(tmp_path: Path) -> None:
    for domain in ("trainA", "trainB"):
        (tmp_path / "two" / domain).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "two" / domain / "1.png"), np.zeros((8, 8, 3), np.uint8))
    refused = dagaug("train", tmp_path / "two", "--preset", "digits", "--masks", tmp_path)
    assert refused.code == 2
    assert "used only for pose morphing, not for digits" in refused.err
    data = write_data(tmp_path / "data")
    store = write_store(tmp_path / "s.h5", data)
    refused = dagaug("score", data.root, store, "--masks", tmp_path)
    assert refused.code == 2
    assert f"--masks {tmp_path}: {store} was made without masks" in refused.err
