"""The data card states what the file and its score hold, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from making_stores import write

from dagaug.exchange.data_card import DATA_CARD
from dagaug.exchange.export import Format, export
from dagaug.exchange.format_writers import FORMAT_WRITERS
from dagaug.hdf5.reader import Store

OPTIONS = {
    "data": "/home/me/secret/cub", "data_given": "../cub", "checkpoint": "/home/me/secret/model.safetensors",
    "weights": "/home/me/secret/judge.pt", "refs": 7, "classifier": "local-dir:/home/me/secret/net",
    "licences": {"lite0": "Apache-2.0 | of weights", "local-dir:/home/me/secret/net": "MIT"},
}  # fmt: skip


def card_of(tmp_path: Path, to: Format = "imagefolder", **changes: object) -> str:
    write(tmp_path / "x.h5", **({"options": OPTIONS, "classes": ("wren", "robin")} | changes))  # type: ignore[arg-type]
    export(tmp_path / "x.h5", tmp_path / "out", to=to)
    return (tmp_path / "out" / DATA_CARD).read_text(encoding="utf-8")


def write_score(path: Path, store: Path, sentence: str, *, seconds: int, content: str | None = None) -> None:
    with Store(store) as opened:
        own = opened.column("content_sha256").tobytes().hex()
    score = {"options": {"store_content_sha256": content or own}, "sentences": [sentence], "notes": ["beware"]}
    path.write_text(json.dumps(score), encoding="utf-8")
    os.utime(path, (seconds, seconds))


@pytest.mark.parametrize("to", FORMAT_WRITERS)
def test_every_form_has_a_card_with_counts_data_options_and_licences(tmp_path: Path, to: Format) -> None:
    card = card_of(tmp_path, to)
    assert "14" in card
    assert "| real images | 4 | 2 |" in card
    assert "| synthetic images | 8 | 0 |" in card
    assert "from the data set `cub`" in card
    assert '"refs": 7' in card
    assert '"weights": "judge.pt"' in card
    assert '"classifier": "local-dir:net"' in card
    assert "| local-dir:net | MIT |" in card
    assert "| lite0 | Apache-2.0 \\| of weights |" in card
    assert "SHA-256 `" + "ab" * 32 in card
    assert "secret" not in card


def test_what_is_not_recorded_is_said_and_no_score_is_no_section(tmp_path: Path) -> None:
    card = card_of(tmp_path, options={"refs": 1})
    assert "does not record the data set" in card
    assert "does not record pretrained weights or their licences" in card
    assert "Measured" not in card


def test_the_newest_score_of_exactly_this_file_is_quoted(tmp_path: Path) -> None:
    store = write(tmp_path / "x.h5", options=OPTIONS, classes=("wren", "robin"))
    write_score(tmp_path / "x-score.json", store, "an older one", seconds=1000)
    write_score(tmp_path / "x-score-all.json", store, "morphs help: +3.0", seconds=2000)
    write_score(tmp_path / "y-score.json", store, "another file's", seconds=3000, content="00" * 32)
    (tmp_path / "z-score.json").write_text("no JSON")
    (tmp_path / "list-score.json").write_text("[]")
    export(store, tmp_path / "out")
    card = (tmp_path / "out" / DATA_CARD).read_text(encoding="utf-8")
    assert "## Measured with `dagaug score` (`x-score-all.json`)" in card
    assert "- morphs help: +3.0" in card
    assert "- beware" in card
    assert "an older one" not in card
    assert "another file" not in card


def test_the_card_of_class_folders_begins_with_tags_for_the_hub(tmp_path: Path) -> None:
    _, front, _ = card_of(tmp_path).split("---\n", 2)
    assert yaml.safe_load(front) == {"task_categories": ["image-classification"], "tags": ["synthetic", "dagaug"]}


def test_hostile_names_do_not_break_the_card(tmp_path: Path) -> None:
    card = card_of(tmp_path, options={"data": "/x/`a\r\n# b", "note": "```\r\n# c", "licences": {"<b>": 3, "a": "<i>"}})
    lines = card.splitlines()
    assert "# b" not in lines
    assert "# c" not in lines
    assert "| a | &lt;i> |" in lines
