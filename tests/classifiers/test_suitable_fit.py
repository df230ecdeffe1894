"""Options that suit the images at hand."""

from __future__ import annotations

from dagaug.classifiers.fit import FitOptions
from dagaug.classifiers.suitable_fit import describe_fit, suitable_fit


def test_photographs_are_fine_tuned_and_what_is_named_is_kept() -> None:
    fit = suitable_fit(128, "cpu", steps=7)
    assert fit == FitOptions("lite0", 128, mode="finetune", frozen_stages=6, steps=7)
    assert describe_fit(fit) == (
        "Classifier lite0, images of 128 px, fine-tuned from pretrained weights, the first 6 stages left as they are"
    )
    assert suitable_fit(128, "cuda") == FitOptions("lite0", 224, mode="finetune")
    named = suitable_fit(128, "cpu", mode="scratch", classifier="resnet18", size=96, frozen_stages=0)
    assert named == FitOptions("resnet18", 96)


def test_small_images_are_trained_on_from_scratch_as_they_are() -> None:
    assert suitable_fit(64, "cpu") == FitOptions("plain", 64)
    assert describe_fit(FitOptions()) == "Classifier plain, images of 64 px, trained from scratch"
