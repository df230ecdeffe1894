"""Card of an HDF5 file or an export: counts, classes and options as the file says, nothing of the machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from making_stores import CANDIDATES, MORPHS, REAL, write

from dagaug.exchange.export import export
from dagaug.hub.dataset_card import export_card, file_card


@pytest.fixture
def store(tmp_path: Path) -> Path:
    options = {
        "refs": 10, "data": "/home/someone/cub", "checkpoint": "/home/someone/run", "weights": "/home/someone/w.pth",
        "checkpoint_hub": "hf-hub:someone/run@" + "a" * 40,
    }  # fmt: skip
    return write(tmp_path / "cub.h5", options=options)


def rows(card: str) -> dict[str, str]:
    return dict(re.findall(r"^\| ([^|]+) \| ([^|]*) \|$", card, re.MULTILINE))


def test_the_card_counts_what_the_file_holds(store: Path) -> None:
    card = file_card(store, "someone/data", "cc-by-4.0")
    found = rows(card)
    assert found["real images"] == f"{REAL} (4 for training, 2 for test)"
    assert found["synthetic images"] == f"{2 * MORPHS}"
    assert found["candidates"] == f"{2 * CANDIDATES}"
    assert found["classes"] == "2"
    assert found["generator"].startswith(f"`hf-hub:someone/run@{'a' * 40}`, SHA-256 `abab")
    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["license"], head["size_categories"]) == ("cc-by-4.0", ["n<1K"])
    assert {"dagaug", "synthetic"} <= set(head["tags"])


def test_the_card_names_the_options_but_no_path_of_the_machine(store: Path) -> None:
    card = file_card(store, "someone/data", "unknown")
    assert rows(card)["`refs`"] == "`10`"
    assert "/home" not in card


def test_class_names_are_shown_as_code_whatever_they_hold(store: Path) -> None:
    card = file_card(store, "someone/data", "unknown")
    assert "`../wren`, `<script>alert(1)</script>`" in card
    assert "<script>" not in card.replace("`<script>alert(1)</script>`", "")


def test_the_examples_name_the_file_on_the_hub(store: Path) -> None:
    assert "dagaug show hf-hub:someone/data/cub.h5" in file_card(store, "someone/data", "unknown")


def test_an_export_has_the_counts_of_its_file(store: Path, tmp_path: Path) -> None:
    export(store, tmp_path / "folders")
    of_file, of_export = file_card(store, "a/b", "unknown"), export_card(tmp_path / "folders", "unknown")
    assert rows(of_export) == rows(of_file)
    assert "dagaug import FOLDER" in of_export


def test_the_same_file_gives_the_same_card(store: Path) -> None:
    assert file_card(store, "a/b", "unknown") == file_card(store, "a/b", "unknown")
