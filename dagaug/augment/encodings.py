"""What references give to morphs, kept on disk: each image is encoded once and asked for often.

A record holds one image in one variant: its :class:`~dagaug.networks.Structure` in 16 bits and the image without its
object. Records are read and written by position, not mapped into memory, so that a process holds what it works on and
no more, and so that several processes may fill and use one file.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Integer, UInt8
from torch import Tensor

from dagaug.model.networks import Structure

__all__ = ["Encodings", "record_type"]

_BEHIND, _HOLE = "behind", "hole"


def record_type(structure: Structure, side: int) -> np.dtype:
    """The type of one record.

    Args:
        structure: of any images.
        side: of the patches in pixels.
    """
    parts = [(field.name, np.float16, getattr(structure, field.name).shape[1:]) for field in fields(structure)]
    return np.dtype([*parts, (_BEHIND, np.uint8, (side, side, 3)), (_HOLE, np.uint8, (side, side))])


class Encodings:
    """Records by number, in a file.

    Args:
        record: type of a record, by :func:`record_type`.
        rows: how many there are.
        where: a folder for a file that has no name, of which nothing remains; or the name of a file that other
            processes open too.
    """

    def __init__(self, record: np.dtype, rows: int, where: Path) -> None:
        self.record, self.rows = record, rows
        self._descriptor = -1
        if where.is_dir():
            with tempfile.TemporaryFile(dir=where) as file:
                self._descriptor = os.dup(file.fileno())
        else:
            self._descriptor = os.open(where, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def reserve(self, first: int, count: int) -> None:
        """Take the disk space of the records ``first``, ``first`` + 1, ...; until they are written they hold zeros.

        Raises:
            OSError: there is not enough of it.
        """
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._descriptor, first * self.record.itemsize, count * self.record.itemsize)

    def put(
        self,
        first: int,
        structure: Structure,
        behind: UInt8[np.ndarray, "B S S 3"],
        hole: UInt8[np.ndarray, "B S S"],
    ) -> None:
        """Write the records ``first``, ``first`` + 1, ..."""
        block = np.empty(len(behind), self.record)
        for field in fields(structure):
            block[field.name] = getattr(structure, field.name).half().cpu().numpy()
        block[_BEHIND], block[_HOLE] = behind, hole
        rest, at = block.view(np.uint8).data, first * self.record.itemsize
        while len(rest):
            done = os.pwrite(self._descriptor, rest, at)
            at, rest = at + done, rest[done:]

    def take(self, rows: Integer[np.ndarray, " B"]) -> np.ndarray:
        """Records in the order of ``rows``.

        Raises:
            OSError: one was never written.
        """
        block = np.empty(len(rows), self.record)
        size = self.record.itemsize
        whole = block.view(np.uint8).data
        for place, row in enumerate(rows.tolist()):
            into = whole[place * size : (place + 1) * size]
            if os.preadv(self._descriptor, [into], row * size) != size:
                raise OSError(f"encoding {row} of {self.rows} is not there")
        return block

    @staticmethod
    def structure(records: np.ndarray, device: torch.device) -> Structure:
        """The structures of records, in 32 bits on a device, channels last."""
        return Structure(
            **{field.name: _channels_last(_to(records[field.name], device)) for field in fields(Structure)}
        )

    @staticmethod
    def backdrops(records: np.ndarray) -> tuple[UInt8[np.ndarray, "B S S 3"], UInt8[np.ndarray, "B S S"]]:
        """References without their objects, and where those were painted over (255)."""
        return np.ascontiguousarray(records[_BEHIND]), np.ascontiguousarray(records[_HOLE])

    def close(self) -> None:
        """Give the file back; without a name, it is gone."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.float().contiguous(memory_format=torch.channels_last if tensor.ndim == 4 else torch.contiguous_format)


def _to(array: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
