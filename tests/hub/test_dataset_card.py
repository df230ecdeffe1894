"""Cards of data on the hub: tags, the data card of the file or export, and how to use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from making_stores import MORPHS, REAL, write

from dagaug.exchange.data_card import DATA_CARD
from dagaug.exchange.export import export
from dagaug.hub.dataset_card import export_card, file_card

COMMIT = "a" * 40


@pytest.fixture
def store(tmp_path: Path) -> Path:
    options = {
        "refs": 10, "data": "/home/someone/cub", "checkpoint": "/home/someone/run", "weights": "/home/someone/w.pth",
        "checkpoint_hub": f"hf-hub:someone/run@{COMMIT}",
    }  # fmt: skip
    return write(tmp_path / "cub.h5", options=options)


def head_of(card: str) -> Any:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_of_a_file_has_tags_counts_origin_and_examples(store: Path) -> None:
    card = file_card(store, "someone/data", "cc-by-4.0")
    assert head_of(card)["license"] == "cc-by-4.0"
    assert head_of(card)["size_categories"] == ["n<1K"]
    assert {"dagaug", "synthetic"} <= set(head_of(card)["tags"])
    assert f"{REAL + 2 * MORPHS} labelled images of 2 classes, in `cub.h5`." in card
    assert f"`hf-hub:someone/run@{COMMIT}` on the hub" in card
    assert '"refs": 10' in card
    assert "dagaug show hf-hub:someone/data/cub.h5" in card
    assert "/home" not in card
    assert card == file_card(store, "someone/data", "cc-by-4.0")


@pytest.mark.parametrize("to", ["imagefolder", "csv"])
def test_the_card_of_an_export_is_its_own_one_with_tags_and_licence(store: Path, tmp_path: Path, to: Any) -> None:
    export(store, tmp_path / "out", to=to)
    card = export_card(tmp_path / "out", "cc-by-4.0")
    assert head_of(card)["license"] == "cc-by-4.0"
    assert card.count("\n---\n") == 1  # one block of front matter
    assert "exported from `cub.h5` in the form" in card
    assert "dagaug import FOLDER" in card
    assert "<!-- dagaug" not in card
    (tmp_path / "out" / DATA_CARD).unlink()
    assert "# `out`" in export_card(tmp_path / "out", "unknown")
