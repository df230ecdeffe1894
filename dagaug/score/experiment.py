"""The downstream experiment: do the synthetic images improve a classifier? (paper, Sec. 4.6)

All arms (:mod:`dagaug.score.options`) train the same network with the same seeds, batch size and number of steps.
Each trained network is tested once, after its last step, on the untouched test split; the test chooses nothing. The
number of steps follows from the number of images; it and the synthetic share can be chosen for each arm by
cross-validation on the training images (:mod:`dagaug.score.settings_search`). Arms are paired by seed and by test image
(:mod:`dagaug.score.statistics`). Training and test use whole, letterboxed images, or patches if the HDF5 file holds
patches (``augment --frame crop``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dagaug.augment.stored_image_check import check_stored_images
from dagaug.classifiers.fit import LIBRARIES, FitOptions
from dagaug.classifiers.recipes import RECIPES
from dagaug.classifiers.suitable_fit import suitable_fit
from dagaug.compute.devices import pick_device
from dagaug.data.dataset_records import Dataset
from dagaug.hdf5.reader import Store
from dagaug.hub.download import local_file, with_commit
from dagaug.runtime.errors import UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.progress import Progress
from dagaug.runtime.streamed_array import StreamedArray
from dagaug.runtime.versions import library_versions
from dagaug.score.class_frequency import frequency_groups
from dagaug.score.control_images import Controls, use_of_features
from dagaug.score.encoded_images import ChosenImages
from dagaug.score.image_set_loading import ImageSet, TracedImageSet, framing_of, load_other, load_real, load_store
from dagaug.score.leak_checks import check_leaks
from dagaug.score.notes import notes_of
from dagaug.score.options import CONTROLS, DEFAULT_ARMS, MIXED, Arm, ScoreOptions, arm_names
from dagaug.score.results import ScoreResult, SettingsCandidate
from dagaug.score.run_log import RunLog, ScoreRun
from dagaug.score.settings_search import choose_settings
from dagaug.score.summaries import RunTable
from dagaug.score.sweeps import fraction_points, ratio_points, sweep_trainings, swept_arm
from dagaug.score.trainings import SharedSettings, TrainingSpec, run_all

__all__ = ["score"]


def score(
    dataset: Dataset,
    store: Path | str | None,
    options: ScoreOptions | None = None,
    *,
    checkpoint: Path | None = None,
    devices: Sequence[torch.device] = (),
    resume: Path | None = None,
    execution: Execution = Execution(),
) -> ScoreResult:
    """Train every arm with every seed, test each network once, and compare the arms.

    Args:
        dataset: real images with their split.
        store: HDF5 file of ``dagaug augment`` or its name on the hub (``hf-hub:USER/NAME[@REVISION]``), whose commit
            the result records; only its synthetic images are used. None if no arm needs one.
        options: see :class:`ScoreOptions`; None chooses the classifier by the patches of the HDF5 file and the device.
        checkpoint: the generator's checkpoint, if it is not where the file says; only the controls need it.
        devices: where to train, one training at a time on each; the first one makes the controls. Empty for the device
            of ``execution`` alone.
        resume: JSON-lines file of finished trainings. Trainings of the same images, labels, options and library
            versions are taken from it; each new one is added at once.
        execution: where to train, and how to read images; its progress receives each step of each training.

    Raises:
        CheckpointError: a control is asked for, and the checkpoint that made the HDF5 file is not found.
        DataError: the HDF5 file was not made from the data set, its images were made from test images, or ``resume``
            cannot be written.
        StoreError: the HDF5 file cannot be read.
        UsageError: an option does not fit the data.
        HubError: a file or checkpoint on the hub cannot be downloaded.
        TrainingError: a loss is not finite.
    """
    devices = tuple(devices) or (pick_device(execution.device),)
    named = store if store is None else with_commit(store)
    store = named if named is None else local_file(named)
    if options is not None:
        options = replace(options, others=tuple((name, with_commit(path)) for name, path in options.others))
    if store is not None:
        with Store(store) as opened:
            check_stored_images(opened, dataset)
    options = _possible(options or _suitable(store, devices[0].type), store, checkpoint, execution.progress)
    dataset = dataset.subset(options.per_class)
    versions = library_versions(*LIBRARIES)
    log, execution = RunLog(resume, versions, execution.progress), replace(execution, device=str(devices[0]))
    images = _read_images(dataset, store, options, checkpoint, execution)
    fit = options.fit.resolved(len(images.train))
    shared = SharedSettings(dataset.classes, fit)
    trained = _train(images, fit, options, shared, devices, log, execution.progress)
    arms, swept, trainings = options.table(), trained.swept, trained.trainings
    table = RunTable(trained.runs, images.test.labels, dataset.classes)
    comparisons = tuple(table.compare(*pair) for pair in _pairs(arms))
    leaks = check_leaks(store, dataset, {"real": images.train, **images.synthetic}, images.test, execution=execution)
    groups = frequency_groups(images.train.labels, images.test.labels, len(dataset.classes))
    synthetic = {arm.name: trainings[arm.name].synthetic for arm in arms}
    counts = {name: 0 if one is None else len(one) for name, one in synthetic.items()}
    return ScoreResult(
        arms=tuple(
            table.arm(name, count, trainings[name].steps, trainings[name].synthetic_share)
            for name, count in counts.items()
        ),
        comparisons=comparisons,
        runs=trained.runs,
        classes=len(dataset.classes),
        real=len(images.train),
        synthetic=0 if swept is None else counts[swept],
        test=len(images.test),
        steps=fit.steps or 0,
        synthetic_share=fit.synthetic_share,
        skipped=images.skipped,
        options=_options_record(dataset, named, options, fit, devices, versions),
        groups=tuple(table.group(group, list(synthetic)) for group in groups),
        fractions=() if swept is None else fraction_points(table, swept, options, trainings),
        ratios=() if swept is None else ratio_points(table, swept, options),
        validated=trained.candidates,
        guards=leaks,
        notes=tuple(notes_of(options, leaks, synthetic, images.train, images.test)),
        verdict=comparisons[0].verdict if comparisons else None,
        sentences=tuple(one.sentence for one in comparisons),
    )


def _suitable(store: Path | str | None, device: str) -> ScoreOptions:
    """Options for the patches of an HDF5 file; the usual ones without a file."""
    if store is None:
        return ScoreOptions()
    with Store(store) as opened:
        patch = opened.header.provenance.size
    return ScoreOptions() if patch is None else ScoreOptions(fit=suitable_fit(patch, device))


def _possible(
    options: ScoreOptions, store: Path | str | None, checkpoint: Path | None, progress: Progress
) -> ScoreOptions:
    """The options without the arm ``frozen`` where it tells nothing.

    The file's own morphs may be those of this control, or rest on no frozen features while the user names no arms.
    """
    if store is None or "frozen" not in options.arms:
        return options
    use = use_of_features(Path(store), checkpoint)
    if use == "alone":
        progress.say(f"{store}: was made without training, so its own morphs stand for the control frozen")
    elif use == "partly" or options.arms not in (DEFAULT_ARMS, arm_names()):
        return options
    return replace(options, arms=tuple(name for name in options.arms if name != "frozen"))


def _options_record(
    dataset: Dataset,
    store: Path | None,
    options: ScoreOptions,
    fit: FitOptions,
    devices: Sequence[torch.device],
    versions: Mapping[str, str],
) -> dict[str, object]:
    """All options as JSON values, and what else the result depends on: the file's content, devices, versions."""
    content = None
    if store is not None:
        with Store(local_file(store)) as opened:
            content = opened.column("content_sha256").tobytes().hex()
    plain = ("seeds", "seed", "per_class", "arms", "fractions", "ratios", "validation", "step_choices",
             "share_choices")  # fmt: skip
    return {
        "data": str(dataset.root),
        "store": None if store is None else str(store),
        "store_content_sha256": content,
        **{name: getattr(options, name) for name in plain},
        "others": [[name, str(path)] for name, path in options.others],
        "fit": fit.as_dict() | {"schedule": {"warmup": RECIPES[fit.mode].warmup, "decay": "half a cosine to zero"}},
        "devices": [str(device) for device in devices],
        "versions": dict(versions),
    }


def _pairs(arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """Each arm with each of its baselines; real+dagaug with real, the main question, comes first."""
    pairs = [(arm.name, baseline) for arm in arms for baseline in arm.against]
    return sorted(pairs, key=lambda pair: (pair[1] != "real", pair[0] != "real+dagaug"))


# Images


@dataclass(frozen=True)
class _Images:
    """All images of a score.

    Attributes:
        train, test: the real images.
        synthetic: the synthetic images that the arms need, by name.
        skipped: path and reason of each real image that cannot be read.
    """

    train: TracedImageSet
    test: ImageSet
    synthetic: Mapping[str, ImageSet]
    skipped: tuple[tuple[str, str], ...]


def _read_images(
    dataset: Dataset,
    store: Path | str | None,
    options: ScoreOptions,
    checkpoint: Path | None,
    execution: Execution,
) -> _Images:
    wanted = {arm.images for arm in options.table() if arm.images}
    synthetic: dict[str, ImageSet] = {}
    if options.needs_store:
        if store is None:
            value = ",".join(options.arms)
            raise UsageError(
                "give the HDF5 file of dagaug augment, or only arms that need none: real,cutmix",
                option="arms",
                value=value,
            )
        # Read even if only controls are wanted: this checks the origins of all images.
        morphs = synthetic["dagaug"] = load_store(Path(store), dataset, options.fit.size, execution=execution)
        if wanted & {*CONTROLS, MIXED}:
            controls = Controls(
                Path(store), dataset, size=options.fit.size, seed=options.seed, checkpoint=checkpoint,
                execution=execution,
            )  # fmt: skip
            synthetic |= _controls(controls, wanted, morphs, options.seed, execution)
    size = options.fit.size
    synthetic |= {name: load_other(path, dataset, size, execution=execution) for name, path in options.others}
    framing = None if store is None else framing_of(Path(store))
    train, test, skipped = load_real(dataset, size, framing, execution=execution)
    execution.memory.tell(execution.progress)
    return _Images(train, test, {name: images for name, images in synthetic.items() if name in wanted}, skipped)


def _controls(
    controls: Controls, wanted: set[str], morphs: TracedImageSet, seed: int, execution: Execution
) -> dict[str, ImageSet]:
    found: dict[str, ImageSet] = {}
    for name in CONTROLS:
        if name in wanted or (name == "cutout" and MIXED in wanted):
            found[name] = TracedImageSet(*controls.make(name), controls.origins(name))
    if MIXED in wanted:
        found[MIXED] = _half_and_half(morphs, found["cutout"], seed, execution)
    return found


def _half_and_half(morphs: TracedImageSet, cutouts: ImageSet, seed: int, execution: Execution) -> TracedImageSet:
    """The morphs, a random half of them replaced by cut-outs of the same sources on the same backgrounds."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 31]))
    cut = np.zeros(len(morphs), bool)
    cut[rng.permutation(len(morphs))[: len(morphs) // 2]] = True
    chosen = ChosenImages(morphs.images, cutouts.images, cut)
    images = StreamedArray(len(morphs), morphs.images.shape[1:], chosen, execution=execution)
    return TracedImageSet(images, morphs.labels, morphs.origins)


# Trainings


@dataclass(frozen=True)
class _Trained:
    """All trainings of a score.

    Attributes:
        trainings: trainings of the arms and of the sweeps, by name.
        swept: name of the arm that the sweeps vary, if there is one.
        runs: every training with every seed.
        candidates: settings that were tried by cross-validation.
    """

    trainings: Mapping[str, TrainingSpec]
    swept: str | None
    runs: tuple[ScoreRun, ...]
    candidates: tuple[SettingsCandidate, ...]


def _train(
    images: _Images,
    fit: FitOptions,
    options: ScoreOptions,
    shared: SharedSettings,
    devices: Sequence[torch.device],
    log: RunLog,
    progress: Progress,
) -> _Trained:
    """Train and test all arms and sweeps with all seeds."""
    trainings = {
        arm.name: TrainingSpec(
            arm.name,
            replace(fit, mixing=arm.mixing, trivialaugment=arm.trivialaugment),
            images.train,
            images.synthetic[arm.images] if arm.images else None,
            images.test,
        )
        for arm in options.table()
    }
    swept = swept_arm(options.table(), options)
    everything = trainings | _sweep(swept, trainings, options, images.train)
    candidates: tuple[SettingsCandidate, ...] = ()
    if options.validation is not None:
        following = options.seeds * len(everything)
        trainings, candidates = choose_settings(
            images.train, trainings, following, options, shared, devices, log, progress
        )
        everything = trainings | _sweep(swept, trainings, options, images.train)
    jobs = [(training, options.seed + number) for number in range(options.seeds) for training in everything.values()]
    return _Trained(everything, swept, run_all(jobs, shared, devices, log, progress), candidates)


def _sweep(
    swept: str | None, trainings: Mapping[str, TrainingSpec], options: ScoreOptions, real: TracedImageSet
) -> dict[str, TrainingSpec]:
    return {} if swept is None else sweep_trainings(trainings[swept], trainings["real"], options, real)
