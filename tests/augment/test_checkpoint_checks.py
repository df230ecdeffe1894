"""Checkpoints that do not fit the data are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from making_augmentations import (
    run,
)

from dagaug.augment.checkpoint_checks import check_classes
from dagaug.augment.options import AugmentOptions
from dagaug.data.dataset_records import Dataset
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import CheckpointError


def test_a_model_that_was_trained_on_another_drawn_split_is_refused(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    trained = replace(model, card=model.card.model_copy(update={"split_seed": 7}))
    with pytest.raises(CheckpointError, match="split drawn with seed 7"):
        run(trained, replace(birds, split_origin="drawn", split_seed=8), judged, tmp_path / "out.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_other_classes_is_refused_naming_both(birds: Dataset, model: TrainedModel, tmp_path: Path) -> None:
    other = replace(birds, classes=("a.Raven", *birds.classes[1:]), root=tmp_path / "ravens")
    with pytest.raises(CheckpointError) as caught:
        check_classes(model, other)
    message = str(caught.value)
    assert str(model.path) in message
    assert "model.safetensors has 4 classes" in message
    assert f"{tmp_path / 'ravens'} has 4" in message
    assert birds.classes[0] in message
    with pytest.raises(CheckpointError, match="the same classes in another order"):
        check_classes(model, replace(birds, classes=birds.classes[::-1]))
    check_classes(model, birds)


def test_a_model_of_two_folders_is_refused(birds: Dataset, model: TrainedModel) -> None:
    paper = replace(model, card=model.card.model_copy(update={"mode": "paper"}))
    with pytest.raises(CheckpointError, match="use dagaug translate"):
        check_classes(paper, birds)
