"""Cards: the hub reads their front matter, and foreign names cannot break them."""

from __future__ import annotations

import pytest
import yaml

from dagaug.hub.card_format import code, front_matter, licence_of, names_in_short, table
from dagaug.runtime.unedited_texts import stamped


def test_the_front_matter_is_yaml_with_licence_and_tags() -> None:
    head = front_matter("cc-by-4.0", ("a", "b: c"), {"pipeline_tag": "image-to-image", "sizes": ["n<1K"]})
    assert head.startswith("---\n")
    assert head.endswith("\n---\n")
    assert yaml.safe_load(head.strip("-\n")) == {
        "license": "cc-by-4.0", "pipeline_tag": "image-to-image", "sizes": ["n<1K"], "tags": ["a", "b: c"],
    }  # fmt: skip


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


def test_the_licence_is_read_only_from_a_card_that_nobody_changed() -> None:
    card = stamped(front_matter("cc-by-4.0", ("a",), {}) + "text")
    assert licence_of(card) == "cc-by-4.0"
    assert licence_of(card.replace("text", "mine")) is None
    assert licence_of(stamped("text")) is None
