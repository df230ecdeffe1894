"""Runs of a few shards, written to their end."""

from __future__ import annotations

from pathlib import Path

from making_stores import SHARDS, header, shard

from dagaug.hdf5.shard_folder import open_shard_folder

IDENTITY = {"seed": 3, "options": {"refs": 10, "size": 64}}


def written(target: Path, *, count: int = SHARDS) -> Path:
    """An unfinished run of ``count`` shards."""
    with open_shard_folder(target, IDENTITY) as run:
        for index in range(count):
            run.write(index, shard(index))
    return target


def finished(target: Path, *, overwrite: bool = False) -> bytes:
    """Go on with a run as a command would, to the end."""
    with open_shard_folder(target, IDENTITY, overwrite=overwrite) as run:
        for index in range(SHARDS):
            if index not in run.finished:
                run.write(index, shard(index))
        run.merge(header(), SHARDS)
    return target.read_bytes()
