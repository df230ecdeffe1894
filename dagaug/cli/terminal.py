"""What a person sees in the terminal: progress bars with rates and time left, tables, the next step.

Everything but results goes to stderr, so that ``--json`` leaves stdout to programs.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as RichTask
from rich.table import Table
from rich.text import Text

from dagaug.runtime.errors import in_one_line
from dagaug.runtime.progress import Task, TaskContext

__all__ = ["Terminal"]

_LOG_SECONDS = 20.0  # between lines where there is no terminal to draw bars on


def _plain(value: object) -> object:
    """The same value with null for the numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Rate(ProgressColumn):
    """Units a second, smoothed."""

    def render(self, task: RichTask) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields.get("unit", "")
        return Text("" if speed is None else f"{speed:.3g} {unit}/s", style="progress.data.speed")


class _Counted:
    """One bar."""

    def __init__(self, terminal: Terminal, name: str, total: int, unit: str) -> None:
        self._terminal, self._name, self._total, self._unit = terminal, name, total, unit
        self._row: TaskID | None = None
        self._done = 0
        self._told = time.monotonic()

    def __enter__(self) -> Task:
        self._row = self._terminal.open(self._name, self._total, self._unit)
        return self

    def advance(self, count: int = 1, note: str = "") -> None:
        self._done += count
        self._terminal.advance(self._row, count, note)
        if not self._terminal.err.is_terminal and time.monotonic() - self._told > _LOG_SECONDS:
            self._told = time.monotonic()
            self._terminal.say(f"{self._name}: {self._done}/{self._total} {self._unit}  {note}".rstrip())

    def __exit__(self, *exception: object) -> None:
        self._terminal.close(self._row)


class Terminal:
    """Draws bars and prints results.

    Args:
        as_json: results are printed as JSON alone.
        quiet: no bars and no remarks.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.out = Console(highlight=False)
        self.err = Console(stderr=True, quiet=quiet, highlight=False)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.err,
            expand=True,
        )
        self._note = ""
        self._live: Live | None = None
        self._open: list[TaskID] = []

    def task(self, name: str, total: int, unit: str) -> TaskContext:
        """A bar; bars within bars stand below each other."""
        return _Counted(self, name, total, unit)

    def open(self, name: str, total: int, unit: str) -> TaskID:
        """Show a bar, where there is a terminal to draw it on."""
        if self._live is None and self.err.is_terminal:
            self._live = Live(console=self.err, get_renderable=self._picture, refresh_per_second=4)
            self._live.start()
        row = self._bars.add_task(escape(name), total=total, unit=escape(unit))
        self._open.append(row)
        return row

    def advance(self, row: TaskID | None, count: int, note: str) -> None:
        """Move a bar on."""
        if row is not None:
            self._bars.update(row, advance=count)
        if note:
            self._note = note

    def close(self, row: TaskID | None) -> None:
        """A bar's work has ended; the outermost one stays on the screen as it was."""
        if row is None:
            return
        self._open.remove(row)
        self._note = ""
        self._bars.stop_task(row)
        if self._open:
            self._bars.remove_task(row)
            return
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._bars.remove_task(row)

    def _picture(self) -> RenderableType:
        if not self._note:
            return self._bars
        return Group(self._bars, Text(self._note, style="dim"))

    def say(self, text: str) -> None:
        """A remark that stays on the screen, above the bars."""
        self.err.print(escape(in_one_line(text)), soft_wrap=True)

    def result(
        self, data: Mapping[str, Any], lines: Sequence[str], *, table: Table | None = None, next_step: str = ""
    ) -> None:
        """The end of a command: JSON alone, or a table, lines and the next command."""
        if self.as_json:
            print(json.dumps(_plain(data), ensure_ascii=False, default=str, allow_nan=False))
            return
        if table is not None:
            self.out.print(table)
        for line in lines:
            self.out.print(escape(in_one_line(line)), soft_wrap=True)
        if next_step:
            self.out.print(f"Next: [bold]{escape(in_one_line(next_step))}[/bold]", soft_wrap=True)
