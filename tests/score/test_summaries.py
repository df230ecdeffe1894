"""Summaries of runs: verdicts, sweeps, equivalent number of real images."""

from __future__ import annotations

import numpy as np
import pytest

from dagaug.score.class_frequency import ClassGroup
from dagaug.score.run_log import ScoreRun, pack
from dagaug.score.summaries import RunTable

CLASSES = ("a", "b")
LABELS = np.arange(1000) % 2


def runs(arm: str, shares: list[float], seed: int = 0) -> list[ScoreRun]:
    """Networks that are right on about these shares of the test images."""
    rng = np.random.default_rng(seed)
    found = []
    for number, share in enumerate(shares):
        right = rng.permutation(1000) < round(1000 * share)
        predicted = np.where(right, LABELS, 1 - LABELS)
        found.append(ScoreRun(arm, number, float(right.mean()), 0.1, pack(predicted), 1.0))
    return found


@pytest.mark.parametrize(
    ("gain", "verdict", "words"),
    [
        (0.10, "helps", "arm helps against real: +10.0 points"),
        (0.0, "no measurable effect", "arm has no measurable effect against real: +0.0 points"),
        (-0.10, "harms", "arm harms against real: -10.0 points"),
    ],
)
def test_the_verdict_is_in_the_sentence_with_its_uncertainty(gain: float, verdict: str, words: str) -> None:
    base = [0.50, 0.51, 0.52, 0.53]
    wobble = [0.002, -0.002, 0.002, -0.002]
    arm = [share + gain + more for share, more in zip(base, wobble, strict=True)]
    table = RunTable([*runs("real", base), *runs("arm", arm, seed=1)], LABELS, CLASSES)
    found = table.compare("arm", "real")
    assert found.verdict == verdict
    assert found.sentence.startswith(words)
    assert "4 paired seeds" in found.sentence
    assert "1,000 test images" in found.sentence
    assert found.gained - found.lost == round(1000 * sum(found.differences))


def test_the_worth_of_the_augmentation_is_read_off_the_curve_without_it() -> None:
    everything = [
        *runs("r1", [0.50, 0.50]), *runs("r2", [0.60, 0.60]), *runs("r3", [0.80, 0.80]),
        *runs("d1", [0.55, 0.55]), *runs("d2", [0.70, 0.70]), *runs("d3", [0.90, 0.90]),
    ]  # fmt: skip
    table = RunTable(everything, LABELS, CLASSES)
    points = table.fractions(
        [(0.25, 100, 9), (0.5, 200, 50), (1.0, 400, 200)], {0.25: ("r1", "d1"), 0.5: ("r2", "d2"), 1.0: ("r3", "d3")}
    )
    assert [point.worth for point in points] == [pytest.approx(150), pytest.approx(300), None]
    assert points[1].difference.mean == pytest.approx(0.1)
    assert points[2].synthetic == 200


def test_ratios_are_differences_from_real() -> None:
    table = RunTable([*runs("real", [0.5, 0.6]), *runs("half", [0.6, 0.7])], LABELS, CLASSES)
    (point,) = table.ratios({0.5: "half"})
    assert (point.share, point.difference.mean) == (0.5, pytest.approx(0.1))


def test_a_group_is_the_mean_over_its_classes_paired_with_real() -> None:
    labels = np.array([0, 0, 0, 0, 1, 2, 2])

    def run(arm: str, seed: int, predicted: list[int]) -> ScoreRun:
        return ScoreRun(arm, seed, 0.5, 0.1, pack(predicted), 1.0)

    everything = [
        run("real", 0, [0, 0, 1, 1, 0, 2, 2]), run("real", 1, [0, 1, 1, 1, 0, 2, 2]),
        run("arm", 0, [0, 0, 1, 1, 1, 0, 0]), run("arm", 1, [0, 1, 1, 1, 1, 0, 0]),
    ]  # fmt: skip
    table = RunTable(everything, labels, ("a", "b", "c"))
    found = table.group(ClassGroup("few", (0, 1), 1, 3), ["real", "arm"])
    assert (found.name, found.classes, found.fewest, found.most, found.test) == ("few", 2, 1, 3, 5)
    real, arm = found.arms
    assert (real.difference, real.p) == (None, None)
    # class a: 2/4 and 1/4; class b: one image, wrong with real and right with the arm
    assert real.accuracy.mean == pytest.approx(((0.5 + 0) / 2 + (0.25 + 0) / 2) / 2)
    assert arm.difference is not None
    assert arm.difference.mean == pytest.approx(0.5)
