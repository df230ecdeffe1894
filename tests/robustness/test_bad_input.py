"""Mistakes of users: one line with the cause and the next step, the right exit code, no partial output."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from making_runs import Output, dagaug, options, quick, tensors_of

from dagaug.birds.dataset import write_flock
from dagaug.hdf5.provenance import Provenance
from dagaug.hdf5.reader import Store
from dagaug.model import checkpoint

FEW = ("--steps", 1, "--size", 32, "--batch-size", 4, "--device", "cpu", "--precision", "32-true")


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, birds_folder: Path, birds_run: Path, birds_judge: Path
) -> Iterator[Path]:
    """A folder with birds, a finished run, a judge, a file of morphs, and things that do not fit."""
    root = tmp_path_factory.mktemp("world")
    shutil.copytree(birds_folder, root / "birds")
    shutil.copytree(birds_run, root / "runs" / "run")
    shutil.copy(birds_judge, root / "judge.safetensors")
    write_flock(root / "others", species=2, per_class=2, test_per_class=1, size=32)
    (root / "empty").mkdir()
    (root / "texts" / "a").mkdir(parents=True)
    (root / "texts" / "a" / "note.txt").write_text("no image")
    (root / "one" / "wren").mkdir(parents=True)
    cv2.imwrite(str(root / "one" / "wren" / "1.png"), np.zeros((9, 9, 3), np.uint8))
    (root / "file").write_text("a regular file")
    (root / "noise.h5").write_bytes(np.random.default_rng(0).bytes(4000))
    (root / "noise.safetensors").write_bytes(np.random.default_rng(1).bytes(4000))
    whole = (root / "runs" / "run" / "model.safetensors").read_bytes()
    (root / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (root / "pairs.csv").write_text("source,reference\nno-such.png,other.png\n")
    with quick() as patch:
        patch.chdir(root)
        made = dagaug("augment", "birds", "--refs", 1, "--out", "morphs.h5", *JUDGE, "--min-confidence", 0)
        assert made.code == 0, made.err
        whole = (root / "morphs.h5").read_bytes()
        (root / "cut.h5").write_bytes(whole[: len(whole) // 2])
        yield root


JUDGE = ("--classifier", "test_resnet", "--weights", "judge.safetensors")


def contents(root: Path) -> dict[str, int]:
    """All files and folders with their sizes, but for what reading leaves in caches."""
    return {str(path): path.stat().st_size if path.is_file() else -1 for path in sorted(root.rglob("*"))}


def refused(code: int, *arguments: object) -> str:
    """Run a command that must fail with one line, no result and no trace; returns the line."""
    before = contents(Path.cwd())
    output = dagaug(*arguments)
    errors = [line for line in output.err.splitlines() if line.startswith("dagaug: ")]
    assert (output.code, output.out, len(errors)) == (code, "", 1), output.err
    assert output.err.endswith(errors[0] + "\n")  # nothing after it
    assert "Traceback" not in output.err
    assert contents(Path.cwd()) == before
    return errors[0].removeprefix("dagaug: ")


# ---- data


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("command", ["train", "augment"])
def test_a_folder_that_is_not_there(command: str) -> None:
    line = refused(1, command, "nowhere")
    assert line == "nowhere: no such data folder; to make one: dagaug sample-data nowhere"


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("folder", ["empty", "texts"])
@pytest.mark.parametrize("command", ["train", "augment"])
def test_a_folder_without_images(command: str, folder: str) -> None:
    assert refused(1, command, folder).startswith(f"{folder}: no images found")


@pytest.mark.usefixtures("world")
def test_a_folder_of_one_class() -> None:
    assert refused(1, "train", "one", *FEW) == "one: all images are of one class (wren); at least two are needed"


@pytest.mark.usefixtures("world")
def test_a_folder_that_is_no_data_set() -> None:
    assert "neither a data folder nor a CSV file" in refused(1, "train", "file")
    assert "must hold the folders trainA and trainB" in refused(1, "train", "birds", "--preset", "digits", *FEW)
    assert "nowhere" in refused(1, "train", "nowhere", "--preset", "digits", *FEW)


@pytest.mark.usefixtures("world")
def test_unreadable_images_among_good_ones_are_skipped_counted_and_listed(tmp_path: Path) -> None:
    shutil.copytree("birds", tmp_path / "birds")
    first, second, *_ = sorted(path for path in (tmp_path / "birds").rglob("*.png") if "train" in path.name)
    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:100])
    trained = dagaug("train", tmp_path / "birds", "--out", tmp_path / "run", *FEW)
    assert trained.code == 0
    assert "skipped, 1 of 16 so far" in trained.err
    assert "skipped, 2 of 16 so far" in trained.err
    done = dagaug(
        "augment", tmp_path / "birds", "--refs", 1, "--checkpoint", tmp_path / "run", "--out", tmp_path / "a.h5", *JUDGE
    )
    assert done.code == 0
    assert "14 sources" in done.out
    assert "2 files skipped, listed in the file" in done.out
    with Store(tmp_path / "a.h5") as store:
        assert {Path(path).name for path, _ in store.header.skipped} == {first.name, second.name}
    strict = dagaug("train", tmp_path / "birds", "--out", tmp_path / "strict", "--strict", *FEW)
    assert strict.code == 1
    assert first.name in strict.err


@pytest.mark.usefixtures("world")
def test_more_references_than_images() -> None:
    line = refused(2, "augment", "birds", "--refs", 16, *JUDGE)
    assert line == "--refs 16: there are only 15 other training images; give at most that many"


@pytest.mark.usefixtures("world")
def test_pairs_of_images_that_are_not_there() -> None:
    line = refused(1, "augment", "birds", "--pairs", "pairs.csv", *JUDGE)
    assert line == "pairs.csv, line 2: no-such.png is no usable image of the data set"
    assert refused(1, "augment", "birds", "--pairs", "nowhere.csv", *JUDGE) == "--pairs nowhere.csv: no such file"


# ---- checkpoints


def test_no_checkpoint(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = refused(1, "augment", world / "birds")
    assert line == "no checkpoint found under runs/; train one first: dagaug train DATA"
    assert "no such checkpoint" in refused(1, "augment", world / "birds", "--checkpoint", "nowhere")
    shutil.copytree(world / "runs" / "run", tmp_path / "runs" / "half")
    (tmp_path / "runs" / "half" / "model.safetensors").rename(tmp_path / "runs" / "half" / "state.safetensors")
    assert "the training is not finished; run the same" in refused(1, "augment", world / "birds")


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("name", ["cut.safetensors", "noise.safetensors", "file", "judge.safetensors", "morphs.h5"])
@pytest.mark.parametrize("command", [("augment", "birds"), ("translate", "one", "--out", "never")])
def test_a_checkpoint_that_is_corrupt_or_none(command: tuple[str, ...], name: str) -> None:
    line = refused(1, *command, "--checkpoint", name)
    assert line.startswith(f"{name}: not a ")


def test_a_checkpoint_with_other_networks_inside(world: Path, tmp_path: Path) -> None:
    file = world / "runs" / "run" / "model.safetensors"
    tensors = tensors_of(file)
    tensors.pop(sorted(tensors)[0])
    checkpoint.save(tmp_path / "model.safetensors", tensors, checkpoint.load(file)[1])
    assert "holds networks of other shapes" in refused(1, "augment", world / "birds", "--checkpoint", tmp_path)


@pytest.mark.usefixtures("world")
def test_a_checkpoint_of_other_classes_names_both() -> None:
    line = refused(1, "augment", "others", "--refs", 1)
    assert "runs/run/model.safetensors has 4 classes" in line
    assert "others has 2 classes" in line
    assert line.endswith("dagaug train others")


@pytest.mark.usefixtures("world")
def test_a_checkpoint_of_the_other_mode() -> None:
    assert "use dagaug augment" in refused(1, "translate", "one", "--out", "never")


# ---- files of morphs


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("name", ["cut.h5", "noise.h5", "nowhere.h5"])
@pytest.mark.parametrize(
    "command", [("score", "birds", "FILE"), ("show", "FILE"), ("export", "FILE", "--out", "never")]
)
def test_a_file_of_morphs_that_is_corrupt_or_missing(command: tuple[str, ...], name: str) -> None:
    line = refused(1, *(name if word == "FILE" else word for word in command))
    assert line.startswith(name)


def test_no_file_of_morphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("score", "show"):
        line = refused(1, command)
        assert line == "no augmented .h5 file found here or under runs/; make one first: dagaug augment DATA"


def test_a_file_whose_data_set_is_missing(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(world / "morphs.h5", "morphs.h5")
    monkeypatch.setattr(Provenance, "data_folder", lambda provenance, file: None)
    line = refused(1, "score", "morphs.h5")
    birds = (world / "birds").absolute()
    assert line == f"morphs.h5: its data folder {birds} was not found; give it: dagaug score DATA morphs.h5"


@pytest.mark.usefixtures("world")
def test_a_file_of_morphs_of_other_data() -> None:
    assert "morphs.h5" in refused(1, "score", "others", "morphs.h5", "--steps", 2, "--seeds", 2)


# ---- outputs


def test_an_output_that_exists_needs_overwrite(world: Path) -> None:
    line = refused(1, "augment", "birds", "--refs", 1, "--out", "morphs.h5", *JUDGE)
    assert line == "morphs.h5 exists; try --overwrite or another --out"
    assert "not empty" in refused(1, "sample-data", "one")
    assert "is a file" in refused(1, "sample-data", "file")
    assert "--overwrite" in refused(1, "export", "morphs.h5", "--out", "birds")
    line = refused(1, "train", "birds", "--out", "runs/run", *FEW, "--seed", 9)
    assert "runs/run: holds a run with " in line
    assert line.endswith("; try --overwrite or another --out")
    assert (world / "morphs.h5").stat().st_size > 0


@pytest.mark.usefixtures("world")
def test_the_option_that_differs_is_named_with_both_values() -> None:
    wanted = options()
    line = refused(
        1, "train", "birds", "--out", "runs/run", "--steps", wanted.steps, "--size", 32, "--batch-size", 8
    )  # fmt: skip
    assert "holds a run with batch_size 4, but now it is 8" in line


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    "command",
    [
        ("sample-data", "file/below", "--species", 2),
        ("train", "birds", "--out", "file/below", *FEW),
        ("augment", "birds", "--refs", 1, "--out", "file/below.h5", *JUDGE),
        ("score", "birds", "morphs.h5", "--steps", 2, "--seeds", 2, "--out", "file/below.json"),
        ("show", "morphs.h5", "--out", "file/below.html"),
        ("show", "runs/run", "--out", "file/below.html"),
        ("export", "morphs.h5", "--out", "file/below"),
        ("demo", "--out", "file/below"),
    ],
    ids=lambda command: command[0],
)
def test_an_output_where_nothing_can_be_written(command: tuple[object, ...]) -> None:
    line = refused(1, *command)
    assert "file" in line
    assert "cannot be" in line or "choose another" in line


# ---- names and values


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    "command",
    [
        ("augment", "birds", "--refs", 1, "--out", "never.h5", "--classifier", "resnet1"),
        ("augment", "birds", "--refs", 1, "--dry-run", "--classifier", "resnet1"),
        ("score", "birds", "morphs.h5", "--steps", 2, "--out", "never.json", "--classifier", "resnet1"),
        ("train", "birds", "--out", "never", *FEW, "--distance", "timm:resnet1"),
    ],
    ids=lambda command: f"{command[0]}{' --dry-run' * ('--dry-run' in command)}",
)
def test_an_unknown_timm_name_is_refused_with_close_matches(command: tuple[object, ...]) -> None:
    line = refused(2, *command)
    assert line.startswith("--distance timm:resnet1: " if "--distance" in command else "--classifier resnet1: ")
    assert "resnet18" in line


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("train", "birds", "--preset", "cats"), "--preset cats: choose one of pose"),
        (("train", "birds", "--size", 30), "--size 30: "),
        (("train", "birds", "--size", 40), "--size 40: "),
        (("train", "birds", "--without", "gan"), "--without gan: "),
        (("train", "birds", "--minutes", 0), "--minutes 0"),
        (("train", "birds", "--learning-rate", -1), "--learning-rate -1"),
        (("train", "birds", "--out", "never", *FEW[:-4], "--device", "abacus"), "--device abacus: choose "),
        (("train", "birds", "--out", "never", *FEW[:-2], "--precision", "8"), "--precision 8: choose "),
        (("train", "birds", "--out", "never", *FEW, "--distance", "cosine"), "--distance cosine: choose "),
        (("train", "birds", "--out", "never", *FEW, "--weights", "file"), "--weights file: "),
        (("augment", "birds", "--variants", "upside-down"), "--variants upside-down: "),
        (("augment", "birds", "--device", "abacus", *JUDGE), "--device abacus: "),
        (
            ("augment", "birds", "--refs", 1, "--min-confidence", 0.9, "--max-confidence", 0.1, *JUDGE),
            "--min-confidence 0.9: give a number from 0 to the largest confidence, 0.1",
        ),
        (("augment", "birds", "--pairs", "pairs.csv", "--limit", 1, *JUDGE), "--limit 1: "),
        (("score", "birds", "morphs.h5", "--synthetic-share", 2), "--synthetic-share 2.0: "),
        (("score", "morphs.h5", "morphs.h5"), "give the data folder first"),
    ],
    ids=lambda value: " ".join(map(str, value[2:6])) if isinstance(value, tuple) else "",
)
def test_a_value_out_of_range_names_its_option(command: tuple[object, ...], message: str) -> None:
    assert refused(2, *command).startswith(message) or message.startswith("give")


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("weights", "message"),
    [("nowhere.pth", "no such file"), ("noise.safetensors", "noise.safetensors"), ("file", "file")],
)
def test_weights_that_are_missing_or_corrupt(weights: str, message: str) -> None:
    assert message in refused(1, "augment", "birds", "--refs", 1, "--out", "never.h5", "--weights", weights)


def test_a_judge_of_other_classes(world: Path, tmp_path: Path) -> None:
    trained = dagaug("train", "others", "--out", tmp_path / "run", *FEW)
    assert trained.code == 0, trained.err
    line = refused(
        1, "augment", "others", "--refs", 1, "--checkpoint", tmp_path / "run", "--out", "never.h5", *JUDGE
    )  # fmt: skip
    assert "judge.safetensors: judges other classes" in line
    assert not (world / "never.h5").exists()


@pytest.mark.usefixtures("world")
def test_errors_are_one_line_with_json_and_quiet_too() -> None:
    for option in ("--json", "--quiet"):
        output: Output = dagaug("augment", "nowhere", option)
        assert (output.code, output.out) == (1, "")
        assert output.err == "dagaug: nowhere: no such data folder; to make one: dagaug sample-data nowhere\n"


def test_a_training_that_cannot_start_does_not_remove_the_old_run(world: Path, tmp_path: Path) -> None:
    shutil.copytree("runs/run", tmp_path / "run")
    before = contents(tmp_path)
    refused(2, "train", "birds", "--out", tmp_path / "run", "--overwrite", *FEW, "--distance", "timm:resnet1")
    assert contents(tmp_path) == before
    assert (world / "runs" / "run" / "model.safetensors").exists()
