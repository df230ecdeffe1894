"""Finished HDF5 files with single changes, for tests of the reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
from making_stores import MORPHS, REAL

TOTAL = REAL + 2 * MORPHS
"""Number of images of the files of `making_stores.write`."""


def seeds() -> list[int]:
    return [*range(REAL), *range(100, 100 + MORPHS), *range(200, 200 + MORPHS)]


def altered(path: Path, target: Path, change: Callable[[h5py.File], object]) -> Path:
    target.write_bytes(path.read_bytes())
    with h5py.File(target, "r+") as file:
        change(file)
    return target


def replaced(name: str, **how: object) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        old = file[name][()]
        del file[name]
        file.create_dataset(name, **({"data": old} | how))

    return change


def with_value(name: str, row: int, value: object) -> Callable[[h5py.File], object]:
    return lambda file: file[name].__setitem__(row, value)


def linked_to(name: str, link: object) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = link

    return change
