"""`dagaug train`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagaug.cli.parameters import (
    Crop,
    Device,
    Fit,
    Json,
    Layout,
    LayoutOption,
    Overwrite,
    PerClass,
    Quiet,
    Seed,
    Strict,
    Workers,
)
from dagaug.cli.shared import build_options
from dagaug.cli.terminal import Terminal

if TYPE_CHECKING:
    from dagaug.training.modes import Snapshot

__all__ = ["train", "write_snapshot"]


def write_snapshot(run: Path, step: int, snapshot: Snapshot) -> None:
    """Write a training's pictures beside it."""
    import cv2

    from dagaug.report.contact_sheets import attention_overlay, contact_sheet

    (run / "sheets").mkdir(exist_ok=True)
    sheet = contact_sheet(snapshot.sources, snapshot.references, snapshot.morphs)
    cv2.imwrite(str(run / "sheets" / f"step-{step:06d}.png"), sheet[..., ::-1])
    cv2.imwrite(
        str(run / "attention.png"),
        attention_overlay(snapshot.attended, snapshot.centres, snapshot.half_size)[..., ::-1],
    )


def train(
    data: Annotated[
        Path | None,
        typer.Argument(help="Data folder, or two folders trainA and trainB; the built-in birds by default."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/NAME by default.")] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="pose, or a task of the paper's Table 4: digits, birds, faces, skeletons, facades, colorization."
        ),
    ] = "pose",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; what suits data and device by default.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Choose the steps so that training takes about so long.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="Weights to begin with: general (comes with dagaug, default for pose), scratch, or a run."),
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the patches that networks see, a multiple of 16.")] = 64,
    batch_size: Annotated[int | None, typer.Option(min=4, help="Pairs a step; the preset's by default.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam; the preset's by default.")] = None,
    per_class: PerClass = None,
    crop: Annotated[Crop, typer.Option(help="Cut images to their bounding boxes, where they have such.")] = Crop.box,
    margin: Annotated[float, typer.Option(help="Free space around a box, in parts of its larger side.")] = 0.15,
    fit: Annotated[Fit, typer.Option(help="How whole images become square.")] = Fit.letterbox,
    without: Annotated[
        list[str] | None, typer.Option(help="Switch a part off (Table 1a): dae, cst, sym or d2; may be repeated.")
    ] = None,
    regions: Annotated[int | None, typer.Option(min=1, help="N, the number of attended regions (eq. 1).")] = None,
    half_size: Annotated[
        float | None, typer.Option(help="Half of a region's side (eq. 2); the image is 2 wide.")
    ] = None,
    sharpness: Annotated[float | None, typer.Option(help="k of the regions' masks (eq. 4).")] = None,
    distance: Annotated[str | None, typer.Option(help="d of Table 4: resblock, l2 or timm:NAME.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights that the timm network of --distance starts from.")
    ] = None,
    consistency: Annotated[float | None, typer.Option(help="α, weight of L_cst (eq. 9).")] = None,
    symmetry: Annotated[float | None, typer.Option(help="β, weight of L_sym (eq. 9).")] = None,
    adversarial: Annotated[float | None, typer.Option(help="Weight of the GAN losses (eqs. 7 and 8).")] = None,
    own_pixels: Annotated[
        float,
        typer.Option(min=0, max=1, help="Least share of the source's own pixels in a morph; 0.9 keeps liveries crisp."),
    ] = 0.0,
    layout: LayoutOption = Layout.auto,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, 32-true, bf16-mixed or 16-mixed.")] = "auto",
    workers: Workers = 2,
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train DA-GAN on a folder of labelled images. The same command again goes on where it stopped."""
    from dagaug.data.layouts import read_dataset, read_domains
    from dagaug.data.patches import Framing
    from dagaug.training.options import TrainOptions
    from dagaug.training.train import train

    terminal = Terminal(as_json=as_json, quiet=quiet)
    framing = build_options(Framing, size=size, crop=crop.value, margin=margin, fit=fit.value)
    options: TrainOptions = build_options(
        TrainOptions,
        preset=preset,
        framing=framing,
        per_class=per_class,
        steps=steps,
        minutes=minutes,
        start=start,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        without=tuple(without or ()),
        regions=regions,
        half_size=half_size,
        sharpness=sharpness,
        distance=distance,
        weights=weights,
        consistency=consistency,
        symmetry=symmetry,
        adversarial=adversarial,
        own_pixels=own_pixels,
    ).resolved()
    if data is None:
        from dagaug.birds.dataset import write_flock

        data = Path("runs") / "built-in-birds"
        terminal.say(f"No data folder given: training on the built-in birds, written to {data}")
        write_flock(data, progress=terminal)
    source = read_dataset(data, layout=layout.value, seed=seed) if options.mode == "reference" else read_domains(data)
    name = data.resolve().name if data.is_dir() else data.stem
    done = train(
        options,
        source,
        name=name,
        out=out,
        device=device,
        precision=precision,
        workers=workers,
        overwrite=overwrite,
        strict=strict,
        watch=write_snapshot,
        progress=terminal,
    )
    if done.already:
        lines = [f"{done.run} is trained already ({done.steps} steps); --overwrite trains it anew"]
    else:
        new = done.steps - done.resumed_at
        lines = [
            f"Trained {new} steps in {done.seconds / 60:.1f} minutes. The run is {done.run}",
            f"Sample sheets: {done.run / 'sheets'}; attended regions: {done.run / 'attention.png'}",
        ]
    following = f"dagaug augment {data} --refs 10" if options.mode == "reference" else "dagaug translate FOLDER"
    terminal.result(asdict(done), lines, next_step=following)
