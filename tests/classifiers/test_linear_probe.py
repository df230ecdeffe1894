"""Linear probes: features are read once, and the classifier on them learns what it can."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dagaug.classifiers import linear_probe
from dagaug.classifiers.classifier import hash_images
from dagaug.classifiers.fit import FitOptions
from dagaug.classifiers.linear_probe import COPIES_PER_IMAGE, Features, LinearProbe

OPTIONS = FitOptions("test_resnet", 32, steps=60, batch_size=8, learning_rate=3e-3)


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Dark and bright images of two classes."""
    labels = np.arange(12) % 2
    noise = np.random.default_rng(0).integers(0, 60, (12, 32, 32, 3))
    return (noise + 150 * labels[:, None, None, None]).astype(np.uint8), labels.astype(np.int64)


def read(probe: LinearProbe, pictures: tuple[np.ndarray, np.ndarray], augment: str = "none", **more: bool) -> Features:
    return probe.features(*pictures, hash_images(pictures[0]), augment, **more)  # type: ignore[arg-type]


def test_features_are_read_once_for_each_kind_of_augmentation(
    pictures: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = LinearProbe(OPTIONS)
    calls = []
    inner = linear_probe.augment_images
    monkeypatch.setattr(
        linear_probe,
        "augment_images",
        lambda images, kind, seeds, **more: (calls.append((kind, *more.values())), inner(images, kind, seeds, **more))[
            1
        ],
    )
    for _ in range(2):
        assert len(read(probe, pictures).values) == 1
        assert len(read(probe, pictures, "standard").values) == COPIES_PER_IMAGE
        assert len(read(probe, pictures, "standard", trivialaugment=True).values) == COPIES_PER_IMAGE
    assert calls == [
        ("none", False),
        *[("standard", False)] * COPIES_PER_IMAGE,
        *[("standard", True)] * COPIES_PER_IMAGE,
    ]
    copies = read(probe, pictures, "standard").values
    assert (copies[0] != copies[1]).any()


def test_a_copy_of_an_image_brings_nothing_new(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    """Independent of the order and of the other images; otherwise copies would seem to help."""
    probe = LinearProbe(OPTIONS)
    order = np.random.default_rng(1).permutation(12)[:7]
    copies = read(probe, (pictures[0][order], pictures[1][order]), "crop").values
    np.testing.assert_allclose(copies, read(probe, pictures, "crop").values[:, order], atol=1e-4)


def test_a_probe_separates_the_features_and_depends_only_on_the_seed(
    pictures: tuple[np.ndarray, np.ndarray],
) -> None:
    probe = LinearProbe(OPTIONS)
    train, test = read(probe, pictures, "standard"), read(probe, pictures)
    first, again, other = (probe.probabilities(train, None, test, 2, OPTIONS, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_allclose(first.sum(1), 1, rtol=1e-5)
    assert (first.argmax(1) == pictures[1]).all()


def test_synthetic_images_take_their_share(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    """Mislabelled ones that fill seven eighths of each batch reverse the predictions."""
    probe = LinearProbe(OPTIONS)
    train, test = read(probe, pictures, "standard"), read(probe, pictures)
    wrong = Features(train.values, 1 - train.labels)
    options = replace(OPTIONS, synthetic_share=0.875)
    found = probe.probabilities(train, wrong, test, 2, options, seed=0)
    assert (found.argmax(1) == 1 - pictures[1]).all()
