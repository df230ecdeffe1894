"""The score on the page: JSON of a score is read, and every mark has the position of its number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from making_reports import write_store
from making_scores import SCORE, a_score

from dagaug.report.accuracy_plots import ticks
from dagaug.report.palette import ARMS, PALETTE, arm_colours
from dagaug.report.score_view import ScoreView, score_view
from dagaug.report.write import write_report
from dagaug.score.results import read_score


@pytest.fixture
def table(tmp_path: Path) -> ScoreView:
    (tmp_path / "score.json").write_text(json.dumps(SCORE))
    return score_view(read_score(tmp_path / "score.json"))


def test_rows_are_against_real_and_all_else_stands_apart(table: ScoreView) -> None:
    assert [row.difference for row in table.rows] == ["", "+20.0", "+10.0"]
    assert [row.synthetic for row in table.rows] == ["", "1,234", "1,234"]
    assert [row.calibration for row in table.rows] == ["10.0", "", ""]
    (row,) = table.compared
    assert (row.arm, row.baseline, row.difference, row.p_images) == ("real+dagaug", "cutout", "−30.0", "0.002")
    assert [verdict for verdict, _ in table.sentences] == ["helps", "no measurable effect", "harms"]
    assert table.ratios == (("50%", "65.0%", "+5.0"),)


def test_classes_are_bars_from_the_middle_the_greatest_gain_first(table: ScoreView) -> None:
    assert table.question == "real+dagaug"
    # ±40 points, the farthest end of an interval
    assert [(tick.place, tick.text) for tick in table.class_ticks] == [
        (0, "−40"), (25, "−20"), (50, "0"), (75, "+20"), (100, "+40")
    ]  # fmt: skip
    assert table.sure == (1, 0)
    first, nothing, last = table.classes
    assert (first.name, first.difference, first.sure, first.sign) == ("b", "+30.0", True, "up")
    assert (first.left, first.width) == (50, pytest.approx(37.5))
    assert (first.low, first.reach) == (pytest.approx(75), pytest.approx(25))
    assert nothing.difference == "+0.0"
    assert (last.left, last.width, last.sign) == (pytest.approx(37.5), pytest.approx(12.5), "down")
    assert table.better == ("b taken for <i>a: 50% before, 25% now",)


def test_the_sentence_names_both_accuracies_and_the_control(table: ScoreView) -> None:
    assert (table.headline, table.verdict) == ("Yes, they improve accuracy.", "helps")
    asked, rival, control = table.answer
    assert rival.startswith("Strongest arm without a generator: cutout, 70.0%. Over it, real+dagaug gains")
    for text in ("on 30 test images: 70.0% with", "60.0% without", "+20.0 points (95% interval +10.0 to +30.0"):
        assert text in asked
    assert "is better (−30.0 points, −40.0 to −20.0)" in control


def test_leaks_are_reported(table: ScoreView) -> None:
    assert table.guards == ()
    alike = {"real": {"by_hash": 0, "by_features": 0}, "dagaug": {"by_hash": 1, "by_features": 3}}
    guards = {"alike": alike, "selector": {"learned": 200, "test": 30, "seen": 2}}
    (_, near), (_, selector) = found = score_view(a_score(guards=guards)).guards
    assert [well for well, _ in found] == [False, False]
    assert "by features): 3 of dagaug." in near
    assert "2 of the 30 test images were among them" in selector
    usual = {"images": 1000, "by_hash": 0, "by_features": 520, "usual": 0.55, "suspicious": False}
    guards = {"alike": {"dagaug": usual}, "selector": None}
    ((well, near),) = score_view(a_score(guards=guards)).guards
    assert well
    assert near.endswith("520 of 1,000 dagaug; of the test images, 55% look like another one.")
    alike = {"real": {"by_hash": 0, "by_features": None}, "dagaug": {"by_hash": 0, "by_features": None}}
    guards = {"alike": alike, "selector": {"learned": 200, "test": 30, "seen": 0}}
    assert [well for well, _ in score_view(a_score(guards=guards)).guards] == [True] * 2


def test_an_arm_keeps_its_colour_whoever_else_is_there(table: ScoreView) -> None:
    colours = {row.arm: row.colour for row in table.rows}
    assert len(set(colours.values())) == 3
    alone = arm_colours(["cutout"])
    assert alone["cutout"] == colours["cutout"]
    many = arm_colours([*ARMS, "mine"])
    assert len(set(many.values())) == len(many)
    assert set(arm_colours([f"arm {number}" for number in range(30)]).values()) == set(range(len(PALETTE)))


def test_marks_stand_on_the_axis_of_accuracies(table: ScoreView) -> None:
    # from 0.49 to 0.81: a per cent round all that is drawn
    first = table.rows[0]
    assert first.low == pytest.approx(100 * (0.50 - 0.49) / 0.32, abs=0.01)
    assert first.mean == table.zero == pytest.approx(100 * (0.60 - 0.49) / 0.32, abs=0.01)
    assert [tick.text for tick in table.ticks] == ["50%", "60%", "70%", "80%"]


def test_the_plot_against_real_images_has_marks_where_the_numbers_say(table: ScoreView) -> None:
    plot = table.fraction_plot
    assert plot is not None
    assert [tick.text for tick in plot.x_ticks] == ["100", "200"]
    without, with_synthetic = plot.series
    assert (without.dashed, with_synthetic.dashed) == (True, False)
    assert [mark.x for mark in without.marks] == [5, 95]
    low, high = 0.3 - 0.06 * 0.6, 0.9 + 0.06 * 0.6  # the ends of the intervals and a margin
    for series, means in ((without, (0.4, 0.6)), (with_synthetic, (0.5, 0.8))):
        for mark, mean in zip(series.marks, means, strict=True):
            assert mark.y == pytest.approx(100 * (high - mean) / (high - low), abs=0.01)
            assert mark.high == pytest.approx(100 * (high - mean - 0.1) / (high - low), abs=0.01)
            assert mark.low == pytest.approx(100 * (high - mean + 0.1) / (high - low), abs=0.01)
    assert [row.worth for row in table.fractions] == ["150", ""]
    assert table.ratio_plot is None  # one point is no line


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.5, 1]), (0.42, 0.61, [0.45, 0.5, 0.55, 0.6]), (-0.84, 0.84, [-0.5, 0, 0.5]), (3, 3, [3])],
)
def test_ticks_are_round_numbers_within_the_axis(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_everything_is_on_the_page_and_nothing_escapes(tmp_path: Path) -> None:
    (tmp_path / "score.json").write_text(json.dumps(SCORE))
    write_report(write_store(tmp_path / "s.h5"), tmp_path / "page.html", score=tmp_path / "score.json")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for text in ("one", "+30.0", "taken for", "beware", "real training images (log scale)", "50% of each batch: 65.0%"):
        assert text in page
    assert "<i>a" not in page
    assert page.index("Gain of each class") < page.index('id="h-counts"')


def test_chosen_steps_and_shares_stand_in_the_table_and_all_that_were_tried_below(tmp_path: Path) -> None:
    from making_reports import write_store

    arms = json.loads(json.dumps(SCORE["arms"]))[:2]
    arms[0] |= {"steps": 200}
    arms[1] |= {"steps": 400, "synthetic_share": 0.3}
    tried = [
        {"arm": arm, "steps": steps, "synthetic_share": share, "trainings": 4, "accuracy": accuracy, "chosen": chosen}
        for arm, steps, share, accuracy, chosen in (
            ("real", 200, None, 0.5, True), ("real+dagaug", 400, 0.3, 0.625, True),
            ("real+dagaug", 400, 0.5, 0.5, False),
        )
    ]  # fmt: skip
    options = {"fit": {"name": "lite0", "mode": "finetune", "layer_decay": 0.75}, "versions": {}}
    changes = {"arms": arms, "validated": tried, "options": options}
    view = score_view(a_score(**changes))
    assert [row.words.rpartition("; ")[2] for row in view.rows] == ["200 steps", "400 steps, 30% of a batch synthetic"]
    assert [(row.arm, row.share, row.trainings, row.accuracy, row.chosen) for row in view.tried] == [
        ("real", "", "4", "50.0%", True), ("real+dagaug", "30%", "4", "62.5%", True),
        ("real+dagaug", "50%", "4", "50.0%", False),
    ]  # fmt: skip
    assert "(real 200 steps; real+dagaug 400 steps, 30% of a batch synthetic)" in view.citation
    assert "times 0.75 from each layer to the one before it" in view.citation
    for text in (view.setting, view.citation):
        assert "9 steps" not in text
        assert "25%" not in text
    (tmp_path / "score.json").write_text(json.dumps(SCORE | changes))
    write_report(write_store(tmp_path / "s.h5"), tmp_path / "page.html", score=tmp_path / "score.json")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "tried by cross-validation" in page
    assert "400 steps, 30% of a batch synthetic" in page


def test_the_text_to_cite_has_setting_result_strongest_rival_and_versions() -> None:
    fit = {
        "name": "lite0",
        "mode": "finetune",
        "size": 160,
        "batch_size": 32,
        "learning_rate": 0.002,
        "frozen_stages": 6,
    }
    versions = {"dagaug": "1.2", "torch": "2.9", "timm": "1.0"}
    view = score_view(a_score(options={"fit": fit, "versions": versions}))
    for text in (
        "lite0 (fine-tuned from pretrained weights, the first 6 stages frozen; images of 160 px",
        "real+dagaug over real: +20.0 points (+10.0 to +30.0); real+dagaug over cutout: −30.0 points",
        "dagaug 1.2, torch 2.9, timm 1.0.",
    ):
        assert text in view.citation
    assert score_view(a_score(options={})).citation == ""


GROUPS = [
    {
        "name": name, "classes": 1, "fewest": low, "most": high, "test": 10,
        "arms": [
            {"arm": "real", "accuracy": {"mean": 0.5, "low": 0.4, "high": 0.6}},
            {"arm": "cutout", "accuracy": {"mean": 0.6, "low": 0.5, "high": 0.7},
             "difference": {"mean": 0.1, "low": 0.05, "high": 0.15}, "p": 0.01},
        ],
    }
    for name, low, high in (("many", 20, 30), ("few", 2, 2))
]  # fmt: skip


def test_frequent_and_rare_classes_have_a_table_of_their_own(tmp_path: Path) -> None:
    view = score_view(a_score(groups=GROUPS))
    assert [(group.name, group.images) for group in view.groups] == [
        ("many", "20 to 30 images each"), ("few", "2 images each")
    ]  # fmt: skip
    real, cutout = view.group_rows
    assert real.differences == (("", ""),) * 2
    assert (cutout.arm, cutout.accuracies[1], cutout.differences[1]) == (
        "cutout", ("60.0%", "50.0 to 70.0"), ("+10.0", "+5.0 to +15.0")
    )  # fmt: skip
    (tmp_path / "score.json").write_text(json.dumps(SCORE | {"groups": GROUPS}))
    store = write_store(tmp_path / "s.h5")
    for score, there in ((tmp_path / "score.json", True), (None, False)):
        write_report(store, tmp_path / "page.html", score=score)
        assert ("Frequent and rare classes" in (tmp_path / "page.html").read_text()) is there
