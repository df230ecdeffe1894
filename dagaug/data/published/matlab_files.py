"""MATLAB files of annotations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dagaug.runtime.errors import DataError

__all__ = ["read_matlab", "records_of", "whole_number"]


def read_matlab(path: Path, names: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Variables of a MATLAB file (up to version 7), each as an array without dimensions of length one.

    Raises:
        DataError: the file is no such file, or lacks a variable.
        OSError: the file cannot be read.
    """
    from scipy.io import loadmat  # a tenth of a second

    try:
        content = loadmat(path, squeeze_me=True, variable_names=list(names))
    except OSError:
        raise
    except Exception as error:  # corrupt files raise errors of many kinds
        raise DataError(f"{path}: not a MATLAB file ({str(error)[:80] or type(error).__name__})") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise DataError(f"{path}: holds no variable {missing[0]!r}")
    return tuple(np.atleast_1d(content[name]) for name in names)


def records_of(path: Path, array: np.ndarray, fields: Sequence[str]) -> list[tuple[object, ...]]:
    """The named fields of each element of a MATLAB struct array.

    Raises:
        DataError: the array is no struct array, or lacks a field; ``path`` is the file that it is from.
    """
    missing = [name for name in fields if name not in (array.dtype.names or ())]
    if missing:
        raise DataError(f"{path}: its annotations have no field {missing[0]!r}")
    return list(zip(*(array[name].tolist() for name in fields), strict=True))


def whole_number(value: object, largest: int) -> int | None:
    """A number from 1 to ``largest``, which MATLAB may have stored as a fraction; None if it is something else."""
    if isinstance(value, int | float) and 1 <= value <= largest and value == int(value):
        return int(value)
    return None
