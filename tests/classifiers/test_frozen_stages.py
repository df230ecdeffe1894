"""Frozen stages: their weights and statistics stay, the others are trained."""

from __future__ import annotations

import pytest
import torch
from making_classifiers import CLASSES, TINY, coloured

from dagaug.classifiers.backbones import build
from dagaug.classifiers.fit import FitOptions, fit, fit_identity
from dagaug.classifiers.frozen_stages import freeze_stages, suitable_frozen_stages
from dagaug.runtime.errors import UsageError


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_frozen_stages_keep_every_weight_and_statistic_and_the_others_change(count: int) -> None:
    images, labels = coloured(12)
    options = FitOptions("test_resnet", 32, steps=3, batch_size=6, frozen_stages=count)
    torch.manual_seed(0)
    fitted = fit(images, labels, CLASSES, options, seed=0).network.model.state_dict()
    torch.manual_seed(0)  # as in the training with this seed
    start = build("test_resnet", len(CLASSES), size=32).model.state_dict()
    groups = ("conv1", "layer1", "layer2", "layer3", "layer4", "fc")
    kept = {name.split(".")[0] for name in start if torch.equal(start[name], fitted[name])}
    changed = {name.split(".")[0] for name in start if not torch.equal(start[name], fitted[name])}
    assert kept >= set(groups[:count])
    assert changed == {name.split(".")[0] for name in start} - set(groups[:count]) - ({"bn1"} if count else set())


def test_more_stages_than_the_network_has_are_refused_with_their_number() -> None:
    with pytest.raises(UsageError, match="test_resnet has 5 stages"):
        freeze_stages(build("test_resnet", 3, size=32).train(), 6)
    with pytest.raises(UsageError, match="plain has no stages"):
        freeze_stages(build("plain", 3, size=32).train(), 1)
    with pytest.raises(UsageError, match="frozen_stages=-1: give at least 0"):
        FitOptions(frozen_stages=-1)


def test_a_cpu_trains_the_last_two_stages() -> None:
    assert suitable_frozen_stages("finetune", "lite0", "cpu") == 6
    assert suitable_frozen_stages("finetune", "test_resnet", "cpu") == 3
    assert suitable_frozen_stages("finetune", "lite0", "cuda") == suitable_frozen_stages("scratch", "lite0", "cpu") == 0
    assert suitable_frozen_stages("finetune", "hf-hub:someone/something", "cpu") == 0


def test_the_identity_tells_frozen_stages_apart() -> None:
    images, labels = coloured(3)
    hashes = images.reshape(len(images), -1).sum(1).astype("int64")

    def identity(count: int) -> str:
        options = FitOptions(TINY.name, TINY.size, frozen_stages=count)
        return fit_identity(hashes, labels, CLASSES, options)

    assert len({identity(0), identity(1), identity(2)}) == 3
