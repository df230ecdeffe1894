"""Sweeps: fewer real images, other synthetic shares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from making_score_data import OPTIONS

from dagaug.data.dataset_records import Dataset
from dagaug.runtime.errors import UsageError
from dagaug.score.experiment import score
from dagaug.score.results import ScoreResult


def test_fractions_use_only_morphs_of_their_own_real_images(
    data: Dataset, small: tuple[Path, Path, ScoreResult]
) -> None:
    result = score(data, small[0], replace(OPTIONS, fractions=(1.0, 0.75)), resume=small[1].with_name("f.jsonl"))
    part, whole = result.fractions
    assert (part.fraction, part.real, part.synthetic) == (0.75, 6, 2)  # not those in the poses of 3 and 7
    assert (whole.fraction, whole.real, whole.synthetic) == (1.0, 8, 4)
    assert whole.without == result.arms[0].accuracy
    assert whole.with_synthetic == result.arms[1].accuracy
    assert len(result.runs) == 2 * (2 + 2)
    assert any("had learned from all 8 real images" in note for note in result.notes)


def test_a_fraction_without_a_morph_is_refused(data: Dataset, small: tuple[Path, Path, ScoreResult]) -> None:
    with pytest.raises(UsageError, match=r"fractions=0\.25: no synthetic image"):
        score(data, small[0], replace(OPTIONS, fractions=(0.25,)))


def test_ratios_are_further_trainings_of_an_arm(data: Dataset, small: tuple[Path, Path, ScoreResult]) -> None:
    result = score(data, small[0], replace(OPTIONS, ratios=(0.5,)))
    assert [point.share for point in result.ratios] == [0.5]
    assert len(result.runs) == 2 * 3
    assert [arm.arm for arm in result.arms] == list(OPTIONS.arms)
