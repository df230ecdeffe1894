"""Paths from list files, checked to stay in the data folder."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from dagaug.runtime.errors import DataError

__all__ = ["SafePaths"]


class SafePaths:
    """Checks paths of list files; absolute paths, ``..`` and links that leave the data folder are refused.

    Args:
        root: the data folder; links into it are allowed.
        below: the folder in ``root`` that paths are relative to.

    Attributes:
        base: that folder, including the root.
    """

    def __init__(self, root: Path, below: str = ".") -> None:
        self.base = root / below
        self._allowed = (root.resolve(), self.base.resolve())

    def checked(self, text: str, where: str) -> Path:
        """The path relative to :attr:`base`.

        Args:
            text: as the list file has it; blanks at both ends are ignored.
            where: file and line, for the error.

        Raises:
            DataError: the path leaves the data folder.
        """
        pure, path = PurePosixPath(text.strip()), Path(text.strip())
        if "\0" in text or pure.is_absolute() or path.is_absolute() or ".." in (*pure.parts, *path.parts):
            raise DataError(f"{where}: {text!r} leaves the data folder; give paths below {self.base}")
        target = Path(os.path.realpath(self.base / path))
        if not any(target.is_relative_to(folder) for folder in self._allowed):
            raise DataError(f"{where}: {text!r} leaves the data folder through a link; copy the file there")
        return path
