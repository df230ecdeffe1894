"""The exception tree: every error that a user can cause or meet.

A message names the file or the option and the next step, in one line. The command line prints it without a
traceback and exits with :attr:`DagaugError.exit_code`. Every other exception is a bug and keeps its traceback.

The library does not know command-line flags. An error names options as Python does (``refs``, ``keep_size``); the
command line writes them as the flags of the command that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = [
    "CheckpointError",
    "DagaugError",
    "DataError",
    "HubError",
    "ImageError",
    "LockedError",
    "MissingExtraError",
    "OutputExistsError",
    "StoreError",
    "TrainingError",
    "UsageError",
    "as_keyword",
    "in_one_line",
]


def as_keyword(option: str, value: object) -> str:
    """An option as Python writes it: ``refs=0``, or ``another out`` where the value is None."""
    return f"another {option}" if value is None else f"{option}={value}"


class DagaugError(Exception):
    """Base of all errors that the command line prints in one line.

    Args:
        message: what is wrong, without the option at fault; it begins with the file, if there is one.
        option: the Python name of the option at fault, or "".
        value: that option's value.
        remedies: options that help, with the value to give them; None for "another value".
    """

    exit_code = 1

    def __init__(
        self, message: str, *, option: str = "", value: object = None, remedies: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.option = option
        self.value = value
        self.remedies = dict(remedies or {})

    def describe(self, write: Callable[[str, object], str] = as_keyword) -> str:
        """The whole message: option at fault, what is wrong, remedies. ``write`` formats an option and its value."""
        head = f"{write(self.option, self.value)}: " if self.option else ""
        tail = "; try " + " or ".join(write(*remedy) for remedy in self.remedies.items()) if self.remedies else ""
        return f"{head}{self.message}{tail}"

    def __str__(self) -> str:
        return self.describe()


class UsageError(DagaugError):
    """An option or argument has an invalid value."""

    exit_code = 2


class DataError(DagaugError):
    """A data folder or list file is missing, empty, malformed, or does not fit to the other inputs."""


class ImageError(DagaugError):
    """One image cannot be used; usually it is skipped and listed, and the error is not raised to the user.

    Attributes:
        path: the image file, as the caller named it.
        reason: what is wrong with it, without the path.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[Path, str]]:  # worker processes send it by pickle
        return type(self), (self.path, self.reason)


class CheckpointError(DagaugError):
    """A checkpoint is missing, corrupt, or for other classes."""


class StoreError(DagaugError):
    """An HDF5 file is missing, corrupt, of an unknown version, or violates its specification."""


class OutputExistsError(DagaugError):
    """The output exists already, or was made with other options."""


class LockedError(DagaugError):
    """Another run is writing to the same output."""


class TrainingError(DagaugError):
    """Training cannot continue: too few images or classes, losses that stay non-finite, or a dead process."""


class HubError(DagaugError):
    """The hub cannot be reached, refuses, or does not hold what was named."""


class MissingExtraError(DagaugError):
    """An optional package is not installed; the message names the command that installs it."""


def in_one_line(text: str) -> str:
    """The text with all unprintable characters, line breaks included, written as Python escapes."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text)
