"""Entry point of ``dagaug`` and ``python -m dagaug``: runs a command, prints expected errors in one line."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["main"]


def main() -> None:
    """Run the command line. Exit codes: 0 success, 1 expected error, 2 wrong usage, 130 interrupted."""
    from dagaug.runtime.errors import DagaugError, in_one_line
    from dagaug.runtime.freed_memory import keep_freed_memory

    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal in latin-1 or ASCII shows "?" for other characters
    try:
        with _terminating_interrupts():
            from dagaug.cli.app import app

            app()
    except DagaugError as error:
        from dagaug.cli.flags_in_errors import describe

        print(f"dagaug: {in_one_line(describe(error, sys.argv[1:]))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ImportError as error:
        if "libGL" not in str(error) and "libgthread" not in str(error):
            raise
        print(
            f"dagaug: OpenCV cannot be loaded ({in_one_line(str(error))}); install the library (Debian: "
            "apt-get install libgl1 libglib2.0-0) or OpenCV without windows: pip uninstall opencv-python, "
            "then pip install opencv-python-headless",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        _print_interrupted()
        sys.exit(_INTERRUPTED)
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # Typer turns SIGINT into this exit, without a message
            _print_interrupted()
        raise


_INTERRUPTED = 130


def _print_interrupted() -> None:
    print("dagaug: interrupted; finished work is kept; run the same command again to continue", file=sys.stderr)


@contextmanager
def _terminating_interrupts() -> Iterator[None]:
    """Handle SIGTERM, which batch systems send, as SIGINT: the command removes its temporary files and ends."""
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
