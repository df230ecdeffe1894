"""Verdicts on hand-made tables of candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagaug.augment.selection import KEPT, VERDICTS, select, verdict_counts
from dagaug.runtime.errors import UsageError


def table(*rows: tuple[int, int, int, int, float], **options: Any) -> list[str]:
    """Verdicts in words for rows of (source, reference, label, predicted, confidence)."""
    source, reference, label, predicted, confidence = zip(*rows, strict=True)
    verdicts = select(
        source=np.array(source),
        reference=np.array(reference),
        label=np.array(label),
        predicted=np.array(predicted),
        confidence=np.array(confidence, dtype=np.float32),
        **options,
    )
    return [VERDICTS[verdict] for verdict in verdicts]


TWO_VARIANTS_OF_TWO_REFERENCES = ((0, 7, 3, 3, 0.6), (0, 7, 3, 3, 0.8), (0, 9, 3, 3, 0.5), (0, 9, 3, 3, 0.4))


def test_per_reference_keeps_the_most_confident_variant_of_each_reference() -> None:
    loser = "not the best of its reference"
    assert table(*TWO_VARIANTS_OF_TWO_REFERENCES) == [loser, "kept", "kept", loser]


def test_per_image_keeps_one_candidate_of_a_source() -> None:
    loser = "not the best of its source"
    assert table(*TWO_VARIANTS_OF_TWO_REFERENCES, keep="per-image") == [loser, "kept", loser, loser]


def test_all_keeps_every_accepted_candidate() -> None:
    assert table(*TWO_VARIANTS_OF_TWO_REFERENCES, keep="all") == ["kept"] * 4


def test_groups_do_not_compete_with_each_other() -> None:
    group = np.array([0, 0, 1, 1])
    rows = ((0, 7, 3, 3, 0.6), (0, 7, 3, 3, 0.5), (0, 7, 3, 3, 0.9), (0, 9, 3, 3, 0.8))
    loser = "not the best of its reference"
    assert table(*rows, group=group) == ["kept", loser, "kept", "kept"]
    loser = "not the best of its source"
    assert table(*rows, group=group, keep="per-image") == ["kept", loser, "kept", loser]


def test_sources_do_not_compete_with_each_other() -> None:
    rows = ((0, 7, 3, 3, 0.6), (1, 7, 4, 4, 0.9))
    assert table(*rows) == table(*rows, keep="per-image") == ["kept", "kept"]


def test_mislabelled_is_rejected_even_when_confident_if_asked() -> None:
    rows = ((0, 7, 3, 2, 0.45), (0, 7, 3, 3, 0.4))
    assert table(*rows) == ["kept", "not the best of its reference"]
    assert table(*rows, allow_mislabelled=False) == ["mislabelled", "kept"]


def test_mislabelled_comes_before_the_bounds_as_reason() -> None:
    assert table((0, 7, 3, 2, 0.1), min_confidence=0.5, allow_mislabelled=False) == ["mislabelled"]


def test_bounds_are_inclusive_and_have_their_own_verdicts() -> None:
    rows = ((0, 1, 3, 3, 0.25), (0, 2, 3, 3, 0.5), (0, 3, 3, 3, 0.75), (0, 4, 3, 3, 0.875))
    assert table(*rows, min_confidence=0.5, max_confidence=0.75) == [
        "below --min-confidence",
        "kept",
        "kept",
        "above --max-confidence",
    ]


def test_a_candidate_above_the_upper_bound_does_not_win() -> None:
    assert table((0, 7, 3, 3, 0.99), (0, 7, 3, 3, 0.6), max_confidence=0.9) == [
        "above --max-confidence",
        "kept",
    ]


def test_nan_confidence_is_never_kept() -> None:
    assert table((0, 7, 3, 3, float("nan"))) == ["below --min-confidence"]


def test_equal_confidence_is_decided_for_the_first() -> None:
    assert table((0, 7, 3, 3, 0.5), (0, 7, 3, 3, 0.5)) == ["kept", "not the best of its reference"]


def test_a_reference_may_end_without_a_winner() -> None:
    rejected = table((0, 7, 3, 1, 0.1), (0, 7, 3, 2, 0.2), allow_mislabelled=False)
    assert rejected == ["mislabelled", "mislabelled"]


def test_no_candidates_give_no_verdicts() -> None:
    none = np.zeros(0, dtype=np.int64)
    verdicts = select(source=none, reference=none, label=none, predicted=none, confidence=np.zeros(0, np.float32))
    assert verdicts.shape == (0,)
    assert verdict_counts(verdicts) == {}


def test_counts_name_the_verdicts_that_occur() -> None:
    assert verdict_counts(np.array([0, 3, 0, 1], dtype=np.uint8)) == {
        "kept": 2,
        "not the best of its reference": 1,
        "mislabelled": 1,
    }


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"keep": "best"}, "keep=best: unknown rule"),
        ({"min_confidence": 0.9, "max_confidence": 0.1}, "min_confidence=0.9"),
        ({"max_confidence": 1.5}, "max_confidence=1.5"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        table((0, 7, 3, 3, 0.5), **options)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 1), st.integers(0, 1), st.floats(0, 1))))
def test_each_group_keeps_its_most_confident_accepted_candidate(
    rows: list[tuple[int, int, int, int, float]],
) -> None:
    columns = np.array(rows, dtype=np.float64).reshape(-1, 5)
    source, reference, label, predicted = columns[:, :4].astype(np.int64).T
    confidence = columns[:, 4]
    for keep, group in (("per-reference", source * 4 + reference), ("per-image", source)):
        verdicts = select(
            source=source,
            reference=reference,
            label=label,
            predicted=predicted,
            confidence=confidence,
            keep=keep,
            allow_mislabelled=False,
        )
        for member in np.unique(group):
            right = (group == member) & (predicted == label)
            kept = (group == member) & (verdicts == KEPT)
            assert kept.sum() == min(1, right.sum())
            if right.any():
                assert confidence[kept][0] == confidence[right].max()


def test_poor_correspondence_is_told_apart_from_low_confidence() -> None:
    one = np.zeros(3, np.int64)
    verdicts = select(
        source=one, reference=np.arange(3), label=one, predicted=one, confidence=np.array([0.9, 0.1, 0.1], np.float32),
        min_confidence=0.5, correspondence=np.array([0.2, 0.2, 0.6], np.float32), min_correspondence=0.5,
    )  # fmt: skip
    assert [VERDICTS[verdict] for verdict in verdicts] == ["poor correspondence"] * 2 + ["below --min-confidence"]


def test_the_first_winners_of_each_source_are_kept_up_to_its_quota() -> None:
    verdicts = select(
        source=np.array([0, 0, 1, 0, 1, 0]),
        reference=np.array([1, 2, 2, 3, 3, 1]),
        label=np.zeros(6, np.int64),
        predicted=np.zeros(6, np.int64),
        confidence=np.array([0.9, 0.1, 0.5, 0.8, 0.9, 0.95]),
        min_confidence=0.2,
        quota=np.array([1, 1, 2, 1, 2, 1]),
    )
    assert [VERDICTS[verdict] for verdict in verdicts] == [
        "not the best of its reference", "below --min-confidence", "kept", "kept", "kept", "surplus for --balance"
    ]  # fmt: skip
