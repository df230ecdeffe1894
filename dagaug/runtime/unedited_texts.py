"""Texts that dagaug writes for people, and that people may change: a last line tells whether somebody did.

The line holds a hash of the text before it. A text without it, or with another hash, is a person's and is not replaced.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from dagaug.runtime.files import write_atomically

__all__ = ["is_unedited", "stamped", "without_stamp", "write_unless_edited"]

_STAMP = re.compile(r"<!-- dagaug ([0-9a-f]{16}) -->\n\Z")


def stamped(text: str) -> str:
    """A Markdown text with the line that tells a later change of it."""
    body = text.rstrip("\n") + "\n\n"
    return f"{body}<!-- dagaug {_hash(body)} -->\n"


def without_stamp(text: str) -> str:
    """The text that :func:`stamped` got."""
    return _STAMP.sub("", text.replace("\r\n", "\n")).rstrip("\n") + "\n"


def is_unedited(text: str) -> bool:
    """Whether dagaug wrote a text, and nobody changed it since."""
    found = _STAMP.search(text.replace("\r\n", "\n"))
    return found is not None and found[1] == _hash(text.replace("\r\n", "\n")[: found.start()])


def write_unless_edited(path: Path, text: str) -> bool:
    """Write a text with its stamp, but never over one that a person wrote or changed.

    Returns:
        whether it was written.

    Raises:
        OSError: the file cannot be written.
    """
    if path.exists() and not is_unedited(path.read_text(encoding="utf-8", errors="replace")):
        return False
    write_atomically(path, stamped(text).encode())
    return True


def _hash(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8", "replace")).hexdigest()[:16]
