"""Safe file names for the names of classes and files that come from foreign data.

Class names and file names come from data sets and HDF5 files of others and may hold anything. A file that is written
under this name must stay in its folder, must not be hidden, and must not overwrite another file.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

__all__ = ["CLASS_BYTES", "safe_name", "safe_names", "unique_name"]

CLASS_BYTES = 200
"""Greatest length of a class's folder name in bytes of UTF-8; file systems allow 255, and a number may follow."""


def safe_names(names: Sequence[str], reserved: Iterable[str] = ()) -> list[str]:
    """One folder name per class: the class name itself where it is safe, and all distinct, ignoring case.

    Args:
        names: class names; two may be equal.
        reserved: names that no class may get, in lower case.
    """
    cleaned = [safe_name(name, CLASS_BYTES, "class") for name in names]
    result = [""] * len(names)
    taken = dict.fromkeys(reserved, 1)
    # Classes whose names are already safe choose first, so that they keep them.
    for row in sorted(range(len(names)), key=lambda row: cleaned[row] != names[row]):
        result[row] = unique_name(cleaned[row], taken)
    return result


def safe_name(name: str, limit: int, otherwise: str) -> str:
    """One safe file name of at most ``limit`` bytes in UTF-8; ``otherwise`` if no character is left.

    Path separators, characters that some system refuses, and unprintable characters become ``_``. Dots and blanks at
    both ends are removed, so that the name is neither hidden nor ``..``. Long names are cut.
    """
    kept = "".join(sign if sign.isprintable() and sign not in '/\\<>:"|?*' else "_" for sign in name)
    return kept.strip(" .").encode()[:limit].decode(errors="ignore").strip(" .") or otherwise


def unique_name(name: str, taken: dict[str, int]) -> str:
    """The name, followed by a number if it is taken; ``taken`` maps names to their last number and is updated."""
    result = name
    while _file_system_key(result) in taken:
        taken[_file_system_key(name)] += 1
        result = f"{name}--{taken[_file_system_key(name)]}"
    taken[_file_system_key(result)] = 1
    return result


def _file_system_key(name: str) -> str:
    """The same text for all names that some file system treats as equal."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
