"""Names of strangers as names of files: safe on every system, and no two alike.

Class names and file names come from data sets and HDF5 files that someone else made. What is written under them must
neither leave its folder nor meet another file, hidden or not, whatever they hold.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

__all__ = ["CLASS_BYTES", "safe_name", "safe_names", "shown", "unique_name"]

CLASS_BYTES = 200
"""Length of a class's folder name in UTF-8; file systems take 255 for one name, numbers included."""


def safe_names(names: Sequence[str], reserved: Iterable[str] = ()) -> list[str]:
    """A folder name for each class, its own where that is safe; no two are alike, upper and lower case being one.

    Args:
        names: true names, which may be alike.
        reserved: names that no class may have, in lower case.
    """
    cleaned = [safe_name(name, CLASS_BYTES, "class") for name in names]
    result = [""] * len(names)
    taken = dict.fromkeys(reserved, 1)
    # Classes whose names are safe as they are have the first choice.
    for row in sorted(range(len(names)), key=lambda row: cleaned[row] != names[row]):
        result[row] = unique_name(cleaned[row], taken)
    return result


def safe_name(name: str, limit: int, otherwise: str) -> str:
    """One name of at most ``limit`` bytes, ``otherwise`` where nothing is left of it.

    Separators, characters that some system refuses, control characters and what cannot be printed become ``_``; dots
    and blanks at both ends go, so that nothing is hidden and nothing leads upward; long names are cut.
    """
    kept = "".join(sign if sign.isprintable() and sign not in '/\\<>:"|?*' else "_" for sign in name)
    return kept.strip(" .").encode()[:limit].decode(errors="ignore").strip(" .") or otherwise


def unique_name(name: str, taken: dict[str, int]) -> str:
    """The name, with a number where it is taken already; ``taken`` knows the last number of each name."""
    result = name
    while _same(result) in taken:
        taken[_same(name)] += 1
        result = f"{name}--{taken[_same(name)]}"
    taken[_same(result)] = 1
    return result


def shown(text: str) -> str:
    """Text for a table in UTF-8: what cannot be printed, or is no text, becomes a Python escape."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _same(name: str) -> str:
    """Equal for names that some file system holds to be the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
