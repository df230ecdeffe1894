"""Stopping long work between two steps, so that nothing is half done when it stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dagaug.runtime.errors import DagaugError

__all__ = ["Interrupted", "Stop", "stop_on_signals"]


class Interrupted(DagaugError):  # noqa: N818 (it is no fault of anybody's)
    """The user or the system asked to stop; the message says what is kept and how to go on."""

    exit_code = 130


class Stop:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM into a request that the work looks at between two steps.

    A second SIGINT interrupts at once. Outside the main thread, where Python takes no signals, nothing changes.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
