"""The terminal: results on stdout, everything else on stderr, names as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.table import Table

from dagaug.cli.terminal import Terminal
from dagaug.runtime.progress import Progress, Task


def test_a_terminal_is_a_progress_and_its_bars_are_tasks() -> None:
    terminal = Terminal(quiet=True)
    assert isinstance(terminal, Progress)
    with terminal.task("Work", 2, "images") as task:
        assert isinstance(task, Task)


def test_a_result_as_json_is_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(as_json=True)
    terminal.say("a remark")
    with terminal.task("Work", 2, "images") as task:
        task.advance(2)
    table = Table()
    terminal.result({"out": Path("a/b.h5"), "name": "Zaunkönig"}, ["a line"], table=table, next_step="the next command")
    out, err = capsys.readouterr()
    assert json.loads(out) == {"out": "a/b.h5", "name": "Zaunkönig"}
    assert "a remark" in err


def test_numbers_that_json_does_not_have_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(as_json=True).result({"accuracy": float("nan"), "deep": [{"x": float("inf")}, (1.5,)]}, [])
    assert json.loads(capsys.readouterr().out) == {"accuracy": None, "deep": [{"x": None}, [1.5]]}


def test_a_result_prints_table_lines_and_next_step_on_stdout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = Table("arm")
    table.add_row("real")
    Terminal().result({"unseen": 1}, ["two birds"], table=table, next_step="dagaug score")
    out, err = capsys.readouterr()
    assert [word for word in ("real", "two birds", "Next: dagaug score") if word not in out] == []
    assert "unseen" not in out
    assert err == ""


def test_names_that_look_like_markup_are_printed_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal, and draws bars
    name = "cub/[red]012.Wren[/red]/[/x.jpg"
    terminal = Terminal()
    terminal.say(name)
    terminal.result({}, [name], next_step=f"dagaug train {name}")
    with terminal.task("[/b]", 1, "[/images") as task:
        task.advance(1, "[/note")
        assert terminal._live is not None
        terminal._live.refresh()
    out, err = capsys.readouterr()
    assert out.count(name) == 2
    assert [text for text in (name, "[/b]", "[/images", "[/note") if text not in err] == []


def test_long_lines_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    path = "very/" * 60 + "long.jpg: skipped"
    terminal = Terminal()
    terminal.say(path)
    terminal.result({}, [path])
    out, err = capsys.readouterr()
    assert out.splitlines() == err.splitlines() == [path]


def test_quiet_prints_only_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(quiet=True)
    terminal.say("a remark")
    with terminal.task("Work", 1, "images") as task:
        task.advance()
    terminal.result({}, ["done"])
    assert capsys.readouterr() == ("done\n", "")


def test_without_a_terminal_lines_report_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal(log_seconds=-1.0).task("Training", 30, "steps") as task:
        task.advance(10, "flow 0.3")
        task.advance(10)
    err = capsys.readouterr().err
    assert "Training: 10/30 steps  flow 0.3\n" in err
    assert "Training: 20/30 steps\n" in err


def test_without_a_terminal_no_bars_are_drawn_and_lines_stand_alone(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    with terminal.task("outer", 1, "images") as outer, terminal.task("inner", 1, "steps") as inner:
        inner.advance()
        outer.advance()
    terminal.say("the next line")
    assert capsys.readouterr().err == "the next line\n"


def test_nested_bars_and_bars_ended_by_an_error_are_removed() -> None:
    terminal = Terminal(quiet=True)

    def fail() -> None:
        with terminal.task("outer", 2, "images"), terminal.task("inner", 2, "steps") as task:
            task.advance()
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert terminal._live is None
    assert terminal._open == []
    with terminal.task("again", 1, "images") as task:
        task.advance()
