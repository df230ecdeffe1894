"""The plan: the requested candidates only, and independence of other candidates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagaug.augment.morph_plan import (
    DEFAULT_VARIANTS,
    VARIANTS,
    MorphPlan,
    background_rows,
    pairs_from_csv,
    random_plan,
)
from dagaug.data.dataset_records import Sample
from dagaug.runtime.errors import DataError, UsageError


def rows(plan: MorphPlan) -> list[tuple[int, int, int]]:
    return list(zip(plan.source.tolist(), plan.reference.tolist(), plan.variant.tolist(), strict=True))


SAMPLES = tuple(
    Sample(Path(path), 0, "train", None, (), ())
    for path in ("images/wren/1.jpg", "images/wren/2.jpg", "images/finch/1.jpg")
)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# ---- random references


@given(st.integers(2, 30), st.data(), st.integers(0, 5))
def test_every_source_gets_so_many_different_references_and_never_itself(count: int, data: st.DataObject, seed: int):  # type: ignore[no-untyped-def]
    refs = data.draw(st.integers(1, count - 1))
    plan = random_plan(count, refs=refs, variants=VARIANTS, seed=seed)
    assert len(plan) == count * refs * len(VARIANTS)
    for source in range(count):
        own = [(reference, variant) for row, reference, variant in rows(plan) if row == source]
        references = {reference for reference, _ in own}
        assert len(references) == refs
        assert references <= set(range(count)) - {source}
        assert sorted(own) == sorted((r, v) for r in references for v in range(len(VARIANTS)))


@given(st.integers(3, 30), st.integers(1, 40), st.integers(0, 3))
def test_a_limit_takes_sources_spread_over_all_and_leaves_their_references_as_they_are(
    count: int, limit: int, seed: int
) -> None:
    whole = rows(random_plan(count, refs=2, variants=("morph",), seed=seed))
    some = rows(random_plan(count, refs=2, variants=("morph",), seed=seed, limit=limit))
    sources = {source for source, _, _ in some}
    assert len(sources) == min(limit, count)
    assert some == [row for row in whole if row[0] in sources]
    if limit > 1:
        assert {0, count - 1} <= sources


def test_the_seed_decides_the_references() -> None:
    first, again, other = (random_plan(20, refs=3, variants=VARIANTS, seed=seed) for seed in (0, 0, 1))
    assert rows(first) == rows(again) != rows(other)


def test_all_references_are_about_equally_likely() -> None:
    drawn = np.concatenate([random_plan(10, refs=3, variants=("morph",), seed=seed).reference for seed in range(200)])
    share = np.bincount(drawn, minlength=10) / len(drawn)
    # 6,000 draws: a share of 1/10 has a standard deviation of 0.004
    np.testing.assert_allclose(share, 0.1, atol=0.016)


def test_variants_are_those_of_the_options() -> None:
    plan = random_plan(4, refs=1, variants=("mirror",), seed=0)
    assert [VARIANTS[code] for code in plan.variant] == ["mirror"] * 4


@pytest.mark.parametrize(("refs", "message"), [(0, "at least 1"), (4, "only 3 other training images"), (99, "only 3")])
def test_more_references_than_other_images_are_refused_with_their_number(refs: int, message: str) -> None:
    with pytest.raises(UsageError, match=rf"refs={refs}: .*{message}"):
        random_plan(4, refs=refs, variants=VARIANTS, seed=0)


@given(st.integers(2, 20), st.integers(1, 25))
def test_shards_are_whole_sources_and_together_the_plan(count: int, sources: int) -> None:
    plan = random_plan(count, refs=1, variants=VARIANTS, seed=0)
    shards = plan.shards(sources)
    assert [row for part in shards for row in range(part.start, part.stop)] == list(range(len(plan)))
    kinds = [set(plan.source[part].tolist()) for part in shards]
    assert all(len(kind) <= sources for kind in kinds)
    assert sum(len(kind) for kind in kinds) == count


# ---- backgrounds


@given(st.integers(3, 20), st.data(), st.integers(0, 5))
def test_background_other_uses_a_third_image_and_each_reference_once(
    count: int, data: st.DataObject, seed: int
) -> None:
    refs = data.draw(st.integers(2, count - 1))
    plan = random_plan(count, refs=refs, variants=("morph", "cutout"), seed=seed).with_background("other")
    behind = plan.background_rows
    assert (behind != plan.source).all()
    assert (behind != plan.reference).all()
    for source in range(count):
        own = np.flatnonzero(plan.source == source)
        assert sorted(behind[own]) == sorted(plan.reference[own])
        np.testing.assert_array_equal(behind[own][::2], behind[own][1::2])  # the same for both variants
        # what a source's candidates stand on follows from them alone
        np.testing.assert_array_equal(background_rows("other", plan.source[own], plan.reference[own]), behind[own])


def test_backgrounds_come_from_the_reference_or_the_source() -> None:
    plan = random_plan(5, refs=2, variants=DEFAULT_VARIANTS, seed=0)
    np.testing.assert_array_equal(plan.with_background("reference").background_rows, plan.reference)
    np.testing.assert_array_equal(plan.with_background("source").background_rows, plan.source)


def test_background_other_needs_two_references() -> None:
    with pytest.raises(UsageError, match=r"background=other.*2 references or more; try refs=2"):
        random_plan(5, refs=1, variants=DEFAULT_VARIANTS, seed=0).with_background("other")


# ---- exactly these pairs


def test_a_file_of_pairs_gives_exactly_its_pairs_with_their_sources_together(tmp_path: Path) -> None:
    table = written(
        tmp_path / "pairs.csv",
        "source,reference\nimages/wren/1.jpg,images/finch/1.jpg\nimages/finch/1.jpg,images/wren/2.jpg\n"
        "images/wren/1.jpg,images/wren/2.jpg\n",
    )
    plan = pairs_from_csv(table, SAMPLES)
    assert rows(plan) == [(0, 2, 0), (0, 1, 0), (2, 1, 0)]
    assert plan.starts.tolist() == [0, 2, 3]
    assert [VARIANTS[code] for code in plan.variant] == ["morph"] * 3


def test_columns_may_stand_in_any_order_beside_others_and_paths_may_be_shortened(tmp_path: Path) -> None:
    table = written(tmp_path / "p.csv", "note,reference,source\nx,finch/1.jpg,2.jpg\n")
    assert rows(pairs_from_csv(table, SAMPLES)) == [(1, 2, 0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source,reference\n2.jpg,9.jpg\n", "line 2: 9.jpg is no usable image of the data set"),
        ("source,reference\n2.jpg,finch/1.jpg\n1.jpg,2.jpg\n", "line 3: 1.jpg is ambiguous"),
        ("source,reference\n2.jpg\n", "line 2:  is no usable image"),
        ("a,b\n2.jpg,1.jpg\n", "the header must contain the columns source and reference"),
        ("", "the header must contain the columns source and reference"),
        ("source,reference\n", "contains no pairs"),
    ],
)
def test_an_unusable_table_is_refused_naming_the_line(tmp_path: Path, text: str, message: str) -> None:
    table = written(tmp_path / "pairs.csv", text)
    with pytest.raises(DataError, match=f"pairs.csv.*{message}"):
        pairs_from_csv(table, SAMPLES)


def test_a_table_that_is_missing_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.csv: not a readable table"):
        pairs_from_csv(tmp_path / "no.csv", SAMPLES)
    (tmp_path / "bytes.csv").write_bytes(b"source,reference\n\xff\xfe,2.jpg\n")
    with pytest.raises(DataError, match=r"bytes\.csv: not a readable table"):
        pairs_from_csv(tmp_path / "bytes.csv", SAMPLES)
