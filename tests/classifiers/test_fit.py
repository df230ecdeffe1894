"""Training of a classifier."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making_classifiers import CLASSES, TINY, Listener, coloured

from dagaug.classifiers.classifier import Classifier, hash_images
from dagaug.classifiers.fit import LIBRARIES, FitOptions, fit, fit_identity
from dagaug.runtime.errors import TrainingError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache
from dagaug.runtime.streamed_array import StreamedArray
from dagaug.runtime.versions import library_versions


def weights_of(classifier: Classifier) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in classifier.network.parameters()])


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


@pytest.mark.parametrize(
    "change",
    [
        {"augment": "none"}, {"augment": "standard"}, {"augment": "crop"}, {"mixing": "cutmix"}, {"mixing": "mixup"},
        {"trivialaugment": True},
    ],
)  # fmt: skip
def test_a_trivial_problem_is_learned(change: dict[str, Any]) -> None:
    images, labels = coloured(30)
    options = FitOptions("test_resnet", 32, steps=40, batch_size=12, learning_rate=3e-3, **change)
    classifier = fit(images, labels, CLASSES, options, seed=0)
    assert classifier.accuracy(*coloured(30, seed=1)) > 0.9


def test_the_loss_falls_and_progress_counts_every_step() -> None:
    images, labels = coloured(12)
    listener = Listener()
    options = FitOptions("test_resnet", 32, steps=41, batch_size=12, learning_rate=3e-3, augment="none")
    fit(images, labels, CLASSES, options, seed=0, execution=Execution(progress=listener))
    losses = [float(note.removeprefix("loss ")) for note in listener.notes]
    assert listener.steps == 41
    assert losses[0] == pytest.approx(math.log(3), abs=0.3)
    assert losses[-1] < 0.7 * losses[0]


def test_synthetic_images_fill_their_share_of_a_batch_and_are_hashed() -> None:
    images, labels = coloured(12)
    # Synthetic images with shifted labels: were they not drawn, the classifier would not believe both.
    wrong = (images[::-1].copy(), (labels[::-1] + 1) % 3)
    options = FitOptions("test_resnet", 32, 40, batch_size=12, learning_rate=3e-3, synthetic_share=0.9)
    classifier = fit(images, labels, CLASSES, options, seed=0, synthetic=wrong)
    assert classifier.accuracy(images, (labels + 1) % 3) > 0.9
    assert classifier.saw(images).all()


@pytest.mark.parametrize("rows_in_memory", [0, 5, 100])
def test_streamed_images_give_the_bits_of_images_in_memory_for_any_cache(rows_in_memory: int) -> None:
    (images, labels), (more, more_labels) = coloured(12), coloured(9, seed=1)
    options = FitOptions("test_resnet", 32, 4, batch_size=6, augment="crop", trivialaugment=True, mixing="cutmix")
    execution = Execution(workers=2, memory=ImageCache(rows_in_memory * images[0].nbytes))

    def streamed(array: np.ndarray) -> StreamedArray:
        return StreamedArray(len(array), array.shape[1:], array.__getitem__, execution=execution)

    plain = fit(images, labels, CLASSES, options, seed=0, synthetic=(more, more_labels))
    lazy = fit(streamed(images), labels, CLASSES, options, seed=0, synthetic=(streamed(more), more_labels))
    assert torch.equal(weights_of(plain), weights_of(lazy))
    assert np.array_equal(plain.trained_on, lazy.trained_on)
    assert np.array_equal(plain.probabilities(images), lazy.probabilities(streamed(images), batch_size=256))


def test_real_images_alone_and_an_empty_synthetic_set_are_the_same_training() -> None:
    images, labels = coloured(12)
    none = (images[:0], labels[:0])
    plain = weights_of(fit(images, labels, CLASSES, TINY, seed=0))
    assert torch.equal(plain, weights_of(fit(images, labels, CLASSES, TINY, seed=0, synthetic=none)))


def test_a_loss_that_is_not_finite_is_an_error_that_suggests_a_lower_rate() -> None:
    images, labels = coloured(12)
    options = FitOptions("test_resnet", 32, 30, batch_size=12, learning_rate=1e30, augment="none")
    with pytest.raises(TrainingError, match="not finite") as caught:
        fit(images, labels, CLASSES, options, seed=0)
    assert caught.value.remedies == {"learning_rate": 1e29}


def test_training_without_images_is_an_error() -> None:
    images, labels = coloured(3)
    with pytest.raises(TrainingError, match="no training images"):
        fit(images[:0], labels[:0], CLASSES, TINY, seed=0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"learning_rate": 0.0}, "learning_rate=0"),
        ({"synthetic_share": 1.0}, "synthetic_share=1"),
        ({"size": 4}, "size=4"),
        ({"label_smoothing": 1.0}, "label_smoothing=1"),
    ],
)
def test_impossible_options_are_named(options: dict[str, float], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        FitOptions(**options)  # type: ignore[arg-type]


def test_steps_and_rate_are_kept_or_chosen_by_data_and_network() -> None:
    given = FitOptions(steps=7, learning_rate=0.5).resolved(10**6)
    assert (given.steps, given.learning_rate) == (7, 0.5)
    assert (FitOptions("resnet18").resolved(10).learning_rate or 0) > 0
    few, some, many = (FitOptions().resolved(count).steps or 0 for count in (10, 1000, 10**7))
    assert 0 < few <= some < many


# ---- identity


def identity(options: FitOptions = TINY, seed: int = 0, classes: tuple[str, ...] = CLASSES) -> str:
    images, labels = coloured(6)
    return fit_identity(hash_images(images), labels, classes, options, seed)


def test_the_identity_changes_with_options_seed_and_classes() -> None:
    others = {identity(FitOptions()), identity(seed=1), identity(classes=("red", "blue", "green"))}
    assert identity() == identity()
    assert len({identity(), *others}) == 4


def test_the_identity_changes_with_the_content_of_the_weights_file(tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    found = set()
    for content in (b"one", b"two"):
        weights.write_bytes(content)
        found.add(identity(FitOptions(weights=weights)))
    assert len(found) == 2


@pytest.mark.parametrize("library", ["dagaug", "torch", "timm", "numpy", "opencv-python", "albumentations"])
def test_the_identity_changes_with_the_version_of_each_library(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, versions = identity(), library_versions(*LIBRARIES)
    assert library in versions
    monkeypatch.setattr("dagaug.classifiers.fit.library_versions", lambda *names: versions | {library: "0.0"})
    assert identity() != before
