"""Texts for people: a change by a person is noticed, and is never lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagaug.runtime.unedited_texts import is_unedited, stamped, without_stamp, write_unless_edited


@pytest.mark.parametrize(
    "changed",
    [
        lambda text: text.replace("wren", "robin"),
        lambda text: text + "\nMine.\n",
        lambda text: "Mine.\n" + text,
        lambda text: text.rpartition("<!--")[0],
    ],
)
def test_any_change_of_a_text_is_noticed(changed: object) -> None:
    text = stamped("# Of a wren\n\ntext\n")
    assert is_unedited(text)
    assert is_unedited(text.replace("\n", "\r\n"))
    assert not is_unedited(changed(text))  # type: ignore[operator]


def test_a_text_replaces_an_older_one_but_not_what_a_person_wrote(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    assert write_unless_edited(card, "first")
    assert write_unless_edited(card, "second")
    assert card.read_text() == stamped("second")
    card.write_text("mine")
    assert not write_unless_edited(card, "third")
    assert card.read_text() == "mine"


def test_without_its_stamp_a_text_is_as_before() -> None:
    assert without_stamp(stamped("# A\n\ntext\n")) == "# A\n\ntext\n"
    assert without_stamp("mine\n") == "mine\n"
