from __future__ import annotations

import signal
import threading

import pytest

from dagaug.runtime.errors import DagaugError
from dagaug.runtime.signals import Interrupted, stop_on_signals

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])


@BOTH
def test_the_first_signal_sets_the_flag_and_work_continues(number: signal.Signals) -> None:
    steps = 0
    with stop_on_signals() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        steps += 1
        assert stop.requested
    assert steps == 1


def test_a_second_signal_interrupts_immediately() -> None:
    reached: list[str] = []

    def work() -> None:
        with stop_on_signals():
            signal.raise_signal(signal.SIGINT)
            reached.append("after the first")
            signal.raise_signal(signal.SIGINT)
            reached.append("after the second")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["after the first"]


@BOTH
@pytest.mark.parametrize("fails", [False, True])
def test_the_former_handlers_are_restored_after_the_block(number: signal.Signals, fails: bool) -> None:
    heard: list[int] = []
    before = signal.signal(number, lambda which, _: heard.append(which))
    try:
        try:
            with stop_on_signals():
                if fails:
                    raise RuntimeError
        except RuntimeError:
            pass
        signal.raise_signal(number)
    finally:
        signal.signal(number, before)
    assert heard == [number]


def test_each_block_begins_without_a_request() -> None:
    with stop_on_signals() as first:
        signal.raise_signal(signal.SIGINT)
    with stop_on_signals() as second:
        assert (first.requested, second.requested) == (True, False)


def test_outside_the_main_thread_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[bool] = []

    def work() -> None:
        with stop_on_signals() as stop:
            seen.append(stop.requested or signal.getsignal(signal.SIGINT) is not before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_interruption_has_the_exit_code_of_sigint_in_shells() -> None:
    """128 + SIGINT."""
    assert issubclass(Interrupted, DagaugError)
    assert Interrupted.exit_code == 128 + signal.SIGINT
