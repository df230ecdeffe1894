"""A whole training run: from options and data to a run folder with a trained model.

The run folder holds ``options.json``, ``metrics.jsonl``, ``state.safetensors`` during the training and
``model.safetensors`` (averaged weights) with a card (``README.md``) after it. All random numbers of a step come from
the seed and the step's number. A run that resumes from weights, optimiser moments and number of steps done therefore
gives the same bits as an uninterrupted one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dagaug.classifiers.frozen_feature_maps import build_extractor
from dagaug.data.dataset_records import Dataset, Domains
from dagaug.hub.card_format import CARD_FILE
from dagaug.hub.download import fetch_run
from dagaug.hub.names import is_hub_name, parse_hub_name
from dagaug.model import checkpoint
from dagaug.model.mode_translators import PaperTranslator, ReferenceTranslator
from dagaug.model.task_presets import PRESETS
from dagaug.model.trained_model import (
    GENERAL,
    GENERAL_FILE,
    SCRATCH,
    FeatureCard,
    ModelCard,
    Translator,
    build_translator,
    load_model,
    save_model,
    start_from,
)
from dagaug.model.training_free_checkpoint import INPUT_SIZE, feature_card
from dagaug.runtime.errors import TrainingError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.progress import Progress
from dagaug.runtime.signals import Interrupted, stop_on_signals
from dagaug.training.fabric import make_fabric
from dagaug.training.frozen_feature_mode import COMPONENTS, FeatureMode
from dagaug.training.modes import PaperMode, ReferenceMode, Snapshot, TrainingMode
from dagaug.training.options import TrainOptions
from dagaug.training.run_card import remove_run_card, write_run_card
from dagaug.training.run_folder import (
    METRICS_FILE,
    append_metrics,
    claim_run,
    lock_run,
    remove_if_empty,
    run_folder,
    run_identity,
    truncate_metrics,
    write_options,
)
from dagaug.training.step_count import default_steps, steps_in
from dagaug.training.trainer import Trainer

__all__ = ["Schedule", "Trained", "build_mode", "load_start", "train"]


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        run: its folder.
        steps: number of optimiser steps of the whole training.
        seconds: duration of this call.
        resumed_at: number of steps done before this call; 0 for a new run.
        already: whether the run was finished before this call.
    """

    run: Path
    steps: int
    seconds: float
    resumed_at: int
    already: bool


@dataclass(frozen=True)
class Schedule:
    """How often a training saves, logs and gives up.

    Attributes:
        save_seconds: seconds between two saved states.
        log_steps: steps between two entries of the metrics log.
        max_bad_steps: steps in a row with losses that are not finite after which the training ends with an error.
    """

    save_seconds: float = 60.0
    log_steps: int = 10
    max_bad_steps: int = 20


@dataclass(frozen=True)
class _Run:
    """A training in its claimed, locked folder; attributes as the arguments of :func:`train`."""

    options: TrainOptions
    data: Dataset | Domains
    name: str
    folder: Path
    precision: str
    watch: Callable[[int, Snapshot], None] | None
    sheets: int
    schedule: Schedule
    execution: Execution


def train(
    options: TrainOptions,
    data: Dataset | Domains,
    *,
    name: str,
    out: Path | None = None,
    precision: str = "auto",
    overwrite: bool = False,
    watch: Callable[[Path, int, Snapshot], None] | None = None,
    sheets: int = 8,
    schedule: Schedule | None = None,
    execution: Execution = Execution(),
) -> Trained:
    """Train DA-GAN, or resume a training that was stopped.

    Args:
        options: options that change the result.
        data: a labelled data set for ``reference`` mode, two domains for ``paper`` mode.
        name: name of the data, for the run's folder and the model card.
        out: the run's folder (default: ``runs/NAME-PRESET-HASH``).
        precision: auto, 32-true, bf16-mixed or 16-mixed.
        overwrite: replace another run in the folder.
        watch: called with the run's folder, the number of steps done, and sample images.
        sheets: how often ``watch`` is called; the last time is after the last step.
        schedule: how often to save and to log.
        execution: where to train, and how to read images; its progress receives steps and mean loss terms.

    Raises:
        UsageError: options do not fit each other or the data.
        DataError: there is nothing to train on.
        OutputExistsError: the folder holds another run.
        LockedError: another training writes to the folder.
        TrainingError: the losses stay not finite.
        HubError: the start is on the hub and cannot be downloaded.
        Interrupted: stopped by a signal; the state is saved.
    """
    options = _with_commit(options.resolved())
    _check_data(options, data)
    identity = run_identity(options, data)
    folder = out or run_folder(options, data, name)
    _check_start(options, folder)
    with lock_run(folder):
        known = claim_run(folder, identity, overwrite, execution.progress)
        watched = None if watch is None else partial(watch, folder)
        run = _Run(options, data, name, folder, precision, watched, sheets, schedule or Schedule(), execution)
        return _train(run, identity, known.get("steps"))


def _with_commit(options: TrainOptions) -> TrainOptions:
    """The options with the commit of a start on the hub: a branch may be another one tomorrow."""
    if options.start is None or not is_hub_name(options.start):
        return options
    return options.model_copy(update={"start": str(fetch_run(parse_hub_name(options.start)).name)})


def _check_data(options: TrainOptions, data: Dataset | Domains) -> None:
    labelled = isinstance(data, Dataset)
    if (options.mode == "reference") != labelled:
        needs = "a labelled data set" if not labelled else "two folders, trainA and trainB"
        raise UsageError(f"needs {needs}", option="preset", value=options.preset)
    if options.per_class is not None and not labelled:
        raise UsageError("two folders have no classes; leave it out", option="per_class", value=options.per_class)


def _check_start(options: TrainOptions, folder: Path) -> None:
    if options.start in (None, GENERAL, SCRATCH):
        return
    start = Path(str(options.start)).resolve()
    if start in (folder.resolve(), (folder / checkpoint.MODEL_FILE).resolve()):
        raise UsageError(
            "is the folder of this run itself", option="start", value=options.start, remedies={"out": None}
        )


def _train(run: _Run, identity: dict[str, Any], known_steps: int | None) -> Trained:
    """Train in the run's folder; ``known_steps`` is the number of steps of a run that was begun before."""
    options, folder = run.options, run.folder
    state = folder / checkpoint.STATE_FILE
    if known_steps is not None and (folder / checkpoint.MODEL_FILE).exists():
        if not (folder / CARD_FILE).exists():  # a killed run, or one of an older version
            write_run_card(folder, run.execution.progress)
        return Trained(folder, int(known_steps), 0.0, 0, already=True)
    started = time.monotonic()
    with remove_if_empty(folder):
        fabric = make_fabric(run.execution.device, run.precision)
        torch.manual_seed(options.seed)
        new = known_steps is None or not state.exists()  # a resumed run has its own weights
        mode, translator, features = _networks(run, options, new)
        run.execution.memory.tell(run.execution.progress)
        trainer = Trainer(fabric, mode, translator, options)
    if known_steps is None:  # a run that is replaced goes only now, after the options proved to be right
        for stale in (checkpoint.MODEL_FILE, checkpoint.STATE_FILE, METRICS_FILE, "split.csv"):
            (folder / stale).unlink(missing_ok=True)
        remove_run_card(folder)
    if known_steps is not None and state.exists():
        trainer.restore(state)
        total = int(known_steps)
        run.execution.progress.say(f"{folder}: resuming at step {trainer.done} of {total}")
    else:
        total = _total_steps(trainer)
        described = {"classes": mode.classes, "images": mode.image_count, "name": run.name}
        write_options(folder, {"identity": identity, "steps": total, **described})
        if isinstance(run.data, Dataset) and run.data.split_origin == "drawn":
            run.data.write_split(folder / "split.csv")
    truncate_metrics(folder / METRICS_FILE, trainer.done)
    resumed_at = trainer.done
    _do_steps(run, trainer, total)
    trainer.recalibrate()
    if run.watch is not None:
        run.watch(total, trainer.snapshot())
    save_model(folder / checkpoint.MODEL_FILE, _card(run, mode, total, features), trainer.averaged.state_dict())
    state.unlink(missing_ok=True)
    write_run_card(folder, run.execution.progress)
    return Trained(folder, total, time.monotonic() - started, resumed_at, already=False)


def _networks(run: _Run, options: TrainOptions, new: bool) -> tuple[TrainingMode, Translator, FeatureCard | None]:
    """Mode and translator of a training, and the description of the frozen network if it has one."""
    if options.features is not None:
        assert isinstance(run.data, Dataset)
        extractor = build_extractor(options.features, input_size=INPUT_SIZE, weights=options.feature_weights)
        card = feature_card(options.features, options.feature_weights, extractor, dimensions=COMPONENTS)
        mode = FeatureMode(
            run.data.subset(options.per_class), options.framing, extractor, layer_weights=card.layer_weights,
            attention=options.attention, own_pixels=options.own_pixels, **_common(options, run.execution),
        )  # fmt: skip
        return mode, mode.translator, card
    translator = build_translator(options.mode, options.attention, options.own_pixels)
    if new:
        load_start(translator, options, run.execution.progress)
    return build_mode(run.data, options, translator, execution=run.execution), translator, None


def load_start(translator: Translator, options: TrainOptions, progress: Progress) -> None:
    """Load the initial weights of a training into new networks.

    Raises:
        UsageError: ``options.start`` holds networks of the other mode.
        CheckpointError: it cannot be read.
        HubError: it is on the hub and cannot be downloaded.
    """
    if options.start in (None, SCRATCH):
        return
    model = load_model(GENERAL_FILE if options.start == GENERAL else Path(str(options.start)))
    if model.card.mode != options.mode:
        raise UsageError(
            f"holds networks of {model.card.mode} mode, not of {options.mode} mode", option="start", value=options.start
        )
    kept = start_from(translator, model.translator.state_dict())
    if kept:
        progress.say(
            f"Starting from {options.start}; these layers have another shape there and start from random weights: "
            f"{', '.join(kept)}"
        )


def build_mode(
    data: Dataset | Domains, options: TrainOptions, translator: Translator, *, execution: Execution = Execution()
) -> TrainingMode:
    """Read the training images and build the objective of the options' mode; arguments as in :func:`train`."""
    common = _common(options, execution)
    if isinstance(data, Dataset):
        assert isinstance(translator, ReferenceTranslator)
        return ReferenceMode(data.subset(options.per_class), options.framing, translator, **common)
    assert isinstance(translator, PaperTranslator)
    return PaperMode(data, options.framing, translator, **common)


def _common(options: TrainOptions, execution: Execution) -> dict[str, Any]:
    """Arguments that all modes share."""
    return {
        "distance": options.distance or PRESETS[options.preset].distance,
        "weights": options.weights,
        "without": frozenset(options.without),
        "seed": options.seed,
        "execution": execution,
    }


def _total_steps(trainer: Trainer) -> int:
    """The smaller of the given number of steps and of the steps in the given time; else the default number."""
    options = trainer.options
    bounds = [] if options.steps is None else [options.steps]
    if options.minutes is not None:
        bounds.append(steps_in(options.minutes, trainer))
    frozen = options.features is not None
    return min(bounds, default=default_steps(trainer.mode.image_count, trainer.fabric.device.type, frozen=frozen))


def _do_steps(run: _Run, trainer: Trainer, total: int) -> None:
    """Do the remaining steps; log, save, show sample images, and stop on signals.

    Raises:
        TrainingError: the losses stay not finite.
        Interrupted: stopped by a signal; the state is saved.
    """
    folder, schedule, pairs = run.folder, run.schedule, trainer.batch_size
    saved = time.monotonic()
    sums: dict[str, list[float]] = {}
    show_at = {round(total * k / run.sheets) for k in range(1, run.sheets)} if run.sheets else set()
    progress = run.execution.progress
    with stop_on_signals() as stop, progress.task(f"Training, {total} steps", total * pairs, "pairs") as task:
        task.advance(trainer.done * pairs)
        while trainer.done < total:
            terms = trainer.step(total)
            if trainer.bad_steps >= schedule.max_bad_steps:
                raise TrainingError(
                    f"{folder}: losses are not finite since step {trainer.done - trainer.bad_steps}; the last good "
                    "state is kept",
                    remedies={"precision": "32-true", "learning_rate": float(f"{trainer.rate / 10:g}")},
                )
            note = ""
            for key, value in terms.items():
                sums.setdefault(key, []).append(value)
            if trainer.done % schedule.log_steps == 0 or trainer.done == total:
                means = {key: float(np.mean(values)) for key, values in sums.items()}
                phase = trainer.phase(trainer.done - 1, total)
                append_metrics(folder / METRICS_FILE, {"step": trainer.done, "phase": phase, **means})
                note = "  ".join(f"{key} {value:.3g}" for key, value in means.items())
                sums = {}
            task.advance(pairs, note)
            if run.watch is not None and trainer.done in show_at:
                run.watch(trainer.done, trainer.snapshot())
            if not trainer.bad_steps and (stop.requested or time.monotonic() - saved > schedule.save_seconds):
                trainer.save(folder / checkpoint.STATE_FILE)
                saved = time.monotonic()
            if stop.requested:
                raise Interrupted(
                    f"stopped at step {trainer.done} of {total}; the state is saved in {folder}; "
                    "run the same command again to resume"
                )


def _card(run: _Run, mode: TrainingMode, steps: int, features: FeatureCard | None) -> ModelCard:
    options = run.options
    return ModelCard(
        mode=options.mode,
        classes=mode.classes,
        framing=options.framing,
        regions=options.attention.regions,
        half_size=options.attention.half_size,
        sharpness=options.attention.sharpness,
        steps=steps,
        seed=options.seed,
        data=run.name,
        per_class=options.per_class,
        split_seed=run.data.split_seed if isinstance(run.data, Dataset) else None,
        own_pixels=options.own_pixels,
        features=features,
    )
