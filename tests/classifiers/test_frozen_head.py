"""Judges that fit only their last layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from making_networks import saved

from dagaug.classifiers.backbones import build
from dagaug.classifiers.cross_fit import cross_fit
from dagaug.classifiers.fit import FitOptions
from dagaug.classifiers.frozen_head import fit_head, pooled_features
from dagaug.classifiers.pretrained_networks import build_pretrained

CLASSES = ("dark", "light")


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Noise of two brightnesses."""
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    images = rng.integers(0, 120, (24, 64, 64, 3)) + 120 * labels[:, None, None, None]
    return images.astype(np.uint8), labels


@pytest.fixture(autouse=True)
def _same_random_network() -> None:
    torch.manual_seed(0)


def test_the_head_separates_what_features_separate(pictures: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    images, labels = pictures
    saved(tmp_path, "test_resnet")
    options = FitOptions(name=f"local-dir:{tmp_path}", size=64, head_only=True)
    features = pooled_features(build_pretrained(options.name, input_size=64), images)
    classifier = fit_head(options, CLASSES, images, features, labels)
    assert classifier.saw(images).all()
    last = classifier.network.model.get_classifier()  # type: ignore[operator, union-attr]
    assert ((features @ last.weight.T + last.bias).argmax(1).numpy() == labels).mean() > 0.9


def test_cross_fitted_heads_judge_images_that_they_did_not_see(
    pictures: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> None:
    images, labels = pictures
    weights = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(build("test_resnet", 2, size=64).model.state_dict(), weights)
    options = FitOptions(name="test_resnet", size=64, head_only=True, weights=weights)
    fitted = cross_fit(images, labels, CLASSES, options, folds=3, seed=0)
    assert len(fitted.classifiers) == 3
    assert fitted.accuracy > 0.8
    for fold, classifier in enumerate(fitted.classifiers):
        assert classifier.saw(images).tolist() == (fitted.fold_of != fold).tolist()
    again = cross_fit(images, labels, CLASSES, options, folds=3, seed=0)
    assert again.sha256() == fitted.sha256()
