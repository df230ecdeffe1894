"""The downstream experiment: do the synthetic images make a better classifier? (paper, Sec. 4.6)

Each arm (:mod:`dagaug.arms`) trains the same network for the same number of steps of the same size from the same
seeds, and each trained network is tested once, after its last step, on the untouched test split; nothing is chosen by
it. Arms are paired by seed and by test image (:mod:`dagaug.evidence`). Whole images are used, as they will be met in
the test.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64

from dagaug import images as imaging
from dagaug.arms import ARMS, Arm, Mode, ScoreOptions
from dagaug.classifier import FitOptions, fit, identity_of
from dagaug.controls import CONTROLS, Controls, check_selector
from dagaug.datasets import Dataset
from dagaug.errors import UsageError
from dagaug.evidence import calibration_error
from dagaug.ledger import Ledger, Run, pack
from dagaug.material import ImageSet, MorphSet, load_other, load_real, load_store
from dagaug.probe import Probe
from dagaug.progress import SILENT, Progress
from dagaug.results import FractionPoint, Guards, RunTable, ScoreResult

__all__ = ["ARMS", "ScoreOptions", "ScoreResult", "score"]


@dataclass(frozen=True)
class _Training:
    """What one network is trained on."""

    name: str
    options: FitOptions
    train: ImageSet
    synthetic: ImageSet | None


def score(
    dataset: Dataset,
    store: Path | str | None,
    options: ScoreOptions | None = None,
    *,
    checkpoint: Path | None = None,
    device: torch.device | str = "cpu",
    resume: Path | None = None,
    progress: Progress = SILENT,
) -> ScoreResult:
    """Train every arm with every seed, test each once, and compare.

    Args:
        dataset: real images with their split.
        store: HDF5 file of ``dagaug augment``; its synthetic images are used, its real ones are not. None if no arm
            needs one.
        options: see :class:`ScoreOptions`.
        checkpoint: of the generator, if it does not lie any more where the file says; only controls need it.
        device: where to train.
        resume: JSON-lines file of finished runs. Those of the same images, labels and options are taken from
            it rather than trained again, and each new one is added at once.
        progress: told of each step of each training.

    Raises:
        CheckpointError: a control is asked for, and the checkpoint that made the store is not there.
        DataError: the store does not fit the data, its images were made from test images, or ``resume`` cannot be
            written.
        StoreError: the store cannot be read.
        UsageError: an unknown network or an impossible option.
        TrainingError: a loss that is not finite.
    """
    options = options or ScoreOptions()
    dataset = dataset.subset(options.per_class)
    ledger = Ledger(resume, progress)
    device = torch.device(device)
    made = _synthetic(store, dataset, options, checkpoint, device, progress)
    train, test, skipped = load_real(dataset, options.fit.size, progress)
    fitting = options.fit.resolved(len(train))
    arms = options.table()
    trainings = {
        arm.name: _Training(
            arm.name, replace(fitting, augment=arm.augment), train, made[arm.images] if arm.images else None
        )
        for arm in arms
    }
    augmented = _augmented(arms, options)
    sweep = {} if augmented is None else _sweeps(trainings[augmented.name], options, train)
    runs = _run_all([*trainings.values(), *sweep.values()], test, dataset.classes, options, device, ledger, progress)
    table = RunTable(runs, test.labels, dataset.classes)
    guards = _guards(store, dataset, {"real": train, **made}, test, progress)
    synthetic = {arm.name: len(trainings[arm.name].synthetic or ()) for arm in arms}
    return ScoreResult(
        arms=tuple(table.arm(name, images) for name, images in synthetic.items()),
        comparisons=tuple(table.compare(arm, baseline) for arm, baseline in _pairs(arms)),
        runs=runs,
        classes=len(dataset.classes),
        real=len(train),
        synthetic=0 if augmented is None else synthetic[augmented.name],
        test=len(test),
        steps=fitting.steps or 0,
        synthetic_share=fitting.synthetic_share,
        skipped=skipped,
        options=_asked(dataset, store, options, fitting),
        fractions=() if augmented is None else _fractions(table, augmented.name, options, {**trainings, **sweep}),
        ratios=()
        if augmented is None
        else table.ratios({share: _with_share(augmented.name, share) for share in sorted(set(options.ratios))}),
        guards=guards,
        notes=tuple(_notes(options, guards, len(train), train.hashes, test.hashes)),
    )


def _asked(dataset: Dataset, store: Path | str | None, options: ScoreOptions, fitting: FitOptions) -> dict[str, object]:
    """All options as JSON can hold them."""
    plain = ("seeds", "seed", "per_class", "arms", "fractions", "ratios", "mode")
    return {
        "data": str(dataset.root),
        "store": None if store is None else str(store),
        **{name: getattr(options, name) for name in plain},
        "others": [[name, str(path)] for name, path in options.others],
        "fit": fitting.as_dict(),
    }


def _guards(
    store: Path | str | None, dataset: Dataset, sets: dict[str, ImageSet], test: ImageSet, progress: Progress
) -> Guards:
    alike = {name: imaging.near_duplicates(np.asarray(one.images), test.images)[:, 0] for name, one in sets.items()}
    return Guards(
        {name: len(np.unique(rows)) for name, rows in alike.items()},
        None if store is None else check_selector(Path(store), dataset, progress),
    )


def _fractions(
    table: RunTable, augmented: str, options: ScoreOptions, trainings: dict[str, _Training]
) -> tuple[FractionPoint, ...]:
    names = {fraction: (_at("real", fraction), _at(augmented, fraction)) for fraction in sorted(set(options.fractions))}
    points = [
        (fraction, len(trainings[without].train), len(trainings[with_synthetic].synthetic or ()))
        for fraction, (without, with_synthetic) in names.items()
    ]
    return table.fractions(points, names)


def _synthetic(
    store: Path | str | None,
    dataset: Dataset,
    options: ScoreOptions,
    checkpoint: Path | None,
    device: torch.device,
    progress: Progress,
) -> dict[str, ImageSet]:
    """The synthetic images that the arms ask for, by their names."""
    wanted = {arm.images for arm in options.table() if arm.images}
    made: dict[str, ImageSet] = {}
    if options.needs_store:
        if store is None:
            raise UsageError("give the HDF5 file of dagaug augment, or choose --arms that need none: real,strong")
        # always read, since controls may not be made from anything that morphs may not be made from
        made["dagaug"] = load_store(Path(store), dataset, options.fit.size, progress)
        if wanted & set(CONTROLS):
            size, seed = options.fit.size, options.seed
            controls = Controls(
                Path(store), dataset, size=size, seed=seed, checkpoint=checkpoint, device=device, progress=progress
            )
            made |= {name: ImageSet(*controls.make(name)) for name in CONTROLS if name in wanted}
    made |= {name: load_other(path, dataset, options.fit.size, progress) for name, path in options.others}
    return {name: images for name, images in made.items() if name in wanted}


def _pairs(arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """Arms to compare; first the augmented one with ``real``, which is the question, then all others with ``real``."""
    pairs = [(arm.name, baseline) for arm in arms for baseline in arm.against]
    return sorted(pairs, key=lambda pair: (pair[1] != "real", pair[0] != "real+dagaug"))


def _augmented(arms: Sequence[Arm], options: ScoreOptions) -> Arm | None:
    """The arm that the sweeps are about."""
    found = sorted((arm for arm in arms if arm.images), key=lambda arm: arm.name != "real+dagaug")
    if (options.fractions or options.ratios) and not found:
        raise UsageError("--fractions and --ratio need an arm with synthetic images; add real+dagaug to --arms")
    return found[0] if found else None


def _sweeps(base: _Training, options: ScoreOptions, train: MorphSet) -> dict[str, _Training]:
    """The trainings that only sweeps need."""
    more = {}
    for fraction in options.fractions:
        if fraction < 1:
            rows = _first_of_each_class(train.labels, fraction)
            synthetic = _made_from(base, {train.origins[row][0] for row in rows.tolist()}, fraction)
            without = _Training(
                _at("real", fraction), replace(base.options, augment="standard"), train.take(rows), None
            )
            more[without.name] = without
            name = _at(base.name, fraction)
            more[name] = _Training(name, base.options, train.take(rows), synthetic)
    for share in options.ratios:
        name = _with_share(base.name, share)
        more[name] = replace(base, name=name, options=replace(base.options, synthetic_share=share))
    return more


def _made_from(base: _Training, files: set[str], fraction: float) -> ImageSet:
    """The synthetic images that were made from these files alone."""
    assert base.synthetic is not None
    if not isinstance(base.synthetic, MorphSet):
        raise UsageError(f"--fractions: it is not known which real images those of {base.name} were made from")
    rows = np.flatnonzero([files.issuperset(origins) for origins in base.synthetic.origins])
    if not len(rows):
        raise UsageError(
            f"--fractions {fraction:g}: no synthetic image was made from these real images alone; ask for more of them"
        )
    return base.synthetic.take(rows)


def _first_of_each_class(labels: Int64[np.ndarray, " N"], fraction: float) -> Int64[np.ndarray, " M"]:
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.sort(np.concatenate([of_class[: max(1, round(fraction * len(of_class)))] for of_class in rows]))


def _at(name: str, fraction: float) -> str:
    return name if fraction == 1 else f"{name}, {fraction:.3g} of the real images"


def _with_share(name: str, share: float) -> str:
    return f"{name}, {share:.3g} of a batch synthetic"


def _run_all(
    trainings: Sequence[_Training],
    test: ImageSet,
    classes: tuple[str, ...],
    options: ScoreOptions,
    device: torch.device,
    ledger: Ledger,
    progress: Progress,
) -> tuple[Run, ...]:
    """Train everything with every seed, but what is in the ledger."""
    runs = []
    probe = Probe(options.fit, device=device, progress=progress) if options.mode == "linear-probe" else None
    with progress.task("Scoring", options.seeds * len(trainings), "trainings") as task:
        for number in range(options.seeds):
            for training in trainings:
                seed = options.seed + number
                identity = _identity(training, test, classes, options.mode, device)
                run = ledger.find(identity, training.name, seed)
                if run is None:
                    title = f"{training.name}, seed {number + 1} of {options.seeds}"
                    run = _run(training, test, classes, seed, device, probe, progress, title)
                    ledger.add(identity, run)
                runs.append(run)
                task.advance(1, f"{training.name}: {100 * run.accuracy:.1f}%")
    return tuple(runs)


def _run(
    training: _Training,
    test: ImageSet,
    classes: tuple[str, ...],
    seed: int,
    device: torch.device,
    probe: Probe | None,
    progress: Progress,
    title: str,
) -> Run:
    """Train one network and test it, once."""
    start = time.perf_counter()
    probabilities = (
        _fitted(training, test, classes, seed, device, progress, title)
        if probe is None
        else _probed(training, test, classes, seed, probe)
    )
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    right = predicted == test.labels
    return Run(
        training.name,
        seed,
        float(right.mean()),
        calibration_error(confidence, right),
        pack(predicted),
        round(time.perf_counter() - start, 2),
    )


def _fitted(
    training: _Training,
    test: ImageSet,
    classes: tuple[str, ...],
    seed: int,
    device: torch.device,
    progress: Progress,
    title: str,
) -> Float32[np.ndarray, "N K"]:
    synthetic = training.synthetic
    classifier = fit(
        training.train.images,
        training.train.labels,
        classes,
        training.options,
        seed=seed,
        device=device,
        synthetic=None if synthetic is None else (synthetic.images, synthetic.labels),
        progress=progress,
        title=title,
    )
    return classifier.probabilities(test.images)


def _probed(
    training: _Training, test: ImageSet, classes: tuple[str, ...], seed: int, probe: Probe
) -> Float32[np.ndarray, "N K"]:
    augment = training.options.augment
    train, synthetic = (
        None if one is None else probe.features(one.images, one.labels, one.hashes, augment)
        for one in (training.train, training.synthetic)
    )
    assert train is not None
    tested = probe.features(test.images, test.labels, test.hashes)
    return probe.probabilities(train, synthetic, tested, len(classes), training.options, seed=seed)


def _identity(training: _Training, test: ImageSet, classes: tuple[str, ...], mode: Mode, device: torch.device) -> str:
    """Name everything that a run's predictions depend on but its seed."""
    sets = (training.train, test, *([] if training.synthetic is None else [training.synthetic]))
    parts = (identity_of(one.hashes, one.labels, classes, training.options) for one in sets)
    return "-".join([*(part[:16] for part in parts), mode, device.type])


def _notes(
    options: ScoreOptions,
    guards: Guards,
    real: int,
    train: Int64[np.ndarray, " N"],
    test: Int64[np.ndarray, " M"],
) -> Iterator[str]:
    """What a reader should know to believe the table or not."""
    same = int(np.isin(test, train).sum())
    if same:
        yield f"{same} test images are, pixel for pixel, training images too: all accuracies are too high."
    for name, count in guards.near_duplicates.items():
        if count:
            yield f"{count} training images ({name}) look like a test image."
    selector = guards.selector
    if selector is not None and selector.seen:
        yield (
            f"The classifiers that selected ({selector.file}) had learned from {selector.seen} of the {selector.test} "
            "test images: the gain may be false."
        )
    elif selector is None and any(arm.images == "dagaug" for arm in options.table()):
        yield "Whether the classifiers that selected saw test images could not be checked: their file is not there."
    if options.fractions and min(options.fractions) < 1:
        yield (
            f"The generator and its classifiers had learned from all {real} real images, so that gains at smaller "
            "fractions are flattered; the synthetic images were made from the fraction's images alone."
        )
    if options.ratios:
        yield "The ratios are to be read as a whole: the best of them was found on the test images."
    if options.seeds < 3:
        yield "Two seeds show only very large effects; this is a first look. Five are the default."
