"""Runs and HDF5 files on the hub in every command that reads them: what is made, where, and what it records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub.constants
import pytest
from hub_server import Hub, connect, running_hub
from making_runs import Output, dagaug, quick

from dagaug.hdf5.reader import Store
from dagaug.model.trained_model import load_model

RUN, DATA = "hf-hub:someone/birds", "hf-hub:someone/data"


@dataclass(frozen=True)
class World:
    """A run and a file made with it, both on the hub, and the commands that put them there."""

    hub: Hub
    birds: Path
    run: Path
    outputs: dict[str, Output]

    @property
    def run_commit(self) -> str:
        return self.hub.repositories["model", "someone/birds"].branches["main"]

    @property
    def file_commit(self) -> str:
        return self.hub.repositories["dataset", "someone/data"].branches["main"]

    @property
    def results(self) -> Path:
        """Where results of the file on the hub stand by default."""
        return Path("runs", f"someone--data-{self.file_commit[:8]}")


@pytest.fixture(scope="module")
def world(
    birds_folder: Path, birds_run: Path, birds_judge: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("hub")
    with running_hub() as hub, quick() as patch:
        connect(patch, hub, folder / "cache")
        patch.chdir(folder)
        judged = ("--classifier", "test_resnet", "--weights", birds_judge, "--min-confidence", 0)
        outputs = {"push run": dagaug("push", birds_run, "someone/birds", "--quiet")}
        outputs["augment"] = dagaug(
            "augment", birds_folder, "--checkpoint", RUN, "--refs", 1, "--limit", 8, "--device", "cpu", *judged
        )
        (made,) = Path("runs").rglob("*.h5")
        outputs["push file"] = dagaug("push", made, "someone/data", "--quiet")
        yield World(hub, birds_folder, birds_run, outputs)


def test_a_run_from_the_hub_makes_a_file_that_records_its_commit(world: World) -> None:
    assert {name: output.code for name, output in world.outputs.items()} == dict.fromkeys(world.outputs, 0)
    (made,) = Path("runs").rglob("*-refs1.h5")
    assert made.parent.name == f"someone--birds-{world.run_commit[:8]}"
    with Store(made) as store:
        header = store.header
    assert header.provenance.checkpoint_hub == f"{RUN}@{world.run_commit}"
    assert header.checkpoint_sha256 == load_model(world.run).sha256
    card = world.hub.repositories["dataset", "someone/data"].files()["README.md"].decode()
    assert f"`{RUN}@{world.run_commit}`" in card
    assert str(world.birds) not in card


def test_a_score_of_a_file_on_the_hub_records_its_commit_and_finds_the_checkpoint_there(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "another machine"))
    output = dagaug(
        "score", world.birds, DATA, "--steps", 2, "--seeds", 2, "--arms", "real,real+dagaug,cutout",
        "--arm", f"again={DATA}", "--device", "cpu",
    )  # fmt: skip
    assert output.code == 0, output.err
    (file,) = world.results.glob("*-score.json")
    options = json.loads(file.read_text())["options"]
    assert options["store"].startswith(f"{DATA}/")
    assert options["store"].endswith(f"@{world.file_commit}")
    assert options["others"] == [["again", options["store"]]]
    assert f"Next: dagaug show {options['store']}" in output.out
    assert not list((tmp_path / "another machine").rglob("*.json*"))  # nothing is written into the cache


def test_a_file_on_the_hub_is_shown_checked_and_exported(world: World) -> None:
    shown = dagaug("show", DATA, "--json")
    assert shown.code == 0, shown.err
    page = Path(shown.json["report"])
    assert page.parent == world.results
    assert page.is_file()
    assert "is intact" in dagaug("show", DATA, "--verify").out
    assert dagaug("export", f"{DATA}@{world.file_commit}", "--out", "folders", "--quiet").code == 0
    assert Path("folders", ".dagaug-export").is_file()
    (made,) = Path("runs").rglob("*-refs1.h5")
    (snapshot,) = Path("cache/hub/datasets--someone--data/snapshots").iterdir()
    assert [path.name for path in snapshot.rglob("*")] == [made.name]  # results stand elsewhere


def test_a_run_on_the_hub_is_shown_and_measured(world: World) -> None:
    shown = dagaug("show", RUN, "--json")
    assert shown.code == 0, shown.err
    assert Path(shown.json["report"]) == Path("runs", f"someone--birds-{world.run_commit[:8]}", "report.html")
    measured = dagaug("metrics", RUN, world.birds, "--parts", "--device", "cpu", "--json")
    assert measured.code == 0, measured.err


def test_measures_of_a_file_on_the_hub_are_kept_outside_the_cache(world: World) -> None:
    output = dagaug("metrics", DATA, world.birds, "--steps", 2, "--checkpoint", RUN, "--device", "cpu", "--json")
    assert output.code == 0, output.err
    assert output.json["file"].endswith(f"@{world.file_commit}")
    assert list(world.results.glob("*-judge.safetensors"))


def test_a_training_starts_from_a_run_on_the_hub_and_records_the_commit(world: World) -> None:
    arguments = (
        "train", world.birds, "--preset", "pose", "--size", 32, "--steps", 1, "--batch-size", 4, "--device", "cpu",
        "--out", "started",
    )  # fmt: skip
    output = dagaug(*arguments, "--start", RUN)
    assert output.code == 0, output.err
    start = f"{RUN}@{world.run_commit}"
    assert json.loads(Path("started/options.json").read_text())["identity"]["start"] == start
    card = Path("started/README.md").read_text()
    assert f"start: `{start}`" in card
    assert "PCK@0.1 of the flow" in card
    world.hub.add("model", "someone/birds", {"model.json": b"{}"})
    refused = dagaug(*arguments, "--start", RUN)
    assert "holds a run with start" in refused.err
    assert "already trained" in dagaug(*arguments, "--start", start).out


@pytest.mark.parametrize(
    "arguments",
    [
        ("augment", "BIRDS", "--checkpoint", "hf-hub:someone/nothing"),
        ("translate", "BIRDS", "--out", "x", "--checkpoint", "hf-hub:someone/nothing"),
        ("train", "BIRDS", "--preset", "pose", "--start", "hf-hub:someone/nothing"),
        ("score", "BIRDS", "hf-hub:someone/nothing"),
        ("score", "hf-hub:someone/nothing"),
        ("metrics", "hf-hub:someone/nothing"),
        ("metrics", "hf-hub:someone/nothing", "BIRDS", "--parts"),
        ("show", "hf-hub:someone/nothing"),
        ("export", "hf-hub:someone/nothing", "--out", "x"),
    ],
)
@pytest.mark.parametrize("state", ["there is none", "offline", "malformed"])
def test_a_wrong_name_is_one_line_in_every_command(
    world: World, arguments: tuple[str, ...], state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if state == "offline":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    given = [str(world.birds) if word == "BIRDS" else word for word in arguments]
    if state == "malformed":
        given = [word.replace("someone/nothing", "nothing") for word in given]
    output = dagaug(*given)
    assert output.out == ""
    assert output.code == (2 if state == "malformed" else 1)
    says = {
        "there is none": "the hub has no such repository, or it is private",
        "offline": "HF_HUB_OFFLINE is set; the hub's cache on this machine does not hold it",
        "malformed": "not a name on the hub; write hf-hub:USER/NAME",
    }[state]
    assert says in output.err.splitlines()[-1]
    assert len([line for line in output.err.splitlines() if line.startswith("dagaug: ")]) == 1
