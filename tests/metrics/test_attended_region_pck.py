"""PCK of attended regions that follow the parts at a known distance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from making_runs import FRAMING

from dagaug.data.dataset_records import Dataset
from dagaug.data.object_patches import read_patches
from dagaug.metrics.attended_region_pck import keypoint_accuracy
from dagaug.model.trained_model import ModelCard, TrainedModel, build_translator


def all_parts(dataset: Dataset) -> list[int]:
    return sorted({number for sample in dataset.samples for number, _, _ in sample.parts})


def follower(dataset: Dataset, off: float) -> TrainedModel:
    """A model whose regions stand on the parts, in reverse order, ``off`` of the box's larger side beside them."""
    card = ModelCard(
        mode="reference", classes=dataset.classes, framing=FRAMING, regions=len(all_parts(dataset)), half_size=0.4,
        sharpness=20, steps=1, seed=0, data="birds",
    )  # fmt: skip
    translator = build_translator(card.mode, card.attention)
    splits = iter((dataset.train, dataset.test))

    def structure(images: torch.Tensor) -> tuple[Any, None]:
        patches = read_patches(dataset, next(splits), FRAMING)
        centres = torch.zeros(len(images), card.regions, 2)
        for row, (sample, region) in enumerate(zip(patches.samples, patches.regions, strict=True)):
            left, top, side = region.pixels()
            assert sample.box is not None
            for number, x, y in sample.parts:
                place = card.regions - 1 - all_parts(dataset).index(number)
                x += off * max(sample.box[2:])
                centres[row, place] = torch.tensor([(x - left) / side * 2 - 1, (y - top) / side * 2 - 1])
        return SimpleNamespace(centres=centres), None

    translator.dae.structure = structure  # type: ignore[method-assign, assignment]
    return TrainedModel(card, translator, Path("model.safetensors"), "")


def test_regions_that_stand_on_parts_have_a_pck_of_1(birds: Dataset) -> None:
    found, why = keypoint_accuracy(follower(birds, 0.0), birds)
    assert found is not None
    assert why == ""
    assert found.pck == 1.0
    assert found.matched == found.regions == found.parts == len(all_parts(birds))
    assert 0 < found.of_mean_place < 1


@pytest.mark.parametrize(("off", "alpha", "share"), [(0.09, 0.1, 1.0), (0.11, 0.1, 0.0), (0.11, 0.2, 1.0)])
def test_pck_is_measured_by_the_boxes_larger_side(birds: Dataset, off: float, alpha: float, share: float) -> None:
    found, _ = keypoint_accuracy(follower(birds, off), birds, alpha=alpha)
    assert found is not None
    assert found.pck == share


def test_data_without_parts_have_no_pck(birds: Dataset) -> None:
    bare = replace(birds, samples=tuple(replace(sample, parts=()) for sample in birds.samples))
    assert keypoint_accuracy(follower(birds, 0.0), bare) == (
        None,
        "PCK was not measured: the data set has no key points of parts.",
    )
