"""Errors of the hub in one line each, with the next step."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from huggingface_hub.utils import logging as hub_logging

from dagaug.runtime.errors import HubError

__all__ = ["explained", "is_unreachable", "quiet_library"]


@contextmanager
def explained(name: str, *, uploading: bool = False) -> Iterator[None]:
    """Raise a :class:`HubError` in one line for every error of the hub, of the network and of the disk in the block.

    Args:
        name: the repository or name that the message begins with.
        uploading: whether the block uploads, so that the hub's cache on this machine is of no help.
    """
    try:
        yield
    except (HTTPError, EntryNotFoundError, OSError) as error:
        unreached = _unreached(error)
        if not unreached:
            raise HubError(f"{name}: {_reason(error)}") from error
        retry = "unset it" if constants.HF_HUB_OFFLINE else "run the same command again later"
        end = retry if uploading else "the hub's cache on this machine does not hold it"
        raise HubError(f"{name}: {unreached}; {end}") from error


@contextmanager
def quiet_library(*, progress: bool = False) -> Iterator[None]:
    """Keep the warnings of the hub's library back, which errors say once, and its progress bars.

    Args:
        progress: whether to show the bars if stderr is a terminal.
    """
    verbosity, disabled = hub_logging.get_verbosity(), are_progress_bars_disabled()
    hub_logging.set_verbosity_error()
    if not (progress and sys.stderr.isatty()):
        disable_progress_bars()
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)
        if not disabled:
            enable_progress_bars()


def is_unreachable(error: Exception) -> bool:
    """Whether an error says that the hub could not be asked, rather than that it refused."""
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        return error.response.status_code >= 500
    return isinstance(error, HTTPError | LocalEntryNotFoundError | ConnectionError | TimeoutError)


def _unreached(error: Exception) -> str:
    """Why the hub could not be asked; empty if it answered or the error is none of the network."""
    if isinstance(error, OfflineModeIsEnabled) or (constants.HF_HUB_OFFLINE and is_unreachable(error)):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, HfHubHTTPError) and error.response is not None and is_unreachable(error):
        return f"the hub fails at the moment (status {error.response.status_code})"
    return f"the hub ({constants.ENDPOINT}) cannot be reached" if is_unreachable(error) else ""


def _reason(error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        return f"the hub asks to accept its conditions first: {constants.ENDPOINT}"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has no such repository, or it is private and the token has no access"
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such branch, tag or commit"
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return "the repository has no such file"
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        return _refusal(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the cache of the hub'}: {error.strerror}"
    return str(error).partition("\n")[0] or type(error).__name__


def _refusal(error: HfHubHTTPError) -> str:
    """What a status code of the hub means, with its own words if it says more."""
    status = error.response.status_code
    if status == 401:
        return (
            f"the hub does not accept the token; check HF_TOKEN, or make another: {constants.ENDPOINT}/settings/tokens"
        )
    if status == 403:
        return f"the token may not write there; make one that may: {constants.ENDPOINT}/settings/tokens"
    return f"the hub refuses (status {status}): {_words(error)}"


def _words(error: HfHubHTTPError) -> str:
    """The hub's own message: in a header, as JSON in the body, or else that of the library."""
    try:
        content = json.loads(error.response.text)
    except (JSONDecodeError, TypeError, RuntimeError):  # RuntimeError: the body was not read
        content = None
    said = error.response.headers.get("X-Error-Message")
    if not said and isinstance(content, dict):
        said = content.get("error")
    return " ".join(str(said or error).split())
