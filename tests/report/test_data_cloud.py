"""The data cloud: it shows only images that the judge was not trained on, is reproducible, or says why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from dagaug.classifiers.classifier import Classifier, hash_images, untrained
from dagaug.classifiers.cross_fit import CrossFitted, assign_folds, cross_fit
from dagaug.classifiers.fit import FitOptions
from dagaug.data.dataset_records import Dataset
from dagaug.data.layouts import read_dataset
from dagaug.data.object_patches import Framing, read_patches
from dagaug.hdf5.schema import Candidates, Header, Images
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import ShardContent
from dagaug.model.trained_model import JUDGES_FILE
from dagaug.report import data_cloud
from dagaug.report.data_cloud import KINDS, Cloud, make_data_cloud

CLASSES, TRAIN, TEST, REFS, SIDE = 3, 8, 6, 4, 32
FRAMING = Framing(size=SIDE)


def picture(label: int, seed: int) -> np.ndarray:
    """RGB noise, bright in one channel."""
    image = np.random.default_rng(seed).integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
    image[..., label] += 150
    return image


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", TRAIN), ("test", TEST)):
        for label in range(CLASSES):
            folder = root / split / f"{label}.<b>"
            folder.mkdir(parents=True)
            for number in range(count):
                seed = 1000 * (split == "test") + 100 * label + number
                cv2.imwrite(str(folder / f"{split}-{number}.png"), picture(label, seed)[..., ::-1])
    return read_dataset(root)


def judges_of(data: Dataset, folds: int) -> CrossFitted:
    """Classifiers with random weights that know which images they would have learned from."""
    patches = read_patches(data, data.train, FRAMING)
    hashes = hash_images(patches.images)
    fold_of, held_out = assign_folds(hashes, patches.labels, folds, seed=0)
    made: list[Classifier] = []
    for fold in range(folds):
        with torch.random.fork_rng():
            torch.manual_seed(fold)
            one = untrained("plain", data.classes, size=SIDE)
        made.append(Classifier(one.network, data.classes, SIDE, hashes[(fold_of != fold) | ~held_out]))
    return CrossFitted(made, fold_of, held_out, 0.5)


def write(folder: Path, data: Dataset, made: CrossFitted, **options: object) -> Path:
    """A file with the morphs of each training image; the last of each was rejected but stored."""
    samples = (*data.train, *data.test)
    labels = np.array([sample.label for sample in samples])
    source = np.repeat(np.arange(len(data.train)), REFS)
    count = len(source)
    reference = (source + 1) % len(data.train)
    verdict = np.where(np.arange(count) % REFS == REFS - 1, 1, 0)
    confidence = np.full(count, 0.5, np.float32)
    number, zeros = np.arange(count), np.zeros(count, np.uint8)
    label = labels[source]
    table = Images(
        height=np.full(count, SIDE), width=np.full(count, SIDE), label=label, split=zeros,
        synthetic=np.ones(count, bool), source=source, reference=reference, variant=zeros, confidence=confidence,
        predicted=label, candidate=number,
    )  # fmt: skip
    candidates = Candidates(source, reference, zeros, label, label, confidence, verdict, number)
    header = Header(
        classes=data.classes,
        files=tuple(sample.path.as_posix() for sample in samples),
        files_label=labels,
        files_split=np.array([int(sample.split == "test") for sample in samples]),
        encoding="raw",
        quality=0,
        variants=("as it is",),
        verdicts=("kept", "mislabelled"),
        options={"framing": FRAMING.model_dump(), "judges": made.sha256(), **options},
        checkpoint_sha256="",
        seed=0,
        created_by="test",
    )
    encoded = [picture(int(one), 5000 + row).tobytes() for row, one in enumerate(label)]
    folder.mkdir(exist_ok=True)
    made.save(folder / JUDGES_FILE)
    with open_shard_folder(folder / "file.h5", {}) as run:
        run.write(0, ShardContent(encoded, table, candidates))
        return run.merge(header, 1)


def found_of(store: Path, data: Dataset, **more: Any) -> Cloud:
    found, why = make_data_cloud(store, data, **more)
    assert found is not None, why
    return found


def test_only_images_unknown_to_the_judge_and_their_morphs_are_shown(tmp_path: Path, data: Dataset) -> None:
    judges = judges_of(data, 2)
    store = write(tmp_path, data, judges)
    found = found_of(store, data)
    unseen = set(np.flatnonzero(judges.fold_of == 0).tolist())
    shown = {kind: [one for one, k in zip(found.shown, found.kind, strict=True) if k == place]
             for place, kind in enumerate(KINDS)}  # fmt: skip
    assert {one.number for one in shown["real training"]} == unseen
    assert {one.number for one in shown["real test"]} == set(range(CLASSES * TRAIN, CLASSES * (TRAIN + TEST)))
    assert {one.number // REFS for one in shown["synthetic"]} == unseen
    assert all(one.number % REFS < REFS - 1 for one in shown["synthetic"])  # kept ones alone
    assert len(shown["synthetic"]) == len(unseen) * (REFS - 1)
    assert not found.learned
    assert "that it was not trained on" in found.explained
    assert found.points.shape == (len(found.shown), 2)
    assert ((found.points >= 0) & (found.points <= 1)).all()
    for one, tile, label in zip(found.shown, found.tiles, found.label, strict=True):
        assert tile.reshape(-1, 3).mean(0).argmax() == label, one


def test_the_seed_determines_the_cloud(tmp_path: Path, data: Dataset) -> None:
    most = {"synthetic": 12, "real training": 6, "real test": 9}
    store = write(tmp_path, data, judges_of(data, 2))
    first, again, other = (found_of(store, data, max_images=most, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.points, again.points)
    assert first.shown == again.shown != other.shown
    assert np.bincount(first.kind).tolist() == [12, 6, 9]
    for place in range(len(KINDS)):
        counts = np.bincount(first.label[first.kind == place])
        assert counts.max() - counts.min() <= 1  # class_balanced_sample over the classes


def test_many_classes_are_sampled_and_the_text_says_so(tmp_path: Path, data: Dataset) -> None:
    found = found_of(write(tmp_path, data, judges_of(data, 2)), data, max_classes=2)
    assert len(np.unique(found.label)) == found.classes == 2
    assert "of 2 of the 3 classes" in found.explained


def test_a_single_judge_shows_its_training_images_and_the_text_says_so(tmp_path: Path, data: Dataset) -> None:
    found = found_of(write(tmp_path, data, judges_of(data, 1)), data)
    assert found.learned
    assert "that it was trained on" in found.explained
    assert (found.kind == KINDS.index("real training")).sum() == CLASSES * TRAIN


def test_nearest_test_images_exclude_the_image_itself() -> None:
    features = np.array([[0.0], [0.1], [5.0], [5.1], [5.2], [0.3], [4.0]])
    kind, label = np.array([2, 2, 2, 2, 2, 0, 0]), np.array([0, 1, 1, 1, 1, 1, 1])
    # Test: the first two have each other, of other classes. Synthetic: next to 0.1 and to 5.0, both of class 1.
    assert data_cloud._nearest(features, kind, label) == {"synthetic": 1.0, "real test": 0.6}
    assert data_cloud._nearest(features[:1], kind[:1], label[:1]) == {}


def test_a_judge_that_knows_the_classes_finds_them(tmp_path: Path, data: Dataset) -> None:
    patches = read_patches(data, data.train, FRAMING)
    options = FitOptions("plain", SIDE, steps=30, batch_size=12)
    judges = cross_fit(patches.images, patches.labels, data.classes, options, folds=2, seed=0)
    found = found_of(write(tmp_path, data, judges), data)
    assert found.nearest == {"synthetic": 1.0, "real training": 1.0, "real test": 1.0}
    assert found.measured.endswith("for 100% of the synthetic images, 100% of the real training images and 100% of the "
                                   "real test images.")  # fmt: skip


def test_the_reason_for_a_missing_cloud(tmp_path: Path, data: Dataset) -> None:
    judges = judges_of(data, 2)
    store = write(tmp_path / "a", data, judges)
    assert make_data_cloud(store, None) == (None, "the data folder was not found")
    other = write(tmp_path / "b", data, judges, judges="others")
    assert "does not hold the judges of this file" in make_data_cloud(other, data)[1]
    unframed = write(tmp_path / "c", data, judges, framing={"size": "large"})
    assert make_data_cloud(unframed, data)[1] == "the file does not record how its images were cropped"
    renamed = replace(data, classes=tuple(reversed(data.classes)))
    assert "are not those of the file" in make_data_cloud(store, renamed)[1]
    (tmp_path / "a" / JUDGES_FILE).write_bytes(b"damaged")
    assert "not a readable" in make_data_cloud(store, data)[1]
    (tmp_path / "a" / JUDGES_FILE).unlink()
    assert "not found beside the file or its checkpoint" in make_data_cloud(store, data)[1]
