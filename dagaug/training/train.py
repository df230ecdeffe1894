"""Training DA-GAN on Lightning Fabric (eqs. 9 and 10), in phases, resumable to the bit.

A run is a folder: ``options.json``, ``metrics.jsonl``, ``state.safetensors`` while it goes on and
``model.safetensors`` (averaged weights) when it is done. Everything random about a step comes from the seed and the
step's number, so the weights, the optimisers' moments and the number of steps done are all that a resumed run needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dagaug.data.dataset import Dataset, Domains
from dagaug.model import checkpoint
from dagaug.model.presets import PRESETS
from dagaug.model.trained_model import (
    GENERAL,
    GENERAL_FILE,
    SCRATCH,
    ModelCard,
    Translator,
    build_translator,
    load_model,
    save_model,
    start_from,
)
from dagaug.model.translators import PaperTranslator, ReferenceTranslator
from dagaug.runtime.errors import TrainingError, UsageError
from dagaug.runtime.progress import SILENT, Progress
from dagaug.runtime.signals import Interrupted, stop_on_signals
from dagaug.training.loop import TrainingLoop, make_fabric, measured_steps
from dagaug.training.modes import PaperWork, ReferenceWork, Snapshot, Work
from dagaug.training.options import TrainOptions
from dagaug.training.run_folder import (
    append_metrics,
    claim_run,
    cut_metrics,
    identity_of,
    lock_run,
    removed_if_empty,
    run_folder,
    write_options,
)

__all__ = ["Trained", "default_steps", "train"]


_SAVE_SECONDS = 60.0


_LOG_EVERY = 10


_MAX_BAD_STEPS = 20


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        run: its folder.
        steps: optimiser steps done in all.
        seconds: time taken by this call.
        resumed_at: step at which this call took over (0 for a new run).
        already: whether the run was finished before this call.
    """

    run: Path
    steps: int
    seconds: float
    resumed_at: int
    already: bool


# ---- where a run lies, and whether it is the same run


def default_steps(images: int, device: str) -> int:
    """Steps that suit a number of training images: four each, within what the device does in minutes (or hours)."""
    if device == "cpu":
        return int(np.clip(4 * images, 800, 2_000))
    return int(np.clip(12 * images, 4_000, 60_000))


def train(
    options: TrainOptions,
    data: Dataset | Domains,
    *,
    name: str,
    out: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    workers: int = 2,
    overwrite: bool = False,
    strict: bool = False,
    watch: Callable[[Path, int, Snapshot], None] | None = None,
    sheets: int = 8,
    progress: Progress = SILENT,
) -> Trained:
    """Train DA-GAN, or go on with a training that was stopped.

    Args:
        options: what to train and how.
        data: a labelled data set for ``reference`` mode, two domains for ``paper`` mode.
        name: of the data, for the run's folder and card.
        out: the run's folder; ``runs/NAME-PRESET-HASH`` by default.
        device: auto, cpu, cuda, cuda:N, mps or another torch device.
        precision: a Fabric precision, or ``auto``.
        workers: threads that read images.
        overwrite: begin anew where another run lies.
        strict: an unreadable image is an error.
        watch: is given the run's folder, the step and pictures ``sheets`` times.
        sheets: how often.
        progress: is told of steps, rates and terms.

    Raises:
        UsageError: options do not fit each other or the data.
        DataError: there is nothing to train on.
        OutputExistsError: ``out`` holds another run.
        TrainingError: the losses stay not finite.
        Interrupted: stopped by a signal; the state is saved.
    """
    options = options.resolved()
    if (options.mode == "reference") != isinstance(data, Dataset):
        raise UsageError(
            f"--preset {options.preset}: needs "
            + ("a labelled data set" if options.mode == "reference" else "two folders, trainA and trainB")
        )
    if options.per_class is not None and not isinstance(data, Dataset):
        raise UsageError(f"--per-class {options.per_class}: two folders have no classes to count; leave it out")
    identity = identity_of(options, data)
    run = out or run_folder(options, data, name)
    with lock_run(run):
        known = claim_run(run, identity, overwrite)
        watched = None if watch is None else partial(watch, run)
        return _train(options, data, name, run, known, device, precision, workers, strict, watched, sheets, progress)


def _train(
    options: TrainOptions,
    data: Dataset | Domains,
    name: str,
    run: Path,
    known: Mapping[str, Any],
    device: str,
    precision: str,
    workers: int,
    strict: bool,
    watch: Callable[[int, Snapshot], None] | None,
    sheets: int,
    progress: Progress,
) -> Trained:
    """The training itself, in a folder that is its own."""
    begins = "steps" not in known
    if not begins and (run / checkpoint.MODEL_FILE).exists():
        return Trained(run, int(known.get("steps", 0)), 0.0, 0, already=True)
    started = time.monotonic()
    with removed_if_empty(run):
        fabric = make_fabric(device, precision)
        torch.manual_seed(options.seed)
        translator = build_translator(options.mode, options.attention, options.own_pixels)
        if not (run / checkpoint.STATE_FILE).exists():  # a resumed run has its own weights
            _start(translator, options, progress)
        work = _work(data, options, translator, workers, strict, progress)
        loop = TrainingLoop(fabric, work, translator, options)
    state = run / checkpoint.STATE_FILE
    if begins:  # only now, when nothing is wrong with the options, does what --overwrite replaces go
        for stale in (checkpoint.MODEL_FILE, checkpoint.STATE_FILE, "metrics.jsonl", "split.csv"):
            (run / stale).unlink(missing_ok=True)
    if state.exists():
        loop.restore(state)
        total = int(known["steps"])
        progress.say(f"{run}: going on at step {loop.done} of {total}")
    else:
        bounds = [steps for steps in (options.steps, measured_steps(loop, options)) if steps is not None]
        total = min(bounds, default=default_steps(work.images, fabric.device.type))
        write_options(run, {"identity": known["identity"], "steps": total, "classes": work.classes, "name": name})
        if isinstance(data, Dataset) and data.split_origin == "drawn":
            data.write_split(run / "split.csv")
    cut_metrics(run / "metrics.jsonl", loop.done)
    resumed_at = loop.done
    _run(loop, run, total, watch, sheets, progress)
    card = ModelCard(
        mode=options.mode,
        classes=work.classes,
        framing=options.framing,
        regions=options.attention.regions,
        half_size=options.attention.half_size,
        sharpness=options.attention.sharpness,
        steps=total,
        seed=options.seed,
        data=name,
        per_class=options.per_class,
        split_seed=data.split_seed if isinstance(data, Dataset) else None,
        own_pixels=options.own_pixels,
    )
    loop.recalibrate()
    if watch is not None:
        watch(total, loop.snapshot())
    save_model(run / checkpoint.MODEL_FILE, card, loop.averaged.state_dict())
    state.unlink(missing_ok=True)
    return Trained(run, total, time.monotonic() - started, resumed_at, already=False)


def _start(translator: Translator, options: TrainOptions, progress: Progress) -> None:
    """Give new networks the weights that the training begins with."""
    if options.start in (None, SCRATCH):
        return
    model = load_model(GENERAL_FILE if options.start == GENERAL else Path(str(options.start)))
    if model.card.mode != options.mode:
        raise UsageError(f"--start {options.start}: holds networks of {model.card.mode} mode, not {options.mode}")
    left = start_from(translator, model.translator.state_dict())
    if left:
        progress.say(f"Starting from {options.start}, but for {', '.join(left)}, whose shape is another here")


def _work(
    data: Dataset | Domains,
    options: TrainOptions,
    translator: Translator,
    workers: int,
    strict: bool,
    progress: Progress,
) -> Work:
    common: dict[str, Any] = {
        "distance": options.distance or PRESETS[options.preset].distance,
        "weights": options.weights,
        "without": frozenset(options.without),
        "seed": options.seed,
        "workers": workers,
        "strict": strict,
        "progress": progress,
    }
    if isinstance(data, Dataset):
        assert isinstance(translator, ReferenceTranslator)
        return ReferenceWork(data.subset(options.per_class), options.framing, translator, **common)
    assert isinstance(translator, PaperTranslator)
    return PaperWork(data, options.framing, translator, **common)


def _run(
    loop: TrainingLoop,
    run: Path,
    total: int,
    watch: Callable[[int, Snapshot], None] | None,
    sheets: int,
    progress: Progress,
) -> None:
    state, saved = run / checkpoint.STATE_FILE, time.monotonic()
    sums: dict[str, list[float]] = {}
    show_at = {round(total * k / sheets) for k in range(1, sheets)} if sheets else set()
    name, pairs = f"Training, {total} steps", loop.batch_size
    with stop_on_signals() as stop, progress.task(name, total * pairs, "pairs") as task:
        task.advance(loop.done * pairs)
        while loop.done < total:
            terms = loop.advance(total)
            if loop.bad_steps >= _MAX_BAD_STEPS:
                raise TrainingError(
                    f"{run}: the losses are not finite since step {loop.done - loop.bad_steps}; the last good state is "
                    "kept; try a smaller --learning-rate or --precision 32-true with another --out"
                )
            for key, value in terms.items():
                sums.setdefault(key, []).append(value)
            if loop.done % _LOG_EVERY == 0 or loop.done == total:
                means = {key: float(np.mean(values)) for key, values in sums.items()}
                append_metrics(
                    run / "metrics.jsonl", {"step": loop.done, "phase": loop.phase(loop.done - 1, total), **means}
                )
                note = "  ".join(f"{key} {value:.3g}" for key, value in means.items())
                sums = {}
            else:
                note = ""
            task.advance(pairs, note)
            if watch is not None and loop.done in show_at:
                watch(loop.done, loop.snapshot())
            if not loop.bad_steps and (stop.requested or time.monotonic() - saved > _SAVE_SECONDS):
                loop.save(state, {})
                saved = time.monotonic()
            if stop.requested:
                raise Interrupted(f"stopped at step {loop.done} of {total}; {run} keeps it; the same command goes on")
