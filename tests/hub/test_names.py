"""Names on the hub: what they mean, and that malformed ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagaug.hub.names import HubName, as_repository, is_hub_name, parse_hub_name
from dagaug.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hf-hub:someone/birds", HubName("someone/birds")),
        ("hf-hub:someone/birds@v1", HubName("someone/birds", revision="v1")),
        ("hf-hub:someone/birds@refs/pr/1", HubName("someone/birds", revision="refs/pr/1")),
        ("hf-hub:someone/birds/a b.h5", HubName("someone/birds", "a b.h5")),
        ("hf-hub:someone/birds/in/a.h5@v1", HubName("someone/birds", "in/a.h5", "v1")),
    ],
)
def test_a_name_is_repository_file_and_revision_and_is_written_as_it_was_read(text: str, name: HubName) -> None:
    assert parse_hub_name(text) == parse_hub_name(Path(text)) == name
    assert str(name) == text


@pytest.mark.parametrize(
    "text",
    [
        "hf-hub:", "hf-hub:birds", "hf-hub:someone/", "hf-hub:/birds", "hf-hub:a b/birds", "hf-hub:someone/birds@",
        "hf-hub:someone/birds/", "hf-hub:someone/birds/../x.h5", "hf-hub:someone/birds//etc/x.h5", "someone/birds",
        "hf-hub:someone/birds..x",
    ],
)  # fmt: skip
def test_another_form_is_refused_in_one_line_that_shows_the_right_one(text: str) -> None:
    with pytest.raises(UsageError, match="hf-hub:USER/NAME@REVISION") as error:
        parse_hub_name(text)
    assert str(error.value).startswith(f"{text}: ")


def test_only_a_name_with_the_prefix_is_on_the_hub() -> None:
    assert is_hub_name(Path("hf-hub:someone/birds"))
    assert not is_hub_name(Path("someone/birds"))
    assert not is_hub_name(Path("./hf-hub"))


def test_a_repository_has_a_user_and_a_name() -> None:
    assert as_repository("someone/birds", "no") == "someone/birds"
    for text in ("birds", "a/b/c", "someone/bi rds"):
        with pytest.raises(UsageError, match="no such name"):
            as_repository(text, "no such name")


def test_results_of_two_commits_go_into_two_folders() -> None:
    folders = {HubName("someone/birds", revision=commit * 40).outputs for commit in "ab"}
    assert folders == {Path("runs/someone--birds-aaaaaaaa"), Path("runs/someone--birds-bbbbbbbb")}
