"""Statistics against scipy, closed forms, enumeration and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from dagaug.score.statistics import (
    ConfidenceInterval,
    calibration_error,
    class_gains,
    confusion_changes,
    holm,
    mcnemar,
    mean_interval,
    paired_difference,
    verdict_of,
)

# Over seeds


def test_the_interval_is_scipys() -> None:
    values = [0.61, 0.64, 0.58, 0.66, 0.63]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    found = mean_interval(values)
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high), rel=1e-12)


def test_the_interval_of_three_values_matches_a_printed_t_table() -> None:
    found = mean_interval([-1.0, 0.0, 1.0])
    assert found.high == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)


def test_the_paired_test_is_scipys() -> None:
    arm, baseline = [0.61, 0.64, 0.58, 0.66], [0.60, 0.60, 0.59, 0.61]
    expected = stats.ttest_rel(arm, baseline)
    difference, p = paired_difference(arm, baseline)
    assert p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (difference.low, difference.high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-9)


def test_a_constant_shift_has_an_interval_of_zero_width() -> None:
    arm, baseline = [0.5, 0.6, 0.7], [0.25, 0.35, 0.45]
    certain, _ = paired_difference([0.5, 0.5], [0.25, 0.25])
    assert certain.low == certain.high == 0.25
    rounded, p = paired_difference(arm, baseline, resolution=0.01)
    assert rounded.high - rounded.low == pytest.approx(2 * 4.303 * 0.01 / math.sqrt(12) / math.sqrt(3), rel=1e-3)
    assert 0 < p < 0.001


def test_no_difference_at_all_has_p_one() -> None:
    assert paired_difference([0.5, 0.6], [0.5, 0.6])[1] == 1.0


def test_one_value_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        mean_interval([0.5])


# Over test images


def pair(gained: int, lost: int, same: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Right or not with one seed: ``gained`` images only by the arm, ``lost`` only by its baseline."""
    right = np.repeat([True, False, True], [gained, lost, same])[None]
    return right, np.repeat([False, True, True], [gained, lost, same])[None]


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (9, 2), (30, 41), (3, 3)])
def test_with_one_seed_it_is_mcnemars_exact_test(gained: int, lost: int) -> None:
    found = mcnemar(*pair(gained, lost))
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert (found.gained, found.lost) == (gained, lost)
    assert found.p == pytest.approx(expected, rel=1e-9)


def test_with_several_seeds_it_is_the_exact_test_of_all_signs() -> None:
    rng = np.random.default_rng(3)
    right, baseline = rng.random((3, 9)) < 0.7, rng.random((3, 9)) < 0.5
    net = right.sum(0) - baseline.sum(0)
    all_signs = np.array(list(itertools.product((-1, 1), repeat=len(net))))
    expected = (np.abs(all_signs @ np.abs(net)) >= abs(net.sum())).mean()
    assert mcnemar(right, baseline).p == pytest.approx(expected, rel=1e-12)


def test_seeds_with_equal_predictions_add_no_evidence() -> None:
    right, baseline = pair(9, 2)
    once, often = mcnemar(right, baseline), mcnemar(right.repeat(5, 0), baseline.repeat(5, 0))
    assert often.p == pytest.approx(once.p)
    assert (often.gained, often.lost) == (45, 10)


def test_a_verdict_needs_seeds_and_images() -> None:
    gain, loss, unsure = (
        ConfidenceInterval(0.1, 0.05, 0.15),
        ConfidenceInterval(-0.1, -0.15, -0.05),
        ConfidenceInterval(0.1, -0.01, 0.2),
    )
    assert verdict_of(gain, 0.01) == "helps"
    assert verdict_of(loss, 0.01) == "harms"
    assert verdict_of(gain, 0.2) == verdict_of(loss, 0.2) == verdict_of(unsure, 0.01) == "no measurable effect"


def test_where_nothing_differs_a_verdict_is_rare() -> None:
    """Images of differing difficulty, seeds of differing luck, but no difference: some 5% of verdicts are false."""
    rng = np.random.default_rng(0)
    false = 0
    for _ in range(300):
        difficulty = rng.normal(0.5, 1.0, 200)
        both = []
        for _ in range(2):
            luck = rng.normal(0, 0.2, (5, 1)) + rng.normal(0, 0.5, (5, 200))
            both.append(difficulty + luck + rng.logistic(0, 0.3, (5, 200)) > 0)
        difference, _ = paired_difference(*(arm.mean(1).tolist() for arm in both), resolution=1 / 200)
        false += verdict_of(difference, mcnemar(*both).p) != "no measurable effect"
    assert false <= stats.binom.ppf(0.999, 300, 0.05)


def test_holm_is_as_written_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


# What lies behind an accuracy


def test_calibration_error_is_the_mean_gap_in_the_bins() -> None:
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.3, 0.3], np.float32)
    right = np.array([True, True, True, False, False, True])
    assert calibration_error(confidence, right) == pytest.approx((4 * 0.15 + 2 * 0.2) / 6, abs=1e-6)
    assert calibration_error(np.ones(4, np.float32), np.ones(4, bool)) == 0.0


def test_a_significant_change_of_one_class_is_found_among_chance() -> None:
    labels = np.repeat([0, 1, 2], 40)
    rng = np.random.default_rng(1)
    baseline = rng.random((5, 120)) < 0.5
    right = baseline.copy()
    right[:, labels == 1] = rng.random((5, 40)) < 0.95
    right[:, labels == 2] = rng.random((5, 40)) < 0.5
    same, better, other = class_gains(("a", "b", "c", "absent"), labels, right, baseline)
    assert (same.name, better.name, other.name) == ("a", "b", "c")
    assert (same.difference.mean, same.sure) == (0.0, False)
    assert better.sure
    assert better.difference.mean == pytest.approx((right - 1.0 * baseline)[:, labels == 1].mean())
    assert better.accuracy == pytest.approx(right[:, labels == 1].mean())
    assert not other.sure
    assert better.test == 40


def test_confusions_that_changed_are_named_with_their_shares() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    baseline = np.array([[1, 1, 1, 0, 1, 1], [1, 0, 0, 0, 1, 1]])
    predicted = np.array([[0, 0, 0, 0, 0, 1], [0, 0, 0, 2, 1, 1]])
    better, worse = confusion_changes(("a", "b", "c"), labels, predicted, baseline)
    assert [(one.truth, one.taken_for, one.before, one.after) for one in better] == [("a", "b", 0.5, 0.0)]
    assert [(one.truth, one.taken_for) for one in worse] == [("b", "a"), ("a", "c")]
    assert worse[0].after == pytest.approx(1 / 4)
    assert worse[1].after == pytest.approx(1 / 8)
