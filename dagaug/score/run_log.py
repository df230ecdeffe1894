"""Finished trainings of a score in a JSON-lines file, so that a stopped score goes on where it was."""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer

from dagaug.runtime.errors import DataError
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["Ledger", "Run", "pack", "unpack"]


@dataclass(frozen=True)
class Run:
    """One training, tested once.

    Attributes:
        arm: what was trained on, by its name.
        seed: of everything random.
        accuracy: top-1 on the test images, a share.
        calibration_error: expected calibration error of these predictions.
        predictions: the predicted class of each test image, as :func:`pack` writes them.
        seconds: time that training and test took.
    """

    arm: str
    seed: int
    accuracy: float
    calibration_error: float
    predictions: str
    seconds: float

    def predicted(self) -> Int64[np.ndarray, " N"]:
        """The predicted class of each test image."""
        return unpack(self.predictions)


def pack(classes: Integer[np.ndarray, " N"] | Sequence[int]) -> str:
    """Classes as text: 32-bit little-endian numbers, deflated, in base64."""
    return base64.b64encode(zlib.compress(np.asarray(classes, dtype="<i4").tobytes(), 9)).decode()


def unpack(text: str) -> Int64[np.ndarray, " N"]:
    """What :func:`pack` wrote.

    Raises:
        ValueError: it did not write this.
    """
    try:
        return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype="<i4").astype(np.int64)
    except zlib.error as error:
        raise ValueError(str(error)) from error


@contextmanager
def _telling_writes(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error


class Ledger:
    """Runs that are finished; without a path it only forgets.

    Raises:
        DataError: the file cannot be written.
    """

    def __init__(self, path: Path | None, progress: Progress = SILENT) -> None:
        self._path, self._progress = path, progress
        self._runs: dict[tuple[str, str, int], Run] = {}
        if path is None:
            return
        with _telling_writes(path):  # before hours of training, not after
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                file.seek(0)
                content = file.read()
            if not content:
                path.unlink()
        for line in content.decode(errors="replace").splitlines():
            try:
                record = json.loads(line)
                identity = str(record.pop("identity"))
                run = Run(**record)
                run.predicted()
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue  # the line that a killed run was writing, or an older version's; it is trained again
            self._runs[identity, run.arm, run.seed] = run

    def find(self, identity: str, arm: str, seed: int) -> Run | None:
        """Give the run if it is finished."""
        run = self._runs.get((identity, arm, seed))
        if run is not None:
            self._progress.say(f"{arm}, seed {seed}: {100 * run.accuracy:.1f}%, from {self._path}")
        return run

    def add(self, identity: str, run: Run) -> None:
        """Write a run down, on disk when this returns."""
        if self._path is None:
            return
        line = json.dumps({"identity": identity, **asdict(run)}) + "\n"
        with _telling_writes(self._path), self._path.open("ab") as file:
            # A line cut short by a killed run must not swallow this one.
            if file.tell() and not self._path.read_bytes().endswith(b"\n"):
                line = "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
