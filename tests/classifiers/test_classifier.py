"""A trained classifier: probabilities, saving, loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from making_classifiers import CLASSES, TINY, coloured
from safetensors.torch import save_file

from dagaug.classifiers.backbones import build
from dagaug.classifiers.classifier import Classifier, hash_images, write_classifiers
from dagaug.classifiers.fit import fit
from dagaug.runtime.errors import CheckpointError


def test_probabilities_sum_to_one_and_agree_between_uint8_and_tensor() -> None:
    images, labels = coloured(9)
    classifier = fit(images, labels, CLASSES, TINY, seed=0)
    from_bytes = classifier.probabilities(images, batch_size=4)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    np.testing.assert_allclose(from_bytes.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(from_bytes, classifier.probabilities_of_tensor(tensor).numpy(), atol=1e-5)


def test_a_saved_classifier_judges_alike(tmp_path: Path) -> None:
    images, labels = coloured(9)
    classifier = fit(images, labels, CLASSES, TINY, seed=0)
    classifier.save(tmp_path / "deep" / "c.safetensors")
    again = Classifier.load(tmp_path / "deep" / "c.safetensors")
    assert (again.classes, again.size, again.network.name) == (CLASSES, 32, "test_resnet")
    np.testing.assert_array_equal(again.probabilities(images), classifier.probabilities(images))
    assert again.saw(images).all()
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["c.safetensors"]


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage", "empty", "other safetensors", "version", "none"])
def test_a_damaged_file_is_a_checkpoint_error_that_names_it(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "c.safetensors"
    Classifier(build("test_resnet", 3, size=32), CLASSES, 32).save(path)
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "garbage":
        path.write_bytes(b"\xff" * 4096)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other safetensors":
        save_file({"weight": torch.zeros(3)}, path)
    elif damage == "none":
        write_classifiers(path, [])
    else:
        path.write_bytes(whole.replace(b'\\"version\\": 1', b'\\"version\\": 9', 1))
    with pytest.raises(CheckpointError, match=r"c\.safetensors"):
        Classifier.load(path)


def test_hashes_differ_if_a_single_value_differs() -> None:
    images = np.zeros((3, 4, 4, 3), np.uint8)
    images[2, 0, 0, 0] = 1
    hashes = hash_images(images)
    assert hashes[0] == hashes[1] != hashes[2]
