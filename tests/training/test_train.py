"""Training: it learns, it goes on where it stopped to the bit, and it refuses what it cannot do."""

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
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

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
    quick,
    tensors_of,
    train,
)
from torch import Tensor

from dagaug.data.dataset import Dataset
from dagaug.data.domains import read_domains
from dagaug.model import checkpoint
from dagaug.model.presets import PRESETS
from dagaug.model.trained_model import GENERAL, GENERAL_FILE, SCRATCH, Translator, build_translator, load_model
from dagaug.model.translators import ReferenceTranslator
from dagaug.runtime.errors import DataError, LockedError, OutputExistsError, TrainingError, UsageError
from dagaug.runtime.files import locked
from dagaug.runtime.progress import SILENT
from dagaug.runtime.signals import Interrupted
from dagaug.training import loop as loop_module
from dagaug.training import losses, run_folder
from dagaug.training import train as training
from dagaug.training.modes import ReferenceWork, Snapshot
from dagaug.training.options import TrainOptions
from dagaug.training.pairs import step_generator
from dagaug.translate.folder import translate

pytestmark = pytest.mark.usefixtures("quickly")

PARTS = ("dae", "cst", "sym", "d2")


def new_loop(data: Dataset, **changes: Any) -> loop_module.TrainingLoop:
    """The loop of a training that is about to begin."""
    wanted = options(**changes).resolved()
    torch.manual_seed(wanted.seed)
    translator = build_translator(wanted.mode, wanted.attention)
    work = training._work(data, wanted, translator, 1, False, SILENT)
    return loop_module.TrainingLoop(loop_module.make_fabric("cpu", "32-true"), work, translator, wanted)


# ---- learning


@dataclass(frozen=True)
class Learned:
    """A loop after some tens of steps, with what it was before."""

    loop: loop_module.TrainingLoop
    objective: dict[str, Tensor]
    judges: dict[str, Tensor]
    before: dict[str, float]
    after: dict[str, float]


@pytest.fixture(scope="module")
def learned(birds: Dataset) -> Learned:
    """24 steps; the losses are of one batch of known warps, the same before and after."""
    loop = new_loop(birds)
    work = cast(ReferenceWork, loop.work)
    fixed = work.sampler.batch(10**6, 16, only_exact=True)

    def exact_losses() -> dict[str, float]:
        with torch.no_grad():
            terms, _ = work.objective(fixed, "structure", step_generator(0, 10**6, 1))
        return {name: float(term) for name, term in terms.items()}

    objective = {name: value.clone() for name, value in work.objective.named_parameters()}
    judges = {name: value.clone() for name, value in loop.judges_raw.named_parameters()}
    before = exact_losses()
    for _ in range(24):
        loop.advance(24)
    return Learned(loop, objective, judges, before, exact_losses())


@pytest.mark.parametrize("term", ["flow", "match", "object"])
def test_training_lowers_each_loss_that_has_an_exact_answer(learned: Learned, term: str) -> None:
    assert learned.after[term] < 0.9 * learned.before[term]


@pytest.mark.parametrize(
    "network",
    [
        "translator.dae.encoder.",
        "translator.dae.structure_encoder.",
        "translator.dae.localise.",
        "translator.morpher.transport.",
        "translator.morpher.instance.",
        "translator.morpher.generator.",
        "distance.",
    ],
)
def test_training_moves_every_weight_of_the_network(learned: Learned, network: str) -> None:
    now = dict(learned.loop.work.objective.named_parameters())
    names = [name for name in now if name.startswith(network)]
    assert names
    assert [name for name in names if torch.equal(now[name], learned.objective[name])] == []


@pytest.mark.parametrize("judge", ["d1", "d2"])
def test_training_moves_every_weight_of_both_discriminators(learned: Learned, judge: str) -> None:
    now = dict(learned.loop.judges_raw.named_parameters())
    names = [name for name in now if name.startswith(judge + ".")]
    assert names
    assert [name for name in names if torch.equal(now[name], learned.judges[name])] == []


def test_the_averaged_weights_lie_between_the_first_and_the_last(learned: Learned) -> None:
    name = "dae.encoder.to_half.0.weight"
    first = learned.objective["translator." + name]
    last = learned.loop.translator.state_dict()[name]
    mean = learned.loop.averaged.state_dict()[name]
    assert not torch.equal(mean, last)
    assert (mean - last).norm() < (first - last).norm()
    assert not any(parameter.requires_grad for parameter in learned.loop.averaged.parameters())


def test_a_training_goes_through_structure_pairs_and_full_in_this_order(birds: Dataset) -> None:
    loop = new_loop(birds)
    phases = [loop.phase(step, 100) for step in range(100)]
    runs = [(phase, len(list(group))) for phase, group in itertools.groupby(phases)]
    assert [phase for phase, _ in runs] == ["structure", "pairs", "full"]
    assert all(length >= 10 for _, length in runs)


def test_the_learning_rate_falls_and_never_rises(birds: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = new_loop(birds)
    monkeypatch.setattr(loop.work, "step", lambda *arguments: (_ for _ in ()).throw(Killed))
    rates = []
    for step in range(100):
        loop.done = step
        with pytest.raises(Killed):
            loop.advance(100)
        rates.append(loop.optimizers["generator_optimizer"].param_groups[0]["lr"])
    assert rates[0] == PRESETS["pose"].learning_rate
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates))
    assert 0 < rates[-1] < 0.1 * rates[0]


# ---- parts that are switched off (Table 1a)

DROPPED = {
    "dae": {"equivariance", "separation", "inside"},
    "cst": {"consistency", "pose"},
    "sym": {"symmetry"},
    "d2": set[str](),
}


def terms_of_all_phases(loop: loop_module.TrainingLoop) -> set[str]:
    terms: set[str] = set()
    for step in (0, 40, 80):
        loop.done = step
        done = loop.advance(100)
        assert all(np.isfinite(value) for value in done.values())
        terms |= done.keys()
    return terms


@pytest.fixture(scope="module")
def all_terms(birds: Dataset) -> set[str]:
    """The terms of a training with nothing switched off."""
    with quick():
        return terms_of_all_phases(new_loop(birds))


@pytest.mark.parametrize("part", PARTS)
def test_without_a_part_its_terms_fall_away_and_those_of_the_others_stay(
    birds: Dataset, all_terms: set[str], part: str
) -> None:
    loop = new_loop(birds, without=(part,))
    terms = terms_of_all_phases(loop)
    assert terms < all_terms or (part == "d2" and terms == all_terms)
    assert set.union(*DROPPED.values()) & terms == set.union(*DROPPED.values()) - DROPPED[part]
    assert {"adversarial", "discriminators", "flow", "match", "object", "label", "identity"} <= terms
    assert set(loop.judges) == ({"d1"} if part == "d2" else {"d1", "d2"})
    if part == "dae":  # one region that covers the image
        masks = loop.translator.dae.masks(torch.zeros(1, 1, 2), 8)
        torch.testing.assert_close(masks, torch.ones(1, 1, 8, 8))


def test_without_all_parts_a_run_still_ends_with_a_model(birds: Dataset, tmp_path: Path) -> None:
    train(birds, tmp_path / "run", without=PARTS, steps=4)
    assert load_model(tmp_path / "run").card.regions == 1
    assert {line["phase"] for line in logged(tmp_path / "run")} == {"full"}


# ---- a finished run


def test_a_finished_run_holds_a_model_its_options_and_metrics_but_no_state(birds_run: Path, birds: Dataset) -> None:
    assert {path.name for path in birds_run.iterdir()} == {
        "model.json", "model.safetensors", "metrics.jsonl", "options.json",
    }  # fmt: skip
    model = load_model(birds_run)
    assert model.card.classes == birds.classes
    assert (model.card.steps, model.card.framing.size, model.card.data) == (STEPS, SIZE, "birds")
    assert json.loads((birds_run / "options.json").read_text())["steps"] == STEPS
    assert [line["step"] for line in logged(birds_run)] == [STEPS]


def test_the_same_command_on_a_finished_run_trains_nothing(birds_run: Path, birds: Dataset) -> None:
    before = (birds_run / "model.safetensors").stat()
    done = train(birds, birds_run)
    assert (done.already, done.steps, done.run) == (True, STEPS, birds_run)
    assert (birds_run / "model.safetensors").stat() == before


def test_two_trainings_of_one_seed_give_the_same_bits_and_of_another_do_not(
    birds_run: Path, birds: Dataset, tmp_path: Path
) -> None:
    train(birds, tmp_path / "again")
    straight = tensors_of(birds_run / "model.safetensors")
    assert_same_bits(straight, tensors_of(tmp_path / "again" / "model.safetensors"))
    train(birds, tmp_path / "other", seed=1, steps=1)
    other = tensors_of(tmp_path / "other" / "model.safetensors")
    assert not torch.equal(other["dae.encoder.to_half.0.weight"], straight["dae.encoder.to_half.0.weight"])


def test_pictures_are_handed_out_as_often_as_asked_and_at_the_end(birds: Dataset, tmp_path: Path) -> None:
    seen: list[tuple[int, Snapshot]] = []
    training.train(
        options(steps=6), birds, name="birds", out=tmp_path / "run", device="cpu", precision="32-true",
        sheets=3, watch=lambda run, step, snapshot: seen.append((step, snapshot)),
    )  # fmt: skip
    assert [step for step, _ in seen] == [2, 4, 6]
    for _, snapshot in seen:
        assert snapshot.morphs.shape == (4, 8, SIZE, SIZE, 3)
        np.testing.assert_array_equal(snapshot.sources, seen[0][1].sources)


def test_the_folder_of_a_run_that_is_not_named_tells_data_and_preset_and_differs_by_options(
    birds: Dataset, tmp_path: Path
) -> None:
    first = run_folder.run_folder(options(), birds, "birds", tmp_path)
    assert first.parent == tmp_path
    assert first.name.startswith("birds-pose-")
    assert first == run_folder.run_folder(options().resolved(), birds, "birds", tmp_path)
    others = [options(seed=1), options(steps=7), options(without=("sym",))]
    assert len({first, *(run_folder.run_folder(other, birds, "birds", tmp_path) for other in others)}) == 4
    assert first != run_folder.run_folder(options(), birds.subset(3), "birds", tmp_path)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_default_number_of_steps_grows_with_the_images_within_bounds(device: str) -> None:
    counts = [training.default_steps(images, device) for images in (2, 100, 300, 1_000, 10_000, 10**6)]
    assert counts == sorted(counts)
    assert counts[0] > 100
    assert counts[-1] == training.default_steps(10**7, device)
    assert training.default_steps(100, "cuda") > training.default_steps(100, "cpu")


# ---- stopping and going on


def assert_no_step_twice(run: Path) -> None:
    steps = [line["step"] for line in logged(run)]
    assert steps == sorted(set(steps))


def test_a_run_that_was_interrupted_twice_gives_the_bits_of_a_straight_one(
    birds_run: Path, birds: Dataset, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for at in (2, 5):  # in the first phase and in the last
        with pytest.raises(Interrupted, match=rf"stopped at step {at} of {STEPS}; .*same command goes on"):
            train(birds, run, progress=interrupt_at_step(at))
        assert not (run / "model.safetensors").exists()
    listener = Listener()
    done = train(birds, run, progress=listener)
    assert (done.resumed_at, done.steps, done.already) == (5, STEPS, False)
    assert any(f"going on at step 5 of {STEPS}" in line for line in listener.lines)
    assert_same_bits(tensors_of(birds_run / "model.safetensors"), tensors_of(run / "model.safetensors"))
    assert not (run / "state.safetensors").exists()
    assert_no_step_twice(run)


def test_a_run_that_was_killed_goes_on_from_its_last_state_with_the_same_bits(
    birds_run: Path, birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(training, "_LOG_EVERY", 1)
    monkeypatch.setattr(training, "_SAVE_SECONDS", 0.0)
    with pytest.raises(Killed):
        train(birds, run, progress=kill_at_step(4))  # step 4 was logged but not saved
    assert [line["step"] for line in logged(run)] == [1, 2, 3, 4]
    assert checkpoint.load(run / "state.safetensors")[1]["done"] == 3
    done = train(birds, run)
    assert done.resumed_at == 3
    assert_same_bits(tensors_of(birds_run / "model.safetensors"), tensors_of(run / "model.safetensors"))
    assert [line["step"] for line in logged(run)] == list(range(1, STEPS + 1))


def test_a_run_that_was_killed_before_its_first_state_begins_again_without_logging_a_step_twice(
    birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_LOG_EVERY", 1)
    with pytest.raises(Killed):
        train(birds, tmp_path / "run", steps=2, progress=kill_at_step(2))
    assert not (tmp_path / "run" / "state.safetensors").exists()
    assert train(birds, tmp_path / "run", steps=2).resumed_at == 0
    assert [line["step"] for line in logged(tmp_path / "run")] == [1, 2]


def test_a_half_written_line_of_metrics_is_dropped_on_going_on(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    run_folder.cut_metrics(log, 2)
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_process_killed_at_any_moment_leaves_a_run_that_the_same_command_finishes(
    birds_folder: Path, birds_run: Path, birds: Dataset, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    script = (
        "import sys, torch; torch.set_num_threads(1); from dagaug.training import train as training; training._SAVE_SECONDS = 0.0; "
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
    done = train(birds, run)
    assert not done.already
    assert done.resumed_at >= 1
    assert_same_bits(tensors_of(birds_run / "model.safetensors"), tensors_of(run / "model.safetensors"))


def test_a_damaged_state_is_told_and_nothing_is_trained(birds: Dataset, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(birds, run, progress=interrupt_at_step(1))
    state = run / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(checkpoint.CheckpointError, match=r"state\.safetensors: not a readable checkpoint"):
        train(birds, run)
    assert state.stat().st_size == 1000


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": 7}, f"steps {STEPS}, now it is 7"),
        ({"seed": 5}, "seed 0, now it is 5"),
        ({"without": ("sym",)}, r"without \[\], now it is \['sym'\]"),
        ({"symmetry": 3.0}, r"symmetry 2\.0, now it is 3\.0"),
    ],
)
def test_other_options_on_the_same_folder_are_refused_with_the_option_and_both_values(
    birds_run: Path, birds: Dataset, changes: dict[str, Any], told: str
) -> None:
    before = (birds_run / "options.json").read_bytes()
    with pytest.raises(OutputExistsError, match=rf"holds a run with {told}; choose another --out, or --overwrite"):
        train(birds, birds_run, **changes)
    assert (birds_run / "options.json").read_bytes() == before


def test_other_data_on_the_same_folder_are_refused(birds_run: Path, birds: Dataset) -> None:
    with pytest.raises(OutputExistsError, match="holds a run with data "):
        train(birds.subset(3), birds_run)


def test_overwriting_begins_anew(birds_run: Path, birds: Dataset, tmp_path: Path) -> None:
    shutil.copytree(birds_run, tmp_path / "run")
    done = training.train(
        options(steps=2), birds, name="birds", out=tmp_path / "run", device="cpu", overwrite=True
    )  # fmt: skip
    assert (done.already, done.steps, done.resumed_at) == (False, 2, 0)
    assert [line["step"] for line in logged(tmp_path / "run")] == [2]
    assert load_model(tmp_path / "run").card.steps == 2


def test_a_folder_that_is_no_run_keeps_its_model(birds: Dataset, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"of somebody else")
    with pytest.raises(OutputExistsError, match="--out"):
        train(birds, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"of somebody else"


# ---- --minutes


def all_tensors(loop: loop_module.TrainingLoop) -> dict[str, Tensor]:
    """Everything that a step changes."""
    modules = {"objective": loop.work.objective, "averaged": loop.averaged, "judges": loop.judges_raw}
    tensors = {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for name, optimizer in loop.optimizers.items():
        tensors |= {f"{name}.{key}": value for key, value in checkpoint.optimizer_tensors(optimizer).items()}
    return {name: value.clone() for name, value in tensors.items()}


def test_measuring_for_minutes_leaves_no_trace(birds: Dataset) -> None:
    fresh, measured = new_loop(birds), new_loop(birds)
    assert loop_module.measured_steps(measured, options(steps=None, minutes=1e-6)) == 10  # the least
    assert (measured.done, measured.rate) == (0, fresh.rate)
    assert_same_bits(all_tensors(fresh), all_tensors(measured))
    fresh.advance(1)
    measured.advance(1)
    assert_same_bits(all_tensors(fresh), all_tensors(measured))


@pytest.mark.parametrize(("steps", "total"), [(4, 4), (40, 10)])
def test_the_lesser_of_steps_and_minutes_bounds_a_training(
    birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, total: int
) -> None:
    monkeypatch.setattr(training, "measured_steps", lambda loop, options: 10)
    monkeypatch.setattr(training, "_run", lambda *arguments: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        train(birds, tmp_path / "run", steps=steps, minutes=1.0)
    assert json.loads((tmp_path / "run" / "options.json").read_text())["steps"] == total


def test_steps_that_minutes_chose_once_are_kept_when_a_run_goes_on(
    birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = iter([3])
    monkeypatch.setattr(training, "measured_steps", lambda loop, wanted: next(chosen))
    with pytest.raises(Interrupted, match="step 1 of 3"):
        train(birds, tmp_path / "run", steps=None, minutes=1.0, progress=interrupt_at_step(1))
    done = train(birds, tmp_path / "run", steps=None, minutes=1.0)
    assert (done.resumed_at, done.steps) == (1, 3)


def test_steps_are_the_minutes_over_the_time_that_a_step_takes(birds: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = new_loop(birds)
    readings = itertools.count()  # two a step: each takes a second by this clock
    monkeypatch.setattr(loop_module, "time", SimpleNamespace(monotonic=lambda: float(next(readings))))
    monkeypatch.setattr(loop, "advance", lambda total: {})
    assert loop_module.measured_steps(loop, options(steps=None, minutes=2.0)) == 120
    assert loop_module.measured_steps(loop, options(steps=None, minutes=0.5)) == 30
    assert loop_module.measured_steps(loop, options(steps=None)) is None


# ---- losses that are not finite


def test_losses_that_stay_not_finite_end_the_training_and_keep_the_last_good_state(
    birds_run: Path, birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    whole = losses.full_objective
    calls = itertools.count()

    def failing(terms: Any, weights: Any) -> Tensor:
        return whole(terms, weights) * (1.0 if next(calls) < 2 else float("nan"))

    with monkeypatch.context() as patch:
        patch.setattr(losses, "full_objective", failing)
        patch.setattr(training, "_SAVE_SECONDS", -1.0)
        patch.setattr(training, "_MAX_BAD_STEPS", 3)
        with pytest.raises(TrainingError, match="not finite since step 2; the last good state is kept"):
            train(birds, run)
    tensors, header = checkpoint.load(run / "state.safetensors")
    assert header["done"] == 2
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    assert train(birds, run).resumed_at == 2
    assert_same_bits(tensors_of(birds_run / "model.safetensors"), tensors_of(run / "model.safetensors"))


def test_one_step_that_is_not_finite_is_passed_over(
    birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = losses.full_objective
    calls = itertools.count()
    monkeypatch.setattr(
        losses,
        "full_objective",
        lambda terms, weights: whole(terms, weights) * (float("inf") if next(calls) == 2 else 1.0),
    )
    train(birds, tmp_path / "run")
    tensors = tensors_of(tmp_path / "run" / "model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())


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
    train(read_domains(root), run, preset="digits", steps=2)
    (line,) = logged(run)
    terms = {"consistency", "symmetry", "adversarial", "discriminators"}
    assert set(line) - {"step", "phase"} == terms | ({"label", "identity"} if labelled else set())
    model = load_model(run)
    assert (model.card.mode, model.card.regions) == ("paper", PRESETS["digits"].attention.regions)
    assert model.card.classes == (("0", "1") if labelled else ())
    done = translate(model, root / "trainA", tmp_path / "translated", device="cpu")
    assert (done.images, done.skipped) == (6, ())
    for written in (tmp_path / "translated").rglob("*.png"):
        assert cv2.imread(str(written)).shape == (24, 24, 3)


def test_a_run_on_two_folders_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    data = read_domains(two_folders(tmp_path / "two", labelled=True))
    train(data, tmp_path / "straight", preset="digits", steps=2)
    with pytest.raises(Interrupted):
        train(data, tmp_path / "stopped", preset="digits", steps=2, progress=interrupt_at_step(1))
    assert train(data, tmp_path / "stopped", preset="digits", steps=2).resumed_at == 1
    straight, stopped = (tensors_of(tmp_path / name / "model.safetensors") for name in ("straight", "stopped"))
    assert_same_bits(straight, stopped)


# ---- what cannot be trained


def test_options_take_the_presets_values_where_none_are_given() -> None:
    for name, preset in PRESETS.items():
        resolved = TrainOptions(preset=name, start=SCRATCH).resolved()
        assert (resolved.batch_size, resolved.learning_rate) == (preset.batch_size, preset.learning_rate)
        assert (resolved.consistency, resolved.symmetry) == (preset.consistency, preset.symmetry)
        assert resolved.mode == preset.mode
        assert resolved == resolved.resolved()
    assert options(symmetry=0.0, regions=3).resolved().symmetry == 0.0
    assert options(regions=3).attention.regions == 3


def test_an_unknown_preset_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"--preset cats: choose one of pose, digits"):
        options(preset="cats").resolved()


def test_a_preset_of_two_folders_refuses_a_labelled_data_set_and_the_other_way_round(
    birds: Dataset, birds_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"--preset digits: needs two folders"):
        train(birds, tmp_path / "run", preset="digits")
    both = read_domains(birds_folder / "images", birds_folder / "images")
    with pytest.raises(UsageError, match=r"--preset pose: needs a labelled data set"):
        train(both, tmp_path / "run")
    with pytest.raises(UsageError, match=r"--per-class 2: two folders have no classes"):
        train(both, tmp_path / "run", preset="digits", per_class=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "value"), [("device", "abacus"), ("precision", "8-bit")])
def test_an_unknown_device_or_precision_is_told(birds: Dataset, tmp_path: Path, name: str, value: str) -> None:
    arguments: Any = {"device": "cpu", name: value}
    with pytest.raises(UsageError, match=rf"{name}={value}: choose "):
        training.train(options(), birds, name="birds", out=tmp_path / "run", **arguments)


def test_images_of_one_readable_class_are_refused(birds: Dataset, tmp_path: Path) -> None:
    one = replace(birds, samples=tuple(sample for sample in birds.samples if sample.label == 0))
    with pytest.raises(DataError, match="at least two classes"):
        train(one, tmp_path / "run")


def test_only_training_images_are_trained_on(birds: Dataset) -> None:
    assert new_loop(birds).work.images == TRAINING_IMAGES
    assert new_loop(birds, per_class=2).work.images == 8


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before


def test_two_trainings_do_not_share_a_folder(birds: Dataset, tmp_path: Path) -> None:
    with locked(tmp_path / ".run.lock", tmp_path / "run"), pytest.raises(LockedError, match="another run is writing"):
        train(birds, tmp_path / "run")


# ---- weights to begin with


def begun(wanted: options.TrainOptions, listener: Listener | None = None) -> Translator:
    """New networks as a training with these options begins with them."""
    torch.manual_seed(0)
    translator = build_translator(wanted.mode, wanted.attention)
    training._start(translator, wanted, listener or SILENT)
    return translator


def test_pose_morphing_begins_with_the_networks_of_the_package() -> None:
    assert TrainOptions().resolved().start == GENERAL
    assert TrainOptions(preset="digits").resolved().start == SCRATCH
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


def test_a_training_can_begin_with_another_run(birds: Dataset, tmp_path: Path) -> None:
    run = train(birds, tmp_path / "run", steps=1).run
    state, packed = begun(options(start=str(run))).state_dict(), tensors_of(run / checkpoint.MODEL_FILE)
    assert all(torch.equal(tensor, packed[name]) for name, tensor in state.items())


def test_a_training_goes_on_though_the_run_that_it_began_with_is_gone(birds: Dataset, tmp_path: Path) -> None:
    first = train(birds, tmp_path / "first", steps=1).run
    with pytest.raises(Interrupted):
        train(birds, tmp_path / "second", start=str(first), progress=interrupt_at_step(2))
    shutil.rmtree(first)
    assert train(birds, tmp_path / "second", start=str(first)).resumed_at == 2


def test_a_model_remembers_its_least_share_of_own_pixels(birds: Dataset, tmp_path: Path) -> None:
    run = train(birds, tmp_path / "run", steps=1, own_pixels=0.9).run
    model = load_model(run)
    assert model.card.own_pixels == 0.9
    assert isinstance(model.translator, ReferenceTranslator)
    assert model.translator.morpher.own_pixels == 0.9


def test_runs_from_before_there_were_own_pixels_are_still_the_same_runs(birds: Dataset) -> None:
    assert "own_pixels" not in run_folder.identity_of(TrainOptions(), birds)
    assert run_folder.identity_of(TrainOptions(own_pixels=0.9), birds)["own_pixels"] == 0.9


def test_own_pixels_are_refused_where_nothing_is_carried_along() -> None:
    with pytest.raises(UsageError, match=r"--own-pixels 0\.5"):
        TrainOptions(preset="digits", own_pixels=0.5).resolved()


def test_a_start_must_hold_networks_of_the_same_mode(birds: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--start general"):
        TrainOptions(preset="digits", start=GENERAL).resolved()
    run = train(birds, tmp_path / "run", steps=1).run
    with pytest.raises(UsageError, match="reference mode"):
        begun(TrainOptions(preset="digits", start=str(run)).resolved())
