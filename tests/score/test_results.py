"""JSON of a score: what is written is read again, also from older and later versions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from making_scores import SCORE

from dagaug.runtime.errors import DataError
from dagaug.score.results import (
    ArmResult,
    Comparison,
    FractionPoint,
    LeakChecks,
    NearDuplicates,
    RatioPoint,
    ScoreResult,
    SelectorCheck,
    SettingsCandidate,
    read_score,
)
from dagaug.score.run_log import ScoreRun, pack
from dagaug.score.statistics import ClassGain, ConfidenceInterval, ConfusionChange

INTERVAL = ConfidenceInterval(0.5, 0.25, 0.75)
COMPARISON = Comparison(
    arm="real+dagaug", baseline="real", differences=(0.1, 0.2), difference=INTERVAL, p=0.01, p_images=0.02, gained=3,
    lost=1, test=20, verdict="helps",
    classes=(ClassGain(name="a", test=10, accuracy=0.5, difference=INTERVAL, p=0.5, sure=False),),
    better=(ConfusionChange("a", "b", 0.5, 0.25),),
)  # fmt: skip
RESULT = ScoreResult(
    arms=(
        ArmResult(arm="real", images=0, steps=9, accuracies=(0.5, 0.5), accuracy=INTERVAL, calibration_error=INTERVAL),
    ),
    comparisons=(COMPARISON,),
    runs=(ScoreRun("real", 0, 0.5, 0.1, pack([0, 1]), 1.5),),
    classes=2, real=10, synthetic=5, test=20, steps=9, synthetic_share=0.5,
    skipped=(("x.png", "no image"),),
    options={"seeds": 2, "fit": {"name": "plain"}},
    fractions=(
        FractionPoint(
            fraction=0.5, real=5, synthetic=2, without=INTERVAL, with_synthetic=INTERVAL, difference=INTERVAL, p=0.5,
            worth=None,
        ),
    ),
    ratios=(RatioPoint(share=0.25, accuracy=INTERVAL, difference=INTERVAL, p=0.5),),
    validated=(
        SettingsCandidate(arm="a", steps=9, synthetic_share=0.5, trainings=4, accuracy=0.5, chosen=True),
    ),
    guards=LeakChecks(
        alike={"real": NearDuplicates(images=10, by_hash=1, by_features=2, nearest=0.5, usual=0.1, suspicious=True)},
        features="lite0",
        selector=SelectorCheck(file="judges.safetensors", learned=10, test=20, seen=0),
    ),
    notes=("note",), verdict="helps", sentences=(COMPARISON.sentence,),
)  # fmt: skip


def test_a_result_equals_itself_after_writing_and_reading(tmp_path: Path) -> None:
    (tmp_path / "score.json").write_text(RESULT.to_json(), encoding="utf-8")
    assert read_score(tmp_path / "score.json") == RESULT


def test_keys_of_later_versions_are_ignored() -> None:
    record = json.loads(RESULT.to_json())
    record |= {"new": 1}
    record["arms"][0]["new"] = {"a": []}
    record["guards"]["selector"]["new"] = None
    assert ScoreResult.from_json(json.dumps(record)) == RESULT


def test_files_of_older_versions_are_read() -> None:
    record = json.loads(json.dumps(SCORE))
    for key in ("fractions", "ratios", "notes"):
        del record[key]
    del record["comparisons"][0]["baseline"], record["comparisons"][0]["p_images"], record["comparisons"][0]["classes"]
    record["runs"] = [{"arm": "real", "seed": 0, "accuracy": 0.5, "seconds": 1.0}]
    found = ScoreResult.from_json(json.dumps(record))
    assert (found.fractions, found.ratios, found.notes, found.guards) == ((), (), (), LeakChecks())
    first = found.comparisons[0]
    assert (first.baseline, first.p_images, first.classes, first.verdict) == ("real", None, (), "helps")
    assert "test images" not in first.sentence
    assert found.arms[1].calibration_error is None
    assert found.arms[1].synthetic_share is None
    assert math.isnan(found.runs[0].calibration_error)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not a score"),
        ("[]", "not a score"),
        (json.dumps(SCORE | {"steps": "many"}), r"not a score \(steps: .*; make it again"),
        ("[" * 100_000, "not a score"),
    ],
)
def test_files_that_are_no_score_are_named(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "score.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"score\.json: {words}") as caught:
        read_score(tmp_path / "score.json")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: cannot be read"):
        read_score(tmp_path / "none.json")
