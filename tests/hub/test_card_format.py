"""Cards: the hub reads their front matter, foreign names cannot break them, and a person's text is never lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dagaug.hub.card_format import code, front_matter, is_unedited, names_in_short, stamped, table, write_card


def test_the_front_matter_is_yaml_with_licence_and_tags() -> None:
    head = front_matter("cc-by-4.0", ("a", "b: c"), {"pipeline_tag": "image-to-image", "sizes": ["n<1K"]})
    assert head.startswith("---\n")
    assert head.endswith("\n---\n")
    assert yaml.safe_load(head.strip("-\n")) == {
        "license": "cc-by-4.0", "pipeline_tag": "image-to-image", "sizes": ["n<1K"], "tags": ["a", "b: c"],
    }  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        lambda text: text.replace("wren", "robin"),
        lambda text: text + "\nMine.\n",
        lambda text: "Mine.\n" + text,
        lambda text: text.rpartition("<!--")[0],
    ],
)
def test_any_change_of_a_card_is_noticed(changed: object) -> None:
    text = stamped("# Of a wren\n\ntext\n")
    assert is_unedited(text)
    assert is_unedited(text.replace("\n", "\r\n"))
    assert not is_unedited(changed(text))  # type: ignore[operator]


def test_a_card_replaces_an_older_one_but_not_what_a_person_wrote(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    assert write_card(card, "first")
    assert write_card(card, "second")
    assert card.read_text() == stamped("second")
    card.write_text("mine")
    assert not write_card(card, "third")
    assert card.read_text() == "mine"


@pytest.mark.parametrize("name", ["`` <script>`", "a|b", "two\nlines", "\x1b[31m", "", "  "])
def test_a_foreign_name_stays_inside_its_code_and_its_cell(name: str) -> None:
    shown = code(name)
    assert shown[0] == shown[-1] == "`"
    inner = shown[1:-1]
    assert inner
    assert not set(inner) & {"`", "|", "\n", "\x1b"}
    assert table({shown: shown}, ("name", "value")).count("\n") == 3


def test_of_very_many_names_the_first_are_shown() -> None:
    text = names_in_short(f"c{number}" for number in range(1203))
    assert text.startswith("`c0`, `c1`")
    assert text.endswith("`c199` and 1,003 more")
