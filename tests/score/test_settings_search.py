"""Choice of the number of steps and of the synthetic share by cross-validation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making_classifiers import Listener
from making_score_data import OPTIONS

from dagaug.data.dataset_records import Dataset
from dagaug.runtime.errors import UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.progress import SILENT
from dagaug.score import trainings
from dagaug.score.experiment import score
from dagaug.score.image_set_loading import ImageSet, TracedImageSet, load_real, load_store
from dagaug.score.results import ScoreResult
from dagaug.score.run_log import RunLog, ScoreRun, pack
from dagaug.score.settings_search import choose_settings, without_origins
from dagaug.score.trainings import SharedSettings, TrainingSpec

CHOICE = replace(
    OPTIONS, fit=replace(OPTIONS.fit, steps=None), validation=0.25, step_choices=(3, 2), share_choices=(0.25, 0.5)
)


class Told(Listener):
    """Remembers how many steps had been made when each line was said."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, str]] = []

    def say(self, text: str) -> None:
        self.told.append((self.steps, text))


def answers(
    monkeypatch: pytest.MonkeyPatch, best: dict[str, tuple[int, float | None]] | None = None
) -> list[TrainingSpec]:
    """Replace trainings by answers, right in the folds of each arm's best settings and else wrong; collects them."""
    seen: list[TrainingSpec] = []

    def answered(self: object, training: TrainingSpec, seed: int, execution: Execution) -> ScoreRun:
        del self, execution
        seen.append(training)
        settings, labels = (training.steps, training.synthetic_share), training.test.labels
        right = best is None or settings == best[training.name.split(",")[0]]
        predicted = labels if right else 1 - labels
        return ScoreRun(training.name, seed, float((predicted == labels).mean()), 0.1, pack(predicted))

    monkeypatch.setattr(trainings._Trainer, "_run", answered)
    return seen


def test_each_arm_trains_for_its_cross_validated_steps(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = answers(monkeypatch, {"real": (2, None), "real+dagaug": (8, 0.5)})
    resume = tmp_path / "runs.jsonl"
    result = score(data, small[0], replace(OPTIONS, validation=0.25), resume=resume)
    assert {(one.arm, one.steps): (one.accuracy, one.chosen) for one in result.validated} == {
        ("real", 2): (1, True), ("real", 4): (0, False), ("real", 8): (0, False),
        ("real+dagaug", 2): (0, False), ("real+dagaug", 4): (0, False), ("real+dagaug", 8): (1, True),
    }  # fmt: skip
    assert [arm.steps for arm in result.arms] == [2, 8]
    assert len(result.runs) == 2 * 2
    held = [training for training in seen if "fold" in training.name]
    test = {int(number) for number in load_real(data, 32)[1].hashes}
    for training in held:
        assert test.isdisjoint(training.train.hashes.tolist())
        assert test.isdisjoint(training.test.hashes.tolist())
        assert set(training.train.hashes.tolist()).isdisjoint(training.test.hashes.tolist())
    folds = [training.test for training in held if training.name.startswith("real, 2 ")]
    everything = np.concatenate([held[0].train.hashes, held[0].test.hashes])
    assert sorted(np.concatenate([fold.hashes for fold in folds]).tolist()) == sorted(everything.tolist())
    count = len(seen)
    assert score(data, small[0], replace(OPTIONS, validation=0.25), resume=resume) == result
    assert len(seen) == count


def test_each_arm_chooses_share_and_steps_in_equally_many_trainings(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = answers(monkeypatch, {"real": (2, None), "real+dagaug": (3, 0.25)})
    options, resume, listener = replace(CHOICE, fractions=(0.75,), ratios=(0.5,)), tmp_path / "runs.jsonl", Told()
    result = score(data, small[0], options, resume=resume, execution=Execution(progress=listener))
    assert [(one.arm, one.steps, one.synthetic_share, one.trainings, one.accuracy) for one in result.validated] == [
        ("real", 2, None, 8, 1), ("real", 3, None, 8, 0),
        ("real+dagaug", 2, 0.25, 4, 0), ("real+dagaug", 2, 0.5, 4, 0),
        ("real+dagaug", 3, 0.25, 4, 1), ("real+dagaug", 3, 0.5, 4, 0),
    ]  # fmt: skip
    assert [one.chosen for one in result.validated] == [True, False, False, False, True, False]
    assert [(arm.steps, arm.synthetic_share) for arm in result.arms] == [(2, None), (3, 0.25)]
    tested = {one.name: (one.steps, one.synthetic_share) for one in seen if "fold" not in one.name}
    assert tested == {
        "real": (2, None), "real, 0.75 of the real images": (2, None),
        "real+dagaug": (3, 0.25), "real+dagaug, 0.75 of the real images": (3, 0.25),
        "real+dagaug, 0.5 of a batch synthetic": (3, 0.5),
    }  # fmt: skip
    assert (result.options["step_choices"], result.options["share_choices"]) == ((3, 2), (0.25, 0.5))
    assert ScoreResult.from_json(result.to_json()).validated == result.validated
    (told,) = [(steps, text) for steps, text in listener.told if text.startswith("Choosing")]
    assert told[0] == 0
    assert told[1].startswith(
        "Choosing steps and synthetic share of 2 arms by cross-validation in 4 folds of the training images: 32 "
        "trainings of 2 to 3 steps, about "
    )
    assert "; then 10 trainings for the test, at most " in told[1]
    count = len(seen)
    assert score(data, small[0], options, resume=resume) == result
    assert len(seen) == count


def test_what_is_left_of_a_stopped_choice_is_told_and_made(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resume, listener, seen = tmp_path / "runs.jsonl", Told(), answers(monkeypatch)
    before = score(data, small[0], CHOICE, resume=resume)
    lines = resume.read_text().splitlines(keepends=True)
    assert sum("fold" in json.loads(line)["arm"] for line in lines) == 32
    resume.write_text("".join(lines[:5]))
    seen.clear()
    after = score(data, small[0], CHOICE, resume=resume, execution=Execution(progress=listener))
    assert any("32 trainings of 2 to 3 steps, 5 of them finished, about" in text for _, text in listener.told)
    assert len(seen) == len(lines) - 5
    assert after.validated == before.validated


class Closed(ImageSet):
    """Images that cannot be read once they are closed."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("images", "labels", "hashes", "take") and "closed" in object.__getattribute__(self, "__dict__"):
            raise AssertionError(f"{name} of the test images were read")
        return object.__getattribute__(self, name)


def test_the_test_images_are_never_read_in_choosing(data: Dataset, small: tuple[Path, Path, ScoreResult]) -> None:
    real, test, _ = load_real(data, 32)
    closed = Closed(test.images, test.labels)
    object.__setattr__(closed, "closed", True)
    with pytest.raises(AssertionError, match="labels of the test images were read"):
        len(closed)
    fit = CHOICE.fit.resolved(len(real))
    arms = {
        "real": TrainingSpec("real", fit, real, None, closed),
        "real+dagaug": TrainingSpec("real+dagaug", fit, real, load_store(small[0], data, 32), closed),
    }
    shared, cpu = SharedSettings(data.classes, fit), (torch.device("cpu"),)
    options = replace(CHOICE, share_choices=())
    chosen, tried = choose_settings(real, arms, 4, options, shared, cpu, RunLog(None, {}), SILENT)
    assert len(tried) == 2 + 2
    assert all(training.test is closed for training in chosen.values())


def test_the_fewest_steps_and_the_smallest_share_are_chosen_if_several_tie(
    data: Dataset, small: tuple[Path, Path, ScoreResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch)
    result = score(data, small[0], CHOICE)
    assert [(arm.steps, arm.synthetic_share) for arm in result.arms] == [(2, None), (2, 0.25)]


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


def test_no_training_of_a_fold_sees_a_synthetic_image_of_a_held_out_image(
    data: Dataset, small: tuple[Path, Path, ScoreResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = answers(monkeypatch)
    score(data, small[0], CHOICE)
    real, morphs = load_real(data, 32)[0], load_store(small[0], data, 32)
    held = [one for one in seen if "fold" in one.name and one.name.startswith("real+dagaug")]
    assert len(held) == 16
    kept = 0
    for training in held:
        rows = np.flatnonzero(np.isin(real.hashes, training.test.hashes))
        files = {real.origins[row][0] for row in rows.tolist()}
        free = [files.isdisjoint(origins) for origins in morphs.origins]
        assert training.synthetic is not None
        assert training.synthetic.hashes.tolist() == morphs.hashes[free].tolist()
        kept += len(training.synthetic)
    assert 0 < kept < 16 * len(morphs)


def test_folds_that_leave_no_synthetic_image_are_refused(data: Dataset, small: tuple[Path, Path, ScoreResult]) -> None:
    with pytest.raises(UsageError, match=r"validation=0\.5: real\+dagaug has no synthetic image .* hold out fewer"):
        score(data, small[0], replace(CHOICE, validation=0.5))
