"""Results as text: what the terminal says about balanced classes, frequent and rare classes, numbers of images."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from making_scores import a_score, about
from rich.console import Console, RenderableType

from dagaug.augment.run import Augmented
from dagaug.cli.result_text import augment_lines, score_command, score_lines, score_tables

DONE = Augmented(
    out=Path("a.h5"), sources=3, references=5, candidates=20, kept=30, verdicts={"kept": 30}, real=90,
    real_training=70, accuracy=0.9, skipped=(), seconds=60.0, below_balance={},
)  # fmt: skip


def printed(table: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(table)
    return out.getvalue()


def test_classes_that_could_not_be_filled_are_named_but_not_all_of_many() -> None:
    below = {f"class {number}": number for number in range(7)}
    (line,) = (line for line in augment_lines(replace(DONE, below_balance=below)) if "--balance" in line)
    assert line.startswith("7 classes stay below --balance, for lack of accepted candidates: class 0 has 0, class 1")
    assert "class 4 has 4 and 2 more; try more --refs or --min-confidence 0" in line
    assert not any("--balance" in line for line in augment_lines(DONE))


@pytest.mark.parametrize(
    ("changes", "balanced", "command"),
    [
        ({}, True, "dagaug score --synthetic-share 0.3"),
        ({}, False, "dagaug score"),
        ({"real_training": 0}, True, "dagaug score"),
        ({"kept": 0}, True, "dagaug score"),
    ],
)
def test_balanced_classes_are_scored_with_each_image_drawn_equally_often(
    changes: dict[str, int], balanced: bool, command: str
) -> None:
    assert score_command(replace(DONE, **changes), balanced=balanced) == command  # type: ignore[arg-type]


def test_frequent_and_rare_classes_are_a_second_table_and_a_line() -> None:
    arms = [
        {"arm": "real", "accuracy": about(0.5)},
        {"arm": "real+dagaug", "accuracy": about(0.6), "difference": about(0.1, 0.02), "p": 0.01},
        {"arm": "cutout", "accuracy": about(0.6), "difference": about(0.1, 0.02), "p": 0.01},
    ]
    groups = [
        {"name": "many", "classes": 2, "fewest": 20, "most": 30, "test": 10, "arms": arms},
        {"name": "few", "classes": 1, "fewest": 2, "most": 2, "test": 10, "arms": arms},
    ]
    options = {"fit": {"name": "plain"}}
    unequal = a_score(groups=groups, options=options)
    text = printed(score_tables(unequal))
    assert "Frequent and rare classes" in text
    for part in ("20 to 30 images", "2 images", "50.0 ± 10.0"):
        assert part in text
    gains = "Gain of real+dagaug over real by number of training images of a class, in points: "
    assert f"{gains}many +10.0 ± 2.0, few +10.0 ± 2.0" in score_lines(unequal)
    equal = a_score(options=options)
    assert "Frequent" not in printed(score_tables(equal))
    assert not any(line.startswith("Gain of") for line in score_lines(equal))
