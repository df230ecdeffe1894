"""`dagaug train`."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from dagaug.cli.command_inputs import build_options, check_early, with_masks
from dagaug.cli.shared_options import (
    CACHE,
    DATA,
    MACHINE,
    NETWORKS,
    TRAINING,
    Cache,
    CropChoice,
    Device,
    FitChoice,
    Json,
    Layout,
    Masks,
    Overwrite,
    PerClass,
    Quiet,
    Seed,
    Strict,
    Workers,
)
from dagaug.runtime.errors import UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache

if TYPE_CHECKING:
    from dagaug.data.dataset_records import Dataset, Domains
    from dagaug.training.modes import Snapshot
    from dagaug.training.options import TrainOptions
    from dagaug.training.run_folder import RunOfOtherLength
    from dagaug.training.train import Trained

__all__ = ["train", "write_snapshot"]


_FLOW_IMAGES, _FLOW_PAIRS = 40, 60  # that the flow is measured on after a training
_PCK, _PCK_IN_PLACE = "PCK@0.1 of the flow, training images", "PCK@0.1 without a flow"
_PAIRS = "pairs of images"


def write_snapshot(run: Path, step: int, snapshot: "Snapshot") -> None:
    """Write sample images of a training as PNG files: ``sheets/step-NNNNNN.png`` and ``attention.png``."""
    import cv2

    from dagaug.report.contact_sheets import attention_overlay, contact_sheet

    (run / "sheets").mkdir(exist_ok=True)
    sheet = contact_sheet(snapshot.sources, snapshot.references, snapshot.morphs)
    cv2.imwrite(str(run / "sheets" / f"step-{step:06d}.png"), sheet[..., ::-1])
    overlay = attention_overlay(snapshot.attended, snapshot.centres, snapshot.half_size)
    cv2.imwrite(str(run / "attention.png"), overlay[..., ::-1])


def train(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="Data folder; for a preset of the paper, a folder that holds trainA and trainB (default: the built-in "
            "birds).",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Run folder (default: runs/NAME).")] = None,
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: Json = False,
    quiet: Quiet = False,
    layout: Layout = "auto",
    per_class: PerClass = None,
    masks: Masks = None,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Side of the patches that the networks see, in pixels; a multiple of 16 (default: follows from the "
            "images, up to 128 on a CPU and 256 on a GPU).",
            rich_help_panel=DATA,
        ),
    ] = None,
    crop: Annotated[
        CropChoice,
        typer.Option(help="Whether to cut images to their bounding boxes, if they have any.", rich_help_panel=DATA),
    ] = "box",
    margin: Annotated[
        float,
        typer.Option(
            metavar="X", help="Margin around a bounding box, as a fraction of its larger side.", rich_help_panel=DATA
        ),
    ] = 0.15,
    fit: Annotated[
        FitChoice,
        typer.Option(help="How whole images become square: padded by reflection or cropped.", rich_help_panel=DATA),
    ] = "letterbox",
    preset: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Preset: photos (pose morphing on frozen pretrained features), pose (all networks are trained), or a "
            "task of the paper's Table 4 (digits, birds, faces, skeletons, facades, colorization). auto takes photos "
            "for objects of 96 px and more, and pose for smaller ones.",
            rich_help_panel=TRAINING,
        ),
    ] = "auto",
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of optimiser steps (default: chosen by data and device).",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Approximate training time in minutes, instead of a number of steps.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Initial weights: general (shipped with dagaug; default for pose), scratch, a run folder, or a run on "
            "the hub: hf-hub:USER/NAME[@REVISION].",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=4, metavar="N", help="Image pairs per step (default: from the preset).", rich_help_panel=TRAINING
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(metavar="X", help="Adam learning rate (default: from the preset).", rich_help_panel=TRAINING),
    ] = None,
    own_pixels: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="X",
            help="Minimum fraction of a morph's pixels that are moved from the source rather than generated; 0.9 keeps "
            "fine markings sharp.",
            rich_help_panel=TRAINING,
        ),
    ] = 0.0,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Frozen network E of the preset photos: lite0 (EfficientNet-Lite0, the default) or any timm name; "
            "none takes the preset pose.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    feature_weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights of the network of --features.", rich_help_panel=NETWORKS),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="Part to switch off, for ablations (Table 1a): dae, cst, sym or d2. Repeatable.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    regions: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number N of attended regions, eq. 1 (default: from the preset).",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    half_size: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Half of a region's side, eq. 2; the image is 2 wide (default: from the preset).",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    sharpness: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Sharpness k of the region masks, eq. 4 (default: from the preset).",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    distance: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Distance d of Table 4: resblock, l2 or timm:NAME (default: from the preset).",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Initial weights of the timm network of --distance.", rich_help_panel=NETWORKS
        ),
    ] = None,
    consistency: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Weight α of L_cst, eq. 9 (default: from the preset).", rich_help_panel=NETWORKS
        ),
    ] = None,
    symmetry: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Weight β of L_sym, eq. 9 (default: from the preset).", rich_help_panel=NETWORKS
        ),
    ] = None,
    adversarial: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Weight of the GAN losses, eqs. 7 and 8 (default: from the preset).",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Annotated[
        str,
        typer.Option(metavar="NAME", help="Precision: auto, 32-true, bf16-mixed or 16-mixed.", rich_help_panel=MACHINE),
    ] = "auto",
    workers: Workers = 2,
    cache: Cache = None,
) -> None:
    """Train DA-GAN on a folder of labelled images. The same command again resumes a stopped run."""
    from dagaug.model.task_presets import GENERAL, PRESETS, SCRATCH

    begun = None if start in (None, GENERAL, SCRATCH) else Path(start)
    check_early(
        data=data, device=device, feature_weights=feature_weights, weights=weights, masks=masks, start=begun
    )  # fmt: skip
    images = ImageCache.of_size(cache)
    from dagaug.cli.terminal import Terminal
    from dagaug.data.domains_layout import read_domains
    from dagaug.data.layouts import read_dataset
    from dagaug.data.object_patches import Framing
    from dagaug.training.options import TrainOptions, check_precision

    check_precision(precision)
    framing = build_options(Framing, size=size or 64, crop=crop, margin=margin, fit=fit)
    given = {
        "per_class": per_class, "steps": steps, "minutes": minutes, "start": start, "batch_size": batch_size,
        "learning_rate": learning_rate, "seed": seed, "without": tuple(without or ()), "regions": regions,
        "half_size": half_size, "sharpness": sharpness, "distance": distance, "weights": weights,
        "consistency": consistency, "symmetry": symmetry, "adversarial": adversarial, "own_pixels": own_pixels,
    }  # fmt: skip
    _check_options(TrainOptions, preset, features, feature_weights, given)
    terminal = Terminal(as_json=as_json, quiet=quiet)
    if data is None:
        from dagaug.birds.dataset import write_flock

        data = Path("runs") / "built-in-birds"
        terminal.say(f"No data folder given: training on the built-in birds, written to {data}")
        write_flock(data, progress=terminal)
    if preset in PRESETS and PRESETS[preset].mode == "paper":
        if masks is not None:
            raise UsageError(f"used only for pose morphing, not for {preset}", option="masks", value=masks)
        source: Dataset | Domains = read_domains(data)
        chosen_size = size or 64
    else:
        source = with_masks(read_dataset(data, layout=layout, seed=seed), masks, terminal.say)
        terminal.say(source.describe())
        from dagaug.training.data_dependent_defaults import suit_data

        preset, features, chosen_size, reason = suit_data(
            source, framing, preset=preset, features=features, size=size, device=device
        )
        terminal.say(reason)
    options: TrainOptions = build_options(
        TrainOptions,
        preset=preset,
        features=features,
        feature_weights=feature_weights,
        framing=framing.with_size(chosen_size),
        **given,
    ).resolved()
    from dagaug.training.run_card import MEASURES_FILE, write_measures
    from dagaug.training.run_folder import find_run_of_other_length
    from dagaug.training.train import train

    execution = Execution(device, workers, strict, terminal, CACHE, images)
    name = data.resolve().name if data.is_dir() else data.stem
    if out is None and (other := find_run_of_other_length(options, source, name)) is not None:
        terminal.say(_describe_other_length(other, frozen=options.features is not None))
    done = train(
        options,
        source,
        name=name,
        out=out,
        precision=precision,
        overwrite=overwrite,
        watch=write_snapshot,
        execution=execution,
    )
    following = f"dagaug augment {data} --refs 10" if options.mode == "reference" else "dagaug translate FOLDER"
    lines = _result_lines(done)
    if not (done.run / MEASURES_FILE).exists():  # an earlier call may have been stopped before
        measures = {}
        if options.mode == "reference":
            measures = _measure_flow(done.run, cast("Dataset", source).subset(per_class), execution)
            lines += _flow_lines(done.run, measures)
        write_measures(done.run, measures, terminal)
    terminal.result(asdict(done), lines, next_step=following)


def _check_options(
    build: "type[TrainOptions]", preset: str, features: str | None, feature_weights: Path | None, given: dict[str, Any]
) -> None:
    """Refuse what is wrong about the options, whatever the data are, before the slow imports."""
    frozen = (features or feature_weights) and features != "none"
    stand_in = ("photos" if frozen else "pose") if preset == "auto" else preset
    named = None if features == "none" else features
    build_options(build, preset=stand_in, features=named, feature_weights=feature_weights, **given).resolved()


def _describe_other_length(other: "RunOfOtherLength", *, frozen: bool) -> str:
    """One line about a run that this one could be taken to continue."""
    line = (
        f"{other.run} is the same training with {other.steps} steps{'' if other.finished else ', unfinished'}. The "
        "learning rate follows from the number of steps, so this is a new training"
    )
    if not other.finished:
        return f"{line}; the command with the other length resumes that one"
    return line if frozen else f"{line}; to begin it with the weights of that one: --start {other.run}"


def _measure_flow(run: Path, dataset: "Dataset", execution: Execution) -> dict[str, float]:
    """Measure the flow on some training images, if they have annotated parts, and draw it into ``flow.png``."""
    from dataclasses import replace

    import cv2

    from dagaug.metrics.flow_pck import find_parts
    from dagaug.model.trained_model import load_model
    from dagaug.report.part_points import draw_found_parts
    from dagaug.runtime.errors import DataError

    annotated = [sample for sample in dataset.train if sample.parts]
    few = annotated[:: max(1, len(annotated) // _FLOW_IMAGES)]
    try:
        found = find_parts(
            load_model(run), replace(dataset, samples=tuple(few)), split="train", pairs=_FLOW_PAIRS, execution=execution
        )
    except DataError:  # too few annotated parts
        return {}
    cv2.imwrite(str(run / "flow.png"), draw_found_parts(found)[..., ::-1])
    share, in_place = (float((found.distances(in_place=stays) <= 0.1).mean()) for stays in (False, True))
    return {_PCK: share, _PCK_IN_PLACE: in_place, _PAIRS: len(found.pairs)}


def _flow_lines(run: Path, measures: Mapping[str, float]) -> list[str]:
    if not measures:
        return []
    return [
        f"Flow: {100 * measures[_PCK]:.0f}% of the annotated parts are found within a tenth of the box (PCK@0.1; "
        f"without a flow {100 * measures[_PCK_IN_PLACE]:.0f}%) on {measures[_PAIRS]} pairs of training images: "
        f"{run / 'flow.png'}"
    ]


def _result_lines(done: "Trained") -> list[str]:
    if done.already:
        return [f"{done.run} is already trained ({done.steps} steps); --overwrite trains it again"]
    return [
        f"Trained {done.steps - done.resumed_at} steps in {done.seconds / 60:.1f} minutes. Run folder: {done.run}",
        f"Sample sheets: {done.run / 'sheets'}; attended regions: {done.run / 'attention.png'}",
    ]
