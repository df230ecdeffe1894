"""The exception tree: every error that a user can cause or meet.

A message names the file or the option and the next step, in one line. The command line prints it without a
traceback and exits with :attr:`DagaugError.exit_code`; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "CheckpointError",
    "DagaugError",
    "DataError",
    "ImageError",
    "LockedError",
    "MissingExtraError",
    "OutputExistsError",
    "StoreError",
    "TrainingError",
    "UsageError",
    "in_one_line",
]


class DagaugError(Exception):
    """Base of all errors that are told to the user in one line."""

    exit_code = 1


class UsageError(DagaugError):
    """An option or argument has a value that cannot work."""

    exit_code = 2


class DataError(DagaugError):
    """A data folder or list file is missing, empty, malformed or does not fit."""


class ImageError(DagaugError):
    """One image cannot be used; usually listed as skipped rather than raised to the user.

    Attributes:
        path: the image's file, as it was asked for.
        reason: what is wrong with it, without the path.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason


class CheckpointError(DagaugError):
    """A checkpoint is missing, corrupt, or made for other classes."""


class StoreError(DagaugError):
    """An HDF5 file is missing, corrupt, of an unknown version, or breaks its specification."""


class OutputExistsError(DagaugError):
    """The output is already there and was made with other options."""


class LockedError(DagaugError):
    """Another run is writing to the same output."""


class TrainingError(DagaugError):
    """Training cannot go on: too few images or classes, or losses that stay not finite."""


class MissingExtraError(DagaugError):
    """An optional package is not installed; the message holds the command that installs it."""


def in_one_line(text: str) -> str:
    """``text`` with line breaks and what else would act on a terminal written as escapes; names may hold anything."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text)
