"""Judges: cross-fitted, reused, given; the smallest confidence that they lead to."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from making_augmentations import (
    morphs_of,
    run,
)
from making_runs import FRAMING, SPECIES, Listener
from safetensors.torch import load_file

from dagaug.augment.options import AugmentOptions
from dagaug.augment.selection import VERDICTS
from dagaug.classifiers.classifier import Classifier, untrained
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.classifiers.fit import FitOptions, fit
from dagaug.data.dataset_records import Dataset
from dagaug.data.object_patches import read_patches
from dagaug.hdf5.reader import Store
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import CheckpointError


@pytest.mark.parametrize(
    "bounds",
    [{}, {"min_confidence": 0.0}, {"max_confidence": 1 / SPECIES}],
    ids=["default", "none", "only the hardest"],
)
def test_the_smallest_confidence_is_chance_unless_a_bound_says_otherwise(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, bounds: dict[str, float]
) -> None:
    run(model, birds, judged.model_copy(update={"keep": "all", **bounds}), tmp_path / "a.h5")
    least, most = 0.0 if bounds else 1 / SPECIES, bounds.get("max_confidence", 1.0)
    with Store(tmp_path / "a.h5") as store:
        kept, confidence = store.candidates.verdict == VERDICTS.index("kept"), store.candidates.confidence
        assert (kept == (confidence >= least) & (confidence <= most)).all()
        assert kept.any()
        assert kept.all() == ("min_confidence" in bounds)


@pytest.mark.slow
def test_judges_of_a_model_without_training_rest_on_its_network_and_its_weights(
    frozen: TrainedModel, birds: Dataset, tmp_path: Path
) -> None:
    cache, options = tmp_path / "judges.safetensors", AugmentOptions(refs=1, folds=2, limit=2)
    run(frozen, birds, options, tmp_path / "a.h5", cache=cache)
    run(frozen, birds, options, tmp_path / "b.h5", cache=cache)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert frozen.card.features is not None
    weights = load_file(Path(frozen.card.features.name.removeprefix("local-dir:")) / "model.safetensors")
    for judge in CrossFitted.load(cache).classifiers:
        torch.testing.assert_close(judge.network.model.patch_embed.proj.weight, weights["patch_embed.proj.weight"])


def test_judges_are_cross_fitted_kept_beside_the_run_and_not_trained_again(
    model: TrainedModel, birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "dagaug.augment.judge_preparation.FitOptions", functools.partial(FitOptions, steps=3, batch_size=8)
    )
    cache, options = tmp_path / "judges.safetensors", AugmentOptions(refs=1, folds=2, limit=4)
    first = Listener()
    done = run(model, birds, options, tmp_path / "a.h5", cache=cache, progress=first)
    assert 0 <= done.accuracy <= 1
    assert any("accuracy on held-out" in line for line in first.lines)
    second = Listener()
    again = run(model, birds, options, tmp_path / "b.h5", cache=cache, progress=second)
    assert any("using these judges" in line for line in second.lines)
    assert again.accuracy == done.accuracy
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    judges = CrossFitted.load(cache)
    images = read_patches(birds, birds.train, FRAMING).images
    for row, fold in enumerate(judges.fold_of):
        assert not judges.classifiers[fold].saw(images[row : row + 1]).any()
    tests = read_patches(birds, birds.test, FRAMING).images
    assert not any(judge.saw(tests).any() for judge in judges.classifiers)


def test_a_given_judge_is_used_without_training(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, birds_judge: Path, tmp_path: Path
) -> None:
    listener = Listener()
    options = judged.model_copy(update={"frame": "crop", "encoding": "png", "keep": "all", "limit": 3})
    done = run(model, birds, options.model_copy(update={"min_confidence": 0.0}), tmp_path / "a.h5", progress=listener)
    judge = Classifier.load(birds_judge)
    patches = read_patches(birds, birds.train, FRAMING)
    accuracy = judge.accuracy(patches.images, patches.labels)
    words = f"used as the judge without training; {accuracy:.1%} accuracy on the real training images"
    assert any(words in line for line in listener.lines)
    assert np.isnan(done.accuracy)
    with Store(tmp_path / "a.h5") as store:
        stored = store.header.options["judge_accuracy_on_training_images"]
        assert stored == pytest.approx(accuracy)
        rows = morphs_of(store)
        probabilities = judge.probabilities(np.stack(store.read(rows.tolist())))
        own = probabilities[np.arange(len(rows)), store.images.label[rows]]
        np.testing.assert_allclose(own, store.images.confidence[rows], atol=0.02)  # stored pixels are rounded


def test_judges_of_low_accuracy_reject_nothing_by_default(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagaug.augment.judge_preparation.TRUSTED_ACCURACY", 1.01)  # of which all fall short
    monkeypatch.setattr("dagaug.augment.judge_preparation.FitOptions", functools.partial(FitOptions, steps=30))
    given = judged.model_copy(update={"weights": None, "folds": 2, "classifier": "auto"})
    cache = tmp_path / "judges"
    done = run(model, birds, given, tmp_path / "a.h5", cache=cache)
    strict = run(model, birds, given.model_copy(update={"allow_mislabelled": False}), tmp_path / "b.h5", cache=cache)
    assert set(done.verdicts) == {"kept", "not the best of its reference"}
    assert strict.verdicts["mislabelled"] > 0


def test_a_given_judge_with_classes_in_another_order_is_refused_with_the_likely_cause(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    patches = read_patches(birds, birds.train, FRAMING)
    options = FitOptions("test_resnet", FRAMING.size, steps=60, batch_size=16)
    shuffled = (patches.labels + 1) % len(birds.classes)
    judge = fit(patches.images, shuffled, birds.classes, options, seed=0)
    judge.save(tmp_path / "judge.safetensors")
    with pytest.raises(CheckpointError, match="no better than chance; in another order of classes it would have"):
        run(model, birds, judged.model_copy(update={"weights": tmp_path / "judge.safetensors"}), tmp_path / "a.h5")


def test_a_given_judge_that_knows_nothing_is_refused(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    untrained("test_resnet", birds.classes, size=FRAMING.size).save(tmp_path / "judge.safetensors")
    with pytest.raises(CheckpointError, match="no better than chance; probably it learned from other classes"):
        run(model, birds, judged.model_copy(update={"weights": tmp_path / "judge.safetensors"}), tmp_path / "a.h5")
