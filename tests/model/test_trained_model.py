"""Trained models as files: the card, the networks it describes, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from dagaug.data.object_patches import Framing
from dagaug.model import checkpoint
from dagaug.model.mode_translators import PaperTranslator, ReferenceTranslator
from dagaug.model.task_presets import AttentionSettings, Mode
from dagaug.model.trained_model import ModelCard, build_translator, load_model, save_model
from dagaug.runtime.errors import CheckpointError

SIZE = 32
MODES = pytest.mark.parametrize("mode", ["reference", "paper"])


def card(mode: Mode = "reference", **changes: object) -> ModelCard:
    values = {
        "mode": mode,
        "classes": ("001.Wren", "002.‹Zaunkönig›"),
        "framing": Framing(size=SIZE, margin=0.2),
        "regions": 2,
        "half_size": 0.3,
        "sharpness": 20.0,
        "steps": 12,
        "seed": 3,
        "data": "cub",
        "per_class": 10,
    }
    return ModelCard.model_validate(values | changes)


def saved(folder: Path, mode: Mode = "reference", **changes: object) -> Path:
    """A run's model, with networks of two regions for any card."""
    folder.mkdir(exist_ok=True)
    path = folder / checkpoint.MODEL_FILE
    networks = build_translator(mode, AttentionSettings(2, 0.3, 20.0))
    save_model(path, card(mode, **changes), networks.state_dict())
    return path


def test_a_mode_s_translator_is_built_with_the_card_s_regions() -> None:
    attention = AttentionSettings(3, 0.4, 10.0)
    reference, paper = build_translator("reference", attention), build_translator("paper", attention)
    assert isinstance(reference, ReferenceTranslator)
    assert isinstance(paper, PaperTranslator)
    assert reference.dae.attention == paper.dae.attention == attention


@MODES
def test_a_model_comes_back_with_its_card_and_its_weights(tmp_path: Path, mode: Mode) -> None:
    torch.manual_seed(1)
    networks = build_translator(mode, card().attention)
    path = tmp_path / checkpoint.MODEL_FILE
    save_model(path, card(mode), networks.state_dict())
    model = load_model(path)
    assert model.card == card(mode)
    assert all(torch.equal(value, networks.state_dict()[name]) for name, value in model.translator.state_dict().items())
    assert model.path == path
    assert model.sha256 == checkpoint.sha256(path)


def test_a_loaded_model_is_ready_to_use_and_not_to_train(tmp_path: Path) -> None:
    model = load_model(saved(tmp_path, "paper"))
    assert not any(module.training for module in model.translator.modules())
    assert not any(parameter.requires_grad for parameter in model.translator.parameters())
    assert model.translator(torch.zeros(1, 3, SIZE, SIZE)).shape == (1, 3, SIZE, SIZE)


def test_a_run_s_folder_stands_for_its_model(tmp_path: Path) -> None:
    path = saved(tmp_path / "run")
    assert load_model(tmp_path / "run").sha256 == load_model(path).sha256


def test_the_card_lies_beside_the_model_for_people(tmp_path: Path) -> None:
    path = saved(tmp_path)
    beside = path.with_suffix(".json")
    assert ModelCard.model_validate_json(beside.read_text(encoding="utf-8")) == card()
    assert json.loads(beside.read_text(encoding="utf-8"))["classes"][1] == "002.‹Zaunkönig›"


def test_the_error_for_an_unfinished_run_names_the_next_step(tmp_path: Path) -> None:
    (tmp_path / checkpoint.STATE_FILE).touch()
    with pytest.raises(CheckpointError, match="not finished; run the same dagaug train command again"):
        load_model(tmp_path)


def test_the_error_for_an_empty_folder_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="dagaug train"):
        load_model(tmp_path)


def test_a_card_that_describes_other_networks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="networks of other shapes"):
        load_model(saved(tmp_path, regions=3))


@pytest.mark.parametrize(
    "header",
    [{}, {"card": None}, {"card": {"mode": "reference"}}, {"card": {**card().model_dump(mode="json"), "new": 1}}],
    ids=["no card", "null", "incomplete", "of a later version"],
)
def test_a_checkpoint_without_a_card_that_fits_is_no_model(tmp_path: Path, header: dict[str, object]) -> None:
    path = tmp_path / checkpoint.MODEL_FILE
    checkpoint.save(path, {}, header)
    with pytest.raises(CheckpointError, match="not a model that this version") as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"mode": "other"}, {"regions": 0}, {"half_size": 0}, {"sharpness": -1}, {"steps": -1}]
)
def test_a_card_of_impossible_values_cannot_be_made(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ModelCard.model_validate({**card().model_dump(), **changes})
