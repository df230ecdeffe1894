"""`dagaug score`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagaug.cli.command_inputs import check_early, data_folder, find_input, newest_store, read_stored_dataset
from dagaug.cli.score_values import (
    choose_arms,
    parse_named_paths,
    parse_numbers,
    parse_shots,
    parse_whole_numbers,
)
from dagaug.cli.shared_options import (
    CACHE,
    CLASSIFIER,
    EXPERIMENT,
    MACHINE,
    TRAINING,
    AugmentChoice,
    Cache,
    Classifier,
    Device,
    Json,
    ModeChoice,
    OptionalData,
    PerClass,
    Quiet,
    Seed,
    Weights,
)
from dagaug.hub.names import is_hub_name
from dagaug.runtime.errors import DataError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache

if TYPE_CHECKING:
    import torch

    from dagaug.cli.terminal import Terminal
    from dagaug.data.dataset_records import Dataset
    from dagaug.score.options import ScoreOptions

__all__ = ["score"]

_QUICK_STEPS = 400  # of a training from scratch with --quick; fine-tuning takes fewer as it is

_SHARE = 0.5  # of a batch

_EXIT_UNLESS_HELPS = 3

_FROZEN = "frozen"  # in place of a checkpoint


def score(
    data: OptionalData = None,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="HDF5 file written by dagaug augment, or hf-hub:USER/NAME[@REVISION] (default: the newest).",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON file to write (default: beside the HDF5 file).")
    ] = None,
    fail_unless_helps: Annotated[
        bool, typer.Option("--fail-unless-helps", help="Exit with code 3 unless the verdict is that the images help.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    per_class: PerClass = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Masks that the HDF5 file was made with, for the control arms (default: where the file says).",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Number of trainings per arm, paired by seed (default: 5, or 3 with --quick).",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Arms, separated by commas: real, cutmix, mixup, trivialaugment, real+dagaug, dagaug+cutmix, cutout, "
            "cutwarp, random, frozen, cutout+dagaug; or all (default: real,cutmix,real+dagaug,cutout,cutwarp,frozen).",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="Additional arm with the images of another HDF5 file (also hf-hub:USER/NAME) or image folder. "
            "Repeatable.",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None,
    controls: Annotated[
        bool,
        typer.Option(
            "--controls/--no-controls",
            help="Whether to run the control arms and cutout+dagaug, which need the checkpoint.",
            rich_help_panel=EXPERIMENT,
        ),
    ] = True,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Checkpoint for the control arms; also hf-hub:USER/NAME[@REVISION] (default: the one that the HDF5 "
            "file names). With --shots: the run whose training is repeated, or frozen for morphs without training.",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None,
    fractions: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Fractions of the real images to train on as well, e.g. 0.25,0.5,1.",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None,
    ratio: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Additional synthetic fractions of a batch to try, e.g. 0.1,0.5.",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Numbers of training images a class, e.g. 1,5,10: repeats training, augmentation and score of the "
            "HDF5 file with so few. N=FILE takes an HDF5 file for a number.",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Short experiment of about five minutes: 3 seeds of real, real+dagaug and cutout.",
            rich_help_panel=EXPERIMENT,
        ),
    ] = False,
    validation: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Fraction of the training images to hold out, e.g. 0.25, to choose the number of steps of each arm by "
            "cross-validation (default: none; same steps in all arms).",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None,
    step_choices: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Numbers of steps that --validation chooses from, e.g. 200,400 (default: half, once and twice the "
            "usual number; with --share-choices the usual number).",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None,
    share_choices: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Synthetic fractions of a batch that --validation chooses from, e.g. 0.1,0.3,0.5 (default: none; "
            "--synthetic-share in all arms).",
            rich_help_panel=EXPERIMENT,
        ),
    ] = None,
    classifier: Classifier = "auto",
    weights: Weights = None,
    mode: Annotated[
        ModeChoice,
        typer.Option(
            help="Training of the classifier: all weights from random ones (scratch), all from pretrained ones "
            "(finetune), only a linear layer on frozen pretrained features (linear-probe). auto: finetune for patches "
            "of 96 px or more and for classifiers named with a tag or a source, else scratch.",
            rich_help_panel=CLASSIFIER,
        ),
    ] = "auto",
    frozen_stages: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Number of first stages that --mode finetune leaves as they are; the stem is the first of "
            "lite0's eight (default: all but the last two on a CPU, else none).",
            rich_help_panel=CLASSIFIER,
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=16,
            metavar="N",
            help="Side of the images, in pixels (default: with pretrained weights the network's own input size, on "
            "a CPU 128 at most; from scratch the patch size of the training).",
            rich_help_panel=CLASSIFIER,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of optimiser steps per training (default: by number of images).",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Peak learning rate of AdamW (default: by network).",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Factor of the learning rate from each layer to the one before it, in (0, 1], e.g. 0.75 (default: "
            "none; the same rate in all layers).",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    augment: Annotated[
        AugmentChoice | None,
        typer.Option(
            help="Augmentation of all training images: flips and shifts (standard), or random resized crops and flips "
            "(crop) (default: crop for finetune, else standard).",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=2, metavar="N", help="Images per step.", rich_help_panel=TRAINING)
    ] = 32,
    synthetic_share: Annotated[
        float | None,
        typer.Option(metavar="X", help="Synthetic fraction of each batch (default: 0.5).", rich_help_panel=TRAINING),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Devices that train in parallel, one training each, e.g. cuda:0,cuda:1 or cpu,cpu (default: all "
            "visible GPUs).",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    cache: Cache = None,
) -> None:
    """Train the same classifier on real and on real + augmented images, with controls, and test all on unseen ones."""
    repeated = parse_shots(shots)
    trained = None if repeated and str(checkpoint) == _FROZEN else checkpoint
    on_hub = data is not None and is_hub_name(data)
    check_early(
        data=None if on_hub else data, device=device, devices=devices, weights=weights, checkpoint=trained, masks=masks
    )  # fmt: skip
    images = ImageCache.of_size(cache)
    if data is not None and (on_hub or (data.suffix in (".h5", ".hdf5") and data.is_file())):
        if file is not None:
            raise UsageError("give the data folder first, then the HDF5 file", option="file", value=file)
        data, file = None, data
    file = file or newest_store()
    from dagaug.score.arms import QUICK_SEEDS, check_arms, check_choices, check_shares

    chosen, others = choose_arms(arms, quick=quick, controls=controls), parse_named_paths(arm)
    shares = parse_numbers("fractions", fractions), parse_numbers("ratio", ratio)
    check_arms(chosen, [name for name, _ in others])
    check_shares(*shares, validation)
    step_offer = parse_whole_numbers("step_choices", step_choices)
    share_offer = parse_numbers("share_choices", share_choices)
    check_choices(step_offer, share_offer, validation, steps)
    if share_offer and synthetic_share is not None:
        raise UsageError("give either this or shares to choose from", option="synthetic_share", value=synthetic_share)
    source = find_input(file, quiet=quiet)
    file = source.path
    from dataclasses import replace

    from dagaug.cli.terminal import Terminal
    from dagaug.data.mask_files import find_masks
    from dagaug.hdf5.reader import Store

    terminal = Terminal(as_json=as_json, quiet=quiet)
    with Store(file) as store:
        header = store.header
    data = data or data_folder(header, file, f"dagaug score DATA {source.name}")
    dataset = read_stored_dataset(data, header)
    terminal.say(f"Scoring {source.name} on the test images of {dataset.describe()}")
    if masks is not None:
        if not header.provenance.masks_sha256:
            raise UsageError(f"{file} was made without masks", option="masks", value=masks)
        dataset = find_masks(dataset, masks)
    from dagaug.classifiers.suitable_fit import describe_fit, suitable_fit
    from dagaug.compute.devices import pick_device, pick_devices
    from dagaug.score.options import ScoreOptions

    fit = suitable_fit(
        header.provenance.size or 64, pick_device(device).type, mode=mode, classifier=classifier, size=size,
        frozen_stages=frozen_stages, batch_size=batch_size, learning_rate=learning_rate,
        layer_decay=layer_decay, synthetic_share=_SHARE if synthetic_share is None else synthetic_share,
        weights=weights, augment=augment,
    )  # fmt: skip
    terminal.say(describe_fit(fit))
    if quick and fit.mode == "scratch" and not step_offer:
        steps = steps or _QUICK_STEPS
    options = ScoreOptions(
        fit=replace(fit, steps=steps),
        seeds=seeds or (QUICK_SEEDS if quick else 5),
        seed=seed,
        per_class=per_class if repeated else per_class or header.provenance.per_class,
        arms=chosen,
        others=others,
        fractions=shares[0],
        ratios=shares[1],
        validation=validation,
        step_choices=step_offer,
        share_choices=share_offer,
    )
    devices_used = pick_devices(devices, pick_device(device), every=device == "auto")
    execution = Execution(device, progress=terminal, cache=CACHE, memory=images)
    out = out or source.beside().with_name(f"{file.stem}-{'shots' if repeated else 'score'}.json")
    rest = dataset, Path(source.name), options, out, checkpoint, devices_used, execution, terminal
    verdict = _score_shots(repeated, *rest) if repeated else _score_once(*rest)
    if fail_unless_helps and verdict != "helps":
        raise typer.Exit(_EXIT_UNLESS_HELPS)


def _score_once(
    dataset: "Dataset",
    file: Path,
    options: "ScoreOptions",
    out: Path,
    checkpoint: Path | None,
    devices: "Sequence[torch.device]",
    execution: Execution,
    terminal: "Terminal",
) -> str | None:
    """Score a file; write and print the result. Returns the verdict."""
    from dagaug.cli.result_text import score_lines, score_tables
    from dagaug.score.experiment import score

    result = score(
        dataset, file, options, checkpoint=checkpoint, devices=devices, resume=out.with_suffix(".jsonl"),
        execution=execution,
    )  # fmt: skip
    _write(out, result.to_json())
    terminal.result(
        json.loads(result.to_json()),
        [*score_lines(result), f"Written to {out}"],
        table=score_tables(result),
        next_step=f"dagaug show {file}",
    )
    return result.verdict


def _score_shots(
    shots: "Sequence[tuple[int, Path | None]]",
    dataset: "Dataset",
    file: Path,
    options: "ScoreOptions",
    out: Path,
    checkpoint: Path | None,
    devices: "Sequence[torch.device]",
    execution: Execution,
    terminal: "Terminal",
) -> str | None:
    """Repeat the score with fewer images a class; write and print the result. Returns the verdict on all numbers."""
    from dagaug.cli.result_text import shots_lines, shots_table
    from dagaug.cli.train import write_snapshot
    from dagaug.score.shot_sweep import score_shots

    result = score_shots(
        dataset, file, shots, options, out.with_name(out.stem + "-runs"), checkpoint=checkpoint, devices=devices,
        watch=write_snapshot, execution=execution,
    )  # fmt: skip
    _write(out, result.to_json())
    terminal.result(
        json.loads(result.to_json()),
        [*shots_lines(result), f"Written to {out}"],
        table=shots_table(result),
        next_step=f"dagaug show {file}",
    )
    return result.verdict


def _write(out: Path, text: str) -> None:
    from dagaug.runtime.files import write_atomically

    try:
        write_atomically(out, (text + "\n").encode())
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror})", remedies={"out": None}) from error
