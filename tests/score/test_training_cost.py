"""Estimated time of trainings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from making_score_data import OPTIONS

from dagaug.data.dataset_records import Dataset
from dagaug.score.image_set_loading import load_real
from dagaug.score.training_cost import TrainingCost, in_words
from dagaug.score.trainings import SharedSettings, TrainingSpec


def test_the_cost_is_that_of_the_starts_and_of_all_steps() -> None:
    assert TrainingCost(2.0, 0.5).of([10, 20]) == 2 * 2 + 30 * 0.5


def test_a_few_steps_are_measured_but_not_those_of_a_linear_probe(data: Dataset) -> None:
    train, test, _ = load_real(data, 32)
    fit = OPTIONS.fit.resolved(len(train))
    training, cpu = TrainingSpec("real", fit, train, None, test), torch.device("cpu")
    cost = TrainingCost.measured(training, SharedSettings(data.classes, fit), cpu)
    assert cost is not None
    assert min(cost.start, cost.step) >= 0
    assert cost.of([1]) > 0
    probe = SharedSettings(data.classes, replace(fit, mode="linear-probe"))
    assert TrainingCost.measured(training, probe, cpu) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.1, "2 seconds"), (40.0, "40 seconds"), (600.0, "10 minutes"), (5e3, "83 minutes"), (18_720.0, "5.2 hours")],
)
def test_durations_have_a_suitable_unit(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
