"""Table of encoded images on disk: attention structures and inpainted backgrounds.

A record holds one image in one orientation: its :class:`~dagaug.model.networks.Structure` in float16, and the image
without its object. A :class:`~dagaug.model.training_free.FrozenStructure` has no background in it, and one record for
both orientations. Records are read and written by position rather than memory-mapped. So a process holds only the
records it works on, and several processes may fill and read one file.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import Field, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Integer, UInt8
from torch import Tensor

from dagaug.model.networks import Structure
from dagaug.model.training_free import FrozenStructure, PoseStructure

__all__ = ["Encodings", "mirror_records", "record_type"]

_BACKGROUND, _INPAINTED = "background", "inpainted"


_SCALES = {"float16": 1.0, "int8": 127.0, "uint8": 255.0}
"""What a field's values in [-1, 1] or [0, 1] are multiplied by in a record; its metadata name the type."""


def _stored_as(field: Field[object]) -> str:
    return str(field.metadata.get("stored", "float16"))


def record_type(structure: PoseStructure, side: int, *, backgrounds: bool = True) -> np.dtype:
    """NumPy type of one record.

    Args:
        structure: structure of any images; gives the shapes.
        side: side of the patches in pixels.
        backgrounds: whether a record holds the image without its object, too.
    """
    parts = [(field.name, _stored_as(field), getattr(structure, field.name).shape[1:]) for field in fields(structure)]
    if not backgrounds:
        return np.dtype(parts)
    return np.dtype([*parts, (_BACKGROUND, np.uint8, (side, side, 3)), (_INPAINTED, np.uint8, (side, side))])


class Encodings:
    """File of records.

    Args:
        record: type of a record, from :func:`record_type`.
        rows: number of records.
        where: a folder for an unnamed temporary file, or the name of a file that other processes open, too.
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
        """Reserve disk space for ``count`` records from ``first`` on; they hold zeros until they are written.

        Raises:
            OSError: the disk has not enough space.
        """
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._descriptor, first * self.record.itemsize, count * self.record.itemsize)

    def write(
        self,
        first: int,
        structure: PoseStructure,
        background: UInt8[np.ndarray, "B S S 3"] | None = None,
        inpainted: UInt8[np.ndarray, "B S S"] | None = None,
    ) -> None:
        """Write records from ``first`` on.

        Args:
            first: index of the first record.
            structure: structures of B images.
            background: the images without their objects, RGB; None if records hold none.
            inpainted: 255 where the background was inpainted, else 0.
        """
        block = np.empty(len(structure.object), self.record)
        for field in fields(structure):
            block[field.name] = _to_stored(getattr(structure, field.name), _stored_as(field))
        if background is not None:
            block[_BACKGROUND], block[_INPAINTED] = background, inpainted
        rest, at = block.view(np.uint8).data, first * self.record.itemsize
        while len(rest):
            done = os.pwrite(self._descriptor, rest, at)
            at, rest = at + done, rest[done:]

    def read(self, rows: Integer[np.ndarray, " B"]) -> np.ndarray:
        """Read records in the order of ``rows``.

        Raises:
            OSError: a record lies beyond the end of the file.
        """
        block = np.empty(len(rows), self.record)
        size = self.record.itemsize
        buffer = block.view(np.uint8).data
        for place, row in enumerate(rows.tolist()):
            part = buffer[place * size : (place + 1) * size]
            if os.preadv(self._descriptor, [part], row * size) != size:
                raise OSError(f"encoding {row} of {self.rows} was not written")
        return block

    @staticmethod
    def structure(
        records: np.ndarray, device: torch.device, kind: type[Structure] | type[FrozenStructure] = Structure
    ) -> PoseStructure:
        """Structures of records, in float32 on a device, channels last.

        Args:
            records: as :meth:`read` gives them.
            device: where the tensors are put.
            kind: class of the structures.
        """
        return kind(**{field.name: _from_stored(records[field.name], field, device) for field in fields(kind)})

    @staticmethod
    def masks(records: np.ndarray) -> UInt8[np.ndarray, "B H W"]:
        """Object masks of records, 255 on the object."""
        stored = records["object"][:, 0]
        return stored if stored.dtype == np.uint8 else (255 * stored.clip(0, 1)).round().astype(np.uint8)

    @staticmethod
    def backgrounds(records: np.ndarray) -> tuple[UInt8[np.ndarray, "B S S 3"], UInt8[np.ndarray, "B S S"]]:
        """Images without their objects, RGB, and the inpainted area (255)."""
        return np.ascontiguousarray(records[_BACKGROUND]), np.ascontiguousarray(records[_INPAINTED])

    def close(self) -> None:
        """Close the file; an unnamed file is deleted by this."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()


def mirror_records(records: np.ndarray, chosen: Bool[np.ndarray, " B"]) -> None:
    """Turn some records of images into those of their mirror images, in place.

    Args:
        records: of a structure that shows the mirror image, too; without backgrounds.
        chosen: which of them.
    """
    records["object"][chosen] = records["object"][chosen][..., ::-1]
    plain, mirrored = records["keys"][chosen], records["mirrored"][chosen]
    records["keys"][chosen], records["mirrored"][chosen] = mirrored, plain


def _to_stored(tensor: Tensor, kind: str) -> np.ndarray:
    if kind == "float16":
        return tensor.half().cpu().numpy()
    return (tensor.float() * _SCALES[kind]).round().cpu().numpy().astype(kind)


def _from_stored(array: np.ndarray, field: Field[object], device: torch.device) -> Tensor:
    tensor, scale = _channels_last(_to(array, device)), _SCALES[_stored_as(field)]
    return tensor if scale == 1 else tensor / scale


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.float().contiguous(memory_format=torch.channels_last if tensor.ndim == 4 else torch.contiguous_format)


def _to(array: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
