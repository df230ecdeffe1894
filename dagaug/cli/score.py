"""`dagaug score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dagaug.cli.parameters import Classifier, Device, Json, OptionalData, PerClass, Quiet, Seed, Weights
from dagaug.cli.shared import newest_store, seed_of_split
from dagaug.cli.tables import score_lines, score_table
from dagaug.cli.terminal import Terminal
from dagaug.runtime.errors import DataError, UsageError

__all__ = ["score"]


_QUICK_STEPS = 400  # of a training with --quick


_NO_HELP = 3  # exit code of score --fail-unless-helps


def score(
    data: OptionalData = None,
    file: Annotated[Path | None, typer.Argument(help="HDF5 file of dagaug augment; the newest by default.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=2, help="Trainings of each arm, paired by seed; 5, or 3 with --quick.")
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(
            help="real, strong, real+dagaug, strong+dagaug, cutout, cutwarp, random, cutout+dagaug; all by default."
        ),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PATH: an arm with another HDF5 file's or image folder's images; may be repeated."),
    ] = None,
    controls: Annotated[
        bool,
        typer.Option("--controls/--no-controls", help="The controls, and the arm cutout+dagaug, need the checkpoint."),
    ] = True,
    checkpoint: Annotated[
        Path | None, typer.Option(help="The generator's, for the controls; the one that the file names by default.")
    ] = None,
    fractions: Annotated[
        str | None, typer.Option(help="Such as 0.25,0.5,1: accuracy against the number of real images.")
    ] = None,
    ratio: Annotated[
        str | None, typer.Option(help="Such as 0.1,0.5: further synthetic shares of a batch to try.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A first look in some five minutes: 3 seeds of real, real+dagaug and cutout."),
    ] = False,
    validation: Annotated[
        float | None,
        typer.Option(help="Choose each arm's steps by held-out training images: the share of a fold, such as 0.25."),
    ] = None,
    finetune: Annotated[bool, typer.Option("--finetune", help="Start from pretrained weights (lite0).")] = False,
    linear_probe: Annotated[
        bool, typer.Option("--linear-probe", help="Train a linear classifier on frozen pretrained features (lite0).")
    ] = False,
    classifier: Classifier = "auto",
    weights: Weights = None,
    size: Annotated[
        int | None, typer.Option(min=16, help="Side of the images; the training's patch size by default.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps of every training.")] = None,
    batch_size: Annotated[int, typer.Option(min=2, help="Images a step.")] = 32,
    synthetic_share: Annotated[float, typer.Option(help="Share of each batch that is synthetic.")] = 0.5,
    per_class: PerClass = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write; beside the HDF5 file by default.")] = None,
    fail_unless_helps: Annotated[
        bool, typer.Option("--fail-unless-helps", help="Exit with 3 unless the verdict is that the images help.")
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    devices: Annotated[
        str | None,
        typer.Option(help="Trainings at once, one on each: cuda:0,cuda:1 or cpu,cpu; all visible GPUs by default."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the same classifier on real and on real + augmented images, with controls, and test all on unseen ones."""
    import json

    from dagaug.classifiers.backbones import LITE0, network_for
    from dagaug.classifiers.fit import FitOptions
    from dagaug.compute.devices import pick_device, pick_devices
    from dagaug.data.layouts import read_dataset
    from dagaug.hdf5.reader import Store
    from dagaug.runtime.files import write_whole
    from dagaug.score.experiment import score
    from dagaug.score.options import QUICK, QUICK_SEEDS, ScoreOptions, arm_names

    terminal = Terminal(as_json=as_json, quiet=quiet)
    if finetune and linear_probe:
        raise UsageError("--finetune and --linear-probe: choose one of them")
    if data is not None and data.suffix in (".h5", ".hdf5") and data.is_file():
        if file is not None:
            raise UsageError(f"{file}: give the data folder first, then the HDF5 file")
        data, file = None, data
    chosen = tuple(name.strip() for name in arms.split(",")) if arms else QUICK if quick else arm_names()
    if not controls:
        chosen = tuple(name for name in chosen if name in arm_names(controls=False))
    file = file or newest_store()
    with Store(file) as store:
        known = store.header.options
        split_seed = seed_of_split(store.header)
    if data is None:
        data = Path(str(known.get("data", "")))
        if not data.exists():
            raise DataError(f"{file}: was made from {data}, which is not here; name it: dagaug score DATA {file}")
    terminal.say(f"Scoring {file} on the test images of {data}")
    layout = str(known.get("layout", "auto"))
    dataset = read_dataset(data, layout=layout, seed=split_seed)
    framing = known.get("framing")
    size = size or (int(framing["size"]) if isinstance(framing, dict) else 64)
    stored = known.get("per_class")
    pretrained = (finetune or linear_probe) and classifier == "auto"
    options = ScoreOptions(
        fit=FitOptions(
            name=LITE0 if pretrained else network_for(classifier, size),
            size=size,
            steps=steps or (_QUICK_STEPS if quick else None),
            batch_size=batch_size,
            synthetic_share=synthetic_share,
            weights=weights,
        ),
        seeds=seeds or (QUICK_SEEDS if quick else 5),
        seed=seed,
        per_class=per_class or (int(stored) if isinstance(stored, int) else None),
        arms=chosen,
        others=tuple(_named_path(text) for text in arm or ()),
        fractions=_shares("fractions", fractions),
        ratios=_shares("ratio", ratio),
        mode="linear-probe" if linear_probe else "finetune" if finetune else "scratch",
        validation=validation,
    )
    out = out or file.with_name(file.stem + "-score.json")
    result = score(
        dataset,
        file,
        options,
        checkpoint=checkpoint,
        device=pick_devices(devices, pick_device(device), every=device == "auto"),
        resume=out.with_suffix(".jsonl"),
        progress=terminal,
    )
    try:
        write_whole(out, (result.to_json() + "\n").encode())
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
    terminal.result(
        json.loads(result.to_json()),
        [*score_lines(result), f"Written to {out}"],
        table=score_table(result),
        next_step=f"dagaug show {file}",
    )
    if fail_unless_helps and result.verdict != "helps":
        raise typer.Exit(_NO_HELP)


def _named_path(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise UsageError(f"--arm {text}: write NAME=PATH")
    return name, Path(path)


def _shares(option: str, text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UsageError(f"--{option} {text}: numbers with commas between them") from error
