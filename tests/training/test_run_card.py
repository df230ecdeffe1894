"""Card of a run: what the run's own files say, the same every time, and never over a person's text."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from making_runs import STEPS, TRAINING_IMAGES, Killed, Listener, kill_at_step, train_small

from dagaug.data.dataset_records import Dataset
from dagaug.model.trained_model import FeatureCard, ModelCard, load_model
from dagaug.runtime.errors import CheckpointError
from dagaug.runtime.unedited_texts import is_unedited
from dagaug.training.run_card import remove_run_card, render_run_card, write_measures, write_run_card
from dagaug.training.train import Schedule

pytestmark = pytest.mark.usefixtures("quickly")


@pytest.fixture
def run(birds_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(birds_run, tmp_path / "run"))


def rows(card: str) -> dict[str, str]:
    return dict(re.findall(r"^\| ([^|]+) \| ([^|]*) \|$", card, re.MULTILINE))


def change(run: Path, **values: object) -> None:
    """Change the run's description of its model."""
    file = run / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_the_card_of_a_training_names_data_options_losses_and_limits(birds_run: Path, birds: Dataset) -> None:
    card = (birds_run / "README.md").read_text()
    found = rows(card)
    assert (found["name"], found["classes"]) == ("`birds`", str(len(birds.classes)))
    assert found["training images"] == str(TRAINING_IMAGES)
    assert (found["`steps`"], found["`start`"], found["`seed`"]) == (f"`{STEPS}`", "`scratch`", "`0`")
    last = json.loads((birds_run / "metrics.jsonl").read_text().splitlines()[-1])
    assert found["loss `symmetry`, last mean"] == f"{last['symmetry']:.3g}"
    assert "none; all weights began as random numbers" in found
    assert all(f"`{name}`" in card for name in birds.classes)
    assert "## Limits" in card
    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["license"], head["library_name"]) == ("unknown", "dagaug")


def test_the_card_is_rendered_from_the_folder_alone_and_always_the_same(run: Path) -> None:
    before = (run / "README.md").read_bytes()
    (run / "README.md").unlink()
    write_run_card(run)
    assert (run / "README.md").read_bytes() == before


def test_what_was_measured_is_added(run: Path) -> None:
    write_measures(run, {"PCK@0.1 of the flow": 0.5312, "pairs of images": 60})
    card = (run / "README.md").read_text()
    assert rows(card)["PCK@0.1 of the flow"] == "0.531"
    assert rows(card)["pairs of images"] == "60"
    assert is_unedited(card)


def test_pretrained_weights_stand_with_their_licences_and_without_paths(run: Path) -> None:
    features = FeatureCard(
        name="lite0", weights="/home/someone/lite0.safetensors", weights_sha256="ab" * 32, input_size=384,
        licence="Apache-2.0; trained on ImageNet", layer_weights=(1.0,), dimensions=48, grid=32,
    )  # fmt: skip
    change(run, features=features.model_dump())
    options = json.loads((run / "options.json").read_text())
    options["identity"] |= {"start": "/home/someone/runs/first", "weights": "/home/someone/vgg.pth"}
    (run / "options.json").write_text(json.dumps(options))
    card = render_run_card(run)
    weights = rows(card.split("## Weights")[1])
    frozen = next(name for name in weights if "lite0" in name)
    assert "`lite0.safetensors`" in frozen
    assert weights[frozen] == "`Apache-2.0; trained on ImageNet`"
    assert weights["start: `first`"] == "see the card of that model"
    assert weights["distance `resblock`, file `vgg.pth`"] == "unknown"
    assert "/home" not in card


@pytest.mark.parametrize(
    ("start", "row"),
    [("general", "start: the weights `general` of dagaug"), ("hf-hub:a/b@12", "start: `hf-hub:a/b@12`")],
)
def test_the_start_of_a_training_is_among_the_weights(run: Path, start: str, row: str) -> None:
    options = json.loads((run / "options.json").read_text())
    options["identity"]["start"] = start
    (run / "options.json").write_text(json.dumps(options))
    assert row in rows(render_run_card(run))


def test_a_model_without_training_has_a_card_too(run: Path) -> None:
    """Its folder has neither options nor metrics."""
    for name in ("options.json", "metrics.jsonl", "README.md"):
        (run / name).unlink()
    change(run, steps=0)
    card = render_run_card(run, licence="cc-by-4.0", where="hf-hub:someone/birds")
    assert "Nothing was measured." in card
    assert "dagaug augment DATA --checkpoint hf-hub:someone/birds" in card
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "cc-by-4.0"


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"identity": 3, "images": "x"}', '"text"'])
def test_broken_options_and_metrics_leave_a_card_without_them(run: Path, broken: str) -> None:
    for name in ("options.json", "metrics.jsonl", "measures.json"):
        (run / name).write_text(broken)
    assert "# DA-GAN for `birds`" in render_run_card(run)


def test_without_the_description_of_the_model_there_is_no_card(run: Path) -> None:
    (run / "model.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"model.json: missing or not the description of a model"):
        render_run_card(run)


def test_translators_say_how_they_are_used(run: Path) -> None:
    card = ModelCard.model_validate_json((run / "model.json").read_bytes())
    (run / "model.json").write_text(card.model_copy(update={"mode": "paper", "classes": ()}).model_dump_json())
    assert "dagaug translate FOLDER" in render_run_card(run)


# ---- resumed, repeated and replaced runs


def test_a_readme_of_a_person_is_kept_with_a_note(run: Path) -> None:
    (run / "README.md").write_text("mine")
    progress = Listener()
    write_run_card(run, progress)
    remove_run_card(run)
    assert (run / "README.md").read_text() == "mine"
    assert progress.lines == [
        f"{run / 'README.md'}: was written or changed by hand; it is kept, and no card is written"
    ]


def test_a_run_that_was_killed_and_resumed_has_the_card_of_an_uninterrupted_one(
    birds: Dataset, birds_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        train_small(birds, tmp_path / "run", progress=kill_at_step(STEPS - 1), schedule=Schedule(save_seconds=0.0))
    assert not (tmp_path / "run" / "README.md").exists()
    assert train_small(birds, tmp_path / "run").resumed_at > 0
    cards = [rows((folder / "README.md").read_text()) for folder in (tmp_path / "run", birds_run)]
    resumed, straight = ({name: value for name, value in card.items() if "last mean" not in name} for card in cards)
    assert resumed == straight  # the last means are those of fewer steps
    assert cards[0].keys() == cards[1].keys()


def test_a_finished_run_without_a_card_gets_one(birds: Dataset, run: Path) -> None:
    before = (run / "README.md").read_bytes()
    (run / "README.md").unlink()
    assert train_small(birds, run).already
    assert (run / "README.md").read_bytes() == before


def test_a_replaced_run_loses_the_card_and_the_measures_of_the_old_one(birds: Dataset, run: Path) -> None:
    write_measures(run, {"PCK": 1.0})
    with pytest.raises(Killed):
        train_small(birds, run, seed=1, overwrite=True, progress=kill_at_step(1))
    assert not (run / "README.md").exists()
    assert not (run / "measures.json").exists()
    train_small(birds, run, seed=1, steps=1, overwrite=True)
    assert rows((run / "README.md").read_text())["`seed`"] == "`1`"
    assert load_model(run).card.seed == 1
