"""A folder with birds, a run and a judge, in which commands are given."""

from __future__ import annotations

"""A small world on disk, the server of commands, and what a straight run of ``augment`` gives."""


from dataclasses import dataclass
from pathlib import Path

from processes import Process, Server

REFS = 3


ARGUMENTS = (
    "--checkpoint", "run", "--classifier", "test_resnet", "--weights", "judge.safetensors", "--min-confidence", "0",
    "--refs", REFS, "--batch-size", 16, "--device", "cpu", "--quiet",
)  # fmt: skip


SMALL = {"dagaug.augment.job._SOURCES_PER_SHARD": 2, "dagaug.augment.job._REAL_PER_SHARD": 6}


SHARDS = 24 // 6 + 16 // 2


@dataclass(frozen=True)
class World:
    """A folder with birds, a run and a judge, in which commands are given."""

    root: Path
    server: Server

    def start(self, *more: object, data: str = "birds", out: str = "a.h5", prelude: str = "") -> Process:
        """Begin the command of all these tests."""
        return self.server.start("augment", data, "--out", out, *ARGUMENTS, *more, cwd=self.root, prelude=prelude)

    def run(self, *more: object, data: str = "birds", out: str = "a.h5", prelude: str = "") -> tuple[int, list[str]]:
        """The same command to its end: exit code, and what it told as errors."""
        process = self.start(*more, data=data, out=out, prelude=prelude)
        return process.wait(), process.told()
