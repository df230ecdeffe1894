"""Stop requests by SIGINT and SIGTERM, checked by long work between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dagaug.runtime.errors import DagaugError

__all__ = ["Interrupted", "Stop", "stop_on_signals"]


class Interrupted(DagaugError):  # noqa: N818 (no error of the program or the user)
    """The user or the system asked to stop; the message says what is kept and how to continue."""

    exit_code = 130


class Stop:
    """A flag: ``requested`` is True after a signal asked to stop."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """In the block, the first SIGINT or SIGTERM sets ``requested`` of the yielded :class:`Stop`.

    A second signal raises KeyboardInterrupt. Outside the main thread nothing changes, since Python handles signals
    only there.
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
