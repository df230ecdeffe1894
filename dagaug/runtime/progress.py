"""Progress reports of long work: the interface that library functions call.

Library functions take a :class:`Progress`. The command line passes one that draws progress bars; the default,
:data:`SILENT`, ignores all reports.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

__all__ = ["SILENT", "Progress", "Task", "TaskContext"]


@runtime_checkable
class Task(Protocol):
    """One piece of work, counted in units."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count ``count`` more units as done; ``note`` is shown beside the bar until the next note."""


@runtime_checkable
class Progress(Protocol):
    """Receives the progress of long work."""

    def task(self, name: str, total: int, unit: str) -> TaskContext:
        """Open a task of ``total`` units (``unit`` in the plural: images, steps); it ends with its ``with`` block."""

    def say(self, text: str) -> None:
        """Print one line that stays on the screen."""


@runtime_checkable
class TaskContext(Protocol):
    """A context manager that gives the task and closes it at the end of the block."""

    def __enter__(self) -> Task: ...

    def __exit__(self, *exception: object) -> bool | None: ...


class _SilentTask:
    def advance(self, count: int = 1, note: str = "") -> None:
        del count, note

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *exception: object) -> None:
        return None


class _Silent:
    def task(self, name: str, total: int, unit: str) -> _SilentTask:
        del name, total, unit
        return _SilentTask()

    def say(self, text: str) -> None:
        del text


SILENT: Progress = _Silent()
"""A :class:`Progress` that ignores all reports."""
