"""The command ``dagaug score``: further arms, sweeps, exit codes, wrong options."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from making_runs import dagaug
from making_score_data import OPTIONS, folder_of, write_data, write_store

from dagaug.data.dataset_records import Dataset
from dagaug.score.experiment import score
from dagaug.score.results import ScoreResult


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def small(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ScoreResult]:
    """An HDF5 file and its score."""
    torch.set_num_threads(1)
    path = write_store(tmp_path_factory.mktemp("score") / "s.h5", data)
    return path, score(data, path, OPTIONS)


def test_the_command_takes_further_arms_and_sweeps(
    data: Dataset, small: tuple[Path, ScoreResult], tmp_path: Path
) -> None:
    theirs = folder_of(tmp_path / "theirs")
    done = dagaug(
        "score", data.root, small[0], "--no-controls", "--arms", "real,real+dagaug,cutout", "--arm", f"theirs={theirs}",
        "--fractions", "0.75,1", "--ratio", 0.5, "--quick", "--steps", 2, "--batch-size", 8, "--size", 32,
        "--classifier", "test_resnet", "--out", tmp_path / "s.json", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert [arm["arm"] for arm in done.json["arms"]] == ["real", "real+dagaug", "theirs"]
    assert done.json["options"]["seeds"] == 3
    assert (
        "Left out: cutmix, mixup, trivialaugment, dagaug+cutmix, cutout, cutwarp, random, frozen, cutout+dagaug."
        in done.json["notes"]
    )
    assert [point["real"] for point in done.json["fractions"]] == [6, 8]
    assert json.loads((tmp_path / "s.json").read_text()) == done.json


def test_chosen_steps_and_shares_stand_in_the_table_and_the_file(
    data: Dataset, small: tuple[Path, ScoreResult], tmp_path: Path
) -> None:
    done = dagaug(
        "score", data.root, small[0], "--no-controls", "--arms", "real,real+dagaug", "--seeds", 2, "--batch-size", 8,
        "--size", 32, "--classifier", "test_resnet", "--validation", 0.25, "--step-choices", "2,3", "--share-choices",
        "0.25,0.5", "--layer-decay", 0.75, "--out", tmp_path / "s.json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "32 trainings of 2 to 3 steps" in done.err
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["options"]["fit"]["layer_decay"] == 0.75
    arm = found["arms"][1]
    assert arm["steps"] in (2, 3)
    assert arm["synthetic_share"] in (0.25, 0.5)
    lines = [line.strip() for line in done.out.splitlines()]
    (row,) = [number for number, line in enumerate(lines) if line.startswith("real+dagaug ") and "±" in line]
    assert lines[row + 1] == f"{arm['steps']} steps, share {arm['synthetic_share']:.0%}"
    assert f"real+dagaug {arm['steps']} steps, {arm['synthetic_share']:.0%} of a batch synthetic" in done.out


@pytest.mark.parametrize(("verdict", "code"), [("helps", 0), ("no measurable effect", 3), ("harms", 3)])
def test_the_exit_code_is_the_verdict_if_asked_for(
    data: Dataset, small: tuple[Path, ScoreResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str,
    code: int,
) -> None:  # fmt: skip
    result = replace(small[1], verdict=verdict)
    monkeypatch.setattr("dagaug.score.experiment.score", lambda *arguments, **named: result)
    arguments = ("score", data.root, small[0], "--no-controls", "--out", tmp_path / "s.json", "--json")
    asked = dagaug(*arguments, "--fail-unless-helps")
    assert (asked.code, asked.json["verdict"]) == (code, verdict)
    assert dagaug(*arguments).code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--arm", "nameless"), "--arm nameless: write NAME=PATH"),
        (("--fractions", "half"), "--fractions half: write numbers separated by commas"),
        (("--ratio", "2"), "--ratio 2: give shares between 0 and 1"),
        (("--mode", "finetune", "--classifier", "plain"), "--mode finetune: plain has no pretrained weights"),
        (
            ("--share-choices", "0.1,0.3"),
            "--share-choices 0.1,0.3: choosing needs training images to hold out; try --validation 0.25",
        ),
        (("--step-choices", "few"), "--step-choices few: write whole numbers separated by commas"),
        (("--validation", "0.5", "--step-choices", "2,3", "--steps", "2"), "--steps 2: give either this or numbers"),
        (
            ("--validation", "0.5", "--share-choices", "0.1,0.3", "--synthetic-share", "0.5"),
            "--synthetic-share 0.5: give either this or shares",
        ),
        (("--mode", "linear-probe", "--layer-decay", "0.5"), "--layer-decay 0.5: a linear probe trains one layer"),
        (("--arms", "real,best"), "--arms best: no such arm"),
        (
            ("--mode", "linear-probe", "--classifier", "resnet_of_mine"),
            "--classifier resnet_of_mine: timm has no model",
        ),
    ],
)
def test_the_command_refuses_impossible_options(
    data: Dataset, small: tuple[Path, ScoreResult], arguments: tuple[str, ...], words: str
) -> None:
    done = dagaug("score", data.root, small[0], *arguments)
    assert done.code == 2
    assert words in done.err


def test_the_augmentation_of_the_trainings_can_be_named(
    data: Dataset, small: tuple[Path, ScoreResult], tmp_path: Path
) -> None:
    done = dagaug(
        "score", data.root, small[0], "--no-controls", "--arms", "real", "--seeds", 2, "--steps", 2, "--batch-size", 8,
        "--size", 32, "--classifier", "test_resnet", "--augment", "crop", "--out", tmp_path / "s.json", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["options"]["fit"]["augment"] == "crop"
