"""Scores at several numbers of training images a class, on the page and as a figure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from making_reports import write_store
from making_scores import a_score
from reading_pages import Document

from dagaug.report.publication_figures import shots_figures
from dagaug.report.shots_view import shots_view
from dagaug.report.write import write_figures, write_report
from dagaug.score.shot_results import ShotsResult, point_of


def shots(*numbers: int) -> ShotsResult:
    points = tuple(
        point_of(a_score(), per_class=number, file=Path("m.h5"), written=Path("s.json")) for number in numbers
    )
    return ShotsResult(
        shots=points, classes=3, test=30, options={"store": "m.h5"}, notes=("<b>fewer</b>",), verdict="helps",
        sentences=tuple(point.sentence for point in points),
    )  # fmt: skip


def test_each_arm_is_a_row_and_a_line_with_its_interval_at_each_number() -> None:
    view = shots_view(shots(1, 10))
    assert view.columns == (("1 a class", "200 images"), ("10 a class", "200 images"))
    assert [row.arm for row in view.rows] == ["real", "real+dagaug", "cutout"]
    assert view.rows[0].accuracies == (("60.0%", "50.0 to 70.0"),) * 2
    assert view.plot is not None
    assert [line.name for line in view.plot.series] == ["real", "real+dagaug", "cutout"]
    assert [line.dashed for line in view.plot.series] == [True, False, False]
    first = [line.marks[0] for line in view.plot.series]
    assert first[0].high < first[0].y < first[0].low  # from the top
    assert len({mark.x for mark in first}) == 3  # beside each other, round the number itself
    assert view.plot.x_ticks[0].place == pytest.approx(first[1].x)


def test_an_arm_that_was_trained_at_some_numbers_only_has_gaps() -> None:
    both = shots(1, 10)
    fewer = replace(both.shots[0], arms=both.shots[0].arms[:2])
    view = shots_view(replace(both, shots=(fewer, both.shots[1])))
    assert view.rows[2].accuracies[0] == ("–", "")
    assert view.plot is not None
    assert len(view.plot.series[2].marks) == 1


def test_one_number_is_no_curve() -> None:
    assert shots_view(shots(5)).plot is None
    assert dict(shots_figures(shots(5), "png")) == {}


def test_the_page_shows_curve_table_and_sentences_also_without_a_score(tmp_path: Path) -> None:
    (tmp_path / "shots.json").write_text(shots(1, 10).to_json())
    store = write_store(tmp_path / "store.h5")
    write_report(store, tmp_path / "page.html", shots=tmp_path / "shots.json")
    page = Document(tmp_path / "page.html")
    assert page.source.index('id="h-shots"') < page.source.index('id="h-counts"')
    assert "Not measured yet" not in page.text
    assert "1 image a class: real+dagaug against real +20.0 points (+10.0 to +30.0), helps" in page.text
    assert "training images a class (log scale)" in page.text
    assert "<b>fewer</b>" in page.text
    files = write_figures(store, tmp_path / "figures", "pdf", shots=tmp_path / "shots.json")
    assert "shots.pdf" in {file.name for file in files}
