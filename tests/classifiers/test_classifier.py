"""Classifiers: trained from a seed, saved and loaded."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from making_classifiers import CLASSES, TINY, Listener, coloured
from safetensors.torch import save_file

from dagaug.classifiers.backbones import build
from dagaug.classifiers.classifier import Classifier, hash_images, write_classifiers
from dagaug.classifiers.fit import Augment, FitOptions, fit
from dagaug.runtime.errors import CheckpointError, TrainingError, UsageError


def weights_of(classifier: Classifier) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in classifier.network.parameters()])


# One classifier


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


def test_hashes_tell_images_apart_by_a_single_value() -> None:
    images = np.zeros((3, 4, 4, 3), np.uint8)
    images[2, 0, 0, 0] = 1
    hashes = hash_images(images)
    assert hashes[0] == hashes[1] != hashes[2]


# Training


def test_training_is_a_function_of_its_seed_and_leaves_global_randomness_alone() -> None:
    images, labels = coloured(12)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = fit(images, labels, CLASSES, TINY, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    np.random.seed(99)
    assert torch.equal(weights_of(fit(images, labels, CLASSES, TINY, seed=3)), weights_of(first))
    assert not torch.equal(weights_of(fit(images, labels, CLASSES, TINY, seed=4)), weights_of(first))


@pytest.mark.parametrize("augment", ["none", "standard", "strong"])
def test_a_trivial_problem_is_learned(augment: Augment) -> None:
    images, labels = coloured(30)
    options = FitOptions("test_resnet", 32, steps=40, batch_size=12, learning_rate=3e-3, augment=augment)
    classifier = fit(images, labels, CLASSES, options, seed=0)
    assert classifier.accuracy(*coloured(30, seed=1)) > 0.9


def test_the_loss_falls_and_every_step_is_told() -> None:
    images, labels = coloured(12)
    listener = Listener()
    options = FitOptions("test_resnet", 32, steps=41, batch_size=12, learning_rate=3e-3, augment="none")
    fit(images, labels, CLASSES, options, seed=0, progress=listener)
    losses = [float(note.removeprefix("loss ")) for note in listener.notes]
    assert listener.steps == 41
    assert losses[0] == pytest.approx(math.log(3), abs=0.3)
    assert losses[-1] < 0.7 * losses[0]


def test_synthetic_images_take_their_share_and_are_remembered() -> None:
    images, labels = coloured(12)
    # Synthetic images with shifted labels: were they not drawn, the classifier would not believe both.
    wrong = (images[::-1].copy(), (labels[::-1] + 1) % 3)
    options = FitOptions("test_resnet", 32, 40, batch_size=12, learning_rate=3e-3, synthetic_share=0.9)
    classifier = fit(images, labels, CLASSES, options, seed=0, synthetic=wrong)
    assert classifier.accuracy(images, (labels + 1) % 3) > 0.9
    assert classifier.saw(images).all()


def test_real_images_alone_and_an_empty_synthetic_set_are_the_same_training() -> None:
    images, labels = coloured(12)
    none = (images[:0], labels[:0])
    plain = weights_of(fit(images, labels, CLASSES, TINY, seed=0))
    assert torch.equal(plain, weights_of(fit(images, labels, CLASSES, TINY, seed=0, synthetic=none)))


def test_a_loss_that_explodes_is_told() -> None:
    images, labels = coloured(12)
    options = FitOptions("test_resnet", 32, 30, batch_size=12, learning_rate=1e30, augment="none")
    with pytest.raises(TrainingError, match="--learning-rate"):
        fit(images, labels, CLASSES, options, seed=0)


def test_no_images_are_told() -> None:
    images, labels = coloured(3)
    with pytest.raises(TrainingError, match="no training images"):
        fit(images[:0], labels[:0], CLASSES, TINY, seed=0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"steps": 0}, "--steps 0"),
        ({"batch_size": 1}, "--batch-size 1"),
        ({"learning_rate": 0.0}, "--learning-rate 0"),
        ({"synthetic_share": 1.0}, "--synthetic-share 1"),
        ({"size": 4}, "--size 4"),
        ({"label_smoothing": 1.0}, "--label-smoothing 1"),
    ],
)
def test_impossible_options_are_named(options: dict[str, float], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        FitOptions(**options)  # type: ignore[arg-type]


def test_steps_and_rate_are_kept_or_suit_data_and_network() -> None:
    given = FitOptions(steps=7, learning_rate=0.5).resolved(10**6)
    assert (given.steps, given.learning_rate) == (7, 0.5)
    assert (FitOptions("resnet18").resolved(10).learning_rate or 0) > 0
    few, some, many = (FitOptions().resolved(count).steps or 0 for count in (10, 1000, 10**7))
    assert 0 < few <= some < many
