"""A folder with birds, a run and a judge, in which commands run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from processes import Process, Server

REFS = 3

ARGUMENTS = (
    "--checkpoint", "run", "--classifier", "test_resnet", "--weights", "judge.safetensors", "--min-confidence", "0",
    "--refs", REFS, "--batch-size", 16, "--device", "cpu", "--quiet",
)  # fmt: skip


SMALL_SHARDS = """
from functools import partial
from dagaug.augment import run
from dagaug.augment.prepared_augmentation import ShardSizes
run.augment = partial(run.augment, shard_sizes=ShardSizes(sources=2, real=6))
"""
"""Runs in the process of a command, before it: more and smaller shards."""

SHARDS = 24 // 6 + 16 // 2


@dataclass(frozen=True)
class World:
    """A folder with birds, a run and a judge, in which commands run."""

    root: Path
    server: Server

    def start(self, *more: object, data: str = "birds", out: str = "a.h5", prelude: str = "") -> Process:
        """Start ``dagaug augment``; ``prelude`` is code that runs in its process before it."""
        code = SMALL_SHARDS + prelude
        return self.server.start("augment", data, "--out", out, *ARGUMENTS, *more, cwd=self.root, prelude=code)

    def run(self, *more: object, data: str = "birds", out: str = "a.h5", prelude: str = "") -> tuple[int, list[str]]:
        """Run the same command to its end: exit code and error messages."""
        process = self.start(*more, data=data, out=out, prelude=prelude)
        return process.wait(), process.errors()
