"""True answers: the images that morphs should equal, from a CSV table of pairs or from the built-in birds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from dagaug.birds.dataset import true_morph
from dagaug.data.image_files import decode
from dagaug.data.pairs_table import FileIndex, PairRow, read_pairs_table
from dagaug.runtime.errors import DataError

__all__ = ["TrueAnswer", "TrueAnswerLookup", "read_true_answers"]


@dataclass(frozen=True)
class TrueAnswer:
    """The image that a morph should equal, of the size of its whole reference.

    Attributes:
        image: RGB.
        mask: object mask of the image, in [0, 1]; None if unknown.
        reference_mask: object mask of the reference, in [0, 1]; None if unknown.
    """

    image: UInt8[np.ndarray, "H W 3"]
    mask: Float[np.ndarray, "H W"] | None
    reference_mask: Float[np.ndarray, "H W"] | None


TrueAnswerLookup = Callable[[str, str], TrueAnswer | None]
"""Maps the files of source and reference to the true answer, or to None if the table does not have the pair."""


def _lookup_in_birds(root: Path) -> TrueAnswerLookup:
    def find(source: str, reference: str) -> TrueAnswer | None:
        true, own = true_morph(root, source, reference), true_morph(root, reference, reference)
        return TrueAnswer(true.image, true.mask, own.mask)

    return find


class _TableLookup:
    """Looks true answers up in a table; a table without them takes them from the built-in birds.

    Args:
        path: the table.
        files: files of the HDF5 file.
        root: folder of the built-in birds.

    Raises:
        DataError: the table cannot be read, or a name in it is ambiguous.
    """

    def __init__(self, path: Path, files: Sequence[str], root: Path) -> None:
        self.path = path
        table = read_pairs_table(path)
        self._birds = None if "truth" in table.columns else _lookup_in_birds(root)
        self._files, self._index = files, FileIndex(files)
        self.pairs = {(self._file(row, "source"), self._file(row, "reference")): row for row in table.rows}

    def _file(self, row: PairRow, column: str) -> str:
        """A file of the HDF5 file by its path, or by a path ending that only one file has; else the text itself."""
        text = row.values[column]
        rows = self._index.rows(text)
        if len(rows) > 1:
            raise DataError(f"{self.path}, line {row.line}: {text} is ambiguous")
        return self._files[rows[0]] if rows else text

    def __call__(self, source: str, reference: str) -> TrueAnswer | None:
        row = self.pairs.get((source, reference))
        if row is None:
            return None
        if self._birds is not None:
            return self._birds(source, reference)
        image = self._read(row, "truth")
        if image is None:
            raise DataError(f"{self.path}, line {row.line}: has no true answer")
        masks = [self._read(row, column) for column in ("truth_mask", "reference_mask")]
        return TrueAnswer(image, *(None if mask is None else mask.mean(-1, dtype=np.float32) / 255 for mask in masks))

    def _read(self, row: PairRow, column: str) -> UInt8[np.ndarray, "H W 3"] | None:
        text = row.values.get(column, "")
        if not text:
            return None
        base = self.path.resolve().parent
        file = (base / text).resolve()
        if not file.is_relative_to(base):
            raise DataError(
                f"{self.path}, line {row.line}: {text!r} is outside the table's folder; give paths below {base}"
            )
        return decode(file)


def read_true_answers(truth: Path, files: Sequence[str], root: Path) -> tuple[TrueAnswerLookup, int | None]:
    """Open a source of true answers.

    Args:
        truth: a folder of the built-in birds, or a table of pairs.
        files: files of the HDF5 file whose morphs are compared.
        root: data folder; the built-in birds of a table without true answers.

    Returns:
        the lookup, and the number of pairs in the table; None for a folder, which has all pairs.

    Raises:
        DataError: see :class:`_TableLookup`.
    """
    if truth.is_dir():
        return _lookup_in_birds(truth), None
    table = _TableLookup(truth, files, root)
    return table, len(table.pairs)
