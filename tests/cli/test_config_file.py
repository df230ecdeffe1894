"""Options from a TOML file: who wins, what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import typer.main
from making_runs import dagaug

from dagaug.cli.app import app
from dagaug.cli.config_file import options_of_file
from dagaug.runtime.errors import UsageError

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def written(folder: Path, text: str) -> Path:
    (folder / "options.toml").write_text(text, encoding="utf-8")
    return folder / "options.toml"


def options(folder: Path, text: str, command: str = "train") -> dict[str, Any]:
    return options_of_file(written(folder, text), command, COMMANDS)


def test_options_at_the_top_hold_for_commands_that_have_them_and_tables_for_one_command(tmp_path: Path) -> None:
    text = "refs = 3\nseed = 1\n[train]\nseed = 2\nper-class = 4\n[augment]\nvariants = ['morph', 'mirror']"
    assert options(tmp_path, text) == {"seed": "2", "per_class": "4"}
    assert options(tmp_path, text, "augment") == {"refs": "3", "seed": "1", "variants": "morph,mirror"}
    assert options(tmp_path, text, "export") == {}


def test_a_repeatable_option_takes_a_list(tmp_path: Path) -> None:
    assert options(tmp_path, "[train]\nwithout = ['dae', 'd2']") == {"without": ["dae", "d2"]}
    assert options(tmp_path, "[train]\nwithout = 'd2'") == {"without": ["d2"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nstesp = 5", "stesp is no option of dagaug train; did you mean steps"),
        ("stesp = 5", "stesp is no option of any command; did you mean steps"),
        ("[trian]\nsteps = 5", "trian is no command; did you mean train"),
        ("[train]\nrefs = 5", "refs is no option of dagaug train"),
        ("[train]\nconfig = 'a'", "config is no option of dagaug train"),
        ("[train]\nstrict = 1", "strict must be true or false, not 1"),
        ("[train]\nsteps = true", "steps must be a number, a text or a list, not True"),
        ("[train]\nsteps = 2020-01-01", "steps must be a number, a text or a list"),
        ("[train\nsteps = 5", "not a TOML file"),
    ],
)
def test_what_no_command_takes_is_refused_with_close_names(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        options(tmp_path, text)


def test_the_command_line_overrides_the_file_and_the_file_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "[sample-data]\nspecies = 2\nper-class = 3\nsize = 32\ndirectory = 'birds'\njson = true")
    done = dagaug("sample-data", "--config", "options.toml", "--test-per-class", 1, "--per-class", 1)
    assert done.code == 0
    assert json.loads(done.out)
    with (tmp_path / "birds" / "images.txt").open(encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == 2 * (1 + 1)


@pytest.mark.parametrize("value", ["'many'", "0"])
def test_a_value_that_the_option_does_not_take_is_a_usage_error(tmp_path: Path, value: str) -> None:
    done = dagaug("train", tmp_path, "--config", written(tmp_path, f"[train]\nsteps = {value}"))
    assert done.code == 2
    assert "--steps" in done.err


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    done = dagaug("train", tmp_path, "--config", tmp_path / "none.toml")
    assert done.code == 2
    assert f"--config {tmp_path / 'none.toml'}: cannot be read" in done.err
