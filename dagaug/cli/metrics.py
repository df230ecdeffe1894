"""`dagaug metrics`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagaug.cli.command_inputs import check_early, data_folder, find_input, read_stored_dataset, with_masks
from dagaug.cli.shared_options import (
    CACHE,
    CLASSIFIER,
    Classifier,
    Device,
    Json,
    Masks,
    OptionalData,
    PerClass,
    Quiet,
    Seed,
    Workers,
)
from dagaug.hub.names import is_hub_name, parse_hub_name
from dagaug.runtime.errors import StoreError, UsageError
from dagaug.runtime.execution_settings import Execution

if TYPE_CHECKING:
    from dagaug.cli.terminal import Terminal

__all__ = ["metrics"]

_PAIRS = "Known pairs"
_MEASURES = "Measures"


def metrics(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="HDF5 file written by dagaug augment, or with --parts a run; also hf-hub:USER/NAME[@REVISION].",
        ),
    ],
    data: OptionalData = None,
    as_json: Json = False,
    quiet: Quiet = False,
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Compare morphs with true answers instead: a folder of built-in birds, or a CSV file with columns "
            "source, reference and, optionally, truth, truth_mask and reference_mask (paths relative to the file).",
            rich_help_panel=_PAIRS,
        ),
    ] = None,
    parts: Annotated[
        bool,
        typer.Option(
            "--parts",
            help="Measure the flow and the masks of a model by the annotated parts of the test images instead; FILE is "
            "then a run folder or model.safetensors.",
            rich_help_panel=_PAIRS,
        ),
    ] = False,
    oracle: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Saved classifier that recognises identities; needs --pairs.", rich_help_panel=_PAIRS
        ),
    ] = None,
    oracle_data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder with many images to train the oracle on instead; needs --pairs.",
            rich_help_panel=_PAIRS,
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Feature network: timm name or lite0 (default: the classifier).",
            rich_help_panel=_MEASURES,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights of the feature network.", rich_help_panel=_MEASURES),
    ] = None,
    lpips: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="torchvision weights of AlexNet, VGG16 or SqueezeNet 1.1, to measure LPIPS (default: not measured).",
            rich_help_panel=_MEASURES,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Model whose attended regions are measured; also hf-hub:USER/NAME[@REVISION] (default: the one that "
            "made the file).",
            rich_help_panel=_MEASURES,
        ),
    ] = None,
    alpha: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="X",
            help="Tolerance of PCK, as a fraction of a box's larger side.",
            rich_help_panel=_MEASURES,
        ),
    ] = 0.1,
    classifier: Classifier = "auto",
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of optimiser steps of the classifier or oracle (default: by number of images).",
            rich_help_panel=CLASSIFIER,
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Side of the images, in pixels (default: the patch size of the training).",
            rich_help_panel=CLASSIFIER,
        ),
    ] = None,
    per_class: PerClass = None,
    masks: Masks = None,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = 2,
) -> None:
    """Measure how realistic, diverse and recognisable synthetic images are, or how correct morphs of known pairs."""
    check_early(
        data=data, device=device, weights=weights, lpips=lpips, checkpoint=checkpoint, masks=masks, pairs=pairs,
        oracle=oracle, oracle_data=oracle_data,
    )  # fmt: skip
    if parts and data is None:
        raise UsageError("needs the data folder: dagaug metrics RUN DATA --parts", option="parts", value=True)
    if is_hub_name(file):
        parse_hub_name(file)
    elif not file.exists():
        raise StoreError(f"{file}: no such {'run' if parts else 'file'}")
    for option, value in (("oracle", oracle), ("oracle_data", oracle_data)):
        if value is not None and pairs is None:
            raise UsageError("used only with known pairs", option=option, value=value, remedies={"pairs": "PATH"})
    import os

    from dagaug.cli.result_text import metrics_lines, metrics_table, pairs_lines, pairs_table
    from dagaug.cli.terminal import Terminal
    from dagaug.hdf5.reader import Store

    terminal = Terminal(as_json=as_json, quiet=quiet)
    execution = Execution(device, workers, progress=terminal, cache=CACHE)
    if parts and data is not None:
        _measure_parts(file, data, masks, seed, terminal, execution)
        return
    if masks is not None:
        raise UsageError("used only for annotated parts", option="masks", value=masks, remedies={"parts": True})
    source = find_input(file, quiet=quiet)
    file, kept = source.path, source.beside()  # what is kept for the next call stands beside it
    with Store(file) as store:
        header = store.header
    dataset = read_stored_dataset(data or data_folder(header, file, f"dagaug metrics {source.name} DATA"), header)
    writable = os.access(kept.resolve().parent, os.W_OK)  # else the trained classifier is not cached
    if pairs is not None:
        from dagaug.metrics.answer_comparison import evaluate_pairs

        compared = evaluate_pairs(
            file, dataset, pairs,
            oracle=oracle, oracle_data=oracle_data, steps=steps, seed=seed, execution=execution,
            cache=kept.with_name(f"{file.stem}-oracle.safetensors") if writable else None,
        )  # fmt: skip
        terminal.result(asdict(compared), pairs_lines(compared), table=pairs_table(compared))
        return
    from dagaug.metrics.synthetic_image_quality import EvaluateOptions, evaluate

    options = EvaluateOptions(
        features=features, weights=weights, classifier=classifier, steps=steps, size=size, per_class=per_class,
        lpips=lpips, alpha=alpha, seed=seed,
    )  # fmt: skip
    measured = evaluate(
        file, dataset, options,
        checkpoint=checkpoint, execution=execution,
        cache=kept.with_name(f"{file.stem}-judge.safetensors") if writable else None,
    )  # fmt: skip
    measured = replace(measured, file=source.name)
    terminal.result(asdict(measured), metrics_lines(measured), table=metrics_table(measured))


def _measure_parts(
    run: Path, data: Path, masks: Path | None, seed: int, terminal: "Terminal", execution: Execution
) -> None:
    """PCK of a model's flow, and how many parts its masks hold."""
    from dagaug.cli.result_text import flow_lines
    from dagaug.data.layouts import read_dataset
    from dagaug.metrics.flow_pck import measure_flow
    from dagaug.model.trained_model import load_model

    model = load_model(run)
    drawn = model.card.split_seed
    dataset = with_masks(read_dataset(data, seed=seed if drawn is None else drawn), masks, terminal.say)
    found = measure_flow(model, dataset, seed=seed, execution=execution)
    terminal.result(asdict(found), flow_lines(found))
