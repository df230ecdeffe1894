"""Groups of classes by their number of training images."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagaug.score.class_frequency import frequency_groups


def labels_of(counts: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


def groups_of(counts: list[int], tested: list[int] | None = None) -> dict[str, tuple[int, ...]]:
    test = np.arange(len(counts)) if tested is None else np.array(tested, np.int64)
    return {group.name: group.labels for group in frequency_groups(labels_of(counts), test, len(counts))}


def test_unequal_classes_are_split_into_thirds_with_their_numbers_of_images() -> None:
    counts = [3, 30, 12, 1, 20, 9]
    found = frequency_groups(labels_of(counts), np.arange(6), 6)
    assert [(group.name, group.labels, group.fewest, group.most) for group in found] == [
        ("many", (1, 4), 20, 30), ("medium", (2, 5), 9, 12), ("few", (0, 3), 1, 3)
    ]  # fmt: skip


@pytest.mark.parametrize("counts", [[10] * 9, [10, 11, 12, 13, 14, 15], [30] + [5] * 11, [1, 1, 1, 5]])
def test_classes_that_differ_little_or_in_one_class_only_are_not_split(counts: list[int]) -> None:
    assert groups_of(counts) == {}


def test_equal_numbers_stay_together_and_an_empty_third_is_left_out() -> None:
    assert groups_of([30] * 4 + [5] * 8) == {"many": (0, 1, 2, 3), "few": tuple(range(4, 12))}


def test_classes_without_test_images_are_in_no_group() -> None:
    assert groups_of([40, 20, 10, 5], tested=[1, 2, 2, 3]) == {"many": (1,), "medium": (2,), "few": (3,)}
    assert groups_of([40, 20], tested=[]) == {}


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_every_class_is_in_one_group_and_groups_do_not_overlap_in_numbers(counts: list[int]) -> None:
    found = frequency_groups(labels_of(counts), np.arange(len(counts)), len(counts))
    if found:
        assert sorted(label for group in found for label in group.labels) == list(range(len(counts)))
        for more, fewer in pairwise(found):
            assert more.fewest > fewer.most
