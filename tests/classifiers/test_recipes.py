"""Recipes: defaults of each way to train a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making_classifiers import CLASSES, coloured
from safetensors.torch import save_file

from dagaug.classifiers import augmentation
from dagaug.classifiers import fit as fit_module
from dagaug.classifiers.backbones import build
from dagaug.classifiers.classifier import hash_images
from dagaug.classifiers.fit import FitOptions, fit
from dagaug.classifiers.linear_probe import COPIES_PER_IMAGE, LinearProbe
from dagaug.classifiers.recipes import RECIPES, Mode, suit_images, suitable_size


def tiny(mode: Mode, folder: Path, **changes: Any) -> FitOptions:
    """Options of a small network; pretrained weights are random ones in a file of ``folder``."""
    weights = None
    if mode != "scratch":
        weights = folder / "w.safetensors"
        torch.manual_seed(0)
        save_file(build("test_resnet", 3, size=32).model.state_dict(), weights)
    return FitOptions("test_resnet", 32, batch_size=6, mode=mode, weights=weights, **changes)


@pytest.mark.parametrize("mode", sorted(RECIPES))
def test_what_is_not_given_comes_from_the_recipe(mode: str) -> None:
    recipe = RECIPES[mode]  # type: ignore[index]
    filled = FitOptions("resnet18", mode=mode).resolved(500)  # type: ignore[arg-type]
    assert (filled.learning_rate, filled.layer_decay, filled.augment) == (
        recipe.learning_rate, recipe.layer_decay, recipe.augment,
    )  # fmt: skip
    assert filled.steps == recipe.steps_for(500, 32)
    given = FitOptions("resnet18", mode=mode, steps=3, learning_rate=0.1, layer_decay=0.5, augment="none")  # type: ignore[arg-type]
    assert given.resolved(500) == given
    assert recipe.fewest_steps <= recipe.steps_for(1, 32) <= recipe.steps_for(10**7, 32) <= recipe.most_steps


def test_photographs_are_scored_by_fine_tuning_and_small_images_from_scratch() -> None:
    assert suit_images("auto", "auto", 128) == ("finetune", "lite0")
    assert suit_images("auto", "resnet50.a1_in1k", 128) == ("finetune", "resnet50.a1_in1k")
    assert suit_images("auto", "auto", 64) == suit_images("scratch", "auto", 64) == ("scratch", "plain")
    assert suit_images("auto", "resnet50.a1_in1k", 64) == ("finetune", "resnet50.a1_in1k")
    assert suit_images("auto", "plain", 256) == ("scratch", "plain")
    assert suit_images("linear-probe", "auto", 64) == ("linear-probe", "lite0")


def test_pretrained_networks_see_their_own_size() -> None:
    assert suitable_size("scratch", "resnet18", 96, "cuda") == 96
    assert suitable_size("finetune", "lite0", 128, "cuda") == 224
    assert suitable_size("finetune", "lite0", 96, "cpu") == 128
    assert suitable_size("finetune", "vit_small_patch14_dinov2.lvd142m", 128, "cuda") == 518
    assert suitable_size("finetune", "hf-hub:someone/something", 128, "cuda") == 224


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """The learning rate of each group of parameters in each step of AdamW."""
    seen: list[list[float]] = []
    inner = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *arguments: object) -> object:
        seen.append([group["lr"] for group in self.param_groups])
        return inner(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return seen


@pytest.mark.parametrize("mode", ["scratch", "finetune"])
def test_the_rate_rises_for_a_tenth_of_the_steps_and_falls_as_half_a_cosine(
    mode: Mode, tmp_path: Path, rates: list[list[float]]
) -> None:
    images, labels = coloured(12)
    fit(images, labels, CLASSES, tiny(mode, tmp_path, steps=20), seed=0)
    peak = RECIPES[mode].rate_for("test_resnet")
    expected = [0.5, 1.0, *(0.5 + 0.5 * np.cos(np.pi * np.arange(18) / 18))]
    assert all(len(set(groups)) == 1 for groups in rates)
    np.testing.assert_allclose([groups[0] for groups in rates], peak * np.array(expected), rtol=1e-6)


def test_a_linear_probe_has_the_rate_and_schedule_of_its_recipe(tmp_path: Path, rates: list[list[float]]) -> None:
    images, labels = coloured(12)
    options = tiny("linear-probe", tmp_path, steps=20).resolved(12)
    probe, hashes = LinearProbe(options), hash_images(images)
    train = probe.features(images, labels, hashes, options.augment or "none")
    assert len(train.values) == COPIES_PER_IMAGE  # augmented
    probe.probabilities(train, None, probe.features(images, labels, hashes), 3, options, seed=0)
    peak = RECIPES["linear-probe"].learning_rate
    expected = peak * (0.5 + 0.5 * np.cos(np.pi * np.arange(20) / 20))
    np.testing.assert_allclose([groups[0] for groups in rates], expected, rtol=1e-6)


@pytest.mark.parametrize("mode", sorted(RECIPES))
def test_images_are_augmented_as_the_recipe_says(mode: Mode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for module in (fit_module, augmentation):
        inner = module.image_augmentation
        monkeypatch.setattr(
            module, "image_augmentation",
            lambda augment, *rest, inner=inner, **more: (seen.append(augment), inner(augment, *rest, **more))[1],
        )  # fmt: skip
    images, labels = coloured(12)
    options = tiny(mode, tmp_path, steps=2)
    if mode == "linear-probe":
        given = options.resolved(12).augment or "none"
        LinearProbe(options).features(images, labels, hash_images(images), given)
    else:
        fit(images, labels, CLASSES, options, seed=0)
    assert set(seen) == {RECIPES[mode].augment} != {"none"}


def test_layer_decay_and_frozen_stages_go_together(tmp_path: Path, rates: list[list[float]]) -> None:
    images, labels = coloured(12)
    options = tiny("finetune", tmp_path, steps=20, layer_decay=0.5, frozen_stages=3)
    fit(images, labels, CLASSES, options, seed=0)
    peak, top = RECIPES["finetune"].learning_rate, rates[1]  # the second step is the peak
    assert max(top) == pytest.approx(peak)
    depths = np.log2(peak / np.array(top))
    np.testing.assert_allclose(depths, depths.round(), atol=1e-6)
    assert {0, 1, 2} <= set(depths.round().astype(int).tolist())


def test_layer_decay_slows_the_first_layers_down(tmp_path: Path) -> None:
    images, labels = coloured(12)
    torch.manual_seed(0)
    start = build("test_resnet", 3, size=32).model.state_dict()
    save_file(start, tmp_path / "w.safetensors")
    changes = []
    for decay in (1.0, 0.1):
        options = FitOptions(
            "test_resnet", 32, steps=2, batch_size=6, augment="none", weights=tmp_path / "w.safetensors",
            layer_decay=decay, learning_rate=1e-3,
        )  # fmt: skip
        state = fit(images, labels, CLASSES, options, seed=0).network.model.state_dict()
        first, last = "conv1.0.weight", "fc.weight"
        changes.append([float((state[name] - start[name]).abs().max()) for name in (first, last)])
    assert changes[1][0] < 0.2 * changes[0][0]
    np.testing.assert_allclose(changes[1][1], changes[0][1], rtol=0.2)
