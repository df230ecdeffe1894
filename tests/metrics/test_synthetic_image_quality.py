"""Sets of images against each other: what identical, poor and wrong files measure, and attention on parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from making_morphs import pairs_of, write_morphs

from dagaug.data.dataset_records import Dataset, Sample
from dagaug.data.image_files import decode
from dagaug.hdf5.reader import Store
from dagaug.metrics.synthetic_image_quality import EvaluateOptions, Evaluation, evaluate
from dagaug.model.trained_model import load_model
from dagaug.runtime.errors import CheckpointError, DataError, UsageError

QUICK = EvaluateOptions(steps=3)


def rows(result: Evaluation) -> dict[str, Any]:
    return {one.images: one for one in result.judged}


def comparisons(result: Evaluation) -> dict[tuple[str, str], Any]:
    return {(one.images, one.against): one for one in result.compared}


@pytest.fixture(scope="module")
def copies(birds: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training images themselves, each once, called synthetic."""
    pairs = [(one, birds.train[0], "morph") for one in birds.train]
    target = tmp_path_factory.mktemp("copies") / "copies.h5"
    return write_morphs(target, birds, pairs, lambda source, reference, variant: decode(birds.file(source)))


@pytest.fixture(scope="module")
def measured(birds: Dataset, copies: Path) -> Evaluation:
    return evaluate(copies, birds, QUICK)


# ---- sets of images


def test_copies_of_the_training_images_are_at_no_distance_from_them(measured: Evaluation) -> None:
    same = comparisons(measured)["synthetic", "training"]
    assert same.fid == pytest.approx(0, abs=1e-9)
    assert (same.precision, same.recall, same.density, same.coverage) == (1, 1, 1, 1)


def test_copies_of_the_training_images_have_their_measures(measured: Evaluation) -> None:
    found = rows(measured)
    assert found["synthetic"].accuracy == found["training"].accuracy
    assert found["synthetic"].missing == found["training"].missing
    against = comparisons(measured)
    for name in ("fid", "precision", "recall", "density", "coverage"):
        assert getattr(against["synthetic", "test"], name) == pytest.approx(
            getattr(against["training", "test"], name), abs=1e-9
        )


def test_each_set_has_its_number_of_images(measured: Evaluation, birds: Dataset) -> None:
    assert {name: one.count for name, one in rows(measured).items()} == {
        "synthetic": len(birds.train), "test": len(birds.test), "training": len(birds.train),
    }  # fmt: skip


def test_the_diversity_of_one_image_a_source_is_nan(measured: Evaluation) -> None:
    assert np.isnan(rows(measured)["synthetic"].diversity)
    assert rows(measured)["training"].diversity > 0


def test_remarks_name_small_sets_the_judge_s_training_and_missing_measures(measured: Evaluation) -> None:
    text = " ".join(measured.remarks)
    assert "FID is biased upwards: there are only 8 test images, and it needs 2048" in text
    assert "learned from the training images" in text
    assert "PCK was not measured: the file names no checkpoint" in text
    assert "made from test images" not in text


def test_grey_images_have_neither_precision_nor_recall(birds: Dataset, tmp_path: Path) -> None:
    def grey(source: Sample, reference: Sample, variant: str) -> np.ndarray:
        return np.full((64, 64, 3), 128, np.uint8)

    path = write_morphs(tmp_path / "grey.h5", birds, pairs_of(birds, 16), grey)
    result = evaluate(path, birds, replace(QUICK, features="test_resnet"))
    against = comparisons(result)
    assert against["synthetic", "training"].recall == 0
    assert against["synthetic", "training"].fid > against["training", "test"].fid
    assert rows(result)["synthetic"].missing == len(birds.classes) - 1
    assert rows(result)["synthetic"].inception.mean == pytest.approx(1, abs=1e-4)
    assert rows(result)["synthetic"].accuracy < 1


def test_few_of_the_real_images_have_precision_without_recall(birds: Dataset, tmp_path: Path) -> None:
    pairs = [(birds.train[row % 2], birds.train[row], "morph") for row in range(12)]
    noise = np.random.default_rng(0)

    def almost(source: Sample, reference: Sample, variant: str) -> np.ndarray:
        image = decode(birds.file(source)).astype(int)
        return np.clip(image + noise.integers(-2, 3, image.shape), 0, 255).astype(np.uint8)

    path = write_morphs(tmp_path / "few.h5", birds, pairs, almost)
    result = comparisons(evaluate(path, birds, replace(QUICK, features="test_resnet")))["synthetic", "training"]
    assert result.precision == 1
    assert result.recall < 0.5
    assert result.coverage < 0.7


def test_morphs_of_test_images_are_counted(birds: Dataset, tmp_path: Path) -> None:
    path = write_morphs(
        tmp_path / "leak.h5", birds, pairs_of(birds, 7, split="test"),
        lambda source, reference, variant: decode(birds.file(reference)),
    )  # fmt: skip
    assert "7 of 7 synthetic images were made from test images." in evaluate(path, birds, QUICK).remarks


def test_lpips_is_measured_with_weights_and_a_remark_explains_its_absence(
    birds: Dataset, measured: Evaluation, tmp_path: Path
) -> None:
    assert (measured.lpips, rows(measured)["synthetic"].lpips) == ("", None)
    assert any("LPIPS was not measured" in remark for remark in measured.remarks)
    torch.manual_seed(0)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / "w.pth")
    others = [one for one in birds.train if one.label != birds.train[0].label]
    pairs = [(source, reference, "morph") for source in birds.train[:3] for reference in others[:3]]
    path = write_morphs(tmp_path / "m.h5", birds, pairs, lambda source, reference, variant: decode(birds.file(source)))
    result = evaluate(path, birds, replace(QUICK, lpips=tmp_path / "w.pth"))
    assert result.lpips == "squeeze"
    assert rows(result)["synthetic"].lpips == pytest.approx(0, abs=1e-7)  # each source's morphs are copies of it
    assert rows(result)["training"].lpips > 1e-4
    assert not any("LPIPS" in remark for remark in result.remarks)


def test_another_network_gives_the_features(birds: Dataset, copies: Path, measured: Evaluation) -> None:
    result = evaluate(copies, birds, replace(QUICK, features="test_vit"))
    assert result.features == "test_vit"
    assert rows(result)["test"].accuracy == rows(measured)["test"].accuracy
    assert comparisons(result)["training", "test"].fid != comparisons(measured)["training", "test"].fid
    assert any("test_vit has random weights" in remark for remark in result.remarks)
    assert evaluate(copies, birds, replace(QUICK, features="test_vit")).compared == result.compared


def test_the_judge_is_cached(birds: Dataset, copies: Path, measured: Evaluation, tmp_path: Path) -> None:
    cache = tmp_path / "judge.safetensors"
    first = evaluate(copies, birds, QUICK, cache=cache)
    written = cache.stat().st_mtime_ns
    assert evaluate(copies, birds, QUICK, cache=cache).judged == first.judged
    assert cache.stat().st_mtime_ns == written
    assert rows(first)["test"] == rows(measured)["test"]


def test_wrong_options_and_files_are_named(birds: Dataset, copies: Path, tmp_path: Path) -> None:
    other = replace(birds, classes=(*birds.classes[1:], "another"))
    with pytest.raises(DataError, match=r"has 4 classes, .* only there.*; give the data folder"):
        evaluate(copies, other, QUICK)
    with pytest.raises(UsageError, match="features=nonsense"):
        evaluate(copies, birds, replace(QUICK, features="nonsense"))
    with pytest.raises(UsageError, match="weights=w: name the network"):
        EvaluateOptions(weights=Path("w"))
    with pytest.raises(UsageError, match="size=50"):
        EvaluateOptions(size=50)
    few = write_morphs(
        tmp_path / "few.h5", birds, pairs_of(birds, 5), lambda source, reference, variant: decode(birds.file(source))
    )
    with pytest.raises(DataError, match="only 5 synthetic images; these measures need at least 6"):
        evaluate(few, birds, QUICK)


def test_the_model_that_made_the_file_is_measured_and_no_other(
    birds: Dataset, copies: Path, birds_run: Path, tmp_path: Path
) -> None:
    by_name = evaluate(copies, birds, QUICK, checkpoint=birds_run)
    assert by_name.attended is not None
    assert by_name.attended.regions == load_model(birds_run).card.regions
    assert 0 <= by_name.attended.pck <= 1
    with pytest.raises(CheckpointError):
        evaluate(copies, birds, QUICK, checkpoint=tmp_path / "nowhere")
    changed = write_morphs(
        tmp_path / "changed.h5", birds, pairs_of(birds, 6),
        lambda source, reference, variant: decode(birds.file(source)),
        checkpoint=str(birds_run / "model.safetensors"),
    )  # fmt: skip
    result = evaluate(changed, birds, QUICK)
    assert result.attended is None
    assert any("not the checkpoint that made the file" in remark for remark in result.remarks)


def test_the_files_of_these_tests_keep_the_specification(copies: Path) -> None:
    with Store(copies) as store:
        assert len(store) == 16
