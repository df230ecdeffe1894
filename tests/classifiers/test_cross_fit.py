"""Cross-fitted classifiers: folds, judging, cache."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from making_classifiers import CLASSES, TINY, Listener, coloured

from dagaug.classifiers.classifier import untrained
from dagaug.classifiers.cross_fit import CrossFitted, SyntheticImages, assign_folds, cross_fit, judge_from_weights
from dagaug.runtime.errors import UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache
from dagaug.runtime.streamed_array import StreamedArray


def test_folds_are_stratified_and_keep_copies_together() -> None:
    labels = np.repeat([0, 1], 6)
    hashes = np.array([10, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24, 24], dtype=np.int64)
    folds, held_out = assign_folds(hashes, labels, 3, seed=0)
    assert held_out.all()
    assert folds[0] == folds[1]
    assert folds[10] == folds[11]
    for label in (0, 1):
        kinds = {int(h): int(f) for h, f in zip(hashes[labels == label], folds[labels == label], strict=True)}
        assert set(kinds.values()) == {0, 1, 2}


def test_there_are_never_more_folds_than_images_of_the_smallest_class() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    folds, held_out = assign_folds(np.arange(6), labels, 5, seed=0)
    assert set(folds.tolist()) == {0, 1}
    assert held_out.all()


def test_the_only_image_of_a_class_always_trains() -> None:
    labels = np.array([0, 0, 0, 0, 1])
    _, held_out = assign_folds(np.arange(5), labels, 2, seed=0)
    assert held_out.tolist() == [True, True, True, True, False]


def test_without_a_class_of_two_images_nothing_is_held_out() -> None:
    folds, held_out = assign_folds(np.arange(3), np.arange(3), 3, seed=0)
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


def test_judges_of_streamed_images_are_those_of_images_in_memory() -> None:
    images, labels = coloured(12)
    made = SyntheticImages(255 - images, labels.astype(np.int64), np.arange(12)[:, None])
    execution = Execution(memory=ImageCache(5 * images[0].nbytes))

    def streamed(array: np.ndarray) -> StreamedArray:
        return StreamedArray(len(array), array.shape[1:], array.__getitem__, execution=execution)

    lazy_made = made._replace(images=streamed(255 - images))
    plain = cross_fit(images, labels, CLASSES, TINY, folds=2, seed=0, synthetic=lambda: made)
    lazy = cross_fit(streamed(images), labels, CLASSES, TINY, folds=2, seed=0, synthetic=lambda: lazy_made)
    assert (lazy.sha256(), lazy.accuracy) == (plain.sha256(), plain.accuracy)


def test_held_out_accuracy_is_that_of_the_judges() -> None:
    images, labels = coloured(18)
    fitted = cross_fit(images, labels, CLASSES, TINY, folds=2, seed=0)
    right = fitted.probabilities(images, np.arange(18)).argmax(axis=1) == labels
    assert fitted.accuracy == pytest.approx(right.mean())


def test_judges_of_low_accuracy_cause_a_warning_each_time_they_are_used(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (18, 32, 32, 3), dtype=np.uint8)
    for _ in ("trained", "read from the cache"):
        listener = Listener()
        doubtful = cross_fit(
            noise,
            np.arange(18) % 3,
            CLASSES,
            TINY,
            folds=2,
            seed=0,
            cache=tmp_path / "j",
            execution=Execution(progress=listener),
        )
        assert doubtful.accuracy < 0.5
        assert f"reach only {doubtful.accuracy:.0%} accuracy" in listener.lines[-1]
        assert "minimum confidence" in listener.lines[-1]
    listener = Listener()
    sure = cross_fit(
        *coloured(30),
        CLASSES,
        replace(TINY, steps=40, batch_size=12),
        folds=2,
        seed=0,
        execution=Execution(progress=listener),
    )
    assert sure.accuracy > 0.9
    assert listener.lines == []


def test_each_image_of_a_batch_is_judged_by_the_classifier_of_its_source() -> None:
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
    again = cross_fit(
        images, labels, CLASSES, TINY, folds=2, seed=0, cache=cache, execution=Execution(progress=listener)
    )
    assert listener.steps == 0
    assert again.accuracy == first.accuracy
    np.testing.assert_array_equal(again.fold_of, first.fold_of)
    np.testing.assert_array_equal(
        again.probabilities(images, np.arange(12)), first.probabilities(images, np.arange(12))
    )
    cross_fit(images, labels, CLASSES, TINY, folds=2, seed=1, cache=cache, execution=Execution(progress=listener))
    assert listener.steps == 2 * 6
    assert "other images, options or library versions; training new judges" in listener.lines[-1]


def test_a_damaged_cache_is_trained_anew(tmp_path: Path) -> None:
    images, labels = coloured(6)
    cache = tmp_path / "judges.safetensors"
    cache.write_bytes(b"damaged")
    listener = Listener()
    cross_fit(images, labels, CLASSES, TINY, folds=1, seed=0, cache=cache, execution=Execution(progress=listener))
    assert "judges.safetensors" in listener.lines[0]
    assert len(CrossFitted.load(cache).classifiers) == 1


def test_a_class_map_puts_the_logits_of_given_weights_in_the_order_of_the_classes(tmp_path: Path) -> None:
    images, _ = coloured(6)
    torch.manual_seed(0)
    theirs = untrained("test_resnet", ("extra", *reversed(CLASSES)), size=32)
    torch.save(theirs.network.model.state_dict(), tmp_path / "w.pth")
    (tmp_path / "classes.txt").write_text("\n".join(theirs.classes) + "\n")
    judge = judge_from_weights(
        "test_resnet", CLASSES, size=32, weights=tmp_path / "w.pth", class_map=tmp_path / "classes.txt"
    )
    assert judge is not None
    own = theirs.probabilities(images)[:, [theirs.classes.index(name) for name in CLASSES]]
    np.testing.assert_allclose(judge.probabilities(images), own / own.sum(1, keepdims=True), rtol=1e-4)
    theirs.save(tmp_path / "judge.safetensors")
    for weights, words in (("judge.safetensors", "names its classes itself"), ("headless.pth", "no last layer of 4")):
        torch.save(theirs.network.without_head().model.state_dict(), tmp_path / "headless.pth")
        with pytest.raises(UsageError, match=words):
            judge_from_weights(
                "test_resnet", CLASSES, size=32, weights=tmp_path / weights, class_map=tmp_path / "classes.txt"
            )
    (tmp_path / "classes.txt").write_text("\n".join(theirs.classes[:-1]))
    with pytest.raises(UsageError, match=r"class_map=.*classes\.txt: has no line for the class"):
        judge_from_weights(
            "test_resnet", CLASSES, size=32, weights=tmp_path / "w.pth", class_map=tmp_path / "classes.txt"
        )
