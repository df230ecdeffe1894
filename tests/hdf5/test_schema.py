"""The content hash, as the specification defines it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np

from dagaug.hdf5.schema import SCHEMA


def test_the_hash_is_as_specified(files: dict[str, Path]) -> None:
    """/content_sha256 by h5py and hashlib alone, from the words of the specification."""
    with h5py.File(files["png"]) as file:
        names = ("format", "version", "encoding", "quality", "checkpoint_sha256", "seed", "created_by")
        values = {name: file.attrs[name] for name in names}
        plain = {
            name: v.decode() if isinstance(v, bytes) else v if isinstance(v, str) else int(v)
            for name, v in values.items()
        }
        total = hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        for name in SCHEMA:
            if name not in ("images/data", "content_sha256"):
                array = file[name][()]
                array = np.asarray(array, file[name].dtype)
                shape = ",".join(map(str, array.shape))
                total.update(f"{name} {array.dtype.str} {shape}\n".encode() + hashlib.sha256(array.tobytes()).digest())
        assert file["content_sha256"][:].tobytes() == total.digest()


def test_the_hash_of_objects_is_as_specified(files: dict[str, Path]) -> None:
    with h5py.File(files["png"]) as file:
        total = hashlib.sha256(file["content_sha256"][:].tobytes())
        for name, kind, shape in (
            ("objects/box", "<f4", "14,4"),
            ("objects/mask_offset", "<i8", "15"),
            ("objects/mask", "|u1", str(len(file["objects/mask"]))),
        ):
            total.update(f"{name} {kind} {shape}\n".encode() + hashlib.sha256(file[name][()].tobytes()).digest())
        assert file["objects/sha256"][:].tobytes() == total.digest()
