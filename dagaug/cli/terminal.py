"""Terminal output: draws progress bars with rates and time left, prints notes, tables and results.

:mod:`dagaug.cli.result_text` makes the tables and sentences; this module prints them. Results go to stdout,
everything else to stderr, so with ``--json`` stdout holds JSON only.
"""

from __future__ import annotations

import json
import math
import sys
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
from rich.text import Text

from dagaug.runtime.errors import in_one_line
from dagaug.runtime.progress import Task, TaskContext

__all__ = ["Terminal"]


def _plain(value: object) -> object:
    """The value with None for NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Rate(ProgressColumn):
    """Column with the smoothed rate, in units per second."""

    def render(self, task: RichTask) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields.get("unit", "")
        return Text("" if speed is None else f"{speed:.3g} {unit}/s", style="progress.data.speed")


class _Bar:
    """One progress bar; without a terminal, a line every :attr:`Terminal.log_seconds`."""

    def __init__(self, terminal: Terminal, name: str, total: int, unit: str) -> None:
        self._terminal, self._name, self._total, self._unit = terminal, name, total, unit
        self._row: TaskID | None = None
        self._done = 0
        self._logged = time.monotonic()

    def __enter__(self) -> Task:
        self._row = self._terminal.open(self._name, self._total, self._unit)
        return self

    def advance(self, count: int = 1, note: str = "") -> None:
        self._done += count
        self._terminal.advance(self._row, count, note)
        if not self._terminal.err.is_terminal and time.monotonic() - self._logged > self._terminal.log_seconds:
            self._logged = time.monotonic()
            self._terminal.say(f"{self._name}: {self._done}/{self._total} {self._unit}  {note}".rstrip())

    def __exit__(self, *exception: object) -> None:
        self._terminal.close(self._row)


class Terminal:
    """Draws progress bars and prints notes and results; a :class:`dagaug.runtime.progress.Progress`.

    Args:
        as_json: print results as JSON only.
        quiet: show no bars and no notes.
        log_seconds: time between progress lines if stderr is no terminal.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False, log_seconds: float = 20.0) -> None:
        self.as_json = as_json
        self.log_seconds = log_seconds
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
        """Make a progress bar; an inner bar stands below the outer one."""
        return _Bar(self, name, total, unit)

    def open(self, name: str, total: int, unit: str) -> TaskID:
        """Show a bar if stderr is a terminal."""
        if self._live is None and self.err.is_terminal:
            self._live = Live(console=self.err, get_renderable=self._renderable, refresh_per_second=4)
            self._live.start()
        row = self._bars.add_task(escape(name), total=total, unit=escape(unit))
        self._open.append(row)
        return row

    def advance(self, row: TaskID | None, count: int, note: str) -> None:
        """Advance a bar; a note is shown below the bars."""
        if row is not None:
            self._bars.update(row, advance=count)
        if note:
            self._note = note

    def close(self, row: TaskID | None) -> None:
        """Remove a bar; the outermost bar stays visible in its last state."""
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

    def _renderable(self) -> RenderableType:
        if not self._note:
            return self._bars
        return Group(self._bars, Text(self._note, style="dim"))

    def say(self, text: str) -> None:
        """Print a note above the bars."""
        self.err.print(escape(in_one_line(text)), soft_wrap=True)

    def result(
        self, data: Mapping[str, Any], lines: Sequence[str], *, table: RenderableType | None = None, next_step: str = ""
    ) -> None:
        """Print a command's result: ``data`` as JSON, or the table, the lines and the next command."""
        if self.as_json:
            unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
            print(json.dumps(_plain(data), ensure_ascii=not unicode, default=str, allow_nan=False))
            return
        if table is not None:
            self.out.print(table)
        for line in lines:
            self.out.print(escape(in_one_line(line)), soft_wrap=True)
        if next_step:
            self.out.print(f"Next: [bold]{escape(in_one_line(next_step))}[/bold]", soft_wrap=True)
