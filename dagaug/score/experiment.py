"""The downstream experiment: do the synthetic images make a better classifier? (paper, Sec. 4.6)

Each arm (:mod:`dagaug.arms`) trains the same network for the same number of steps of the same size from the same
seeds, and each trained network is tested once, after its last step, on the untouched test split; nothing is chosen by
it. The number of steps follows from the number of images or, if asked for, from held-out training images
(:mod:`dagaug.validation`). Arms are paired by seed and by test image (:mod:`dagaug.evidence`). Whole images are used,
as they will be met in the test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64

from dagaug.classifiers.fit import FitOptions
from dagaug.data.dataset import Dataset
from dagaug.hdf5.reader import Store
from dagaug.runtime.errors import UsageError
from dagaug.runtime.progress import SILENT, Progress
from dagaug.score.controls import CONTROLS, Controls, check_selector
from dagaug.score.image_sets import ImageSet, MorphSet, load_other, load_real, load_store
from dagaug.score.near_duplicates import find_alike
from dagaug.score.options import MIXED, Arm, ScoreOptions
from dagaug.score.results import FractionPoint, Guards, RunTable, ScoreResult, Validated
from dagaug.score.run_log import Ledger
from dagaug.score.step_search import choose_steps
from dagaug.score.trainings import Setting, Training, run_all

__all__ = ["score"]

_LIBRARIES = ("dagaug", "torch", "timm", "albumentations", "numpy")
"""Whose versions a result may depend on."""


def score(
    dataset: Dataset,
    store: Path | str | None,
    options: ScoreOptions | None = None,
    *,
    checkpoint: Path | None = None,
    device: torch.device | str | Sequence[torch.device] = "cpu",
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
        device: where to train; with several devices, as many trainings run at once.
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
    devices = (torch.device(device),) if isinstance(device, torch.device | str) else tuple(device)
    made = _synthetic(store, dataset, options, checkpoint, devices[0], progress)
    train, test, skipped = load_real(dataset, options.fit.size, progress)
    fitting = options.fit.resolved(len(train))
    setting = Setting(dataset.classes, options.mode, options.fit)
    arms = options.table()
    augmented = _augmented(arms, options)
    trainings = {
        arm.name: Training(
            arm.name, replace(fitting, augment=arm.augment), train, made[arm.images] if arm.images else None, test
        )
        for arm in arms
    }
    sweep = {} if augmented is None else _sweeps(trainings[augmented.name], options, train)
    validated: tuple[Validated, ...] = ()
    if options.validation is not None:
        trainings, validated = choose_steps(
            train, trainings, options.validation, options.seed, setting, devices, ledger, progress
        )
        if augmented is not None:
            sweep = _with_steps(sweep, trainings["real"].steps, trainings[augmented.name].steps)
    jobs = [
        (training, options.seed + number)
        for number in range(options.seeds)
        for training in (*trainings.values(), *sweep.values())
    ]
    runs = run_all(jobs, setting, devices, ledger, progress)
    table = RunTable(runs, test.labels, dataset.classes)
    guards = _guards(store, dataset, {"real": train, **made}, test, devices[0], progress)
    synthetic = {arm.name: len(trainings[arm.name].synthetic or ()) for arm in arms}
    return ScoreResult(
        arms=tuple(table.arm(name, images, trainings[name].steps) for name, images in synthetic.items()),
        comparisons=tuple(table.compare(arm, baseline) for arm, baseline in _pairs(arms)),
        runs=runs,
        classes=len(dataset.classes),
        real=len(train),
        synthetic=0 if augmented is None else synthetic[augmented.name],
        test=len(test),
        steps=fitting.steps or 0,
        synthetic_share=fitting.synthetic_share,
        skipped=skipped,
        options=_asked(dataset, store, options, fitting, devices),
        fractions=() if augmented is None else _fractions(table, augmented.name, options, {**trainings, **sweep}),
        ratios=()
        if augmented is None
        else table.ratios({share: _with_share(augmented.name, share) for share in sorted(set(options.ratios))}),
        validated=validated,
        guards=guards,
        notes=tuple(_notes(options, guards, trainings, train.hashes, test.hashes)),
    )


def _asked(
    dataset: Dataset,
    store: Path | str | None,
    options: ScoreOptions,
    fitting: FitOptions,
    devices: Sequence[torch.device],
) -> dict[str, object]:
    """All options as JSON can hold them, and what else the result depends on: the file's content, devices, versions."""
    content = None
    if store is not None:
        with Store(store) as opened:
            content = opened.column("content_sha256").tobytes().hex()
    plain = ("seeds", "seed", "per_class", "arms", "fractions", "ratios", "mode", "validation")
    return {
        "data": str(dataset.root),
        "store": None if store is None else str(store),
        "store_content_sha256": content,
        **{name: getattr(options, name) for name in plain},
        "others": [[name, str(path)] for name, path in options.others],
        "fit": fitting.as_dict(),
        "devices": [str(device) for device in devices],
        "versions": {name: version(name) for name in _LIBRARIES},
    }


def _guards(
    store: Path | str | None,
    dataset: Dataset,
    sets: Mapping[str, ImageSet],
    test: ImageSet,
    device: torch.device,
    progress: Progress,
) -> Guards:
    alike, features = find_alike(
        {name: one.images for name, one in sets.items()}, test.images, device=device, progress=progress
    )
    return Guards(alike, features, None if store is None else check_selector(Path(store), dataset, progress))


def _fractions(
    table: RunTable, augmented: str, options: ScoreOptions, trainings: dict[str, Training]
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
        morphs = made["dagaug"] = load_store(Path(store), dataset, options.fit.size, progress)
        if wanted & {*CONTROLS, MIXED}:
            size, seed = options.fit.size, options.seed
            controls = Controls(
                Path(store), dataset, size=size, seed=seed, checkpoint=checkpoint, device=device, progress=progress
            )
            for name in CONTROLS:
                if name in wanted or (name == "cutout" and MIXED in wanted):
                    images, labels = controls.make(name)
                    # cut-outs have the sources and references of the morphs, random candidates others
                    like = None if name == "random" else morphs.origins
                    made[name] = ImageSet(images, labels) if like is None else MorphSet(images, labels, like)
        if MIXED in wanted:
            made[MIXED] = _half_and_half(morphs, made["cutout"], options.seed)
    made |= {name: load_other(path, dataset, options.fit.size, progress) for name, path in options.others}
    return {name: images for name, images in made.items() if name in wanted}


def _half_and_half(morphs: MorphSet, cutouts: ImageSet, seed: int) -> MorphSet:
    """As many as there are morphs; a random half of them are cut-outs of the same sources on the same backgrounds."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 31]))
    rows = rng.permutation(len(morphs))[: len(morphs) // 2]
    images = morphs.images.copy()
    images[rows] = cutouts.images[rows]
    return MorphSet(images, morphs.labels, morphs.origins)


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


def _sweeps(base: Training, options: ScoreOptions, train: MorphSet) -> dict[str, Training]:
    """The trainings that only sweeps need."""
    more = {}
    for fraction in options.fractions:
        if fraction < 1:
            rows = _first_of_each_class(train.labels, fraction)
            synthetic = _made_from(base, {train.origins[row][0] for row in rows.tolist()}, fraction)
            real = train.take(rows)
            plain = replace(base.options, augment="standard")
            without = Training(_at("real", fraction), plain, real, None, base.test)
            more[without.name] = without
            name = _at(base.name, fraction)
            more[name] = Training(name, base.options, real, synthetic, base.test)
    for share in options.ratios:
        name = _with_share(base.name, share)
        more[name] = replace(base, name=name, options=replace(base.options, synthetic_share=share))
    return more


def _with_steps(sweep: Mapping[str, Training], real: int, augmented: int) -> dict[str, Training]:
    """The same trainings with the steps that were chosen for the arms that they belong to."""
    return {
        name: replace(one, options=replace(one.options, steps=real if one.synthetic is None else augmented))
        for name, one in sweep.items()
    }


def _made_from(base: Training, files: set[str], fraction: float) -> ImageSet:
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


def _notes(
    options: ScoreOptions,
    guards: Guards,
    trainings: Mapping[str, Training],
    train: Int64[np.ndarray, " N"],
    test: Int64[np.ndarray, " M"],
) -> Iterator[str]:
    """What a reader should know to believe the table or not."""
    same = int(np.isin(test, train).sum())
    if same:
        yield f"{same} test images are, pixel for pixel, training images too: all accuracies are too high."
    for name, found in guards.alike.items():
        if found.suspicious:
            by_features = "" if found.by_features is None else f", {found.by_features} by their features"
            usual = "" if found.usual is None else f" ({found.usual:.0%} of the test images look like another one)"
            yield (
                f"{found.by_hash} of {found.images} training images ({name}) look like a test image by their "
                f"perceptual hash{by_features}{usual}: the gain may be false."
            )
    if not guards.features:
        yield "Near-duplicates by features were not looked for, which needs: pip install 'dagaug[pretrained]'."
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
            f"The generator and its classifiers had learned from all {len(train)} real images, so that gains at "
            "smaller fractions are flattered; the synthetic images were made from the fraction's images alone."
        )
    if options.ratios:
        yield "The ratios are to be read as a whole: the best of them was found on the test images."
    if options.validation is not None:
        unknown = [
            one.name
            for one in trainings.values()
            if one.synthetic is not None and not isinstance(one.synthetic, MorphSet)
        ]
        if unknown:
            yield (
                "What the images of these arms were made from is not known, so that some may show held-out images "
                f"and flatter longer training: {', '.join(unknown)}."
            )
    if options.left_out:
        yield f"Left out: {', '.join(options.left_out)}."
    if options.seeds < 3:
        yield "Two seeds show only very large effects; this is a first look. Five are the default."
