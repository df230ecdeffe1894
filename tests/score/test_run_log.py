"""Run log: torn lines, older lines, lines of other versions, packed predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from making_classifiers import Listener

from dagaug.runtime.errors import DataError
from dagaug.score.run_log import RunLog, ScoreRun, pack, unpack

RUN = ScoreRun("real", 1, 0.5, 0.1, pack([0, 3, 70000]), 2.0)
VERSIONS = {"dagaug": "1", "torch": "2.4"}


def test_packed_predictions_are_restored_and_small() -> None:
    predicted = np.random.default_rng(0).integers(0, 20, 1000)
    np.testing.assert_array_equal(unpack(pack(predicted)), predicted)
    assert len(pack(predicted)) < 1600
    with pytest.raises(ValueError, match="decompressing"):
        unpack("abcd")


def test_a_run_is_found_by_its_identity_arm_and_seed_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "runs.jsonl"
    RunLog(path, VERSIONS).add("x", RUN)
    again = RunLog(path, VERSIONS)
    assert again.find("x", "real", 1) == RUN
    assert again.find("x", "real", 1).predicted().tolist() == [0, 3, 70000]  # type: ignore[union-attr]
    assert again.find("y", "real", 1) is None
    assert again.find("x", "real", 2) is None


def test_runs_of_other_versions_are_not_reused_and_reported_once(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    older = RunLog(path, VERSIONS | {"torch": "2.3"})
    older.add("x", RUN)
    older.add("y", RUN)
    RunLog(path, VERSIONS).add("z", RUN)
    listener = Listener()
    log = RunLog(path, VERSIONS, listener)
    assert log.find("x", "real", 1) is None
    assert [line for line in listener.lines if "versions" in line] == [
        f"{path}: 2 finished trainings are not reused: they were made with other versions (torch 2.3, now 2.4)"
    ]
    assert log.find("z", "real", 1) == RUN


def test_torn_and_older_lines_are_skipped_and_do_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    record = {"identity": "x", "versions": VERSIONS, "arm": "real", "seed": 0, "accuracy": 0.5, "seconds": 1.0}
    older = json.dumps(record)
    path.write_text(older + "\n[]\n" + older[:30])
    RunLog(path, VERSIONS).add("x", RUN)
    again = RunLog(path, VERSIONS)
    assert again.find("x", "real", 0) is None
    assert again.find("x", "real", 1) == RUN


def test_lines_without_versions_are_not_reused(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    RunLog(path, VERSIONS).add("x", RUN)
    record = json.loads(path.read_text())
    del record["versions"]
    path.write_text(json.dumps(record) + "\n")
    assert RunLog(path, VERSIONS).find("x", "real", 1) is None


def test_no_file_is_written_without_a_run(tmp_path: Path) -> None:
    RunLog(tmp_path / "runs.jsonl", VERSIONS)
    RunLog(None, VERSIONS).add("x", RUN)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_path_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"runs\.jsonl: cannot be written .*; try another out"):
        RunLog(tmp_path / "file" / "runs.jsonl", VERSIONS)
