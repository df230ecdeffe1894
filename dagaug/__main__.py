"""``python -m dagaug`` and the command ``dagaug``: run the command line, tell known errors in one line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["main"]


def main() -> None:
    """Run the command line; exits with 0 done, 1 known error, 2 usage, 130 interrupted."""
    from dagaug.runtime.errors import DagaugError, in_one_line

    try:
        with _terminating_interrupts():
            from dagaug.cli.app import app

            app()
    except DagaugError as error:
        print(f"dagaug: {in_one_line(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _tell_interrupted()
        sys.exit(_INTERRUPTED)
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # what typer makes of SIGINT, without a word
            _tell_interrupted()
        raise


_INTERRUPTED = 130


def _tell_interrupted() -> None:
    print("dagaug: interrupted; what was finished is kept, the same command goes on", file=sys.stderr)


@contextmanager
def _terminating_interrupts() -> Iterator[None]:
    """Let SIGTERM, what batch systems send, end a command as SIGINT does, with its temporary files removed."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
