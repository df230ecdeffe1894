"""Recipes: defaults of each way to train a classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from making_classifiers import CLASSES, coloured
from safetensors.torch import save_file

from dagaug.classifiers.backbones import build
from dagaug.classifiers.fit import FitOptions, fit
from dagaug.classifiers.recipes import RECIPES, suit_images, suitable_size


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
