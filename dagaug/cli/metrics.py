"""`dagaug metrics`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dagaug.cli.parameters import Classifier, Device, Json, OptionalData, PerClass, Quiet, Seed, Workers
from dagaug.cli.shared import seed_of_split
from dagaug.cli.tables import metrics_lines, metrics_table, pairs_lines, pairs_table
from dagaug.cli.terminal import Terminal
from dagaug.runtime.errors import DataError, UsageError

__all__ = ["metrics"]


def metrics(
    file: Annotated[Path, typer.Argument(help="HDF5 file of dagaug augment.")],
    data: OptionalData = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Compare with true answers instead: a folder of built-in birds, or a CSV source,reference[,truth"
            "[,truth_mask,reference_mask]] with files relative to it."
        ),
    ] = None,
    oracle: Annotated[Path | None, typer.Option(help="With --pairs: saved classifier that tells identities.")] = None,
    oracle_data: Annotated[
        Path | None, typer.Option(help="With --pairs: folder with plenty of images to train the oracle on instead.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="timm name or lite0 of the network of features; the classifier that judges by default."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of the network of --features.")] = None,
    lpips: Annotated[
        Path | None, typer.Option(help="torchvision's weights of AlexNet, VGG16 or SqueezeNet 1.1, to measure LPIPS.")
    ] = None,
    classifier: Classifier = "auto",
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps of the classifier or oracle.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the images; the training's patch size by default.")] = None,
    per_class: PerClass = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Model whose attended regions are measured; the file's own by default.")
    ] = None,
    alpha: Annotated[float, typer.Option(min=0, help="PCK's tolerance in parts of a box's larger side.")] = 0.1,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = 2,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure how real, varied and recognisable synthetic images are, or how right morphs of known pairs."""
    import os

    from dagaug.compute.devices import pick_device
    from dagaug.data.layouts import read_dataset
    from dagaug.hdf5.reader import Store

    terminal = Terminal(as_json=as_json, quiet=quiet)
    with Store(file) as store:
        known, split_seed = store.header.options, seed_of_split(store.header)
    if data is None:
        data = Path(str(known.get("data", "")))
        if not known.get("data") or not data.exists():
            raise DataError(f"{file}: its data folder {data} is not here; name it: dagaug metrics {file} DATA")
    dataset = read_dataset(data, layout=str(known.get("layout", "auto")), seed=split_seed)
    on = pick_device(device)
    keeps = os.access(file.resolve().parent, os.W_OK)
    if pairs is not None:
        from dagaug.metrics.true_answers import evaluate_pairs

        compared = evaluate_pairs(
            file, dataset, pairs,
            oracle=oracle, oracle_data=oracle_data, steps=steps, seed=seed, device=on,
            cache=file.with_name(f"{file.stem}-oracle.safetensors") if keeps else None, workers=workers,
            progress=terminal,
        )  # fmt: skip
        terminal.result(asdict(compared), pairs_lines(compared), table=pairs_table(compared))
        return
    if oracle is not None or oracle_data is not None:
        raise UsageError("--oracle and --oracle-data tell the identity of morphs of known pairs: give --pairs, too")
    from dagaug.metrics.evaluate import EvaluateOptions, evaluate

    options = EvaluateOptions(
        features=features, weights=weights, classifier=classifier, steps=steps, size=size, per_class=per_class,
        lpips=lpips, alpha=alpha, seed=seed,
    )  # fmt: skip
    measured = evaluate(
        file, dataset, options,
        device=on, checkpoint=checkpoint, workers=workers, progress=terminal,
        cache=file.with_name(f"{file.stem}-judge.safetensors") if keeps else None,
    )  # fmt: skip
    terminal.result(asdict(measured), metrics_lines(measured), table=metrics_table(measured))
