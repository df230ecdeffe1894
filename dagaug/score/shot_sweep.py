"""The experiment at several numbers of training images a class: GAN, judges and morphs are made anew for each.

A generator that had learned from all images would make the morphs of a small data set better than a user of such a data
set can. So each number repeats the whole recipe of a given HDF5 file (:mod:`dagaug.score.file_recipe`) with so many
images of each class: training (or the model without training), augmentation, score. Finished steps are kept in a folder
and reused. The test images are the same at every number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dagaug.augment.prepared_augmentation import draw_plan
from dagaug.augment.run import augment
from dagaug.augment.stored_image_check import check_stored_images
from dagaug.classifiers.fit import FitOptions
from dagaug.compute.devices import pick_device
from dagaug.data.dataset_records import Dataset
from dagaug.data.mask_files import hash_masks
from dagaug.data.object_patches import Framing
from dagaug.hdf5.reader import Store
from dagaug.hub.download import local_file, with_commit
from dagaug.hub.names import is_hub_name
from dagaug.model.trained_model import JUDGES_FILE, TrainedModel, load_model
from dagaug.model.training_free_checkpoint import fit_training_free
from dagaug.runtime.errors import DataError, OutputExistsError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.files import write_atomically
from dagaug.runtime.output_marks import mark_output
from dagaug.runtime.progress import SILENT
from dagaug.score.control_images import with_stored_masks
from dagaug.score.experiment import score
from dagaug.score.file_recipe import FileRecipe, FrozenRecipe, read_recipe
from dagaug.score.image_set_loading import ImageSet, check_origin
from dagaug.score.options import ScoreOptions
from dagaug.score.results import ScoreResult
from dagaug.score.settings_search import steps_of_choice
from dagaug.score.shot_results import ShotPoint, ShotsResult, point_of
from dagaug.score.statistics import Verdict
from dagaug.score.training_cost import TrainingCost, in_words
from dagaug.score.trainings import SharedSettings, TrainingSpec
from dagaug.training.modes import Snapshot
from dagaug.training.step_count import default_steps
from dagaug.training.train import train

__all__ = ["ShotPlan", "plan_shots", "score_shots"]

_FILE = "morphs.h5"
_RUN = "run"


@dataclass(frozen=True)
class ShotPlan:
    """What is made for one number of training images a class.

    Attributes:
        per_class: the number.
        folder: where it is made, and kept.
        dataset: the data set with no more training images than that of each class.
        given: an HDF5 file that was made from these images already; None to make one.
        recipe: how the model and the file are made.
        candidates: number of candidates of the augmentation.
        gan_steps: optimiser steps of the GAN; 0 without a training, None if they follow from a time.
        steps: optimiser steps of each classifier.
    """

    per_class: int
    folder: Path
    dataset: Dataset
    given: Path | None
    recipe: FileRecipe
    candidates: int
    gan_steps: int | None
    steps: int


def score_shots(
    dataset: Dataset,
    store: Path,
    shots: Sequence[tuple[int, Path | None]],
    options: ScoreOptions,
    folder: Path,
    *,
    checkpoint: Path | None = None,
    devices: Sequence[torch.device] = (),
    watch: Callable[[Path, int, Snapshot], None] | None = None,
    execution: Execution = Execution(),
) -> ShotsResult:
    """Repeat a score with fewer training images of each class, each time with a GAN and morphs of these images alone.

    Args:
        dataset: real images with their split.
        store: HDF5 file whose recipe is repeated, or its name on the hub, whose commit the result records.
        shots: numbers of training images of each class; and for each an HDF5 file (also on the hub) that was made from
            so many, or None.
        options: options of each score; ``per_class`` is replaced, ``others``, ``fractions`` and ``ratios`` are not
            possible.
        folder: where models, HDF5 files and scores are made. A second call with the same folder continues.
        checkpoint: take the model's recipe from this run instead, or ``frozen`` for morphs without training.
        devices: see :func:`dagaug.score.experiment.score`; the first one trains the GAN and makes the morphs.
        watch: receives sample images of the trainings of the GAN, see :func:`dagaug.training.train.train`.
        execution: where to compute, and how to read images; its progress receives plan, steps and times.

    Raises:
        UsageError: the numbers or options are not possible.
        HubError: a file or a checkpoint on the hub cannot be downloaded.
        CheckpointError, DataError, StoreError: the recipe or a given file does not fit the data.
        OutputExistsError: the folder cannot be written, or holds steps of other library versions.
        Interrupted: stopped by a signal; finished steps are kept.
    """
    devices = tuple(devices) or (pick_device(execution.device),)
    execution = replace(execution, device=str(devices[0]))
    named = with_commit(store)
    store, shots = local_file(named), [(number, local_file(file) if file else None) for number, file in shots]
    plans = plan_shots(dataset, store, shots, options, folder, checkpoint=checkpoint, device=devices[0].type)
    say = execution.progress.say
    for line in _cost(plans, options, devices):
        say(line)
    points, started = [], time.monotonic()
    for number, plan in enumerate(plans, 1):
        points.append(_score_one(plan, options, devices, watch, execution))
        minutes = (time.monotonic() - started) / 60
        say(f"{_few(plan)}: finished; {number} of {len(plans)} after {minutes:.1f} minutes")
    verdicts = [point.verdict for point in points if point.verdict is not None]
    return ShotsResult(
        shots=tuple(points),
        classes=len(dataset.classes),
        test=len(dataset.test),
        options=_options_record(plans, named, options),
        notes=tuple(_notes(plans, dataset)),
        verdict=_overall(verdicts),
        sentences=tuple(point.sentence for point in points if point.comparisons),
    )


# The plan


def plan_shots(
    dataset: Dataset,
    store: Path,
    shots: Sequence[tuple[int, Path | None]],
    options: ScoreOptions,
    folder: Path,
    *,
    checkpoint: Path | None = None,
    device: str = "cpu",
) -> tuple[ShotPlan, ...]:
    """What :func:`score_shots` will make; nothing is written. ``device`` is the type of the device, such as ``cpu``."""
    _check(shots, options, dataset)
    with Store(store) as opened:
        header = opened.header
    dataset = with_stored_masks(store, header, dataset)
    recipe = read_recipe(store, header, checkpoint)
    plans = []
    for per_class, file in sorted(shots):
        few = dataset.subset(per_class)
        own = _for_few(recipe, per_class, len(few.train), few.classes)
        if file is None and checkpoint is None and header.provenance.per_class == per_class:
            file = store
        if file is not None:
            _check_given(file, few)
        files = [[sample.path.as_posix(), sample.label, sample.split, sample.box] for sample in few.samples]
        place = folder / f"{per_class}-{own.digest([files, hash_masks(few.train)])}"
        labels = np.array([sample.label for sample in few.train], np.int64)
        balance = own.augment.balance
        if file is None and balance is not None and np.bincount(labels).min() >= balance:
            raise UsageError(
                f"{store} fills classes up to {balance} images, but all have as many", option="shots", value=per_class
            )
        plans.append(
            ShotPlan(
                per_class=per_class,
                folder=place,
                dataset=few,
                given=file,
                recipe=own,
                candidates=0 if file is not None else len(draw_plan(labels, own.augment)),
                gan_steps=0 if file is not None else _gan_steps(own, len(labels), device),
                steps=options.fit.resolved(len(labels)).steps or 0,
            )
        )
    return tuple(plans)


def _check(shots: Sequence[tuple[int, Path | None]], options: ScoreOptions, dataset: Dataset) -> None:
    numbers = [per_class for per_class, _ in shots]
    value = ",".join(map(str, numbers))
    if not numbers or min(numbers) < 1 or len(set(numbers)) < len(numbers):
        raise UsageError("give different numbers of at least 1", option="shots", value=value)
    labels = np.array([sample.label for sample in dataset.train], np.int64)
    largest = int(np.bincount(labels).max(initial=0))
    if max(numbers) > largest:
        raise UsageError(f"no class has more than {largest} training images", option="shots", value=value)
    for option, given in (
        ("per_class", options.per_class), ("others", [name for name, _ in options.others]),
        ("fractions", options.fractions), ("ratios", options.ratios),
    ):  # fmt: skip
        if given:
            raise UsageError("cannot be combined with several numbers of images a class", option=option, value=given)
    if not options.needs_store:
        raise UsageError("needs an arm with synthetic images", option="arms", value=",".join(options.arms))


def _for_few(recipe: FileRecipe, per_class: int, images: int, classes: tuple[str, ...]) -> FileRecipe:
    """The recipe for ``per_class`` images of each class: no more references than there are other images."""
    augment, model = recipe.augment, recipe.model
    refs = None if augment.refs is None else min(augment.refs, images - 1)
    if not refs and augment.refs is not None:
        raise UsageError(f"{len(classes)} class with 1 image has no references", option="shots", value=per_class)
    return FileRecipe(
        model if isinstance(model, FrozenRecipe) else model.model_copy(update={"per_class": per_class}),
        augment.model_copy(update={"per_class": per_class, "refs": refs}),
    )


def _check_given(file: Path, dataset: Dataset) -> None:
    """Refuse a given HDF5 file that was made from other images than these training images, or test images."""
    with Store(file) as store:
        check_stored_images(store, dataset)
        check_origin(file, store, np.flatnonzero(store.images.synthetic), dataset, SILENT)


def _gan_steps(recipe: FileRecipe, images: int, device: str) -> int | None:
    model = recipe.model
    if isinstance(model, FrozenRecipe):
        return 0
    if model.minutes is not None:
        return None
    return model.steps or default_steps(images, device, frozen=model.features is not None)


def _few(plan: ShotPlan) -> str:
    return f"{plan.per_class} image{'s' * (plan.per_class > 1)} a class"


def _cost(plans: Sequence[ShotPlan], options: ScoreOptions, devices: Sequence[torch.device]) -> Iterator[str]:
    """What is made for each number, and how long the classifiers' trainings will take."""
    trainings = len(options.table()) * options.seeds
    kept = f"Finished steps are kept in {plans[0].folder.parent}"
    for plan in plans:
        made = f"{plan.given} is given" if plan.given is not None else f"{_gan(plan)}, {plan.candidates:,} candidates"
        yield (
            f"{_few(plan)}: {len(plan.dataset.train):,} training images; {made}; {trainings} trainings of a classifier "
            f"of {plan.steps:,} steps"
        )
    cost = _measured_cost(plans[0], options.fit, devices[0])
    if cost is None:
        yield kept
        return
    of_choice = len(options.table()) * sum(steps_of_choice(plan.steps, options) for plan in plans)
    seconds = cost.of([plan.steps for plan in plans for _ in range(trainings)]) + cost.step * of_choice
    told = in_words(seconds / len(devices))
    yield f"The trainings of the classifiers take about {told} in all on this machine, besides GANs and morphs. {kept}"


def _gan(plan: ShotPlan) -> str:
    """The training of the model, in words."""
    model = plan.recipe.model
    if isinstance(model, FrozenRecipe):
        return "no GAN is trained"
    return f"a GAN of {model.minutes:g} minutes" if plan.gan_steps is None else f"a GAN of {plan.gan_steps:,} steps"


def _measured_cost(plan: ShotPlan, options: FitOptions, device: torch.device) -> TrainingCost | None:
    """Time of a training of a classifier, measured on noise; None for a linear probe."""
    classes = plan.dataset.classes
    pixels = np.random.default_rng(0).integers(
        0, 256, (options.batch_size, options.size, options.size, 3), dtype=np.uint8
    )
    noise = ImageSet(pixels, np.arange(len(pixels), dtype=np.int64) % len(classes))
    resolved = options.resolved(len(plan.dataset.train))
    return TrainingCost.measured(
        TrainingSpec("noise", resolved, noise, None, noise), SharedSettings(classes, resolved), device
    )


# One number


def _score_one(
    plan: ShotPlan,
    options: ScoreOptions,
    devices: Sequence[torch.device],
    watch: Callable[[Path, int, Snapshot], None] | None,
    execution: Execution,
) -> ShotPoint:
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        mark_output(plan.folder, "run")
    except OSError as error:
        raise OutputExistsError(
            f"{plan.folder}: cannot be written ({error.strerror})", remedies={"out": None}
        ) from error
    try:
        file = plan.given or _made_file(plan, watch, execution)
    except OutputExistsError as error:  # steps of other library versions
        raise OutputExistsError(f"{error.message} (made by an earlier call)", remedies={"out": None}) from error
    result = score(
        plan.dataset,
        file,
        replace(options, per_class=plan.per_class),
        devices=devices,
        resume=plan.folder / "score.jsonl",
        execution=execution,
    )
    written = plan.folder / "score.json"
    _write(written, result)
    return point_of(result, per_class=plan.per_class, file=file, written=written)


def _made_file(plan: ShotPlan, watch: Callable[[Path, int, Snapshot], None] | None, execution: Execution) -> Path:
    """The HDF5 file of these images; made now, or by an earlier call."""
    model, out = _made_model(plan, watch, execution), plan.folder / _FILE
    if out.exists():
        with Store(out) as store:
            made_by = store.header.checkpoint_sha256
            check_stored_images(store, plan.dataset)
        if made_by != model.sha256:
            raise OutputExistsError(f"{out}: was made by another model than {model.path}", remedies={"out": None})
        execution.progress.say(f"{out}: using this file, made before")
        return out
    augment(model, plan.dataset, plan.recipe.augment, out, cache=model.path.parent / JUDGES_FILE, execution=execution)
    return out


def _made_model(
    plan: ShotPlan, watch: Callable[[Path, int, Snapshot], None] | None, execution: Execution
) -> TrainedModel:
    name = f"{plan.per_class}-shot"
    recipe = plan.recipe.model
    if isinstance(recipe, FrozenRecipe):
        return fit_training_free(
            plan.dataset, plan.folder, name=name, per_class=plan.per_class,
            framing=Framing.model_validate_json(recipe.framing), features=recipe.features, weights=recipe.weights,
            execution=execution,
        )  # fmt: skip
    done = train(recipe, plan.dataset, name=name, out=plan.folder / _RUN, watch=watch, execution=execution)
    return load_model(done.run)


def _write(path: Path, result: ScoreResult) -> None:
    try:
        write_atomically(path, (result.to_json() + "\n").encode())
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})", remedies={"out": None}) from error


# The result


def _options_record(plans: Sequence[ShotPlan], store: Path, options: ScoreOptions) -> dict[str, object]:
    first = plans[0].recipe
    model = first.model.as_dict() if isinstance(first.model, FrozenRecipe) else first.model.model_dump(mode="json")
    shared = {name: value for name, value in model.items() if name != "per_class"}
    return {
        "store": str(store),
        "model": {**shared, "trained": not isinstance(first.model, FrozenRecipe)},
        "augment": [plan.recipe.augment.model_dump(mode="json") for plan in plans],
        **{name: getattr(options, name) for name in ("seeds", "seed", "validation")},
        **{name: list(getattr(options, name)) for name in ("arms", "step_choices", "share_choices")},
        "fit": options.fit.as_dict(),
    }


def _notes(plans: Sequence[ShotPlan], dataset: Dataset) -> Iterator[str]:
    counts = np.bincount([sample.label for sample in dataset.train], minlength=len(dataset.classes))
    for plan in plans:
        fewer = int((counts < plan.per_class).sum())
        if fewer:
            yield f"{fewer} classes have fewer than {plan.per_class} training images; all of theirs are used."
    recipe = plans[0].recipe
    if recipe.augment.weights is not None:
        yield f"The judge {recipe.augment.weights} is the same at every number; it may have learned from more images."
    start = None if isinstance(recipe.model, FrozenRecipe) else recipe.model.start
    if start is not None and (is_hub_name(start) or Path(start).exists()):
        yield f"The GANs start from {start}, which may have learned from more images."
    limited = [plan for plan in plans if plan.given is None and plan.recipe.augment.refs is not None]
    most = max((plan.recipe.augment.refs or 0 for plan in limited), default=0)
    for plan in limited:
        if plan.recipe.augment.refs != most:
            yield f"{_few(plan)}: only {plan.recipe.augment.refs} references of each source, as there are no others."


def _overall(verdicts: Sequence[Verdict]) -> Verdict | None:
    """``helps`` if all do, ``harms`` if one does."""
    if not verdicts:
        return None
    if "harms" in verdicts:
        return "harms"
    return "helps" if set(verdicts) == {"helps"} else "no measurable effect"
