"""Log of finished trainings (JSON lines), so that a stopped score resumes where it stopped."""

from __future__ import annotations

import base64
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer

from dagaug.runtime.errors import DataError
from dagaug.runtime.progress import SILENT, Progress

__all__ = ["RunLog", "ScoreRun", "pack", "unpack"]


@dataclass(frozen=True)
class ScoreRun:
    """One training of an arm, tested once.

    Attributes:
        arm: name of the arm.
        seed: seed of everything random.
        accuracy: top-1 accuracy on the test images, in [0, 1].
        calibration_error: expected calibration error, in [0, 1]; NaN in files of older versions.
        predictions: predicted class of each test image, written by :func:`pack`; "" in files of older versions.
        seconds: duration of training and test.
    """

    arm: str
    seed: int
    accuracy: float
    calibration_error: float = math.nan
    predictions: str = ""
    seconds: float = 0.0

    def predicted(self) -> Int64[np.ndarray, " N"]:
        """The predicted class of each test image.

        Raises:
            ValueError: there are no predictions, or :func:`pack` did not write them.
        """
        return unpack(self.predictions)


def pack(classes: Integer[np.ndarray, " N"] | Sequence[int]) -> str:
    """Write classes as text: 32-bit little-endian integers, deflated, in base64."""
    return base64.b64encode(zlib.compress(np.asarray(classes, dtype="<i4").tobytes(), 9)).decode()


def unpack(text: str) -> Int64[np.ndarray, " N"]:
    """Read what :func:`pack` wrote.

    Raises:
        ValueError: the text was not written by :func:`pack`.
    """
    try:
        return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype="<i4").astype(np.int64)
    except zlib.error as error:
        raise ValueError(str(error)) from error


@contextmanager
def _data_errors(path: Path) -> Iterator[None]:
    """Raise errors of the operating system as DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})", remedies={"out": None}) from error


class RunLog:
    """Finished trainings, in memory and in a file.

    Each line holds one training, its identity (:meth:`dagaug.score.trainings.TrainingSpec.identity`) and the versions
    of the libraries that it was made with. Lines of other versions are not reused.

    Args:
        path: JSON-lines file; None keeps nothing.
        versions: versions of dagaug and of the libraries that a result depends on.
        progress: receives which trainings are reused, and how many are not.

    Raises:
        DataError: the file cannot be written.
    """

    def __init__(self, path: Path | None, versions: Mapping[str, str], progress: Progress = SILENT) -> None:
        self._path, self._versions, self._progress = path, dict(versions), progress
        self._runs: dict[tuple[str, str, int], ScoreRun] = {}
        if path is None:
            return
        with _data_errors(path):  # before hours of training, not after
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                file.seek(0)
                content = file.read()
            if not content:
                path.unlink()
        self._load(path, content.decode(errors="replace").splitlines())

    def _load(self, path: Path, lines: Sequence[str]) -> None:
        stale = 0
        changed: set[str] = set()
        for line in lines:
            try:
                record = json.loads(line)
                identity, versions = str(record.pop("identity")), record.pop("versions", {})
                run = ScoreRun(**record)
                run.predicted()
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue  # a line cut short by a killed run, or of a much older version; it is trained again
            if versions == self._versions:
                self._runs[identity, run.arm, run.seed] = run
            else:
                stale += 1
                changed |= _changed(versions, self._versions)
        if stale:
            self._progress.say(
                f"{path}: {stale} finished trainings are not reused: they were made with other versions "
                f"({', '.join(sorted(changed))})"
            )

    def has(self, identity: str, arm: str, seed: int) -> bool:
        """Whether there is a finished training of this identity, arm and seed."""
        return (identity, arm, seed) in self._runs

    def find(self, identity: str, arm: str, seed: int) -> ScoreRun | None:
        """The finished training of this identity, arm and seed, if there is one."""
        run = self._runs.get((identity, arm, seed))
        if run is not None:
            self._progress.say(f"{arm}, seed {seed}: {100 * run.accuracy:.1f}%, from {self._path}")
        return run

    def add(self, identity: str, run: ScoreRun) -> None:
        """Append a training to the file; it is on disk when this returns.

        Raises:
            DataError: the file cannot be written.
        """
        if self._path is None:
            return
        line = json.dumps({"identity": identity, "versions": self._versions, **asdict(run)}) + "\n"
        with _data_errors(self._path), self._path.open("ab") as file:
            # A line cut short by a killed run must not swallow this one.
            if file.tell() and not self._path.read_bytes().endswith(b"\n"):
                line = "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())


def _changed(old: object, new: Mapping[str, str]) -> set[str]:
    """Libraries whose versions differ, as ``torch 2.3, now 2.4``."""
    before = old if isinstance(old, dict) else {}
    names = sorted(name for name in {*map(str, before), *new} if before.get(name) != new.get(name))
    return {f"{name} {before.get(name, 'unknown')}, now {new.get(name, 'absent')}" for name in names}
