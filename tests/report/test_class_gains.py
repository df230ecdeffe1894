"""The gain of each class: photographs of the classes, and the size of a page with many of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from making_reports import write_run, write_store
from making_scores import SCORE, about
from making_stores import header
from reading_pages import Document

from dagaug.data.image_files import encode
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import Images
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import ShardContent
from dagaug.report.class_gains import class_photographs, class_rows
from dagaug.report.morph_images import OriginalImages
from dagaug.report.write import write_report
from dagaug.score.statistics import ClassGain, ConfidenceInterval

CLASSES, MORPHS = 200, 300


def gain(name: str, mean: float) -> ClassGain:
    return ClassGain(name=name, difference=ConfidenceInterval(mean, mean - 0.1, mean + 0.1), sure=True)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many morphs and one training image of each of 200 classes, of noise, which no JPEG makes small."""
    rng = np.random.default_rng(0)
    noise = [encode(rng.integers(0, 256, (96, 120, 3), dtype=np.uint8), "jpeg") for _ in range(CLASSES)]
    labels = np.arange(CLASSES)
    real = Images.real(np.full(CLASSES, 96), np.full(CLASSES, 120), labels, np.zeros(CLASSES, int), labels)
    made = np.arange(MORPHS) % CLASSES
    morphs = Images.real(np.full(MORPHS, 96), np.full(MORPHS, 120), made, np.zeros(MORPHS, int), made)
    morphs = replace(morphs, synthetic=np.ones(MORPHS, bool), confidence=rng.random(MORPHS).astype(np.float32))
    path = tmp_path_factory.mktemp("noisy") / "noise.h5"
    with open_shard_folder(path, {}) as run:
        run.write(0, ShardContent(noise, real))
        run.write(1, ShardContent([noise[row] for row in made], morphs))
        names = tuple(f"{label:03d}.Long_named_warbler_{label}" for label in labels)
        run.merge(
            replace(
                header("jpeg"), classes=names, files=tuple(f"{label}.jpg" for label in labels),
                files_label=labels.astype(np.int32), files_split=np.zeros(CLASSES, np.uint8),
            ),
            2,
        )  # fmt: skip
    return path


def test_each_class_is_shown_by_the_middle_of_a_training_image(noisy: Path) -> None:
    with Store(noisy) as store:
        found = class_photographs(store, OriginalImages(store), budget=10_000_000)
        whole = store.image(7)
        assert list(found) == list(store.classes)
    shown = cv2.imdecode(np.frombuffer(found["007.Long_named_warbler_7"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert shown.shape == (72, 72, 3)
    expected = cv2.resize(whole[:, 12:108], (72, 72), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(shown.mean(2).ravel(), expected.mean(2).ravel())[0, 1] > 0.7  # quality 75


def test_photographs_shrink_to_their_budget_and_are_left_out_beyond_it(noisy: Path) -> None:
    with Store(noisy) as store:
        originals = OriginalImages(store)
        all_of_them = sum(map(len, class_photographs(store, originals).values()))
        assert 0 < all_of_them <= 600_000
        smaller = class_photographs(store, originals, budget=all_of_them - 1)
        assert 0 < sum(map(len, smaller.values())) < all_of_them
        assert class_photographs(store, originals, budget=1000) == {}


def test_test_images_are_not_shown_as_photographs(tmp_path: Path) -> None:
    with Store(write_store(tmp_path / "s.h5", files=6)) as store:  # the second three files are of the test split
        found = class_photographs(store, OriginalImages(store))
        test = store.image(3)
    assert len(found) == 3
    shown = cv2.imdecode(np.frombuffer(next(iter(found.values())), np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape[0] <= test.shape[1]


def test_a_class_without_a_photograph_has_a_row_all_the_same() -> None:
    (first, second), _ = class_rows([gain("a", 0.1), gain("b", 0.2)], {"b": b"jpeg"})
    assert (first.name, first.photograph[:23], second.photograph) == ("b", "data:image/jpeg;base64,", "")


def test_a_page_with_200_classes_of_noise_stays_under_five_megabytes(noisy: Path, tmp_path: Path) -> None:
    score = json.loads(json.dumps(SCORE))
    with Store(noisy) as store:
        names = store.classes
    score["comparisons"][0]["classes"] = [{"name": name, "difference": about(0.1), "sure": False} for name in names]
    (tmp_path / "score.json").write_text(json.dumps(score))
    out = tmp_path / "page.html"
    write_report(noisy, out, score=tmp_path / "score.json", run=write_run(tmp_path / "run"))
    assert out.stat().st_size < 4_300_000  # a data cloud takes up to 0.7 MB
    assert Document(out).source.count('class="photo"><img') == CLASSES
