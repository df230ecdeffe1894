"""The commands, one after another as a user types them: what they print, what they write, how they end."""

from __future__ import annotations

import csv
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer.main
from making_runs import Output, dagaug, quick, tensors_of

from dagaug.__main__ import main
from dagaug.birds import dataset
from dagaug.cli.app import app
from dagaug.cli.command_inputs import Input
from dagaug.cli.show import _inputs_of
from dagaug.cli.terminal import Terminal
from dagaug.data.layouts import read_dataset
from dagaug.hdf5.reader import Store
from dagaug.hdf5.verify import verify
from dagaug.training.trainer import Trainer

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
BIRDS = ("--species", 3, "--per-class", 4, "--test-per-class", 2, "--size", 32)
TRAIN = ("--steps", 3, "--size", 32, "--batch-size", 4, "--device", "cpu")


# ---- the three commands of a user


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Output]]:
    """The user's commands in an empty folder, naming neither run nor file; the folder is the current one."""
    with quick() as patch:
        patch.chdir(tmp_path_factory.mktemp("empty"))
        yield {
            "sample-data": dagaug("sample-data", "./cub", *BIRDS),
            "train": dagaug("train", "./cub", *TRAIN),
            "augment": dagaug("augment", "./cub", "--refs", 2, "--min-confidence", 0),
            "score": dagaug("score", "--steps", 2, "--seeds", 2),
            "show": dagaug("show"),
        }


def test_the_users_three_commands_run_one_after_another_in_an_empty_folder(session: dict[str, Output]) -> None:
    assert {name: output.code for name, output in session.items()} == dict.fromkeys(session, 0)
    (run,) = (path for path in Path("runs").glob("[!.]*") if path.is_dir())
    assert run.name.startswith("cub-pose-")
    (store,) = run.glob("*.h5")
    assert store.name == "cub-refs2.h5"
    verify(store)
    assert {path.name for path in run.iterdir()} >= {
        "model.safetensors", "model.json", "options.json", "metrics.jsonl", "sheets", "attention.png",
        "judges.safetensors", "cub-refs2-score.json", "cub-refs2.html", "cub-refs2.png",
    }  # fmt: skip
    assert not list(Path().rglob("*.tmp"))


def test_each_command_prints_its_output_path_and_the_next_command(session: dict[str, Output]) -> None:
    assert "Next: dagaug train cub" in session["sample-data"].out
    assert "Next: dagaug augment cub --refs 10" in session["train"].out
    assert "Run folder: runs/cub-pose-" in session["train"].out
    assert "12 sources, 48 candidates, 24 kept (24 not the best of its reference)" in session["augment"].out
    assert "Next: dagaug score" in session["augment"].out
    assert "Next: dagaug show runs/" in session["score"].out
    assert "cub-refs2.html" in session["show"].out


def test_the_score_is_a_table_of_both_arms_with_intervals_and_a_sentence(session: dict[str, Output]) -> None:
    out = session["score"].out
    for word in ("real+dagaug", "95% interval", "difference", "against real", "2 paired seeds", "6 test images"):
        assert word in out


def test_one_line_reports_near_duplicates_of_test_images_for_all_arms(session: dict[str, Output]) -> None:
    lines = [line for line in session["score"].out.splitlines() if "a test image" in line]
    assert len(lines) == 1
    assert "This is normal in these data" in lines[0] or lines[0].startswith("No training image")


def test_the_same_commands_again_do_no_work_twice(session: dict[str, Output]) -> None:
    again = dagaug("train", "./cub", *TRAIN)
    read, chosen = again.err.splitlines()
    assert (again.code, chosen) == (0, "Preset pose (all networks trained), patches of 32 px")
    assert read == "cub: CUB-200-2011 lists, 3 classes, 12 training and 6 test images (split given by the data)"
    assert "is already trained (3 steps); --overwrite trains it again" in again.out
    again = dagaug("augment", "./cub", "--refs", 2, "--min-confidence", 0)
    assert again.code == 1
    assert "--overwrite" in again.err
    again = dagaug("score", "--steps", 2, "--seeds", 2, "--json")
    assert again.code == 0


def test_more_steps_are_a_new_training_that_names_the_finished_run_as_a_start(session: dict[str, Output]) -> None:
    del session
    (first,) = Path("runs").glob("cub-pose-*")
    longer = ("train", "./cub", *TRAIN, "--steps", 4)
    told = f"{first} is the same training with 3 steps."
    done = dagaug(*longer)
    assert done.code == 0, done.err
    assert told in done.err
    assert f"to begin it with the weights of that one: --start {first}" in done.err
    assert "Trained 4 steps" in done.out
    assert told not in dagaug(*longer).err  # finished, too
    refused = dagaug(*longer, "--out", first)
    assert refused.code == 1
    assert "holds a run of 3 steps, but now it is 4 steps; the learning rate follows" in refused.err
    assert refused.err.endswith(f"; try --start {first} or --overwrite\n")
    shutil.rmtree(next(path for path in Path("runs").glob("cub-pose-*") if path != first))


def test_a_run_can_be_shown_by_its_folder(session: dict[str, Output]) -> None:
    (run,) = (path for path in Path("runs").glob("[!.]*") if path.is_dir())
    shown = dagaug("show", run, "--json")
    assert shown.code == 0
    assert Path(shown.json["report"]).read_text(encoding="utf-8").startswith("<!")


# ---- JSON


@pytest.fixture(scope="module")
def as_json(session: dict[str, Output]) -> dict[str, Output]:
    """Every command with --json, in the folder of the session; demo has a separate test."""
    (run,) = (path for path in Path("runs").glob("[!.]*") if path.is_dir())
    for domain, level in (("trainA", 40), ("trainB", 180)):
        Path("two", domain).mkdir(parents=True)
        for number in range(3):
            cv2.imwrite(f"two/{domain}/{number}.png", np.full((32, 32, 3), level + number, np.uint8))
    return {
        "sample-data": dagaug("sample-data", "json-cub", *BIRDS, "--json"),
        "train": dagaug("train", "two", "--preset", "digits", *TRAIN, "--out", "json-run", "--cache", 0, "--json"),
        "translate": dagaug("translate", "two/trainA", "--out", "json-two", "--checkpoint", "json-run", "--json"),
        "augment": dagaug(
            "augment", "cub", "--refs", 1, "--limit", 2, "--checkpoint", run, "--out", "json.h5",
            "--min-confidence", 0, "--folds", 1, "--cache", "1MB", "--json",
        ),
        "augment --dry-run": dagaug("augment", "cub", "--refs", 1, "--checkpoint", run, "--dry-run", "--json"),
        "score": dagaug("score", "cub", "json.h5", "--steps", 2, "--seeds", 2, "--cache", "10KB", "--json"),
        "show": dagaug("show", "json.h5", "--json"),
        "export": dagaug("export", "json.h5", "--out", "json-folders", "--json"),
        "import": dagaug("import", "json-folders", "--out", "json-back.h5", "--json"),
    }  # fmt: skip


def test_every_command_can_print_json() -> None:
    for name, command in COMMANDS.items():
        assert "--json" in {option for parameter in command.params for option in parameter.opts}, name


@pytest.mark.parametrize(
    ("command", "holds"),
    [
        ("sample-data", {"data": "json-cub", "species": 3, "train": 12, "test": 6}),
        ("train", {"run": "json-run", "steps": 3, "already": False}),
        ("translate", {"out": "json-two", "images": 3, "skipped": []}),
        ("augment", {"out": "json.h5", "sources": 2, "candidates": 4, "kept": 2, "accuracy": None}),
        ("augment --dry-run", {"sources": 12, "candidates": 24}),
        ("score", {"classes": 3, "test": 6, "synthetic": 2}),
        ("show", {"report": "json.html", "sheet": "json.png"}),
        ("export", {"out": "json-folders", "to": "imagefolder"}),
        ("import", {"out": "json-back.h5", "removed": 0}),
    ],
)
def test_json_is_alone_on_stdout_and_holds_the_result(
    as_json: dict[str, Output], command: str, holds: dict[str, Any]
) -> None:
    output = as_json[command]
    assert output.code == 0, output.err
    assert {name: output.json[name] for name in holds} == holds


def test_a_file_finds_its_run_and_data_from_any_folder(
    as_json: dict[str, Output], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del as_json
    file, (run,) = Path("json.h5").absolute(), Path("runs").absolute().glob("cub-pose-*")
    monkeypatch.chdir(tmp_path)
    found = _inputs_of(Input(file), None, Terminal(quiet=True))
    assert (found.run, found.data) == (run, file.with_name("cub"))


def test_the_memory_for_images_is_an_option_and_what_exceeds_it_is_told_in_one_line(
    as_json: dict[str, Output],
) -> None:
    said = {
        command: [line for line in as_json[command].err.splitlines() if "in memory" in line]
        for command in ("train", "augment", "score")
    }
    assert [len(lines) for lines in said.values()] == [1, 0, 1]
    assert re.match(r"Decoded images take up to 18 kB: 0 kB are kept in memory, the others in", said["train"][0])
    for command in ("train", "augment", "score"):
        refused = dagaug(command, "cub", "--cache", "2")
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "--cache 2: give a number with MB or GB, for example 2GB" in refused.err


def test_exported_folders_have_the_images_and_their_provenance(as_json: dict[str, Output]) -> None:
    del as_json
    header, *lines = Path("json-folders/provenance.csv").read_text(encoding="utf-8").splitlines()
    assert header == "path,label,source,reference,variant,confidence,kept"
    with Store("json.h5") as store:
        assert len(lines) == len(store)


def test_what_was_exported_is_imported_as_it_was(as_json: dict[str, Output]) -> None:
    del as_json
    assert Path("json-back.h5").read_bytes() == Path("json.h5").read_bytes()
    refused = dagaug("export", "json.h5", "--out", "tars", "--to", "csv", "--shard-images", 3)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    refused = dagaug("translate", "two/trainA", "--out", "x", "--checkpoint", "json-run", "--encoding", "raw")
    assert (refused.code, "only for an HDF5 file" in refused.err) == (2, True)
    done = dagaug("translate", "two/trainA", "--out", "two.h5", "--checkpoint", "json-run", "--encoding", "raw")
    assert "3 images translated into two.h5" in done.out
    verify("two.h5")


# ---- how a command ends


def test_the_version_is_printed() -> None:
    output = dagaug("--version")
    assert output.code == 0
    assert output.out.startswith("dagaug ")


def test_without_arguments_the_commands_are_listed() -> None:
    out = dagaug().out
    assert [name for name in COMMANDS if name not in out] == []


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_answers_for_help_with_all_its_options(name: str) -> None:
    output = dagaug(name, "--help")
    assert output.code == 0
    for parameter in COMMANDS[name].params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            if option.startswith("--"):
                assert option in output.out


def test_an_unknown_command_or_option_is_a_usage_error() -> None:
    assert dagaug("trian").code == 2
    assert dagaug("train", "--stesp", 3).code == 2
    assert dagaug("sample-data", "x", "--species", 1).code == 2


def test_an_interrupted_training_resumes_to_the_same_bits(
    session: dict[str, Output], monkeypatch: pytest.MonkeyPatch
) -> None:
    del session
    arguments = ("train", "cub", *TRAIN, "--seed", 1, "--precision", "32-true")
    advance = Trainer.step

    def interrupted(self: Trainer, total: int) -> dict[str, float]:
        if self.done == 1:
            signal.raise_signal(signal.SIGINT)
        return advance(self, total)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        output = dagaug(*arguments, "--out", "stopped", "--quiet")
    assert (output.code, output.out) == (130, "")
    kept = "the state is saved in stopped; run the same command again to resume"
    assert output.err == f"dagaug: stopped at step 2 of 3; {kept}\n"
    output = dagaug(*arguments, "--out", "stopped", "--json")
    assert (output.code, output.json["resumed_at"]) == (0, 2)
    assert dagaug(*arguments, "--out", "straight").code == 0
    both = [tensors_of(Path(name, "model.safetensors")) for name in ("stopped", "straight")]
    assert all(np.array_equal(both[0][name], both[1][name]) for name in both[1])


def test_an_interrupt_at_any_other_moment_is_one_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "write_flock", interrupted)
    output = dagaug("sample-data", tmp_path / "birds")
    assert output.code == 130
    assert output.err == "dagaug: interrupted; finished work is kept; run the same command again to continue\n"


def test_a_bug_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **more: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(dataset, "write_flock", broken)
    with pytest.raises(ZeroDivisionError):
        dagaug("sample-data", tmp_path / "birds")


# ---- how fast help is

HELP = [sys.executable, "-m", "dagaug", "--help"]


def test_help_loads_none_of_the_heavy_packages() -> None:
    command = [sys.executable, "-X", "importtime", *HELP[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert {"dagaug", "typer"} <= loaded
    assert not loaded & {"torch", "timm", "cv2", "numpy", "lightning_fabric", "matplotlib", "albumentations", "h5py"}
    assert "sample-data" in done.stdout


def test_the_package_runs_as_a_module_too(tmp_path: Path) -> None:
    assert callable(main)
    (tmp_path / "file").write_text("")
    done = subprocess.run([*HELP[:-1], "sample-data", tmp_path / "file"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"dagaug: {tmp_path / 'file'}: is a file; name a folder for the sample data\n"


def test_without_data_the_built_in_birds_are_used_and_a_note_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = dataset.write_flock
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        dataset,
        "write_flock",
        lambda folder, progress: write(folder, species=2, per_class=3, test_per_class=1, size=32),
    )
    with quick():
        output = dagaug("train", *TRAIN, "--steps", 1)
    assert output.code == 0, output.err
    assert "No data folder given: training on the built-in birds, written to runs/built-in-birds" in output.err
    assert "Next: dagaug augment runs/built-in-birds --refs 10" in output.out


def test_a_drawn_split_is_written_down_and_kept_whatever_the_later_seed(
    tmp_path: Path, birds_folder: Path, birds_judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(birds_folder / "images", "folders")
    judged = ("--classifier", "test_resnet", "--weights", birds_judge, "--min-confidence", 0)
    with quick():
        assert dagaug("train", "folders", "--seed", 1, *TRAIN, "--out", "run").code == 0
        with Path("run/split.csv").open(encoding="utf-8", newline="") as stream:
            tested = {line["path"] for line in csv.DictReader(stream) if line["split"] == "test"}
        assert tested
        assert tested != {sample.path.as_posix() for sample in read_dataset("folders", seed=2).test}
        made = dagaug(
            "augment", "folders", "--refs", 1, "--seed", 2, "--checkpoint", "run", "--out", "a.h5", *judged
        )  # fmt: skip
        assert made.code == 0, made.err
        with Store("a.h5") as store:
            header = store.header
        assert {file for file, test in zip(header.files, header.files_split, strict=True) if test} == tested
        scored = dagaug("score", "folders", "a.h5", "--steps", 2, "--seeds", 2, "--arms", "real,real+dagaug")
        assert scored.code == 0, scored.err
