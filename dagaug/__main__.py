"""``python -m dagaug`` and the command ``dagaug``: run the command line, tell known errors in one line."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; exits with 0 done, 1 known error, 2 usage, 130 interrupted."""
    from dagaug.cli import app
    from dagaug.errors import DagaugError

    try:
        app()
    except DagaugError as error:
        print(f"dagaug: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of SIGINT, without a word
            print("dagaug: interrupted; what was finished is kept, the same command goes on", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
