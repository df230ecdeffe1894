"""Small trainings, judges and command lines that the tests of training, augmenting and the commands share."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dagaug.__main__ import main
from dagaug.classifiers.fit import FitOptions, fit
from dagaug.data.dataset_records import Dataset
from dagaug.data.grabcut_and_inpainting import grabcut_masks
from dagaug.data.object_patches import Framing, read_patches
from dagaug.model import checkpoint
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.progress import SILENT
from dagaug.runtime.streamed_array import StreamedArray
from dagaug.training import modes
from dagaug.training.options import TrainOptions
from dagaug.training.train import Schedule, Trained, train
from dagaug.training.trainer import Trainer

SIZE = 32
FRAMING = Framing(size=SIZE)
STEPS, BATCH = 6, 4
SPECIES, PER_CLASS, TEST_PER_CLASS = 4, 4, 2
TRAINING_IMAGES = SPECIES * PER_CLASS


def options(**changes: Any) -> TrainOptions:
    """A training from scratch of a few steps that goes through all three phases: three, one and two steps."""
    given = {"framing": FRAMING, "steps": STEPS, "batch_size": BATCH, "start": "scratch"}
    return TrainOptions(**(given | changes))


def train_small(
    data: Any,
    out: Path,
    /,
    *,
    progress: Any = SILENT,
    schedule: Schedule | None = None,
    overwrite: bool = False,
    **changes: Any,
) -> Trained:
    """Train in 32 bits on the CPU, where a step gives the same bits every time."""
    return train(
        options(**changes), data, name="birds", out=out, precision="32-true", schedule=schedule, overwrite=overwrite,
        execution=Execution("cpu", progress=progress),
    )  # fmt: skip


_known_masks: dict[bytes, np.ndarray] = {}


def _masks_once(images: StreamedArray, boxes: Sequence[Any], **more: Any) -> StreamedArray:
    """The same masks, found once for the same images."""
    given = b"".join(b"none" if mask is None else mask.tobytes() for mask in more.get("given") or ())
    key = images[:].tobytes() + repr(boxes).encode() + given
    if key not in _known_masks:
        _known_masks[key] = grabcut_masks(images, boxes, **more)[:]
    return StreamedArray(len(images), images.shape[1:3], _known_masks[key].__getitem__)


@contextlib.contextmanager
def quick() -> Iterator[pytest.MonkeyPatch]:
    """Make what has no option short: finding the objects, the last pass over the data, classifiers' trainings."""

    def resolved(self: FitOptions, images: int) -> FitOptions:
        del images
        return replace(self, steps=self.steps or 4, learning_rate=self.learning_rate or 1e-3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "recalibrate", partialmethod(Trainer.recalibrate, batches=2))
        patch.setattr(modes, "grabcut_masks", _masks_once)
        patch.setattr(FitOptions, "resolved", resolved)
        yield patch


def write_judge(data: Dataset, path: Path, network: str = "test_resnet") -> None:
    """A classifier that is ready to judge: briefly trained, so that it is right about some morphs and not others."""
    patches = read_patches(data, data.train, FRAMING)
    fit_options = FitOptions(network, SIZE, steps=30, batch_size=16)
    fit(patches.images, patches.labels, data.classes, fit_options, seed=0).save(path)


def tensors_of(file: Path) -> dict[str, Tensor]:
    return checkpoint.load(file)[0]


def assert_same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def logged(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


class Listener:
    """A progress that keeps lines and counts, and calls back whenever a task moves.

    Args:
        moved: is given the task's name and how far it is.
    """

    def __init__(self, moved: Callable[[str, int], None] = lambda name, done: None) -> None:
        self.lines: list[str] = []
        self.done: dict[str, int] = {}
        self.moved = moved

    def task(self, name: str, total: int, unit: str) -> _Counted:
        del total, unit
        self.done[name] = 0
        return _Counted(self, name)

    def say(self, text: str) -> None:
        self.lines.append(text)


class _Counted:
    def __init__(self, listener: Listener, name: str) -> None:
        self.listener, self.name = listener, name

    def __enter__(self) -> _Counted:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def advance(self, count: int = 1, note: str = "") -> None:
        del note
        self.listener.done[self.name] += count
        self.listener.moved(self.name, self.listener.done[self.name])


def interrupt_at(task: str, count: int) -> Listener:
    """A progress that sends SIGINT to its own process when a task is at ``count``."""

    def moved(name: str, done: int) -> None:
        if name.startswith(task) and done == count:
            signal.raise_signal(signal.SIGINT)

    return Listener(moved)


def interrupt_at_step(step: int) -> Listener:
    """The same after a step of a training, which counts its pairs."""
    return interrupt_at("Training", step * BATCH)


class Killed(BaseException):
    """Ends a run as SIGKILL would: nothing in the package catches it."""


def kill_at_step(step: int) -> Listener:
    """A progress that ends a training at once after a step."""

    def moved(name: str, done: int) -> None:
        if name.startswith("Training") and done == step * BATCH:
            raise Killed

    return Listener(moved)


@dataclass(frozen=True)
class Output:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as strict JSON, which knows neither NaN nor Infinity."""

        def refuse(name: str) -> None:
            raise ValueError(f"{name} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


def dagaug(*arguments: object) -> Output:
    """Run the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["dagaug", *map(str, arguments)])
        patch.setenv("COLUMNS", "200")
        try:
            main()
            code = 0
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
    return Output(code, out.getvalue(), err.getvalue())
