"""Class balance: quotas of sources, plans with a reserve, whole augmentations that fill every class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making_augmentations import kill_at_shard, run
from making_runs import PER_CLASS, Killed

from dagaug.augment.class_balance import (
    balanced_plan,
    below_balance,
    class_counts,
    images_per_reference,
    source_quotas,
)
from dagaug.augment.cost_estimate import estimate
from dagaug.augment.morph_plan import DEFAULT_VARIANTS, VARIANTS
from dagaug.augment.options import AugmentOptions
from dagaug.augment.prepared_augmentation import ShardSizes
from dagaug.data.dataset_records import Dataset
from dagaug.hdf5.reader import Store
from dagaug.hdf5.verify import verify
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import UsageError
from dagaug.runtime.execution_settings import Execution

COUNTS = (1, 2, 4, 4)
"""Training images of the four classes of the small birds in :func:`unequal`."""
BALANCE = 4


@pytest.fixture(scope="session")
def unequal(birds: Dataset) -> Dataset:
    """The small birds with fewer training images of the first two classes."""
    seen = [0] * len(COUNTS)
    kept = []
    for sample in birds.samples:
        seen[sample.label] += sample.split == "train"
        if sample.split == "test" or seen[sample.label] <= COUNTS[sample.label]:
            kept.append(sample)
    assert max(COUNTS) == PER_CLASS
    return replace(birds, samples=tuple(kept))


@pytest.fixture(scope="session")
def balanced(judged: AugmentOptions) -> AugmentOptions:
    """Fill up to four images; nothing is rejected, so that numbers follow from the plan."""
    return judged.model_copy(update={"balance": BALANCE, "refs": None, "min_confidence": 0.0, "encoding": "png"})


def training_images(path: Path) -> list[int]:
    with Store(path) as store:
        return class_counts(store).tolist()


# ---- quotas


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 30), st.data())
def test_quotas_fill_each_class_with_sources_exactly_and_in_equal_parts(
    labels: list[int], balance: int, data: st.DataObject
) -> None:
    array = np.array(labels, np.int64)
    sources = sorted(data.draw(st.sets(st.integers(0, len(labels) - 1), min_size=1)))
    quotas = source_quotas(array, sources, balance)
    assert set(quotas) <= set(sources)
    for label in set(labels):
        own = [quotas.get(row, 0) for row in sources if labels[row] == label]
        if own:
            assert sum(own) == max(0, balance - labels.count(label))
            assert max(own) - min(own) <= 1


def test_fewer_images_than_sources_are_spread_over_the_class() -> None:
    assert list(source_quotas(np.zeros(9, np.int64), range(9), 12)) == [0, 4, 8]


@pytest.mark.parametrize(
    ("variants", "keep", "count"),
    [
        (DEFAULT_VARIANTS, "per-reference", 1), (VARIANTS, "per-reference", 2), (VARIANTS, "per-image", 2),
        (("cutout",), "per-reference", 1), (VARIANTS, "all", 3),
    ],
)  # fmt: skip
def test_a_reference_yields_what_the_selection_can_keep(variants, keep, count) -> None:  # type: ignore[no-untyped-def]
    assert images_per_reference(variants, keep) == count


# ---- plans


def plan_of(labels: list[int], **changes: object):  # type: ignore[no-untyped-def]
    given = {"balance": 6, "refs": None, "variants": DEFAULT_VARIANTS, "keep": "per-reference", "seed": 0}
    return balanced_plan(np.array(labels), **(given | changes))


def test_full_classes_are_no_sources_and_the_others_have_a_reserve() -> None:
    plan = plan_of([0] * 6 + [1] * 2 + [2])
    assert set(plan.source.tolist()) == {6, 7, 8}
    quota = dict(zip(plan.source.tolist(), plan.quota.tolist(), strict=True))
    assert quota == {6: 2, 7: 2, 8: 5}
    references = {row: len(set(plan.reference[plan.source == row].tolist())) for row in quota}
    assert references == {6: 4, 7: 4, 8: 8}  # twice as many, but there are only eight other images


def test_given_references_are_taken_and_bound_what_a_class_can_get() -> None:
    plan = plan_of([0] * 6 + [1], refs=2)
    assert len(plan) == 2 * len(DEFAULT_VARIANTS)
    assert plan.quota.tolist() == [5] * len(plan)


def test_references_do_not_exceed_the_other_images() -> None:
    plan = plan_of([0, 0, 1], balance=50)
    assert {len(set(plan.reference[plan.source == row].tolist())) for row in (0, 1, 2)} == {2}


def test_an_unreadable_source_leaves_the_other_sources_as_they_are() -> None:
    labels, usable = [0] * 6 + [1] * 2 + [2], np.ones(9, bool)
    whole = plan_of(labels)
    usable[7] = False
    part = plan_of(labels, usable=usable)
    assert 7 not in part.source
    first = whole.source == 6
    np.testing.assert_array_equal(part.quota[part.source == 6], whole.quota[first])
    kept = whole.reference[first] != 7
    np.testing.assert_array_equal(part.reference[part.source == 6][kept], whole.reference[first][kept])


def test_a_number_that_all_classes_reach_is_refused() -> None:
    with pytest.raises(UsageError, match="balance=2: no class with sources has fewer"):
        plan_of([0, 0, 1, 1, 1], balance=2)


def test_files_of_pairs_cannot_be_balanced(model: TrainedModel, unequal: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="balance=4: cannot be combined with a file of pairs"):
        run(model, unequal, AugmentOptions(balance=4, pairs=tmp_path / "pairs.csv"), tmp_path / "a.h5")


def test_without_balance_ten_references_are_the_default() -> None:
    assert (AugmentOptions().refs, AugmentOptions(balance=9).refs, AugmentOptions(balance=9, refs=3).refs) == (
        10, None, 3
    )  # fmt: skip


# ---- whole augmentations


def test_every_class_ends_with_as_many_images_whatever_the_shards_and_stops(
    model: TrainedModel,
    unequal: Dataset,
    balanced: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "a.h5"
    done = run(model, unequal, balanced, out)
    verify(out)
    assert training_images(out) == [BALANCE] * 4
    assert (done.kept, done.below_balance) == (3 + 2, {})
    assert done.verdicts["surplus for --balance"] > 0
    with Store(out) as store:
        assert set(store.images.label[store.images.synthetic].tolist()) == {0, 1}
        assert store.header.options["balance"] == BALANCE
    small = ShardSizes(sources=1, real=9)
    with monkeypatch.context() as patch:
        kill_at_shard(patch, 3)
        with pytest.raises(Killed):
            run(model, unequal, balanced, tmp_path / "b.h5", shard_sizes=small)
    run(model, unequal, balanced, tmp_path / "b.h5", shard_sizes=small)
    assert (tmp_path / "b.h5").read_bytes() == out.read_bytes()


def test_what_the_candidates_do_not_allow_is_told_beforehand_and_afterwards(
    model: TrainedModel, unequal: Dataset, balanced: AugmentOptions, tmp_path: Path
) -> None:
    few = balanced.model_copy(update={"refs": 1, "real": False})
    guess = estimate(model, unequal, few, tmp_path / "a.h5", execution=Execution("cpu"))
    assert (guess.kept, guess.below_balance) == (1 + 2, {unequal.classes[0]: 2})
    done = run(model, unequal, few, tmp_path / "a.h5")
    assert (done.kept, done.below_balance) == (3, guess.below_balance)
    assert training_images(tmp_path / "a.h5") == [2, 4, 4, 4]


def test_images_are_counted_after_the_limits_of_the_data(
    model: TrainedModel, unequal: Dataset, balanced: AugmentOptions, tmp_path: Path
) -> None:
    options = balanced.model_copy(update={"per_class": 2, "balance": 3})
    run(model, unequal, options, tmp_path / "a.h5")
    assert training_images(tmp_path / "a.h5") == [3] * 4
    limited = run(model, unequal, balanced.model_copy(update={"limit": 1}), tmp_path / "b.h5")
    assert set(limited.below_balance) == {unequal.classes[1]}  # its images are no sources


def test_classes_below_the_number_are_named_with_what_they_have() -> None:
    assert below_balance(("a", "b"), np.array([3, 5]), 5) == {"a": 3}
