"""Choice of the number of steps by cross-validation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making_score_data import OPTIONS

from dagaug.data.dataset_records import Dataset
from dagaug.runtime.progress import Progress
from dagaug.score import trainings
from dagaug.score.experiment import score
from dagaug.score.image_set_loading import ImageSet, TracedImageSet, load_real
from dagaug.score.results import ScoreResult
from dagaug.score.run_log import ScoreRun, pack
from dagaug.score.step_search import without_origins
from dagaug.score.trainings import TrainingSpec


def test_each_arm_trains_for_its_cross_validated_steps(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers of trainings of 8 steps are made right, and of 2 steps for the arm real; all others are made wrong."""
    seen = []
    inner = trainings._Trainer._run

    def judged(self: Any, training: TrainingSpec, seed: int, progress: Progress) -> ScoreRun:
        run = inner(self, training, seed, progress)
        if "fold" not in training.name:
            return run
        seen.append(training)
        right = training.steps == (2 if training.name.startswith("real,") else 8)
        labels = training.test.labels
        return replace(run, predictions=pack(labels if right else 1 - labels))

    monkeypatch.setattr(trainings._Trainer, "_run", judged)
    resume = tmp_path / "runs.jsonl"
    result = score(data, small[0], replace(OPTIONS, validation=0.5), resume=resume)
    assert {(one.arm, one.steps): (one.accuracy, one.chosen) for one in result.validated} == {
        ("real", 2): (1, True), ("real", 4): (0, False), ("real", 8): (0, False),
        ("real+dagaug", 2): (0, False), ("real+dagaug", 4): (0, False), ("real+dagaug", 8): (1, True),
    }  # fmt: skip
    assert [arm.steps for arm in result.arms] == [2, 8]
    assert len(result.runs) == 2 * 2
    test = {int(number) for number in load_real(data, 32)[1].hashes}
    for training in seen:
        assert test.isdisjoint(training.train.hashes.tolist())
        assert test.isdisjoint(training.test.hashes.tolist())
        assert set(training.train.hashes.tolist()).isdisjoint(training.test.hashes.tolist())
    halves = [training.test for training in seen if training.name.startswith("real, 2 ")]
    everything = np.concatenate([seen[0].train.hashes, seen[0].test.hashes])
    assert sorted(np.concatenate([half.hashes for half in halves]).tolist()) == sorted(everything.tolist())
    count = len(seen)
    assert score(data, small[0], replace(OPTIONS, validation=0.5), resume=resume) == result
    assert len(seen) == count


def test_the_fewest_steps_are_chosen_if_several_tie(
    data: Dataset, small: tuple[Path, Path, ScoreResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = trainings._Trainer._run
    monkeypatch.setattr(
        trainings._Trainer, "_run",
        lambda self, training, seed, progress: replace(
            inner(self, training, seed, progress), predictions=pack(training.test.labels)
        ),
    )  # fmt: skip
    result = score(data, small[0], replace(OPTIONS, validation=0.5))
    assert [arm.steps for arm in result.arms] == [2, 2]


def test_synthetic_images_of_held_out_images_are_held_out() -> None:
    pictures, labels = np.zeros((4, 8, 8, 3), np.uint8), np.arange(4)
    made = TracedImageSet(pictures, labels, (("a", "b"), ("b", "c"), ("c", "a"), ("d", "d")))
    kept = without_origins(made, frozenset({"b"}))
    assert kept is not None
    assert kept.labels.tolist() == [2, 3]
    assert without_origins(made, frozenset("abcd")) is None
    unknown = ImageSet(pictures, labels)
    assert without_origins(unknown, frozenset("abcd")) is unknown
    assert without_origins(None, frozenset("a")) is None
