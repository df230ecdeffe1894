"""The score's JSON as a page shows it: what a score writes is read, and every mark stands where its number says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dagaug.report import write_report
from dagaug.scoretable import HEIGHT, WIDTH, ScoreTable, read_score


def about(mean: float, reach: float = 0.1) -> dict[str, float]:
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def compared(arm: str, baseline: str, gain: float, verdict: str) -> dict[str, object]:
    return {
        "arm": arm, "baseline": baseline, "difference": about(gain), "p": 0.01, "p_images": 0.002, "verdict": verdict,
        "classes": [
            {"name": "<i>a", "difference": about(-0.1, 0.05), "sure": False},
            {"name": "b", "difference": about(0.3, 0.1), "sure": True},
            {"name": "c", "difference": about(-1e-9, 0.0), "sure": False},
        ],
        "better": [{"truth": "b", "taken_for": "<i>a", "before": 0.5, "after": 0.25}],
        "worse": [],
    }  # fmt: skip


SCORE = {
    "arms": [
        {"arm": "real", "images": 0, "accuracies": [0.6], "accuracy": about(0.6), "calibration_error": about(0.1)},
        {"arm": "real+dagaug", "images": 1234, "accuracies": [0.7], "accuracy": about(0.7)},
        {"arm": "cutout", "images": 1234, "accuracies": [0.7], "accuracy": about(0.7)},
    ],
    "comparisons": [
        compared("real+dagaug", "real", 0.2, "helps"),
        compared("cutout", "real", 0.1, "no measurable effect"),
        compared("real+dagaug", "cutout", -0.3, "harms"),
    ],
    "sentences": ["one", "two", "three"],
    "classes": 3, "real": 200, "synthetic": 1234, "test": 30, "steps": 9, "synthetic_share": 0.25, "options": {},
    "fractions": [
        {
            "fraction": 0.5, "real": 100, "synthetic": 300, "without": about(0.4), "with_synthetic": about(0.5),
            "worth": 150.0,
        },
        {
            "fraction": 1.0, "real": 200, "synthetic": 1234, "without": about(0.6), "with_synthetic": about(0.8),
            "worth": None,
        },
    ],
    "ratios": [{"share": 0.5, "accuracy": about(0.65), "difference": about(0.05)}],
    "notes": ["beware"],
}  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> ScoreTable:
    (tmp_path / "score.json").write_text(json.dumps(SCORE))
    return read_score(tmp_path / "score.json")


def test_rows_are_against_real_and_all_else_stands_apart(table: ScoreTable) -> None:
    assert [row.difference for row in table.rows] == ["", "+20.0", "+10.0"]
    assert [row.synthetic for row in table.rows] == ["", "1,234", "1,234"]
    assert [row.calibration for row in table.rows] == ["10.0", "", ""]
    (row,) = table.compared
    assert (row.arm, row.baseline, row.difference, row.p_images) == ("real+dagaug", "cutout", "-30.0", "0.002")
    assert [verdict for verdict, _ in table.sentences] == ["helps", "no measurable effect", "harms"]
    assert table.ratios == (("50%", "65.0%", "+5.0"),)


def test_classes_are_bars_from_the_middle_the_greatest_gain_first(table: ScoreTable) -> None:
    assert table.question == "real+dagaug"
    assert table.class_axis == "40"  # the farthest end of an interval
    first, nothing, last = table.classes
    assert (first.name, first.difference, first.sure, first.sign) == ("b", "+30.0", True, "up")
    assert (first.left, first.width) == (50, pytest.approx(37.5))
    assert (first.low, first.reach) == (pytest.approx(75), pytest.approx(25))
    assert nothing.difference == "+0.0"
    assert (last.left, last.width, last.sign) == (pytest.approx(37.5), pytest.approx(12.5), "down")
    assert table.better == ("b taken for <i>a: 50% before, 25% now",)


def test_the_curve_spans_its_box(table: ScoreTable) -> None:
    assert table.curve is not None
    assert table.curve.without == f"0.0,{HEIGHT:.1f} {WIDTH:.1f},{HEIGHT / 2:.1f}"
    assert table.curve.with_synthetic == f"0.0,{HEIGHT * 3 / 4:.1f} {WIDTH:.1f},0.0"
    assert [row.worth for row in table.fractions] == ["150", ""]


def test_everything_is_on_the_page_and_nothing_escapes(tmp_path: Path) -> None:
    from test_report import write_store

    (tmp_path / "score.json").write_text(json.dumps(SCORE))
    write_report(write_store(tmp_path / "s.h5"), tmp_path / "page.html", score=tmp_path / "score.json")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for text in ("one", "+30.0", "taken for", "beware", "real images, 40.0% to 80.0%", "50% of a batch: 65.0%"):
        assert text in page
    assert "<i>a" not in page
    assert page.index("Gain of each class") < page.index('id="h-counts"')
