"""Whole training runs: results, resuming to the bit, and refused options."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from making_runs import (
    SIZE,
    STEPS,
    TRAINING_IMAGES,
    Killed,
    Listener,
    assert_same_bits,
    interrupt_at_step,
    kill_at_step,
    logged,
    options,
    tensors_of,
    train_small,
)
from making_trainers import new_trainer
from torch import Tensor

from dagaug.data.dataset_records import Dataset
from dagaug.data.domains_layout import read_domains
from dagaug.model import checkpoint
from dagaug.model.mode_translators import ReferenceTranslator
from dagaug.model.task_presets import PRESETS
from dagaug.model.trained_model import GENERAL_FILE, Translator, build_translator, load_model
from dagaug.runtime.errors import DataError, OutputExistsError, TrainingError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.progress import SILENT
from dagaug.runtime.signals import Interrupted
from dagaug.training import losses
from dagaug.training.modes import Snapshot
from dagaug.training.options import TrainOptions
from dagaug.training.train import Schedule, load_start, train
from dagaug.translate.folder import translate

pytestmark = pytest.mark.usefixtures("quickly")

CPU = Execution("cpu")

PARTS = ("dae", "cst", "sym", "d2")


def test_without_all_parts_a_run_still_ends_with_a_model(birds: Dataset, tmp_path: Path) -> None:
    train_small(birds, tmp_path / "run", without=PARTS, steps=4)
    assert load_model(tmp_path / "run").card.regions == 1
    assert {line["phase"] for line in logged(tmp_path / "run")} == {"full"}


# ---- a finished run


def test_a_finished_run_holds_a_model_its_options_and_metrics_but_no_state(birds_run: Path, birds: Dataset) -> None:
    assert {path.name for path in birds_run.iterdir()} == {
        ".dagaug-run", "README.md", "model.json", "model.safetensors", "metrics.jsonl", "options.json",
    }  # fmt: skip
    model = load_model(birds_run)
    assert model.card.classes == birds.classes
    assert (model.card.steps, model.card.framing.size, model.card.data) == (STEPS, SIZE, "birds")
    assert json.loads((birds_run / "options.json").read_text())["steps"] == STEPS
    assert [line["step"] for line in logged(birds_run)] == [STEPS]


def test_the_same_command_on_a_finished_run_trains_nothing(birds_run: Path, birds: Dataset) -> None:
    before = (birds_run / "model.safetensors").stat()
    done = train_small(birds, birds_run)
    assert (done.already, done.steps, done.run) == (True, STEPS, birds_run)
    assert (birds_run / "model.safetensors").stat() == before


def test_the_seed_determines_the_bits_of_a_training(birds_run: Path, birds: Dataset, tmp_path: Path) -> None:
    train_small(birds, tmp_path / "again")
    straight = tensors_of(birds_run / "model.safetensors")
    assert_same_bits(straight, tensors_of(tmp_path / "again" / "model.safetensors"))
    train_small(birds, tmp_path / "other", seed=1, steps=1)
    other = tensors_of(tmp_path / "other" / "model.safetensors")
    assert not torch.equal(other["dae.encoder.to_half.0.weight"], straight["dae.encoder.to_half.0.weight"])


def test_sample_images_are_made_as_often_as_asked_and_at_the_end(birds: Dataset, tmp_path: Path) -> None:
    seen: list[tuple[int, Snapshot]] = []
    train(
        options(steps=6), birds, name="birds", out=tmp_path / "run", precision="32-true", execution=CPU,
        sheets=3, watch=lambda run, step, snapshot: seen.append((step, snapshot)),
    )  # fmt: skip
    assert [step for step, _ in seen] == [2, 4, 6]
    for _, snapshot in seen:
        assert snapshot.morphs.shape == (4, 8, SIZE, SIZE, 3)
        np.testing.assert_array_equal(snapshot.sources, seen[0][1].sources)


# ---- stopping and resuming


def assert_no_step_twice(run: Path) -> None:
    steps = [line["step"] for line in logged(run)]
    assert steps == sorted(set(steps))


def test_a_run_that_was_interrupted_twice_gives_the_bits_of_a_straight_one(
    birds_run: Path, birds: Dataset, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for at in (2, 5):  # in the first phase and in the last
        with pytest.raises(Interrupted, match=rf"stopped at step {at} of {STEPS}; .*same command again"):
            train_small(birds, run, progress=interrupt_at_step(at))
        assert not (run / "model.safetensors").exists()
    listener = Listener()
    done = train_small(birds, run, progress=listener)
    assert (done.resumed_at, done.steps, done.already) == (5, STEPS, False)
    assert any(f"resuming at step 5 of {STEPS}" in line for line in listener.lines)
    assert_same_bits(tensors_of(birds_run / "model.safetensors"), tensors_of(run / "model.safetensors"))
    assert not (run / "state.safetensors").exists()
    assert_no_step_twice(run)


def test_a_killed_run_resumes_from_its_last_state_with_the_same_bits(
    birds_run: Path, birds: Dataset, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    every_step = Schedule(save_seconds=0.0, log_steps=1)
    with pytest.raises(Killed):
        train_small(birds, run, progress=kill_at_step(4), schedule=every_step)  # step 4 was logged but not saved
    assert [line["step"] for line in logged(run)] == [1, 2, 3, 4]
    assert checkpoint.load(run / "state.safetensors")[1]["done"] == 3
    done = train_small(birds, run, schedule=every_step)
    assert done.resumed_at == 3
    assert_same_bits(tensors_of(birds_run / "model.safetensors"), tensors_of(run / "model.safetensors"))
    assert [line["step"] for line in logged(run)] == list(range(1, STEPS + 1))


def test_a_run_killed_before_its_first_saved_state_restarts_with_a_clean_log(birds: Dataset, tmp_path: Path) -> None:
    every_step = Schedule(log_steps=1)
    with pytest.raises(Killed):
        train_small(birds, tmp_path / "run", steps=2, progress=kill_at_step(2), schedule=every_step)
    assert not (tmp_path / "run" / "state.safetensors").exists()
    assert train_small(birds, tmp_path / "run", steps=2, schedule=every_step).resumed_at == 0
    assert [line["step"] for line in logged(tmp_path / "run")] == [1, 2]


def test_the_same_command_finishes_a_run_killed_at_any_moment(
    birds_folder: Path, birds_run: Path, birds: Dataset, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    script = (
        "import sys, torch; torch.set_num_threads(1); import functools, dagaug.training.train as t; "
        "t.train = functools.partial(t.train, schedule=t.Schedule(save_seconds=0.0)); "
        "from dagaug.__main__ import main; main()"
    )
    command = [
        sys.executable, "-c", script, "train", str(birds_folder), "--out", str(run), "--steps", str(STEPS),
        "--start", "scratch", "--size", "32", "--batch-size", "4", "--device", "cpu", "--precision", "32-true",
        "--quiet",
    ]  # fmt: skip
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        deadline = time.monotonic() + 100
        while not (run / "state.safetensors").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert (run / "state.safetensors").exists()
    # The same identity as of the command; the name of the data stands on the model's card, not in its weights.
    done = train_small(birds, run)
    assert not done.already
    assert done.resumed_at >= 1
    assert_same_bits(tensors_of(birds_run / "model.safetensors"), tensors_of(run / "model.safetensors"))


def test_a_damaged_state_is_an_error_and_nothing_is_trained(birds: Dataset, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train_small(birds, run, progress=interrupt_at_step(1))
    state = run / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(checkpoint.CheckpointError, match=r"state\.safetensors: not a readable checkpoint"):
        train_small(birds, run)
    assert state.stat().st_size == 1000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 5}, "seed 0, but now it is 5"),
        ({"without": ("sym",)}, r"without \[\], but now it is \['sym'\]"),
        ({"symmetry": 3.0}, r"symmetry 2\.0, but now it is 3\.0"),
    ],
)
def test_other_options_on_the_same_folder_are_refused_with_the_option_and_both_values(
    birds_run: Path, birds: Dataset, changes: dict[str, Any], message: str
) -> None:
    before = (birds_run / "options.json").read_bytes()
    with pytest.raises(OutputExistsError, match=rf"holds a run with {message}; try overwrite=True or another out"):
        train_small(birds, birds_run, **changes)
    assert (birds_run / "options.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "now"), [({"steps": 7}, "7 steps"), ({"steps": None, "minutes": 2.5}, r"2\.5 minutes")]
)
def test_a_finished_run_is_not_lengthened_but_can_be_the_start_of_a_longer_one(
    birds_run: Path, birds: Dataset, changes: dict[str, Any], now: str
) -> None:
    before = (birds_run / "options.json").read_bytes()
    with pytest.raises(OutputExistsError, match=rf"holds a run of {STEPS} steps, but now it is {now}; .*lengthened"):
        train_small(birds, birds_run, **changes)
    with pytest.raises(OutputExistsError) as caught:
        train_small(birds, birds_run, **changes)
    assert caught.value.remedies == {"start": birds_run, "overwrite": True}
    assert (birds_run / "options.json").read_bytes() == before


def test_an_unfinished_run_of_another_length_offers_no_weights_to_start_from(birds: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train_small(birds, tmp_path / "run", progress=interrupt_at_step(2))
    with pytest.raises(OutputExistsError, match=f"holds a run of {STEPS} steps, but now it is 7 steps") as caught:
        train_small(birds, tmp_path / "run", steps=7)
    assert caught.value.remedies == {"overwrite": True, "out": None}


def test_a_run_never_starts_from_its_own_folder(birds_run: Path, birds: Dataset) -> None:
    for start in (birds_run, birds_run / checkpoint.MODEL_FILE):
        with pytest.raises(UsageError, match="is the folder of this run itself; try another out"):
            train_small(birds, birds_run, start=str(start), overwrite=True)
    assert (birds_run / checkpoint.MODEL_FILE).exists()


def test_other_data_on_the_same_folder_are_refused(birds_run: Path, birds: Dataset) -> None:
    with pytest.raises(OutputExistsError, match="holds a run with data "):
        train_small(birds.subset(3), birds_run)


def test_overwriting_begins_anew(birds_run: Path, birds: Dataset, tmp_path: Path) -> None:
    shutil.copytree(birds_run, tmp_path / "run")
    done = train(
        options(steps=2), birds, name="birds", out=tmp_path / "run", overwrite=True, execution=CPU
    )  # fmt: skip
    assert (done.already, done.steps, done.resumed_at) == (False, 2, 0)
    assert [line["step"] for line in logged(tmp_path / "run")] == [2]
    assert load_model(tmp_path / "run").card.steps == 2


def test_overwriting_an_unfinished_run_starts_from_the_initial_weights(birds: Dataset, tmp_path: Path) -> None:
    start = train_small(birds, tmp_path / "start", steps=1).run
    straight = train_small(birds, tmp_path / "straight", start=str(start), steps=2).run
    with pytest.raises(Interrupted):
        train_small(birds, tmp_path / "run", start=str(start), steps=3, progress=interrupt_at_step(1))
    train_small(birds, tmp_path / "run", start=str(start), steps=2, overwrite=True)
    assert_same_bits(tensors_of(straight / "model.safetensors"), tensors_of(tmp_path / "run" / "model.safetensors"))


def test_a_model_in_a_folder_that_is_no_run_is_kept(birds: Dataset, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"of somebody else")
    with pytest.raises(OutputExistsError, match="try another out"):
        train_small(birds, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"of somebody else"


# ---- steps and minutes


@pytest.mark.parametrize(("steps", "total"), [(4, 4), (40, 10)])
def test_steps_and_minutes_both_limit_a_training(
    birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, total: int
) -> None:
    monkeypatch.setattr("dagaug.training.train.steps_in", lambda minutes, trainer: 10)
    with pytest.raises(Killed):
        train_small(birds, tmp_path / "run", steps=steps, minutes=1.0, progress=kill_at_step(0))
    assert json.loads((tmp_path / "run" / "options.json").read_text())["steps"] == total


def test_the_number_of_steps_is_measured_once_and_kept_when_a_run_resumes(
    birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = iter([3])
    monkeypatch.setattr("dagaug.training.train.steps_in", lambda minutes, trainer: next(chosen))
    with pytest.raises(Interrupted, match="step 1 of 3"):
        train_small(birds, tmp_path / "run", steps=None, minutes=1.0, progress=interrupt_at_step(1))
    done = train_small(birds, tmp_path / "run", steps=None, minutes=1.0)
    assert (done.resumed_at, done.steps) == (1, 3)


# ---- losses that are not finite


def test_persistent_nonfinite_losses_end_the_training_and_keep_the_last_good_state(
    birds_run: Path, birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    whole = losses.full_objective
    calls = itertools.count()

    def failing(terms: Any, weights: Any) -> Tensor:
        return whole(terms, weights) * (1.0 if next(calls) < 2 else float("nan"))

    with monkeypatch.context() as patch:
        patch.setattr(losses, "full_objective", failing)
        with pytest.raises(
            TrainingError,
            match="since step 2; the last good state is kept; try precision=32-true or ",
        ):
            train_small(birds, run, schedule=Schedule(save_seconds=-1.0, max_bad_steps=3))
    tensors, header = checkpoint.load(run / "state.safetensors")
    assert header["done"] == 2
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    assert train_small(birds, run).resumed_at == 2
    assert_same_bits(tensors_of(birds_run / "model.safetensors"), tensors_of(run / "model.safetensors"))


# ---- two folders


def two_folders(root: Path, *, labelled: bool) -> Path:
    """Dark and light noise; with labels, each domain has the folders 0 and 1."""
    rng = np.random.default_rng(0)
    for domain, low in (("trainA", 0), ("trainB", 120)):
        for number in range(6):
            folder = root / domain / (str(number % 2) if labelled else ".")
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{number}.png"), rng.integers(low, low + 120, (24, 24, 3), dtype=np.uint8))
    return root


@pytest.mark.parametrize("labelled", [False, True])
def test_two_folders_train_by_a_preset_of_the_paper_and_translate_reads_the_result(
    tmp_path: Path, labelled: bool
) -> None:
    root, run = two_folders(tmp_path / "two", labelled=labelled), tmp_path / "run"
    train_small(read_domains(root), run, preset="digits", steps=2)
    (line,) = logged(run)
    terms = {"consistency", "symmetry", "adversarial", "discriminators"}
    assert set(line) - {"step", "phase"} == terms | ({"label", "identity"} if labelled else set())
    model = load_model(run)
    assert (model.card.mode, model.card.regions) == ("paper", PRESETS["digits"].attention.regions)
    assert model.card.classes == (("0", "1") if labelled else ())
    done = translate(model, root / "trainA", tmp_path / "translated", execution=CPU)
    assert (done.images, done.skipped) == (6, ())
    for written in (tmp_path / "translated").rglob("*.png"):
        assert cv2.imread(str(written)).shape == (24, 24, 3)


def test_a_run_on_two_folders_resumes_to_the_same_bits(tmp_path: Path) -> None:
    data = read_domains(two_folders(tmp_path / "two", labelled=True))
    train_small(data, tmp_path / "straight", preset="digits", steps=2)
    with pytest.raises(Interrupted):
        train_small(data, tmp_path / "stopped", preset="digits", steps=2, progress=interrupt_at_step(1))
    assert train_small(data, tmp_path / "stopped", preset="digits", steps=2).resumed_at == 1
    straight, stopped = (tensors_of(tmp_path / name / "model.safetensors") for name in ("straight", "stopped"))
    assert_same_bits(straight, stopped)


# ---- what cannot be trained


def test_a_preset_refuses_data_of_the_other_kind(birds: Dataset, birds_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="preset=digits: needs two folders"):
        train_small(birds, tmp_path / "run", preset="digits")
    both = read_domains(birds_folder / "images", birds_folder / "images")
    with pytest.raises(UsageError, match="preset=pose: needs a labelled data set"):
        train_small(both, tmp_path / "run")
    with pytest.raises(UsageError, match="per_class=2: two folders have no classes"):
        train_small(both, tmp_path / "run", preset="digits", per_class=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "value"), [("device", "abacus"), ("precision", "8-bit")])
def test_an_unknown_device_or_precision_is_an_error(birds: Dataset, tmp_path: Path, name: str, value: str) -> None:
    values = {"device": "cpu", "precision": "auto", name: value}
    execution = Execution(values["device"])
    with pytest.raises(UsageError, match=rf"{name}={value}: choose "):
        train(
            options(), birds, name="birds", out=tmp_path / "run", precision=values["precision"], execution=execution
        )  # fmt: skip


def test_images_of_one_readable_class_are_refused(birds: Dataset, tmp_path: Path) -> None:
    one = replace(birds, samples=tuple(sample for sample in birds.samples if sample.label == 0))
    with pytest.raises(DataError, match="at least two classes"):
        train_small(one, tmp_path / "run")


def test_only_training_images_are_trained_on(birds: Dataset) -> None:
    assert new_trainer(birds).mode.image_count == TRAINING_IMAGES
    assert new_trainer(birds, per_class=2).mode.image_count == 8


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before


# ---- initial weights


def begun(wanted: TrainOptions, listener: Listener | None = None) -> Translator:
    """New networks as a training with these options starts with them."""
    torch.manual_seed(0)
    translator = build_translator(wanted.mode, wanted.attention)
    load_start(translator, wanted, listener or SILENT)
    return translator


def test_pose_morphing_starts_from_the_networks_of_the_package() -> None:
    packed = tensors_of(GENERAL_FILE)
    assert GENERAL_FILE.stat().st_size < 10e6
    state = begun(TrainOptions().resolved()).state_dict()
    assert state.keys() == packed.keys()
    assert all(torch.equal(tensor, packed[name].to(tensor.dtype)) for name, tensor in state.items())


def test_layers_of_another_shape_keep_their_own_weights_and_are_named() -> None:
    listener = Listener()
    wanted = TrainOptions(regions=5).resolved()
    torch.manual_seed(0)
    fresh = build_translator(wanted.mode, wanted.attention).state_dict()
    state, packed = begun(wanted, listener).state_dict(), tensors_of(GENERAL_FILE)
    assert torch.equal(state["dae.localise.heat.weight"], fresh["dae.localise.heat.weight"])
    name = "dae.encoder.to_half.0.weight"
    assert torch.equal(state[name], packed[name].float())
    assert any("dae.localise.heat" in line for line in listener.lines)


def test_a_training_can_start_from_another_run(birds: Dataset, tmp_path: Path) -> None:
    run = train_small(birds, tmp_path / "run", steps=1).run
    state, packed = begun(options(start=str(run))).state_dict(), tensors_of(run / checkpoint.MODEL_FILE)
    assert all(torch.equal(tensor, packed[name]) for name, tensor in state.items())


def test_a_training_resumes_although_its_start_run_is_gone(birds: Dataset, tmp_path: Path) -> None:
    first = train_small(birds, tmp_path / "first", steps=1).run
    with pytest.raises(Interrupted):
        train_small(birds, tmp_path / "second", start=str(first), progress=interrupt_at_step(2))
    shutil.rmtree(first)
    assert train_small(birds, tmp_path / "second", start=str(first)).resumed_at == 2


def test_a_model_remembers_its_least_share_of_own_pixels(birds: Dataset, tmp_path: Path) -> None:
    run = train_small(birds, tmp_path / "run", steps=1, own_pixels=0.9).run
    model = load_model(run)
    assert model.card.own_pixels == 0.9
    assert isinstance(model.translator, ReferenceTranslator)
    assert model.translator.morpher.own_pixels == 0.9


def test_a_start_must_hold_networks_of_the_same_mode(birds: Dataset, tmp_path: Path) -> None:
    run = train_small(birds, tmp_path / "run", steps=1).run
    with pytest.raises(UsageError, match="reference mode"):
        begun(TrainOptions(preset="digits", start=str(run)).resolved())
