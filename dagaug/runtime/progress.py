"""How long work tells what it is doing, without knowing who listens.

Library functions take a :class:`Progress`; the command line passes one that draws bars, tests and library users
pass nothing and get :data:`SILENT`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

__all__ = ["SILENT", "Progress", "Task", "TaskContext"]


@runtime_checkable
class Task(Protocol):
    """One piece of work that is counted."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count ``count`` more units as done; ``note`` stands beside the bar until the next one."""


@runtime_checkable
class Progress(Protocol):
    """Receives the progress of long work."""

    def task(self, name: str, total: int, unit: str) -> TaskContext:
        """Open a task of ``total`` units (``unit`` in the plural: images, steps); closed on leaving the block."""

    def say(self, text: str) -> None:
        """Tell one line that is worth keeping on the screen."""


@runtime_checkable
class TaskContext(Protocol):
    """What opening a task gives: the task, until the block is left."""

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
"""A :class:`Progress` that tells nobody."""
