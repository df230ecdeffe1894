"""Finished runs on disk: torn lines, older lines, packed predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dagaug.runtime.errors import DataError
from dagaug.score.run_log import Ledger, Run, pack, unpack

RUN = Run("real", 1, 0.5, 0.1, pack([0, 3, 70000]), 2.0)


def test_predictions_come_back_and_are_small() -> None:
    predicted = np.random.default_rng(0).integers(0, 20, 1000)
    np.testing.assert_array_equal(unpack(pack(predicted)), predicted)
    assert len(pack(predicted)) < 1600
    with pytest.raises(ValueError, match="decompressing"):
        unpack("abcd")


def test_what_was_added_is_found_again_under_its_own_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "runs.jsonl"
    Ledger(path).add("x", RUN)
    again = Ledger(path)
    assert again.find("x", "real", 1) == RUN
    assert again.find("x", "real", 1).predicted().tolist() == [0, 3, 70000]  # type: ignore[union-attr]
    assert again.find("y", "real", 1) is None
    assert again.find("x", "real", 2) is None


def test_torn_and_older_lines_are_left_alone_and_do_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    older = json.dumps({"identity": "x", "arm": "real", "seed": 0, "accuracy": 0.5, "seconds": 1.0})
    path.write_text(older + "\n[]\n" + older[:30])
    Ledger(path).add("x", RUN)
    again = Ledger(path)
    assert again.find("x", "real", 0) is None
    assert again.find("x", "real", 1) == RUN


def test_nothing_is_written_before_there_is_a_run(tmp_path: Path) -> None:
    Ledger(tmp_path / "runs.jsonl")
    Ledger(None).add("x", RUN)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        Ledger(tmp_path / "file" / "runs.jsonl")
