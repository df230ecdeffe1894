"""The folder of a run: its name, whether it is the same run, its log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making_masks import write_mask, write_masks
from making_runs import Listener, options

from dagaug.data.dataset_records import Dataset
from dagaug.data.mask_files import find_masks
from dagaug.runtime.errors import LockedError, OutputExistsError
from dagaug.runtime.files import locked
from dagaug.training import run_folder
from dagaug.training.options import TrainOptions
from dagaug.training.run_folder import (
    RunOfOtherLength,
    claim_run,
    find_run_of_other_length,
    lock_run,
    run_identity,
    truncate_metrics,
    write_options,
)


def test_the_default_folder_names_data_and_preset_and_differs_by_options(birds: Dataset, tmp_path: Path) -> None:
    first = run_folder.run_folder(options(), birds, "birds", tmp_path)
    assert first.parent == tmp_path
    assert first.name.startswith("birds-pose-")
    assert first == run_folder.run_folder(options().resolved(), birds, "birds", tmp_path)
    others = [options(seed=1), options(steps=7), options(without=("sym",))]
    assert len({first, *(run_folder.run_folder(other, birds, "birds", tmp_path) for other in others)}) == 4
    assert first != run_folder.run_folder(options(), birds.subset(3), "birds", tmp_path)


def test_a_half_written_line_of_metrics_is_dropped_on_resuming(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    truncate_metrics(log, 2)
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_runs_from_before_there_were_own_pixels_are_still_the_same_runs(birds: Dataset) -> None:
    assert "own_pixels" not in run_identity(TrainOptions(), birds)
    assert run_identity(TrainOptions(own_pixels=0.9), birds)["own_pixels"] == 0.9


def test_other_masks_make_another_run(birds: Dataset, tmp_path: Path) -> None:
    folder = write_masks(birds, tmp_path)
    masked = find_masks(birds, folder)
    before = run_identity(options(), masked)
    assert "masks" not in run_identity(options(), birds)
    names = {run_folder.run_folder(options(), data, "birds") for data in (birds, masked)}
    write_mask(birds, birds.test[0], folder, np.zeros((64, 64), np.uint8))
    assert run_identity(options(), masked) == before  # no training image
    write_mask(birds, birds.train[0], folder, np.zeros((64, 64), np.uint8))
    assert run_identity(options(), masked)["masks"] != before["masks"]
    assert len({*names, run_folder.run_folder(options(), masked, "birds")}) == 3


# ---- the same training with another length


def kept(given: TrainOptions, data: Dataset, root: Path, *, steps: int, finished: bool = True) -> Path:
    """A run in its default folder."""
    run = run_folder.run_folder(given, data, "birds", root)
    run.mkdir()
    write_options(run, {"identity": run_identity(given, data), "steps": steps})
    if finished:
        (run / "model.safetensors").touch()
    return run


def test_the_same_training_of_another_length_is_found_a_finished_one_first(birds: Dataset, tmp_path: Path) -> None:
    assert find_run_of_other_length(options(), birds, "birds", tmp_path / "none") is None
    finished = kept(options(steps=2), birds, tmp_path, steps=2)
    kept(options(steps=3), birds, tmp_path, steps=3, finished=False)
    kept(options(steps=2, seed=1), birds, tmp_path, steps=2)
    kept(options(steps=2), birds.subset(3), tmp_path, steps=2)
    (tmp_path / "birds-pose-broken").mkdir()
    (tmp_path / "birds-pose-broken" / "options.json").write_text("[]")
    for length in ({}, {"steps": None}, {"steps": None, "minutes": 3.0}):
        found = find_run_of_other_length(options(**length), birds, "birds", tmp_path)
        assert found == RunOfOtherLength(finished, 2, finished=True)
    assert find_run_of_other_length(options(seed=2), birds, "birds", tmp_path) is None


def test_a_run_that_was_begun_is_told_of_no_other(birds: Dataset, tmp_path: Path) -> None:
    kept(options(steps=2), birds, tmp_path, steps=2)
    kept(options(), birds, tmp_path, steps=3, finished=False)
    assert find_run_of_other_length(options(), birds, "birds", tmp_path) is None


def test_a_run_on_frozen_features_is_offered_no_start(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    identity = {"features": "lite0", "steps": 2, "minutes": None}
    write_options(tmp_path / "run", {"identity": identity, "steps": 2})
    (tmp_path / "run" / "model.safetensors").touch()
    with pytest.raises(OutputExistsError, match="cannot be lengthened") as caught:
        claim_run(tmp_path / "run", {**identity, "steps": 4, "versions": {}}, overwrite=False)
    assert caught.value.remedies == {"overwrite": True, "out": None}


# ---- versions of the libraries


def begun(run: Path, identity: dict[str, Any]) -> Path:
    """A run's folder after its first call."""
    run.mkdir()
    write_options(run, {"identity": identity, "steps": 3})
    return run


def test_the_identity_names_dagaug_and_the_libraries(birds: Dataset) -> None:
    assert {"dagaug", "torch", "numpy", "opencv-python"} == set(run_identity(options(), birds)["versions"])
    assert "timm" in run_identity(options(distance="timm:test_resnet"), birds)["versions"]


def test_a_run_of_other_versions_is_refused_with_both_versions(birds: Dataset, tmp_path: Path) -> None:
    now = run_identity(options(), birds)
    run = begun(tmp_path / "run", now | {"versions": now["versions"] | {"torch": "1.0"}})
    with pytest.raises(OutputExistsError, match=r"holds a run with torch 1\.0, but now it is") as caught:
        claim_run(run, now, overwrite=False)
    assert caught.value.remedies == {"overwrite": True, "out": None}
    assert claim_run(run, now, overwrite=True) == {"identity": now}


def test_a_run_without_versions_resumes_with_one_line(birds: Dataset, tmp_path: Path) -> None:
    now = run_identity(options(), birds)
    run = begun(tmp_path / "run", {name: value for name, value in now.items() if name != "versions"})
    listener = Listener()
    assert claim_run(run, now, False, listener)["steps"] == 3
    assert len(listener.lines) == 1
    assert "recorded no library versions" in listener.lines[0]


def test_the_same_versions_resume_without_a_word(birds: Dataset, tmp_path: Path) -> None:
    now = run_identity(options(), birds)
    listener = Listener()
    assert claim_run(begun(tmp_path / "run", now), now, False, listener)["steps"] == 3
    assert listener.lines == []


def test_the_default_folder_does_not_depend_on_versions(
    birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run_folder.run_folder(options(), birds, "birds", tmp_path)
    monkeypatch.setattr(run_folder, "library_versions", lambda *names: {"torch": "0"})
    assert run_folder.run_folder(options(), birds, "birds", tmp_path) == before


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps({"identity": 3})])
def test_an_unreadable_options_file_is_refused(birds: Dataset, tmp_path: Path, content: str) -> None:
    (tmp_path / "options.json").write_text(content)
    with pytest.raises(OutputExistsError, match="not a readable options file"):
        claim_run(tmp_path, run_identity(options(), birds), overwrite=False)


def test_two_trainings_cannot_write_to_one_folder(tmp_path: Path) -> None:
    with (
        locked(tmp_path / ".run.lock", tmp_path / "run"),
        pytest.raises(LockedError, match="another run is writing"),
        lock_run(tmp_path / "run"),
    ):
        pass
